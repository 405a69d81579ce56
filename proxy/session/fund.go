package session

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"cocoon/attestation"
	"cocoon/contracts"
	"cocoon/contracts/view"
	"cocoon/enclave/api"
	"cocoon/proxy/ledger"
)

// Fund finds the channel that pays this worker, opening one if the ledger has
// none, and brings the accounts in line with the worker's. It must return nil
// before Start, and only one call per worker may be under way.
func (s *Session) Fund(ctx context.Context) error {
	s.mu.Lock()
	done := s.signer != nil
	s.mu.Unlock()
	if done {
		return nil
	}
	ch, err := s.channel(ctx)
	if err != nil {
		return err
	}
	signer, err := s.cfg.Ledger.Signer(ch.Address)
	if err != nil {
		return err
	}
	limit, err := s.prove(ctx, ch)
	if err != nil {
		return &ChannelError{ch.Address, err}
	}
	signer.SetLimit(limit)
	if err := s.reconcileNew(ctx, signer); err != nil {
		return err
	}
	s.mu.Lock()
	s.signer = signer
	s.mu.Unlock()
	return nil
}

// Unfund has the next Fund look for the channel anew, on the chain.
func (s *Session) Unfund() {
	s.mu.Lock()
	s.signer = nil
	s.mu.Unlock()
}

// reconcileNew waits a little for a worker whose liteservers do not show the
// channel yet.
func (s *Session) reconcileNew(ctx context.Context, signer *ledger.Signer) error {
	wait := time.NewTicker(unprovenWait)
	defer wait.Stop()
	for left := unprovenTries; ; left-- {
		err := s.reconcile(ctx, signer)
		var refusal *api.RefusalError
		if left == 0 || !errors.As(err, &refusal) || !strings.HasPrefix(refusal.Name, "channel.") || !refusal.Retryable() {
			return err
		}
		select {
		case <-wait.C:
		case <-ctx.Done():
			return err
		}
	}
}

// Channel is the channel that pays for the session's jobs, with what it can pay
// and what of it is used, in nano; ok is false before Fund.
func (s *Session) Channel() (address attestation.Address, limit, used uint64, ok bool) {
	s.mu.Lock()
	signer := s.signer
	s.mu.Unlock()
	if signer == nil {
		return attestation.Address{}, 0, 0, false
	}
	limit, used = signer.Funds()
	return signer.Channel().Address, limit, used, true
}

// topUp looks at the chain once more, at most once in stateRefresh, and reports
// whether the channel can pay more than was known.
func (s *Session) topUp(ctx context.Context, signer *ledger.Signer) bool {
	now := s.cfg.Now()
	s.mu.Lock()
	soon := !s.proven.IsZero() && now.Sub(s.proven) < stateRefresh
	if !soon {
		s.proven = now
	}
	s.mu.Unlock()
	if soon {
		return false
	}
	before, _ := signer.Funds()
	limit, err := s.prove(ctx, signer.Channel())
	if err != nil || limit <= before {
		return false
	}
	signer.SetLimit(limit)
	return true
}

// channel picks the newest channel of the ledger that this worker may serve,
// and finishes opening it if need be.
func (s *Session) channel(ctx context.Context) (ledger.Channel, error) {
	want, err := s.parties(ctx)
	if err != nil {
		return ledger.Channel{}, &ChannelError{Err: err}
	}
	list, err := s.cfg.Ledger.ChannelsTo(ctx, want.WorkerID)
	if err != nil {
		return ledger.Channel{}, err
	}
	for _, ch := range list {
		if ch.Init.Payout != want.Payout || ch.Init.Redeemer != want.Redeemer || ch.Init.CloseDelay != want.CloseDelay || ch.GlobalID != want.GlobalID {
			continue
		}
		state, _, _, err := s.cfg.Chain.Channel(ctx, ch.Address)
		switch {
		case errors.Is(err, view.ErrAbsent):
			return ch, s.open(ctx, ch) // its opening was interrupted
		case err != nil:
			return ledger.Channel{}, &ChannelError{ch.Address, err}
		case state.Closed || state.CloseAt != 0:
			if err := s.cfg.Ledger.CloseChannel(ch.Address); err != nil {
				return ledger.Channel{}, err
			}
		default:
			return ch, nil
		}
	}
	if s.cfg.Opener == nil {
		return ledger.Channel{}, &ChannelError{Err: fmt.Errorf("the ledger has none to worker %s, and no wallet to open one", want.WorkerID)}
	}
	if err := s.mayOpen(ctx); err != nil {
		return ledger.Channel{}, &ChannelError{Err: err}
	}
	// The key is on disk before money is sent to what it signs for.
	ch, err := s.cfg.Ledger.AddChannel(want)
	if err != nil {
		return ledger.Channel{}, err
	}
	return ch, s.open(ctx, ch)
}

// mayOpen bounds what a worker can have tied up: each new identity, payout or
// redeemer that it shows, and each channel that it releases, asks for a deposit.
func (s *Session) mayOpen(ctx context.Context) error {
	if s.cfg.Deposit < contracts.MinDeposit {
		return fmt.Errorf("deposit: got %d nano, want at least %d: no worker serves less", s.cfg.Deposit, uint64(contracts.MinDeposit))
	}
	most := s.cfg.MaxOpenings
	if most <= 0 {
		most = DefaultMaxOpenings
	}
	n, err := s.cfg.Ledger.CountChannels(ctx, s.cfg.Now().Add(-openingsPeriod))
	if err != nil {
		return err
	}
	if n >= most {
		return fmt.Errorf("opened %d channels in %s, want at most %d: workers whose channels close or whose terms change would tie up the wallet", n, openingsPeriod, most)
	}
	return nil
}

func (s *Session) open(ctx context.Context, ch ledger.Channel) error {
	if s.cfg.Opener == nil {
		return &ChannelError{ch.Address, errors.New("it was never deployed, and there is no wallet to do so")}
	}
	if err := s.cfg.Opener.OpenChannel(ctx, ch.Init, ch.Deposit); err != nil {
		return &ChannelError{ch.Address, fmt.Errorf("open: %w", err)}
	}
	return nil
}

// parties is what the worker's evidence asks of a channel.
func (s *Session) parties(ctx context.Context) (ledger.ChannelPlan, error) {
	id, err := s.cfg.Chain.GlobalID(ctx)
	if err != nil {
		return ledger.ChannelPlan{}, fmt.Errorf("global id: %w", err)
	}
	p := ledger.ChannelPlan{
		WorkerID: s.WorkerID(), Payout: s.verified.Keyset().PayoutAddress, Redeemer: s.verified.WorkerConfig().Redeemer,
		CloseDelay: contracts.CloseDelay, GlobalID: id, Deposit: s.cfg.Deposit,
	}
	if s.cfg.Opener != nil {
		p.Client = s.cfg.Opener.Client()
	}
	return p, nil
}

// prove reads what the channel can pay, from a fresh proof, and checks that
// this worker will serve it.
func (s *Session) prove(ctx context.Context, ch ledger.Channel) (limit uint64, err error) {
	state, balance, provenAt, err := s.cfg.Chain.Channel(ctx, ch.Address)
	if err != nil {
		return 0, err
	}
	if age := s.cfg.Now().Sub(provenAt); age > stateAge {
		return 0, fmt.Errorf("state: proven %s ago, want at most %s", age, stateAge)
	}
	if state.Init != ch.Init {
		return 0, errors.New("initial data on chain differ from the ledger's")
	}
	checks := contracts.WorkerChecks{WorkerID: s.WorkerID(), Payout: s.verified.Keyset().PayoutAddress, Redeemer: s.verified.WorkerConfig().Redeemer}
	if err := contracts.CheckChannelForWorker(state, checks, balance); err != nil {
		return 0, err
	}
	return state.CreditLimit(balance), nil
}
