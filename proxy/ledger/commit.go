package ledger

import (
	"database/sql"
	"errors"
	"fmt"
	"sync"
)

// ErrStopped is every write's error after Close, or after a commit failed:
// what the disk holds is then unknown, so nothing more may be signed.
var ErrStopped = errors.New("ledger: stopped")

// write is one change that waits for its commit. done is closed after err is set.
type write struct {
	apply func(*sql.Tx) error
	done  chan struct{}
	err   error
}

// wait blocks until the write is on disk.
func (w *write) wait() error {
	<-w.done
	return w.err
}

// committer applies writes in the order they were queued. All that wait when
// a commit begins share its one fsync.
type committer struct {
	db    *sql.DB
	wake  chan struct{} // holds one token while there is something to do
	ended chan struct{}

	mu      sync.Mutex
	queue   []*write
	failed  error
	closing bool
}

func newCommitter(db *sql.DB) *committer {
	c := &committer{db: db, wake: make(chan struct{}, 1), ended: make(chan struct{})}
	go c.run()
	return c
}

// put queues a change and does not wait for it.
func (c *committer) put(apply func(*sql.Tx) error) *write {
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
		c.rouse()
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
	tx, err := c.db.Begin()
	if err != nil {
		return err
	}
	for _, w := range batch {
		if err := w.apply(tx); err != nil {
			return errors.Join(err, tx.Rollback())
		}
	}
	return tx.Commit()
}

// close commits what is queued and ends.
func (c *committer) close() {
	c.mu.Lock()
	c.closing = true
	c.rouse()
	c.mu.Unlock()
	<-c.ended
}
