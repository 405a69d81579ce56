package route

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"cocoon/attestation"
	"cocoon/proxy/session"
)

// Between attempts to connect, and after a breach of the protocol.
const (
	firstBackoff   = 200 * time.Millisecond
	lastBackoff    = 5 * time.Second
	refusedBackoff = 30 * time.Second       // evidence that was refused seldom changes
	leastPause     = 100 * time.Millisecond // also when hurried
	benchFor       = 10 * time.Minute
	renewBefore    = 30 * time.Second // of the evidence's expiry
	leastRenewal   = 500 * time.Millisecond
)

// worker is one endpoint and what is known of it.
type worker struct {
	r        *Router
	endpoint Endpoint
	slots    chan struct{} // one per open job
	poke     chan struct{}
	funding  sync.Mutex

	mu         sync.Mutex
	session    *session.Session
	connecting bool  // an attempt is under way or due at once
	waiting    bool  // between attempts
	err        error // of the last attempt, or what it was benched for
	benched    time.Time
}

// keep holds a session to the worker until ctx ends.
func (w *worker) keep(ctx context.Context) {
	backoff := firstBackoff
	for ctx.Err() == nil {
		s, err := w.connect(ctx)
		if err != nil {
			w.pause(ctx, backoff, err)
			backoff = min(2*backoff, lastBackoff)
			continue
		}
		backoff = firstBackoff
		w.hold(ctx, s)
	}
}

// connect makes a session and puts it in the old one's place.
func (w *worker) connect(ctx context.Context) (*session.Session, error) {
	w.mu.Lock()
	w.connecting = true
	w.mu.Unlock()
	s, err := session.Connect(ctx, &w.r.cfg.Session, w.endpoint.Address, w.endpoint.WorkerID)
	if err != nil {
		if ctx.Err() == nil {
			w.r.cfg.Logger.Warn("worker.refused", "endpoint", w.endpoint.Address, "error", err.Error())
		}
		if revoked(err) {
			w.drop()
		}
		return nil, err
	}
	w.r.cfg.Logger.Info("worker.verified", "endpoint", w.endpoint.Address, "worker", s.WorkerID().String(),
		"assurance", string(s.Verified().Assurance()), "expires", s.Verified().Expires().UTC().Format(time.RFC3339))
	if old := w.take(s); old != nil {
		old.Retire()
	}
	return s, nil
}

// revoked reports whether a worker was refused for more than its keyset's or
// beacon's time, which clocks a little apart disagree on.
func revoked(err error) bool {
	var refused *session.NotVerifiedError
	if !errors.As(err, &refused) || refused.Result == nil {
		return false
	}
	return slices.ContainsFunc(refused.Result.Checks, func(c attestation.Check) bool {
		return c.Outcome == attestation.Fail && c.Name != "keyset.current" && c.Name != "beacon.fresh"
	})
}

// drop gives the old session no more jobs: what it rests on was true when it
// began, and is known to be true no more.
func (w *worker) drop() {
	w.mu.Lock()
	old := w.session
	w.session = nil
	w.mu.Unlock()
	if old != nil {
		old.Retire()
	}
}

// take replaces the session and returns the old one.
func (w *worker) take(s *session.Session) *session.Session {
	w.mu.Lock()
	old := w.session
	w.session, w.connecting, w.err = s, false, nil
	w.mu.Unlock()
	w.r.notify()
	return old
}

// pause waits before the next attempt, unless it is hurried.
func (w *worker) pause(ctx context.Context, d time.Duration, err error) {
	var refused *session.NotVerifiedError
	if errors.As(err, &refused) {
		d = refusedBackoff
	}
	w.mu.Lock()
	w.err, w.connecting, w.waiting = err, false, true
	w.mu.Unlock()
	w.r.notify()
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-w.poke:
		t.Reset(leastPause)
		select {
		case <-t.C:
		case <-ctx.Done():
		}
	case <-ctx.Done():
	}
	w.mu.Lock()
	w.waiting, w.connecting = false, true
	w.mu.Unlock()
}

// hold waits until the session must be replaced.
func (w *worker) hold(ctx context.Context, s *session.Session) {
	t := time.NewTimer(renewal(s.Left()))
	defer t.Stop()
	select {
	case <-t.C: // the old one serves on until the new one is there
	case <-s.Done():
		w.mu.Lock()
		w.connecting = true
		w.mu.Unlock()
		w.r.notify()
	case <-ctx.Done():
	}
}

// renewal is when, within what is left of the evidence's validity, to connect
// anew. A worker that has not made its next keyset by then is asked again.
func renewal(left time.Duration) time.Duration {
	return max(left-max(min(left/10, renewBefore), leastRenewal), left/2)
}

// hurry ends a pause, and reports whether there was one to end.
func (w *worker) hurry() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.waiting {
		return false
	}
	w.waiting, w.connecting = false, true
	select {
	case w.poke <- struct{}{}:
	default:
	}
	return true
}

// usable returns the session if jobs may be started on it, and otherwise
// whether one is being made.
func (w *worker) usable() (s *session.Session, connecting bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.r.cfg.Session.Now().Before(w.benched) {
		return nil, false
	}
	if w.session != nil && w.session.Usable() == nil {
		return w.session, false
	}
	return nil, w.connecting
}

// why is the reason that usable returns nothing.
func (w *worker) why() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.err != nil:
		return w.err
	case w.session != nil:
		return w.session.Usable()
	}
	return errors.New("not connected yet")
}

var errFull = errors.New("full")

// lease takes a slot on the funded session.
func (w *worker) lease(ctx context.Context) (*Lease, error) {
	select {
	case w.slots <- struct{}{}:
	default:
		return nil, errFull
	}
	l := &Lease{w: w}
	s, _ := w.usable()
	if s == nil {
		l.Release(nil)
		return nil, fmt.Errorf("the session ended")
	}
	l.Session = s
	w.funding.Lock()
	err := s.Fund(ctx)
	w.funding.Unlock()
	if err != nil {
		l.Release(nil)
		return nil, err
	}
	return l, nil
}

// judge benches a worker that broke the protocol.
func (w *worker) judge(s *session.Session, err error) {
	if s != nil && session.ChannelRefused(err) {
		s.Unfund()
	}
	if !session.Misbehaves(err) {
		return
	}
	w.mu.Lock()
	w.benched, w.err = w.r.cfg.Session.Now().Add(benchFor), fmt.Errorf("benched for %s: %w", benchFor, err)
	w.mu.Unlock()
	w.r.cfg.Logger.Error("worker.benched", "endpoint", w.endpoint.Address, "error", err.Error())
	w.r.notify()
}
