package enclave

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"

	"cocoon/attestation"
	"cocoon/attestation/auditlog"
	"cocoon/enclave/api"
	"cocoon/enclave/meter"
)

// publishEvery is how long receipts gather for one round of the publisher, so
// that many share its fsyncs. It is well within a checkpoint's interval.
const publishEvery = 250 * time.Millisecond

// maxUnpublished bounds the receipts that wait. Whoever ends a job beyond it
// waits for the host.
const maxUnpublished = 4096

// publisher makes receipts durable: their digests in the log, themselves at
// the host in the order of their indices. A client has its receipt before: one
// that a dying VM takes along costs nobody money, and auditors know it by the
// checkpoint that it names.
type publisher struct {
	wake chan struct{} // holds a token while something may be to do

	mu      sync.Mutex
	waiting []unpublished

	round sync.Mutex // held over one
	next  map[*meter.Account]uint64
}

type unpublished struct {
	account *meter.Account
	index   uint64
	cose    []byte
}

func newPublisher() *publisher {
	return &publisher{wake: make(chan struct{}, 1), next: map[*meter.Account]uint64{}}
}

// put hands a receipt over, and reports whether too many wait.
func (p *publisher) put(u unpublished) (full bool) {
	p.mu.Lock()
	p.waiting = append(p.waiting, u)
	full = len(p.waiting) >= maxUnpublished
	p.mu.Unlock()
	select {
	case p.wake <- struct{}{}:
	default:
	}
	return full
}

// take returns, per account, the receipts that follow on what was published.
// One whose predecessor has yet to be handed over waits on.
func (p *publisher) take() map[*meter.Account][]unpublished {
	p.mu.Lock()
	defer p.mu.Unlock()
	by := map[*meter.Account][]unpublished{}
	for _, u := range p.waiting {
		by[u.account] = append(by[u.account], u)
	}
	p.waiting = nil
	for a, list := range by {
		slices.SortFunc(list, func(x, y unpublished) int { return cmp.Compare(x.index, y.index) })
		n := 0
		for n < len(list) && list[n].index == p.next[a]+uint64(n) {
			n++
		}
		p.waiting = append(p.waiting, list[n:]...)
		by[a] = list[:n]
	}
	return by
}

// publishRounds publishes what gathers until ctx ends.
func (s *server) publishRounds(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.publisher.wake:
		}
		if err := s.publish(context.WithoutCancel(ctx)); err != nil {
			return err
		}
		if s.sleep(ctx, publishEvery) != nil {
			return nil
		}
	}
}

// publish returns once what was handed over before it is durable. Its error
// ends the boot.
func (s *server) publish(ctx context.Context) error {
	p := s.publisher
	p.round.Lock()
	defer p.round.Unlock()
	for a, list := range p.take() {
		if len(list) == 0 {
			continue
		}
		if err := s.publishRun(ctx, a.Channel(), list); err != nil {
			return err
		}
		p.next[a] += uint64(len(list))
	}
	return nil
}

// published is publish for a client's call, which it may refuse.
func (s *server) published() error {
	if err := s.publish(context.WithoutCancel(s.abort)); err != nil {
		s.fail(err)
		return api.Refuse(codes.Unavailable, "worker.stopped", "the log or the host's store failed")
	}
	return nil
}

func (s *server) publishRun(ctx context.Context, channel attestation.Address, list []unpublished) error {
	var logging sync.WaitGroup
	logged := make([]error, len(list))
	raw := make([][]byte, len(list))
	for i, u := range list {
		raw[i] = u.cose
		logging.Go(func() {
			_, logged[i] = s.log.Append(ctx, auditlog.ReceiptEntry{Digest: auditlog.ReceiptDigest(u.cose)})
		})
	}
	kept := s.cfg.Store.PutReceipts(ctx, s.logID, channel, list[0].index, raw)
	logging.Wait()
	if err := errors.Join(logged...); err != nil {
		return fmt.Errorf("worker: log: receipt: %w", err)
	}
	if kept != nil {
		return fmt.Errorf("worker: host store: receipt: %w", kept)
	}
	return nil
}
