package refusals

import (
	"sync"
	"testing"
	"time"
)

// clock is everybody's: it stands still until a test moves it.
type clock struct {
	mu     sync.Mutex
	cond   *sync.Cond
	now    time.Time
	timers map[*timer]bool
}

type timer struct {
	d    time.Duration
	at   time.Time
	ch   chan time.Time
	tick bool
}

func newClock(now time.Time) *clock {
	c := &clock{now: now, timers: map[*timer]bool{}}
	c.cond = sync.NewCond(&c.mu)
	return c
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Timer(d time.Duration) (<-chan time.Time, func() bool) { return c.add(d, false) }
func (c *clock) Tick(d time.Duration) (<-chan time.Time, func() bool)  { return c.add(d, true) }

func (c *clock) add(d time.Duration, tick bool) (<-chan time.Time, func() bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := &timer{d: d, at: c.now.Add(d), ch: make(chan time.Time, 1), tick: tick}
	if d <= 0 {
		t.ch <- c.now
	} else {
		c.timers[t] = true
	}
	c.cond.Broadcast()
	return t.ch, func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		_, ok := c.timers[t]
		delete(c.timers, t)
		return ok
	}
}

// await waits until so many wait for exactly d.
func (c *clock) await(t testing.TB, d time.Duration, many int) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	awaitOn(t, c.cond, d.String()+" to be waited for", func() bool {
		n := 0
		for t := range c.timers {
			if t.d == d {
				n++
			}
		}
		return n >= many
	})
}

// patience is how long something that must come may take on a slow machine.
const patience = 20 * time.Second

// awaitOn waits until ok holds, and fails the test when it does not come to
// hold. The caller holds cond's lock, and whoever may change ok broadcasts.
func awaitOn(t testing.TB, cond *sync.Cond, what string, ok func() bool) {
	t.Helper()
	late := false
	fuse := time.AfterFunc(patience, func() {
		cond.L.Lock()
		defer cond.L.Unlock()
		late = true
		cond.Broadcast()
	})
	defer fuse.Stop()
	for !ok() {
		if late {
			t.Fatalf("waited %s for %s", patience, what)
		}
		cond.Wait()
	}
}

func (c *clock) set(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = now
}

// fire delivers what is due.
func (c *clock) fire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for t := range c.timers {
		if t.at.After(c.now) {
			continue
		}
		select {
		case t.ch <- c.now:
		default:
		}
		if t.tick {
			t.at = c.now.Add(t.d)
		} else {
			delete(c.timers, t)
		}
	}
}
