package ledger

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	_ "modernc.org/sqlite" // the driver "sqlite"

	"cocoon/attestation"
)

// ErrLocked says that another process holds the ledger.
var ErrLocked = errors.New("ledger: in use by another process")

// Names of the files in a ledger's folder.
const (
	fileName = "ledger.db"
	lockName = "ledger.lock"
)

// Config opens a ledger. Every field is needed.
type Config struct {
	Dir  string           // made with mode 0700 if it is not there
	Now  func() time.Time // the clock
	Rand io.Reader        // source of keys
}

// Ledger is an open ledger. It is safe for concurrent use.
type Ledger struct {
	cfg    Config
	lock   *os.File
	write  *sql.DB // one connection, the committer's
	read   *sql.DB
	commit *committer
	secret [32]byte

	mu      sync.Mutex
	signers map[attestation.Address]*Signer
}

// Open opens or makes the ledger in c.Dir and locks it. It returns ErrLocked
// while another process has it, and refuses a folder that others may enter.
func Open(c Config) (*Ledger, error) {
	if c.Dir == "" || c.Now == nil || c.Rand == nil {
		return nil, fmt.Errorf("ledger: config: want dir, now and rand")
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("ledger: %w", err)
	}
	if info, err := os.Stat(c.Dir); err != nil {
		return nil, fmt.Errorf("ledger: %w", err)
	} else if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("ledger: %s: mode: got %#o, want 0700: it will hold keys", c.Dir, info.Mode().Perm())
	}
	lock, err := lockFile(filepath.Join(c.Dir, lockName))
	if err != nil {
		return nil, err
	}
	l := &Ledger{cfg: c, lock: lock, signers: map[attestation.Address]*Signer{}}
	if err := l.open(); err != nil {
		l.closeFiles()
		return nil, fmt.Errorf("ledger: %w", err)
	}
	l.commit = newCommitter(l.write)
	return l, nil
}

func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("ledger: %w", err)
	}
	switch err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); {
	case errors.Is(err, unix.EWOULDBLOCK):
		f.Close()
		return nil, fmt.Errorf("%w: %s", ErrLocked, path)
	case err != nil:
		f.Close()
		return nil, fmt.Errorf("ledger: lock %s: %w", path, err)
	}
	return f, nil
}

func (l *Ledger) open() error {
	path := filepath.Join(l.cfg.Dir, fileName)
	// SQLite gives its journal the mode of the file, so the file comes first.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Chmod(0o600), f.Close()); err != nil {
		return err
	}
	if l.write, err = openSQLite(path, "_txlock=immediate&_pragma=synchronous(FULL)"); err != nil {
		return err
	}
	l.write.SetMaxOpenConns(1)
	if err := migrate(l.write); err != nil {
		return err
	}
	if err := l.loadSecret(); err != nil {
		return fmt.Errorf("master secret: %w", err)
	}
	if err := syncDir(l.cfg.Dir); err != nil {
		return err
	}
	l.read, err = openSQLite(path, "_pragma=query_only(1)")
	return err
}

func openSQLite(path, options string) (*sql.DB, error) {
	dsn := "file:" + (&url.URL{Path: path}).EscapedPath() + "?_pragma=journal_mode(WAL)&_pragma=busy_timeout(10000)&" + options
	db, err := sql.Open("sqlite", dsn)
	if err != nil {
		return nil, err
	}
	if err := db.Ping(); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

// syncDir makes the files' names durable, too.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (l *Ledger) loadSecret() error {
	var b []byte
	err := l.write.QueryRow("SELECT value FROM meta WHERE key = 'secret'").Scan(&b)
	if errors.Is(err, sql.ErrNoRows) {
		if _, err := io.ReadFull(l.cfg.Rand, l.secret[:]); err != nil {
			return err
		}
		_, err := l.write.Exec("INSERT INTO meta (key, value) VALUES ('secret', ?)", l.secret[:])
		return err
	}
	if err == nil && len(b) != len(l.secret) {
		err = fmt.Errorf("got %d bytes, want %d", len(b), len(l.secret))
	}
	copy(l.secret[:], b)
	return err
}

// Close commits what is queued and releases the lock. Later writes return ErrStopped.
func (l *Ledger) Close() error {
	l.commit.close()
	return l.closeFiles()
}

func (l *Ledger) closeFiles() error {
	var errs []error
	for _, db := range []*sql.DB{l.read, l.write} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	return errors.Join(append(errs, l.lock.Close())...)
}

// Flush blocks until everything that was queued before it is on disk.
func (l *Ledger) Flush(ctx context.Context) error {
	w := l.commit.put(func(*sql.Tx) error { return nil })
	select {
	case <-w.done:
		return w.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// BlindingKey is the key of a job's commitments. It is derived, so that a
// receipt's text can be shown to match years later without a stored key.
func (l *Ledger) BlindingKey(jobID [16]byte) [32]byte { return l.derive("cocoon/blind/v1", jobID[:]) }

// CacheSalt is the client's part of the engine's cache salt for one API key.
// It is random to everyone else and the same from one request to the next.
func (l *Ledger) CacheSalt(apiKey string) [32]byte {
	return l.derive("cocoon/cache-salt/v1", []byte(apiKey))
}

func (l *Ledger) derive(label string, data []byte) [32]byte {
	h := hmac.New(sha256.New, l.secret[:])
	h.Write([]byte(label))
	h.Write(data)
	return [32]byte(h.Sum(nil))
}
