package enclave

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc/codes"

	"cocoon/attestation"
	"cocoon/contracts"
	"cocoon/enclave/api"
	"cocoon/enclave/meter"
)

// Bounds on what is looked up on the chain at once: channels that strangers
// name, of which one connection may name one at a time, and served ones, which
// strangers must not keep from being seen.
const (
	maxLookups       = 4
	maxServedLookups = 4
	lookupTimeout    = 15 * time.Second
)

// lookAgainEvery is how often one channel's vouchers can have it looked up.
const lookAgainEvery = 5 * time.Second

// channels is what was proven of the channels that this boot serves.
type channels struct {
	stored  map[attestation.Address][]byte // the host's vouchers at boot
	lookups chan struct{}                  // by strangers
	served  chan struct{}

	mu     sync.Mutex
	asking map[*api.ConnState]bool             // connections that a stranger's lookup runs for
	views  map[attestation.Address]ChannelView // of channels with an account
	looked map[attestation.Address]time.Time   // when a voucher last had one looked up
}

func newChannels(stored map[attestation.Address][]byte) *channels {
	return &channels{
		stored: stored, lookups: make(chan struct{}, maxLookups), served: make(chan struct{}, maxServedLookups), asking: map[*api.ConnState]bool{},
		views: map[attestation.Address]ChannelView{}, looked: map[attestation.Address]time.Time{},
	}
}

func (c *channels) view(addr attestation.Address) (ChannelView, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v, ok := c.views[addr]
	return v, ok
}

// put keeps v unless a later state is known, and reports whether v is the first
// to show the channel closing.
func (c *channels) put(addr attestation.Address, v ChannelView) (kept, closing bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.views[addr]
	if v.ProvenAt.Before(old.ProvenAt) {
		return false, false
	}
	c.views[addr] = v
	return true, !closes(old.State) && closes(v.State)
}

func closes(s contracts.ChannelState) bool { return s.Closed || s.CloseAt != 0 }

// account returns the account of a channel that this worker serves, proven
// within channelFresh. Its errors are *api.RefusalError.
func (s *server) account(ctx context.Context, addr attestation.Address) (*meter.Account, error) {
	v, ok := s.channels.view(addr)
	if !ok || s.cfg.Now().Sub(v.ProvenAt) > channelFresh {
		var err error
		if v, err = s.lookUp(ctx, addr); err != nil {
			return nil, err
		}
	}
	if err := contracts.CheckChannelForWorker(v.State, s.checks, v.Balance); err != nil {
		var refused *contracts.ChannelRefusedError
		if errors.As(err, &refused) {
			return nil, api.Refuse(codes.PermissionDenied, "channel.refused", fmt.Sprintf("%s: got %s, want %s", refused.Field, refused.Got, refused.Want))
		}
		return nil, api.Refuse(codes.PermissionDenied, "channel.refused", err.Error())
	}
	if a := s.meter.Account(addr); a != nil {
		return a, nil
	}
	return s.openAccount(ctx, addr, v)
}

// lookUp asks the chain now.
func (s *server) lookUp(ctx context.Context, addr attestation.Address) (ChannelView, error) {
	leave, err := s.channels.enter(ctx, s.meter.Account(addr) != nil)
	if err != nil {
		return ChannelView{}, err
	}
	defer leave()
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	v, err := s.cfg.Chain.Channel(ctx, addr)
	if err != nil {
		s.event("channel.lookup-failed", "error", err.Error())
		return ChannelView{}, api.Refuse(codes.Unavailable, "channel.unproven", "no open channel could be proven at the address")
	}
	if age := s.cfg.Now().Sub(v.ProvenAt); age > channelFresh {
		return ChannelView{}, api.Refuse(codes.Unavailable, "channel.stale", fmt.Sprintf("proven %s ago, want at most %s", age.Round(time.Second), channelFresh))
	}
	s.learn(addr, v)
	return v, nil
}

// enter takes a place for one lookup: of a served channel, which its client may
// wait for, or of one that the peer of ctx's connection names.
func (c *channels) enter(ctx context.Context, served bool) (leave func(), err error) {
	if served {
		select {
		case c.served <- struct{}{}:
			return func() { <-c.served }, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	conn, err := api.StateFromContext(ctx)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.asking[conn] {
		return nil, api.Refuse(codes.Unavailable, "channel.busy", "another channel is being looked up for this connection")
	}
	select {
	case c.lookups <- struct{}{}:
	default:
		return nil, api.Refuse(codes.Unavailable, "channel.busy", fmt.Sprintf("%d channels are being looked up", maxLookups))
	}
	c.asking[conn] = true
	return func() {
		c.mu.Lock()
		delete(c.asking, conn)
		c.mu.Unlock()
		<-c.lookups
	}, nil
}

// lookAgain asks the chain about a served channel whose voucher is beyond its
// known deposit, and reports whether it learned anything.
func (s *server) lookAgain(ctx context.Context, a *meter.Account) bool {
	now := s.cfg.Now()
	s.channels.mu.Lock()
	last, ok := s.channels.looked[a.Channel()]
	if !ok || now.Sub(last) >= lookAgainEvery {
		s.channels.looked[a.Channel()] = now
	}
	s.channels.mu.Unlock()
	if ok && now.Sub(last) < lookAgainEvery {
		return false
	}
	_, err := s.lookUp(ctx, a.Channel())
	return err == nil
}

// learn takes a proven state of a channel that has an account.
func (s *server) learn(addr attestation.Address, v ChannelView) {
	a := s.meter.Account(addr)
	if a == nil {
		return
	}
	kept, closing := s.channels.put(addr, v)
	if kept {
		a.SetLimit(v.State.CreditLimit(v.Balance))
	}
	if closing {
		s.event("channel.closing")
		if err := s.flushAccount(context.WithoutCancel(s.abort), a); err != nil {
			s.fail(err)
		}
	}
}

// openAccount begins to serve a channel in this boot.
func (s *server) openAccount(ctx context.Context, addr attestation.Address, v ChannelView) (*meter.Account, error) {
	a, err := s.meter.Open(meter.Opening{
		Channel: addr, ClientKey: v.State.Init.ClientKey, Limit: v.State.CreditLimit(v.Balance),
		Paid: v.State.Paid, Stored: s.channels.stored[addr],
	})
	var refusal *meter.Refusal
	switch {
	case errors.As(err, &refusal) && refusal.Name == meter.LimitChannels:
		return nil, api.Refuse(codes.ResourceExhausted, refusal.Name, "this worker serves no more channels")
	case err != nil:
		s.event("channel.stored-voucher-damaged")
		return nil, api.Refuse(codes.Internal, "channel.store", "the host's voucher of this channel is damaged")
	}
	if base := a.BaseHead(); base != [32]byte{} {
		if err := s.cfg.Store.PutBase(ctx, s.logID, addr, base); err != nil {
			s.fail(fmt.Errorf("worker: host store: base: %w", err))
			return nil, api.Refuse(codes.Unavailable, "worker.stopped", "the host's store failed")
		}
	}
	s.channels.put(addr, v)
	return a, nil
}

// watch looks at every served channel on a timer, so that proofs stay fresh,
// deposits count, and a client's StartClose is seen in time.
func (s *server) watch(ctx context.Context) error {
	for s.sleep(ctx, channelRefresh) == nil {
		for _, a := range s.meter.Accounts() {
			v, err := s.cfg.Chain.Channel(ctx, a.Channel())
			if ctx.Err() != nil {
				return nil
			}
			if err != nil {
				s.event("channel.lookup-failed", "error", err.Error())
				continue
			}
			s.learn(a.Channel(), v)
		}
	}
	return nil
}

// flushEvery hands vouchers to the host on a timer.
func (s *server) flushEvery(ctx context.Context) error {
	for s.sleep(ctx, s.cfg.VoucherFlush) == nil {
		if err := s.flush(context.WithoutCancel(ctx)); err != nil {
			return err
		}
	}
	return nil
}

// flush hands the host every voucher that it does not hold. What it leaves out
// is the worker's loss if the VM dies.
func (s *server) flush(ctx context.Context) error {
	for _, a := range s.meter.Accounts() {
		if err := s.flushAccount(ctx, a); err != nil {
			return err
		}
	}
	return nil
}

func (s *server) flushAccount(ctx context.Context, a *meter.Account) error {
	raw, cumulative := a.Unflushed()
	if raw == nil {
		return nil
	}
	if err := s.cfg.Store.PutVoucher(ctx, a.Channel(), raw); err != nil {
		return fmt.Errorf("worker: host store: voucher: %w", err)
	}
	a.Flushed(cumulative)
	return nil
}
