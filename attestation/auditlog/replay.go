package auditlog

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"

	"cocoon/attestation"
)

// Anchor is one redemption, proven from the chain: it carried a voucher whose
// head commits to receipts, and with them to the worker's log.
type Anchor struct {
	Channel    attestation.Address
	Cumulative uint64   // the voucher's, nano
	Paid       uint64   // what this redemption sent to the payout address, nano
	Head       [32]byte // the voucher's receipts_head
	Time       time.Time
}

// ReplayConfig is what a replay is given besides the logs. Everything is
// optional; what is not given is named in the report as not checked.
type ReplayConfig struct {
	// VerifyBundle verifies a bundle as of its proven time, against the registry as it stood then.
	VerifyBundle func(b *attestation.Bundle, at time.Time) *attestation.Result
	// Cost is counts x prices, in nano (contracts/payout.Cost). It is called from several goroutines.
	Cost func(attestation.Usage, attestation.Prices) (uint64, error)
	// Voucher verifies a disclosed voucher of a channel and returns its cumulative amount, in nano.
	Voucher func(channel attestation.Address, raw []byte) (cumulative uint64, err error)
	// Anchors are the redemptions found on chain, in any order.
	Anchors []Anchor
	// Disclosures show receipts. Several may show the same section; they must agree as far as they go.
	Disclosures []Discloser
	// Checkpoints are signed checkpoints seen elsewhere, by clients or other auditors.
	Checkpoints [][]byte
	// Workers bounds the goroutines that verify signatures; 0 is one per processor.
	Workers int
}

// Replay recomputes every log of a source, offline and deterministically. It
// returns an error only when ctx ends or the source's boots cannot be read;
// whatever else does not add up is a finding of the report.
//
// Logs, bundles and receipts are streamed: memory is bounded by the number of
// channels, bundles, anchors and vouchers, not by the number of leaves or
// receipts, as long as receipts are logged in about the order of their
// indices. Log leaves are read twice where receipts of the log are disclosed.
func Replay(ctx context.Context, src Source, c ReplayConfig) (*Report, error) {
	return replayWith(ctx, src, c, lookahead)
}

// lookahead is how many receipts of one log are in memory at a time, over all
// its sections, as long as each has a few.
const lookahead = 16 << 10

func replayWith(ctx context.Context, src Source, c ReplayConfig, ahead int) (*Report, error) {
	if c.Workers <= 0 {
		c.Workers = runtime.GOMAXPROCS(0)
	}
	ctx, stop := context.WithCancel(ctx)
	r := &replay{ctx: ctx, src: src, cfg: c, reporter: newReporter(), channels: make(map[attestation.Address]*channel), jobs: make(chan *chunk), ahead: ahead}
	defer r.running.Wait() // nothing reads the source after the return
	defer stop()
	for range c.Workers {
		r.running.Go(r.work)
	}
	if err := r.run(); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	r.OK = len(r.Findings) == 0
	return &r.Report, nil
}

type replay struct {
	*reporter
	ctx      context.Context
	src      Source
	cfg      ReplayConfig
	channels map[attestation.Address]*channel
	logs     []*logState
	jobs     chan *chunk
	running  sync.WaitGroup
	ahead    int
}

func (r *replay) run() error {
	boots, err := r.src.Boots(r.ctx)
	if err != nil {
		return fmt.Errorf("boots: %w", err)
	}
	for _, a := range r.cfg.Anchors {
		r.channel(a.Channel).addAnchor(a)
	}
	sections := r.sections()
	if r.cfg.Cost == nil && len(sections) > 0 {
		r.skip(Finding{Name: "receipt.cost", Reason: "no prices to compute it by"})
	}
	r.vouchers()
	seen := make(map[Hash]bool, len(boots))
	for i, b := range boots {
		id := b.LogID()
		if seen[id] || b.WorkerID != boots[0].WorkerID {
			r.find(Finding{Name: "log.boot", Log: hexID(id), Subject: fmt.Sprintf("boot %d", b.Number), Reason: "the log of another boot, or of another worker"})
			continue
		}
		seen[id] = true
		l := &logState{boot: b, id: id, first: i == 0}
		r.logs = append(r.logs, l)
		r.readLog(l)
		if err := r.ctx.Err(); err != nil {
			return err
		}
		if l.ok {
			r.replaySections(l, sections[id])
		} else {
			r.skipSections(sections[id], "its log could not be read")
		}
		if err := r.ctx.Err(); err != nil {
			return err
		}
		delete(sections, id)
	}
	var left []*section
	for _, s := range sections {
		left = append(left, s...)
	}
	slices.SortFunc(left, compareSections)
	r.skipSections(left, "the source names no boot with that log")
	r.chain()
	r.anchorsWithoutReceipts()
	r.bundles()
	r.money()
	return nil
}

// sections groups what is disclosed by log, in the order of channels.
func (r *replay) sections() map[Hash][]*section {
	byKey := make(map[sectionKey]*section)
	byLog := make(map[Hash][]*section)
	for i, d := range r.cfg.Disclosures {
		list, err := d.Sections(r.ctx)
		if err != nil {
			r.find(Finding{Name: "disclosure.read", Subject: fmt.Sprintf("disclosure %d", i), Reason: err.Error()})
			continue
		}
		for _, s := range list {
			sec := byKey[s.key()]
			if sec == nil {
				sec = &section{Section: s}
				byKey[s.key()] = sec
				byLog[s.LogID] = append(byLog[s.LogID], sec)
			} else if sec.Base != s.Base {
				r.find(Finding{Name: "channel.base", Log: hexID(s.LogID), Channel: s.Channel.String(), Got: hexID(s.Base), Want: hexID(sec.Base), Reason: "disclosures differ"})
			}
			sec.Whole = sec.Whole || s.Whole
			sec.shown = append(sec.shown, shown{d, s})
		}
	}
	for _, sec := range byKey {
		sec.ch = r.channel(sec.Channel)
		sec.ch.disclosed = true
		sec.ch.partial = sec.ch.partial || !sec.Whole
		if sec.Base != (Hash{}) {
			sec.ch.bases[sec.Base] = false
		}
	}
	for _, list := range byLog {
		slices.SortFunc(list, compareSections)
	}
	return byLog
}

func compareSections(a, b *section) int {
	return cmp.Or(bytes.Compare(a.Channel[:], b.Channel[:]), bytes.Compare(a.LogID[:], b.LogID[:]))
}

func (r *replay) skipSections(list []*section, reason string) {
	for _, s := range list {
		s.ch.partial = true
		r.skip(Finding{Name: "receipt.log", Log: hexID(s.LogID), Channel: s.Channel.String(), Reason: reason})
	}
}

func (r *replay) vouchers() {
	for i, d := range r.cfg.Disclosures {
		list, err := d.Channels(r.ctx)
		if err != nil {
			r.find(Finding{Name: "disclosure.read", Subject: fmt.Sprintf("disclosure %d", i), Reason: err.Error()})
			continue
		}
		for _, c := range list {
			if err := r.channelVouchers(d, c); err != nil {
				r.find(Finding{Name: "channel.voucher", Channel: c.String(), Reason: err.Error()})
			}
		}
	}
}

func (r *replay) channelVouchers(d Discloser, c attestation.Address) error {
	ch := r.channel(c)
	raws, err := d.Vouchers(r.ctx, c)
	if err != nil {
		return err
	}
	if r.cfg.Voucher == nil {
		r.skip(Finding{Name: "channel.voucher", Channel: c.String(), Subject: fmt.Sprintf("%d vouchers", len(raws)), Reason: "nothing to verify them with"})
		return nil
	}
	var bad []error
	for _, raw := range raws {
		cumulative, err := r.cfg.Voucher(c, raw)
		if err != nil {
			bad = append(bad, err)
			continue
		}
		ch.sums.Vouchers = max(ch.sums.Vouchers, cumulative)
		ch.signer = ch.signer || d.Signer()
	}
	return errors.Join(bad...)
}
