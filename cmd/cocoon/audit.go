package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"cocoon/attestation"
	"cocoon/attestation/auditlog"
	"cocoon/contracts"
	"cocoon/contracts/lite"
	"cocoon/contracts/payout"
)

const auditExample = "cocoon audit --log https://worker.example --ton-config global.config.json --registry 0:HEX --disclosure receipts.cbor"

// auditFlags are the audit's inputs.
type auditFlags struct {
	log, config, registry, chain, save, policy, roots string
	disclosures, rebuilders                           repeated
	asJSON                                            bool

	head lite.Block // of the chain proofs used
}

// repeated is a flag that may be given several times.
type repeated []string

func (r *repeated) String() string { return strings.Join(*r, ",") }

// Set appends.
func (r *repeated) Set(s string) error { *r = append(*r, s); return nil }

func runAudit(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	fs := flags("audit", "--log DIR|URL --ton-config FILE --registry ADDR [flags]", auditExample, stderr)
	var f auditFlags
	fs.StringVar(&f.log, "log", "", "the host's store: a `folder`, or the https URL that serves it")
	fs.StringVar(&f.config, "ton-config", "", "the TON network's global config `file`: its init block is what is trusted")
	fs.StringVar(&f.registry, "registry", "", "the registry's `address`")
	fs.StringVar(&f.chain, "chain", "", "a chain `file` saved earlier: no network is needed then")
	fs.StringVar(&f.save, "save-chain", "", "write the chain proofs used into this `file`")
	fs.StringVar(&f.policy, "policy", "", "a TOML policy `file`")
	fs.Var(&f.rebuilders, "rebuilder", "a rebuilder's public `key` in hex, besides the policy's; may be repeated")
	fs.Var(&f.disclosures, "disclosure", "a `file` of receipts, as `cocoon receipts export` writes it; may be repeated")
	fs.StringVar(&f.roots, "test-roots", "", "trust the software roots in this PEM `file`; the report then says assurance test")
	fs.BoolVar(&f.asJSON, "json", false, "print the whole report as JSON")
	if err := parse(fs, args); err != nil {
		return err
	}
	if f.log == "" || f.config == "" || f.registry == "" {
		return usageError(errors.New("--log, --ton-config and --registry are required"), auditExample)
	}
	r, err := f.replay(ctx)
	if err != nil {
		return err
	}
	if f.asJSON {
		b, err := r.JSON()
		if err != nil {
			return err
		}
		if _, err := stdout.Write(b); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(stdout, "chain as of %s, block %d\n", f.head.Time.Format(time.RFC3339), f.head.Seqno)
		printAudit(stdout, r)
	}
	if !r.OK {
		return &exitError{code: exitDoesNotAddUp, err: errPrinted}
	}
	return nil
}

// replay gathers the inputs and recomputes.
func (f *auditFlags) replay(ctx context.Context) (*auditlog.Report, error) {
	var src auditlog.Source
	var c auditlog.ReplayConfig
	if strings.HasPrefix(f.log, "http://") || strings.HasPrefix(f.log, "https://") {
		w, err := auditlog.NewWeb(f.log, logClient())
		if err != nil {
			return nil, err
		}
		src = w
	} else {
		folder, err := auditlog.OpenFolder(f.log)
		if err != nil {
			return nil, err
		}
		defer folder.Close()
		src = folder
		c.Disclosures = append(c.Disclosures, folder)
	}
	for _, path := range f.disclosures {
		file, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("--disclosure: %w", err)
		}
		defer file.Close()
		st, err := file.Stat()
		if err != nil {
			return nil, err
		}
		d, err := auditlog.OpenDisclosure(file, st.Size())
		if err != nil {
			return nil, fmt.Errorf("--disclosure: %s: %w", path, err)
		}
		c.Disclosures = append(c.Disclosures, d)
	}
	registry, err := attestation.ParseAddress(f.registry)
	if err != nil {
		return nil, usageError(fmt.Errorf("--registry: %w", err), "")
	}
	boots, err := src.Boots(ctx)
	if err != nil {
		return nil, fmt.Errorf("--log: %w", err)
	}
	if len(boots) == 0 {
		return nil, errors.New("--log: it holds no boot")
	}
	channels, err := channelsOf(ctx, c.Disclosures)
	if err != nil {
		return nil, err
	}
	worker := boots[0].WorkerID
	snap, err := f.snapshot(ctx, append([]attestation.Address{registry, worker}, channels...))
	if err != nil {
		return nil, err
	}
	if c.Anchors, err = anchors(ctx, snap, worker, channels); err != nil {
		return nil, err
	}
	if c.VerifyBundle, err = f.bundleVerifier(ctx, snap, registry, worker); err != nil {
		return nil, err
	}
	c.Cost = payout.Cost
	if c.Voucher, err = voucherVerifier(ctx, snap); err != nil {
		return nil, err
	}
	return auditlog.Replay(ctx, src, c)
}

// logClient stays with the host that the user named, whatever it answers.
func logClient() *http.Client {
	return &http.Client{Timeout: time.Minute, CheckRedirect: func(req *http.Request, via []*http.Request) error {
		if from := via[0].URL; len(via) > 3 || req.URL.Host != from.Host || req.URL.Scheme != from.Scheme {
			return fmt.Errorf("the log's host redirects to %.200q", req.URL.Redacted())
		}
		return nil
	}}
}

// maxChainAge is how old the newest block may be that liteservers show now. A
// file that was saved earlier may be of any age: the report says which.
const maxChainAge = time.Hour

func recent(head, now time.Time) error {
	if age := now.Sub(head); age > maxChainAge {
		return networkError(fmt.Errorf("the newest block that liteservers show is %s old, want at most %s", age.Round(time.Second), maxChainAge))
	}
	return nil
}

// channelsOf lists every channel that anything disclosed speaks of.
func channelsOf(ctx context.Context, ds []auditlog.Discloser) ([]attestation.Address, error) {
	var list []attestation.Address
	seen := map[attestation.Address]bool{}
	add := func(a attestation.Address) {
		if !seen[a] {
			seen[a] = true
			list = append(list, a)
		}
	}
	for _, d := range ds {
		cs, err := d.Channels(ctx)
		if err != nil {
			return nil, err
		}
		for _, c := range cs {
			add(c)
		}
		ss, err := d.Sections(ctx)
		if err != nil {
			return nil, err
		}
		for _, s := range ss {
			add(s.Channel)
		}
	}
	return list, nil
}

// snapshot reads the chain file, or has liteservers prove it anew. Either way
// it is verified the same, offline.
func (f *auditFlags) snapshot(ctx context.Context, addrs []attestation.Address) (*lite.Snapshot, error) {
	config, err := readFile("ton-config", f.config, 1<<20)
	if err != nil {
		return nil, err
	}
	trust, err := lite.ConfigKeyBlocks(config)
	if err != nil {
		return nil, err
	}
	var raw []byte
	if f.chain != "" {
		raw, err = readFile("chain", f.chain, 1<<30)
	} else {
		var c *lite.Client
		if c, err = dial(ctx, f.config, ""); err != nil {
			return nil, err
		}
		defer c.Close()
		raw, err = c.Snapshot(ctx, addrs)
	}
	if err != nil {
		return nil, err
	}
	snap, err := lite.OpenSnapshot(raw, trust)
	if err != nil {
		return nil, err
	}
	if f.head, err = snap.Head(ctx); err != nil {
		return nil, err
	}
	if f.chain == "" {
		if err := recent(f.head.Time, time.Now()); err != nil {
			return nil, err
		}
	}
	if f.save != "" {
		if err := os.WriteFile(f.save, raw, 0o644); err != nil {
			return nil, err
		}
	}
	return snap, nil
}

// anchors finds every redemption of the channels. An account that is not a
// channel to this worker, whatever it logs, has none: its vouchers then fail.
func anchors(ctx context.Context, snap *lite.Snapshot, worker attestation.Address, channels []attestation.Address) ([]auditlog.Anchor, error) {
	var list []auditlog.Anchor
	for _, ch := range channels {
		s, err := channelState(ctx, snap, ch)
		if errors.Is(err, lite.ErrNotInSnapshot) {
			return nil, err
		}
		if err != nil || s.Init.WorkerID != worker {
			continue
		}
		txs, err := snap.Transactions(ctx, ch, 0)
		if err != nil {
			return nil, err
		}
		var paid uint64
		for _, tx := range txs {
			if !tx.Success {
				continue
			}
			for _, m := range tx.Out {
				if m.Internal {
					continue
				}
				e, err := contracts.ParseRedeemed(m.Body)
				if err != nil {
					return nil, fmt.Errorf("channel %s: transaction %d: %w", ch, tx.LT, err)
				}
				if e.Paid < paid {
					return nil, fmt.Errorf("channel %s: transaction %d: paid falls from %d to %d", ch, tx.LT, paid, e.Paid)
				}
				list = append(list, auditlog.Anchor{Channel: ch, Cumulative: e.Cumulative, Paid: e.Paid - paid, Head: e.ReceiptsHead, Time: tx.Time})
				paid = e.Paid
			}
		}
	}
	return list, nil
}

// voucherVerifier checks a disclosed voucher against its channel's proven key.
func voucherVerifier(ctx context.Context, snap *lite.Snapshot) (func(attestation.Address, []byte) (uint64, error), error) {
	id, err := snap.GlobalID(ctx)
	if err != nil {
		return nil, err
	}
	return func(ch attestation.Address, raw []byte) (uint64, error) {
		var v contracts.SignedVoucher
		if err := v.UnmarshalBinary(raw); err != nil {
			return 0, err
		}
		s, err := channelState(ctx, snap, ch)
		if err != nil {
			return 0, err
		}
		return v.Voucher.Cumulative, v.Verify(s.Init.ClientKey, id, ch)
	}, nil
}

func printAudit(w io.Writer, r *auditlog.Report) {
	for _, l := range r.Logs {
		fmt.Fprintf(w, "log %.16s boot %d: %d leaves, %d keysets, %d receipts, %d of them disclosed\n", l.LogID, l.Boot, l.Size, l.Keysets, l.Receipts, l.Found)
	}
	for _, b := range r.Bundles {
		fmt.Fprintf(w, "bundle %.16s epoch %d: %s, assurance %s, %d receipts hang from it\n", b.Bundle, b.Epoch, b.Verdict, b.Assurance, b.Receipts)
	}
	for _, c := range r.Channels {
		fmt.Fprintf(w, "channel %s: settled %d nano over %d receipts, vouchers %d, payouts %d in %d redeems, unused %d\n",
			c.Channel, c.Settled, c.Receipts, c.Vouchers, c.Payouts, c.Anchors, c.Unused)
	}
	for _, f := range r.Unchecked {
		fmt.Fprintln(w, "unchecked", f)
	}
	for _, f := range r.Findings {
		fmt.Fprintln(w, "FINDING", f)
	}
	if r.OK {
		fmt.Fprintln(w, "it adds up")
	} else {
		fmt.Fprintln(w, "it does not add up")
	}
}
