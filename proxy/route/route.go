// Package route picks a verified worker for each job.
//
// A Router keeps one session to every worker it knows, renews it before its
// evidence expires while open jobs drain on the old one, and benches a worker
// that breaks the protocol. It promises to hand out only sessions whose
// evidence is current and whose channel is funded and reconciled, chosen at
// random among the good, so that nobody can steer a user to one machine.
//
// It does not retry jobs, which may cost money: package proxy does, within its
// caps. A network that lets only some workers be reached still narrows the choice.
package route

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"cocoon/attestation"
	"cocoon/proxy/session"
)

// DefaultMaxJobs is how many jobs may be open with one worker: what workers
// allow one channel by default.
const DefaultMaxJobs = 256

// pickTimeout is how long Pick waits for a worker that is being connected to.
const pickTimeout = 20 * time.Second

// Endpoint is a worker to use.
type Endpoint struct {
	Address  string              // "host:port"
	WorkerID attestation.Address // zero: whoever answers, proven by its own record
}

// Config makes a Router.
type Config struct {
	Session session.Config
	Workers []Endpoint
	MaxJobs int          // open at once with one worker; 0 for DefaultMaxJobs
	Logger  *slog.Logger // ids, check names and errors, never content
}

// Router is safe for concurrent use.
type Router struct {
	cfg     Config
	workers []*worker
	cancel  context.CancelFunc
	group   sync.WaitGroup

	mu      sync.Mutex
	changed chan struct{} // closed when a worker's state changes
}

// New starts connecting to every worker. Close ends it.
func New(c Config) (*Router, error) {
	s := c.Session
	if s.Verifier == nil || s.Ledger == nil || s.Chain == nil || s.Now == nil || s.Rand == nil || c.Logger == nil {
		return nil, errors.New("route: config: want verifier, ledger, chain, now, rand and logger")
	}
	if len(c.Workers) == 0 {
		return nil, errors.New("route: workers: got none")
	}
	if c.MaxJobs <= 0 {
		c.MaxJobs = DefaultMaxJobs
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &Router{cfg: c, cancel: cancel, changed: make(chan struct{})}
	for _, e := range c.Workers {
		w := &worker{r: r, endpoint: e, slots: make(chan struct{}, c.MaxJobs), poke: make(chan struct{}, 1), connecting: true}
		r.workers = append(r.workers, w)
		r.group.Go(func() { w.keep(ctx) })
	}
	return r, nil
}

// Close ends all connections, and the jobs on them, and waits until nothing of
// the router runs. Call it when no job is open any more.
func (r *Router) Close() {
	r.cancel()
	r.group.Wait()
	for _, w := range r.workers {
		if s := w.take(nil); s != nil {
			s.Close()
		}
	}
}

// notify wakes whoever waits for a change.
func (r *Router) notify() {
	r.mu.Lock()
	defer r.mu.Unlock()
	close(r.changed)
	r.changed = make(chan struct{})
}

func (r *Router) wait() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.changed
}

// Lease is one job's right to a session. Its holder calls Release.
type Lease struct {
	*session.Session
	w    *worker
	once sync.Once
}

// Release gives the slot back, and judges the worker by how the job ended:
// nil, or the job's error.
func (l *Lease) Release(err error) {
	l.once.Do(func() {
		if err != nil {
			l.w.judge(l.Session, err)
		}
		<-l.w.slots
		l.w.r.notify()
	})
}

// ModelError is a model that no verified worker has.
type ModelError struct{ Model string }

func (e *ModelError) Error() string {
	return fmt.Sprintf("no verified worker has the model %q", e.Model)
}

// NoWorkerError is the want of a worker for a job.
type NoWorkerError struct {
	Reasons []string // one for each worker that would not do
	Err     error    // why the last one could not be paid; may be nil
}

func (e *NoWorkerError) Error() string {
	return "no worker can take the job: " + strings.Join(e.Reasons, "; ")
}

func (e *NoWorkerError) Unwrap() error { return e.Err }

// Pick returns a funded session to a worker that has the model, none of those
// in not. It waits while the only such workers are being connected to, or are
// full. It returns a *ModelError or a *NoWorkerError.
func (r *Router) Pick(ctx context.Context, model string, not map[attestation.Address]bool) (*Lease, error) {
	limit := time.NewTimer(pickTimeout)
	defer limit.Stop()
	unpaid := map[*worker]error{}
	poked := false
	for {
		changed := r.wait()
		good, full, pending := r.sort(model, not, unpaid)
		if w := r.choose(good, model); w != nil {
			l, err := w.lease(ctx)
			switch {
			case err == nil:
				return l, nil
			case ctx.Err() != nil:
				return nil, ctx.Err()
			case !errors.Is(err, errFull): // else another took the last slot
				w.judge(nil, err)
				unpaid[w] = err
			}
			continue
		}
		if !full && !pending {
			if poked || !r.poke(not, unpaid) {
				return nil, r.none(model, not, unpaid)
			}
			poked = true
			continue
		}
		select {
		case <-changed:
		case <-limit.C:
			return nil, r.none(model, not, unpaid)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// sort finds the workers that would do, and whether to wait for others.
func (r *Router) sort(model string, not map[attestation.Address]bool, unpaid map[*worker]error) (good []*worker, full, pending bool) {
	for _, w := range r.workers {
		s, connecting := w.usable()
		switch {
		case unpaid[w] != nil:
		case s == nil:
			pending = pending || connecting
		case not[s.WorkerID()]:
		default:
			if _, ok := s.Price(model); !ok {
				break
			}
			if len(w.slots) == cap(w.slots) {
				full = true
				break
			}
			good = append(good, w)
		}
	}
	return good, full, pending
}

// choose takes one at random among those that ask at most half again as much
// as the cheapest.
func (r *Router) choose(good []*worker, model string) *worker {
	least := ^uint64(0)
	price := func(w *worker) uint64 {
		s, _ := w.usable()
		if s == nil {
			return ^uint64(0)
		}
		p, _ := s.Price(model)
		// Which tokens count as cached or reasoning, only the worker knows.
		return max(p.Prompt, p.Cached)/2 + max(p.Completion, p.Reasoning)/2
	}
	for _, w := range good {
		least = min(least, price(w))
	}
	good = slices.DeleteFunc(good, func(w *worker) bool { p := price(w); return p > least && p-least > least/2 })
	if len(good) == 0 {
		return nil
	}
	var b [8]byte
	if _, err := io.ReadFull(r.cfg.Session.Rand, b[:]); err != nil {
		return nil
	}
	return good[binary.BigEndian.Uint64(b[:])%uint64(len(good))]
}

// poke has workers that wait between attempts try at once. It reports whether
// there are any.
func (r *Router) poke(not map[attestation.Address]bool, unpaid map[*worker]error) bool {
	any := false
	for _, w := range r.workers {
		if unpaid[w] == nil {
			any = w.hurry() || any
		}
	}
	return any
}

// none says why no worker would do.
func (r *Router) none(model string, not map[attestation.Address]bool, unpaid map[*worker]error) error {
	e := &NoWorkerError{}
	verified := 0
	for _, w := range r.workers {
		s, _ := w.usable()
		switch {
		case unpaid[w] != nil:
			verified++
			e.Err = unpaid[w]
			e.Reasons = append(e.Reasons, fmt.Sprintf("%s: %v", w.endpoint.Address, unpaid[w]))
		case s == nil:
			e.Reasons = append(e.Reasons, fmt.Sprintf("%s: %v", w.endpoint.Address, w.why()))
		case not[s.WorkerID()]:
			verified++
			e.Reasons = append(e.Reasons, w.endpoint.Address+": tried")
		default:
			if _, ok := s.Price(model); ok {
				verified++
				e.Reasons = append(e.Reasons, w.endpoint.Address+": full")
			} else if s.TooDear(model) {
				verified++
				e.Reasons = append(e.Reasons, w.endpoint.Address+": asks more than the highest price allowed")
			}
		}
	}
	if verified == 0 && len(e.Reasons) < len(r.workers) {
		return &ModelError{model}
	}
	return e
}
