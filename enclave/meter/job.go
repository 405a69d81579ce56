package meter

import (
	"context"
	"errors"
	"fmt"
	"math"

	"cocoon/attestation"
	"cocoon/contracts/payout"
)

// Terms are the bounds that a client signed for one job.
type Terms struct {
	Prices     attestation.Prices
	Prompt     uint64 // tokens at most
	Completion uint64 // tokens at most
	Total      uint64 // nano at most
}

// Job is one open job's part of a channel's credit. Its methods but Settle
// are called from one goroutine at a time.
type Job struct {
	a     *Account
	terms Terms

	// Guarded by a.mu.
	prompt  uint64 // tokens: the ceiling before Start, the real count after
	cached  uint64
	started bool
	refused bool   // by Start
	bought  uint64 // completion tokens, whole windows: what the client has paid for this job
	granted uint64 // completion tokens, whole windows: what is reserved of it
	reserve uint64 // nano
	closed  bool
}

// Begin opens a job if credit covers its prompt ceiling and first window. The
// windows after that are reserved by Grant. The caller must call Settle.
func (a *Account) Begin(t Terms) (*Job, error) {
	first := min(Window, t.Completion)
	need, err := t.check(first)
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.jobs >= a.cfg.MaxJobs {
		return nil, refuse(LimitJobs, a.jobs+1, fmt.Sprintf("at most %d open on one channel", a.cfg.MaxJobs))
	}
	if got, want, ok := a.covers(need); !ok {
		return nil, refuse(CreditShort, fmt.Sprintf("credit to %d", got), fmt.Sprintf("%d for the prompt ceiling and first window", want))
	}
	j := &Job{a: a, terms: t, prompt: t.Prompt, bought: first, granted: first}
	a.jobs++
	j.setReserve(need)
	return j, nil
}

// check returns the cost of the prompt ceiling and first window.
func (t Terms) check(first uint64) (uint64, error) {
	if t.Prompt == 0 || t.Completion == 0 {
		return 0, refuse(CeilingTotal, fmt.Sprintf("ceilings of %d and %d tokens", t.Prompt, t.Completion), "both above 0")
	}
	most, err := payout.Ceiling(t.Prompt, t.Completion, t.Prices)
	if err != nil {
		return 0, refuse(CeilingTotal, err, "terms whose cost fits")
	}
	if most > t.Total {
		return 0, refuse(CeilingTotal, t.Total, fmt.Sprintf("at least %d, the cost of the token ceilings", most))
	}
	return payout.Ceiling(t.Prompt, first, t.Prices)
}

// close gives back what the job has reserved. The caller holds mu.
func (j *Job) close() {
	j.closed = true
	j.a.jobs--
	j.setReserve(0)
	j.a.wake()
}

// covers reports whether credit reaches more nano beyond all that is spent and
// reserved, with both sums. The caller holds mu.
func (a *Account) covers(more uint64) (credit, need uint64, ok bool) {
	credit = a.credit()
	need = a.base
	for _, n := range []uint64{a.settled, a.reserved, more} {
		var err error
		if need, err = payout.Add(need, n); err != nil {
			return credit, math.MaxUint64, false
		}
	}
	return credit, need, need <= credit
}

// setReserve replaces the job's share of the reserve. The caller holds mu.
func (j *Job) setReserve(nano uint64) {
	j.a.reserved = j.a.reserved - j.reserve + nano
	j.reserve = nano
}

// Start takes the prompt's real count, before any of it is processed. A prompt
// over its ceiling is refused and not billed.
func (j *Job) Start(prompt, cached uint64) error {
	if prompt > j.terms.Prompt {
		j.a.mu.Lock()
		defer j.a.mu.Unlock()
		j.refused = true
		return refuse(CeilingPrompt, prompt, fmt.Sprintf("at most %d tokens", j.terms.Prompt))
	}
	if cached > prompt {
		return refuse(CeilingPrompt, fmt.Sprintf("%d cached", cached), fmt.Sprintf("at most %d, the prompt", prompt))
	}
	j.a.mu.Lock()
	defer j.a.mu.Unlock()
	if j.closed || j.started {
		return errClosed
	}
	need, err := payout.Ceiling(prompt, j.granted, j.terms.Prices)
	if err != nil {
		return err
	}
	j.prompt, j.cached, j.started = prompt, cached, true
	j.setReserve(need)
	j.a.wake() // the difference to the ceiling is free for others
	return nil
}

var errClosed = errors.New("meter: job: started twice, or settled")

// Buy adds a window that the client has paid for this job: one for each voucher
// on the job's own stream after the opening one, be its amount above the
// highest or not, since vouchers of parallel jobs overtake each other.
//
// A job draws on its own windows alone. Would it run ahead on credit that was
// signed for another job, and end before its client pays for that, the other
// job would find its credit spent though its client did all it should.
func (j *Job) Buy() {
	j.a.mu.Lock()
	defer j.a.mu.Unlock()
	j.bought = min(j.bought+Window, j.terms.Completion)
	j.a.wake()
}

// Grant blocks until the n-th completion token (from 1) is bought and covered.
// It fails with a *Refusal beyond the ceiling and after CreditWait without
// credit, and with ctx's error.
func (j *Job) Grant(ctx context.Context, n uint64) error {
	if n > j.terms.Completion {
		return refuse(CeilingComplete, n, fmt.Sprintf("at most %d tokens", j.terms.Completion))
	}
	changed, err := j.take(n)
	if changed == nil {
		return err
	}
	fired, stop := j.a.cfg.Timer(CreditWait)
	defer stop()
	for {
		select {
		case <-changed:
			if changed, err = j.take(n); changed == nil {
				return err
			}
		case <-fired:
			return refuse(CreditTimeout, fmt.Sprintf("no credit for token %d in %s", n, CreditWait), "a voucher for the next window")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// take reserves the windows up to token n. If credit does not reach, it
// returns what will be closed when that may have changed.
func (j *Job) take(n uint64) (changed <-chan struct{}, err error) {
	a := j.a
	a.mu.Lock()
	defer a.mu.Unlock()
	if j.closed {
		return nil, errClosed
	}
	if n <= j.granted {
		return nil, nil
	}
	if n > j.bought {
		return a.changed, nil
	}
	to := min((n+Window-1)/Window*Window, j.terms.Completion)
	need, err := payout.Ceiling(j.prompt, to, j.terms.Prices)
	if err != nil {
		return nil, err
	}
	if _, _, ok := a.covers(need - j.reserve); !ok {
		return a.changed, nil
	}
	j.granted = to
	j.setReserve(need)
	return nil, nil
}

// Bill is what one job costs and where its receipt stands.
type Bill struct {
	Usage attestation.Usage
	Cost  uint64 // nano
	Index uint64 // in the tree of this (channel, log)
}

// Settle closes the job and bills u, but nothing beyond what was granted: a
// count past its grant is cut to it. A prompt over its ceiling makes the job free
// if it was not answered, and is cut to the ceiling if it was: an engine that
// counts prompts only at the end has done the work by then, and a client that
// finds a body which becomes more tokens than its bytes must not have it for
// nothing. sign makes the receipt (COSE bytes) while the channel's tree
// stands still; it must be quick. If sign fails, nothing is billed.
func (j *Job) Settle(u attestation.Usage, sign func(Bill) ([]byte, error)) (Bill, []byte, error) {
	a := j.a
	a.mu.Lock()
	defer a.mu.Unlock()
	if j.closed {
		return Bill{}, nil, errClosed
	}
	j.close()
	return a.settle(j.billable(u), j.terms.Prices, sign)
}

// Refuse makes the receipt of a job that was never begun: it costs nothing.
func (a *Account) Refuse(sign func(Bill) ([]byte, error)) (Bill, []byte, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.settle(attestation.Usage{}, attestation.Prices{}, sign)
}

// billable cuts an engine's counts to what was granted. The caller holds mu.
func (j *Job) billable(u attestation.Usage) attestation.Usage {
	if j.started {
		u.Prompt, u.Cached = min(u.Prompt, j.prompt), j.cached
	} else if u.Prompt > j.terms.Prompt {
		if j.refused || u.Completion == 0 {
			return attestation.Usage{}
		}
		u.Prompt = j.terms.Prompt
	}
	u.Cached = min(u.Cached, u.Prompt)
	u.Completion = min(u.Completion, j.granted)
	u.Reasoning = min(u.Reasoning, u.Completion)
	return u
}

// settle signs and appends one receipt. The caller holds mu.
func (a *Account) settle(u attestation.Usage, p attestation.Prices, sign func(Bill) ([]byte, error)) (Bill, []byte, error) {
	b := Bill{Usage: u, Index: a.tree.Count()}
	var err error
	if b.Cost, err = payout.Cost(u, p); err != nil {
		return Bill{}, nil, err
	}
	settled, err := payout.Add(a.settled, b.Cost)
	if err != nil {
		return Bill{}, nil, err
	}
	cose, err := sign(b)
	if err != nil {
		return Bill{}, nil, fmt.Errorf("receipt: %w", err)
	}
	a.tree.Append(cose)
	a.settled = settled
	a.unwritten[b.Index] = b.Cost
	return b, cose, nil
}
