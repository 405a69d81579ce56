// Package writer appends to a worker's log and signs its checkpoints.
//
// It promises that an index it returns is durable, that tiles are on disk
// before their checkpoint is signed, and that every checkpoint it signs covers
// exactly what was appended through it: it keeps its own copy of the tree's
// edge, and a host that rolls the folder back or edits it ends the log instead
// of getting a second history signed. There is one log per boot, in a folder
// and under a key of its own. It does not protect against a host that keeps
// what it was given to itself; clients' receipts and the next boot's
// predecessor entry bring that to light.
package writer

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/transparency-dev/tessera"
	"github.com/transparency-dev/tessera/storage/posix"

	"cocoon/attestation"
	"cocoon/attestation/auditlog"
)

// Intervals between checkpoints.
const (
	DefaultInterval = time.Second
	MinInterval     = 100 * time.Millisecond
)

// An entry waits at most batchAge for others to share its fsync.
const (
	batchAge  = 2 * time.Millisecond
	batchSize = 256
)

// A checkpoint that does not come within minPatience, or thirty intervals if
// that is longer, will not come: the folder takes no more.
const minPatience = 5 * time.Second

// ErrUnpublished is a checkpoint that could not be published. The log takes no more.
var ErrUnpublished = errors.New("log writer: the folder takes no checkpoint")

// ErrClosed is the error of a log that was closed.
var ErrClosed = errors.New("log writer: closed")

// Config makes a Log.
type Config struct {
	Dir      string             // the log's own folder; made if absent
	Key      ed25519.PrivateKey // the boot's log key: it signs checkpoints and nothing else
	Interval time.Duration      // between checkpoints; 0 is DefaultInterval, less than MinInterval is refused
	// Logger gets the storage's warnings; nil discards them. The storage's
	// logger belongs to the process, so that the first Open decides.
	Logger *slog.Logger
}

// Log is a log open for appending. It is safe for concurrent use.
type Log struct {
	id, public [32]byte
	dir        string
	interval   time.Duration
	appender   *tessera.Appender
	shutdown   func(context.Context) error
	cancel     context.CancelFunc
	lock       *os.File
	guard      *guard

	mu       sync.RWMutex // held for reading while an entry is handed over
	closed   bool
	inFlight sync.WaitGroup

	latestMu   sync.Mutex
	latest     []byte
	latestSize uint64
}

// Open opens or makes the log of c.Key in c.Dir. ctx bounds the opening alone.
func Open(ctx context.Context, c Config) (*Log, error) {
	if c.Interval == 0 {
		c.Interval = DefaultInterval
	}
	if c.Interval < MinInterval {
		return nil, fmt.Errorf("log writer: interval: got %s, want at least %s", c.Interval, MinInterval)
	}
	signer, err := auditlog.NoteSigner(c.Key)
	if err != nil {
		return nil, fmt.Errorf("log writer: %w", err)
	}
	quietStorage(c.Logger)
	lock, err := lockDir(c.Dir)
	if err != nil {
		return nil, err
	}
	l := &Log{dir: c.Dir, interval: c.Interval, lock: lock, guard: newGuard(), public: [32]byte(c.Key.Public().(ed25519.PublicKey))}
	l.id = attestation.LogID(l.public)
	if err := l.open(ctx, guardedSigner{signer, l.guard}, c.Interval); err != nil {
		if l.cancel != nil {
			l.cancel()
		}
		lock.Close()
		return nil, fmt.Errorf("log writer: %w", err)
	}
	return l, nil
}

func (l *Log) open(ctx context.Context, signer guardedSigner, interval time.Duration) error {
	before, err := os.ReadFile(filepath.Join(l.dir, "checkpoint"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err == nil {
		if _, err := auditlog.ParseCheckpoint(before, l.public); err != nil {
			return fmt.Errorf("%s holds another log: %w", l.dir, err)
		}
	}
	var life context.Context
	life, l.cancel = context.WithCancel(context.WithoutCancel(ctx))
	driver, err := posix.New(life, posix.Config{Path: l.dir})
	if err != nil {
		return err
	}
	opts := tessera.NewAppendOptions().
		WithCheckpointSigner(signer).
		WithCheckpointInterval(interval).
		WithCheckpointRepublishInterval(0). // an unchanged tree is signed once
		WithBatching(batchSize, batchAge)
	var reader tessera.LogReader
	if l.appender, l.shutdown, reader, err = tessera.NewAppender(life, driver, opts); err != nil {
		return err
	}
	if err := l.guard.load(ctx, reader); err != nil {
		return err
	}
	// Signed before, so it must be part of what is there now.
	raw, err := reader.ReadCheckpoint(ctx)
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	cp, err := auditlog.ParseCheckpoint(raw, l.public)
	if err != nil {
		return err
	}
	l.latest, l.latestSize = raw, cp.Size
	return l.guard.resume(cp)
}

// LogID names the log.
func (l *Log) LogID() [32]byte { return l.id }

// Append adds an entry and returns its index once it is durable. A checkpoint
// that covers it follows within the interval. If ctx ends first, the entry may
// still be added. An error other than ctx's means that the log takes no more.
func (l *Log) Append(ctx context.Context, e auditlog.Entry) (uint64, error) {
	leaf, err := auditlog.EncodeEntry(e)
	if err != nil {
		return 0, err
	}
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if err := l.guard.failed(); err != nil {
		return 0, err
	}
	type result struct {
		index uint64
		err   error
	}
	done := make(chan result, 1)
	l.mu.RLock()
	if l.closed {
		l.mu.RUnlock()
		return 0, ErrClosed
	}
	entry := tessera.NewEntry(leaf)
	future := l.appender.Add(context.WithoutCancel(ctx), entry)
	l.inFlight.Add(1)
	l.mu.RUnlock()
	go func() {
		defer l.inFlight.Done()
		i, err := future()
		if err != nil {
			err = l.guard.fail(fmt.Errorf("log writer: append: %w", err))
		} else {
			l.guard.appended(i.Index, entry.LeafHash())
		}
		done <- result{i.Index, err}
	}()
	select {
	case <-ctx.Done():
		return 0, ctx.Err()
	case r := <-done:
		return r.index, r.err
	}
}

// Checkpoint is the latest signed checkpoint. It is never empty.
func (l *Log) Checkpoint() []byte {
	raw, err := os.ReadFile(filepath.Join(l.dir, "checkpoint"))
	l.latestMu.Lock()
	defer l.latestMu.Unlock()
	if err == nil && !bytes.Equal(raw, l.latest) {
		// The host may put anything here; only what this key signed, and after the last one, is passed on.
		if cp, err := auditlog.ParseCheckpoint(raw, l.public); err == nil && cp.Size > l.latestSize {
			l.latest, l.latestSize = raw, cp.Size
		}
	}
	return bytes.Clone(l.latest)
}

// WaitCheckpoint returns a checkpoint that covers index, once there is one. One
// that does not come ends the log with ErrUnpublished.
func (l *Log) WaitCheckpoint(ctx context.Context, index uint64) ([]byte, error) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	late := time.NewTimer(max(minPatience, 30*l.interval))
	defer late.Stop()
	for {
		raw := l.Checkpoint()
		if cp, err := auditlog.ParseCheckpoint(raw, l.public); err == nil && cp.Size > index {
			return raw, nil
		}
		if err := l.guard.failed(); err != nil {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-late.C:
			return nil, l.guard.fail(fmt.Errorf("%w over index %d", ErrUnpublished, index))
		case <-tick.C:
		}
	}
}

// Close publishes a checkpoint over everything appended, and ends the log. If
// ctx ends first, what was appended stays durable without that checkpoint.
func (l *Log) Close(ctx context.Context) error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	l.mu.Unlock()
	defer l.lock.Close()
	defer l.cancel()
	l.inFlight.Wait()
	if err := l.guard.failed(); err != nil {
		return err
	}
	if n := l.guard.size(); n > 0 {
		if _, err := l.WaitCheckpoint(ctx, n-1); err != nil {
			return fmt.Errorf("log writer: last checkpoint: %w", err)
		}
	}
	return l.shutdown(ctx)
}
