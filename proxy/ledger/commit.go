package ledger

import (
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"time"
)

// linger is how long a write that nobody waits for lies in the queue, so that
// others share its commit.
const linger = 10 * time.Millisecond

// ErrStopped is every write's error after Close, or after a commit failed:
// what the disk holds is then unknown, so nothing more may be signed.
var ErrStopped = errors.New("ledger: stopped")

// tx is one transaction. Statements are prepared once.
type tx interface {
	Exec(query string, args ...any) (sql.Result, error)
}

// write is one change that waits for its commit. done is closed after err is set.
type write struct {
	apply func(tx) error
	done  chan struct{}
	err   error
}

// wait blocks until the write is on disk.
func (w *write) wait() error {
	<-w.done
	return w.err
}

// failed is why the write will never be on disk, if that is known by now.
func (w *write) failed() error {
	select {
	case <-w.done:
		return w.err
	default:
		return nil
	}
}

// committer applies writes in the order they were queued. All that wait when
// a commit begins share its one fsync.
type committer struct {
	db    *sql.DB
	stmts map[string]*sql.Stmt // run's alone; nil until prepared
	wake  chan struct{} // holds one token while there is something to do
	ended chan struct{}

	mu      sync.Mutex
	queue   []*write
	soon    bool // a timer will rouse it
	failed  error
	closing bool
}

func newCommitter(db *sql.DB) *committer {
	c := &committer{db: db, stmts: map[string]*sql.Stmt{}, wake: make(chan struct{}, 1), ended: make(chan struct{})}
	go c.run()
	return c
}

// put queues a change that is committed at once, and does not wait for it.
func (c *committer) put(apply func(tx) error) *write { return c.add(apply, true) }

// later queues a change that may linger. Whoever waits for it may have to.
func (c *committer) later(apply func(tx) error) *write { return c.add(apply, false) }

func (c *committer) add(apply func(tx) error, now bool) *write {
	w := &write{apply: apply, done: make(chan struct{})}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.failed != nil:
		w.err = c.failed
	case c.closing:
		w.err = ErrStopped
	default:
		c.queue = append(c.queue, w)
		if now {
			c.rouse()
		} else if !c.soon {
			c.soon = true
			time.AfterFunc(linger, func() {
				c.mu.Lock()
				defer c.mu.Unlock()
				c.soon = false
				c.rouse()
			})
		}
		return w
	}
	close(w.done)
	return w
}

// rouse never blocks. The caller holds mu.
func (c *committer) rouse() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *committer) run() {
	defer close(c.ended)
	for range c.wake {
		c.mu.Lock()
		batch, closing, err := c.queue, c.closing, c.failed
		c.queue = nil
		c.mu.Unlock()
		if err == nil && len(batch) > 0 {
			if err = c.commit(batch); err != nil {
				err = fmt.Errorf("%w: %w", ErrStopped, err)
				c.mu.Lock()
				c.failed = err
				c.mu.Unlock()
			}
		}
		for _, w := range batch {
			w.err = err
			close(w.done)
		}
		if closing {
			return
		}
	}
}

func (c *committer) commit(batch []*write) error {
	t, err := c.db.Begin()
	if err != nil {
		return err
	}
	p := prepared{c, t}
	for _, w := range batch {
		if err := w.apply(p); err != nil {
			return errors.Join(err, t.Rollback())
		}
	}
	if err := t.Commit(); err != nil {
		return err
	}
	return c.prepare()
}

// prepare readies the statements that were met for the first time.
func (c *committer) prepare() error {
	for query, s := range c.stmts {
		if s != nil {
			continue
		}
		s, err := c.db.Prepare(query)
		if err != nil {
			return err
		}
		c.stmts[query] = s
	}
	return nil
}

// prepared is a transaction of the committer's one connection.
type prepared struct {
	c *committer
	t *sql.Tx
}

func (p prepared) Exec(query string, args ...any) (sql.Result, error) {
	if s := p.c.stmts[query]; s != nil {
		return p.t.Stmt(s).Exec(args...)
	}
	p.c.stmts[query] = nil // until after the commit: the connection is taken
	return p.t.Exec(query, args...)
}

// close commits what is queued and ends.
func (c *committer) close() {
	c.mu.Lock()
	c.closing = true
	c.rouse()
	c.mu.Unlock()
	<-c.ended
	for _, s := range c.stmts {
		if s != nil {
			s.Close()
		}
	}
}
