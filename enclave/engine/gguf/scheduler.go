package gguf

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

// ErrClosed is what Run returns once the engine is closed.
var ErrClosed = errors.New("gguf: engine closed")

const (
	maxRows = 128 // most tokens computed in one step
	minRows = 8   // fewest that a step is cut down to

	// stepTime is what a step should take at most: it bounds how long a
	// decoding sequence waits behind somebody else's prefill.
	stepTime = 30 * time.Millisecond

	// linger is how long a step waits for sequences that were in the last
	// one, so that a batch stays together. One that waits longer, for its
	// sink, loses its place until it asks again.
	linger = 200 * time.Microsecond
)

// sequence is one answer under way. Its Run and the scheduler own it in turn:
// the scheduler from submit until it signals ready.
type sequence struct {
	ctx    context.Context
	cache  *cache
	feed   []int32       // tokens to compute next
	logits []float32     // the next token's, once ready
	ready  chan struct{} // capacity 1
	free   func()        // gives the cache back; called once

	mu      sync.Mutex
	held    bool // by the scheduler
	dropped bool // Run has left

	// The scheduler's own.
	fed    int  // tokens of feed in this step
	waited bool // the next step waits for it
}

// scheduler computes one step after another, each a batch of every sequence
// that has tokens to feed.
type scheduler struct {
	*runner
	now    func() time.Time
	submit chan *sequence
	stop   chan struct{}
	ended  chan struct{}

	active []*sequence // held, in order of arrival
	budget int         // rows per step
}

func newScheduler(r *runner, sequences int, now func() time.Time) *scheduler {
	s := &scheduler{
		runner: r, now: now, budget: maxRows,
		// A sequence has at most one submission and one departure pending.
		submit: make(chan *sequence, 2*sequences),
		stop:   make(chan struct{}), ended: make(chan struct{}),
	}
	go s.loop()
	return s
}

// step feeds tokens and waits for the logits that follow them. If it returns
// an error the sequence has left and its cache is no longer the caller's.
func (s *scheduler) step(q *sequence, feed []int32) error {
	q.feed, q.held = feed, true
	select {
	case s.submit <- q:
		select {
		case <-q.ready:
			return nil
		case <-q.ctx.Done():
		case <-s.ended:
		}
	case <-q.ctx.Done():
		q.held = false
	case <-s.ended:
		q.held = false
	}
	s.leave(q)
	if err := q.ctx.Err(); err != nil {
		return err
	}
	return ErrClosed
}

// leave gives up a sequence. Where the scheduler holds it, its cache is freed
// when the step that uses it ends.
func (s *scheduler) leave(q *sequence) {
	q.mu.Lock()
	q.dropped = true
	held := q.held
	q.mu.Unlock()
	if held {
		return
	}
	q.free()
	select {
	case s.submit <- nil: // wakes a step that lingers for it
	default:
	}
}

func (s *scheduler) loop() {
	defer close(s.ended)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	var last []*sequence // of the last step, until they come back
	var batch []row
	for {
		if len(s.active) == 0 {
			select {
			case q := <-s.submit:
				s.take(q)
			case <-s.stop:
				return
			}
		}
		last = s.gather(last, timer)
		select {
		case <-s.stop:
			return
		default:
		}
		s.active = slices.DeleteFunc(s.active, s.expired)
		if len(s.active) == 0 {
			continue
		}
		batch = s.batch(batch[:0])
		start := s.now()
		if !s.forward(batch, s.deserted) {
			for i := len(batch) - 1; i >= 0; i-- { // these were not computed
				batch[i].c.tokens = batch[i].c.tokens[:batch[i].pos]
			}
			continue
		}
		if took := s.now().Sub(start); took > 0 {
			s.budget = min(maxRows, max(minRows, int(int64(len(batch))*int64(stepTime)/int64(took))))
		}
		last = s.settle(last[:0])
	}
}

func (s *scheduler) take(q *sequence) {
	if q != nil {
		q.waited = false
		s.active = append(s.active, q)
	}
}

// gather takes what was submitted, and waits a little for the last step's.
func (s *scheduler) gather(last []*sequence, timer *time.Timer) []*sequence {
	timer.Reset(linger)
	for {
		select {
		case q := <-s.submit:
			s.take(q)
			continue
		default:
		}
		if !slices.ContainsFunc(last, func(q *sequence) bool {
			q.mu.Lock()
			defer q.mu.Unlock()
			return q.waited && !q.dropped
		}) {
			return last[:0]
		}
		select {
		case q := <-s.submit:
			s.take(q)
		case <-timer.C:
			for _, q := range last {
				q.waited = false
			}
			return last[:0]
		case <-s.stop:
			return last[:0]
		}
	}
}

// expired lets go of a sequence whose Run has left or will.
func (s *scheduler) expired(q *sequence) bool {
	if q.ctx.Err() == nil {
		return false
	}
	q.mu.Lock()
	q.held = false
	dropped := q.dropped
	q.mu.Unlock()
	if dropped {
		q.free()
	}
	return true
}

// deserted reports that no sequence of the step has anyone waiting.
func (s *scheduler) deserted() bool {
	for _, q := range s.active {
		if q.ctx.Err() == nil {
			return false
		}
	}
	return true
}

// batch picks the next step's rows: first the sequences that decode, then
// prompts in order of arrival, while the budget lasts.
func (s *scheduler) batch(rows []row) []row {
	for _, q := range s.active {
		if q.fed = 0; len(q.feed) == 1 {
			rows = s.add(rows, q, 1)
		}
	}
	room := min(maxRows-len(rows), max(s.budget-len(rows), minRows))
	for _, q := range s.active {
		if n := min(room, len(q.feed)); q.fed == 0 && n > 0 {
			rows = s.add(rows, q, n)
			room -= n
		}
	}
	return rows
}

// add appends q's next n tokens.
func (s *scheduler) add(rows []row, q *sequence, n int) []row {
	c := q.cache
	for i, token := range q.feed[:n] {
		pos := len(c.tokens)
		if pos == len(c.blocks)*blockTokens {
			c.blocks = append(c.blocks, make([]float32, s.blockFloats()))
		}
		c.tokens = append(c.tokens, token)
		r := row{c: c, pos: pos, token: token}
		if i == len(q.feed)-1 {
			r.logits = q.logits
		}
		rows = append(rows, r)
	}
	q.fed = n
	return rows
}

// settle hands back the sequences that are wholly fed, appending them to last.
func (s *scheduler) settle(last []*sequence) []*sequence {
	s.active = slices.DeleteFunc(s.active, func(q *sequence) bool {
		if q.feed = q.feed[q.fed:]; len(q.feed) > 0 {
			return false
		}
		q.mu.Lock()
		q.held = false
		dropped := q.dropped
		q.mu.Unlock()
		if dropped {
			q.free()
			return true
		}
		q.waited = true
		last = append(last, q)
		q.ready <- struct{}{}
		return true
	})
	return last
}
