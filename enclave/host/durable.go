package host

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// put writes a file whole: temporary name, fsync, rename, fsync of the folder.
// When it returns nil the file survives a power cut; when it does not, the old
// one does. Temporary names end in ".tmp" and are never read.
func (s *Store) put(path string, data []byte) error {
	dir := filepath.Join(s.dir, filepath.Dir(path))
	if err := s.makeDir(dir); err != nil {
		return fmt.Errorf("host store: %s: %w", path, err)
	}
	f, err := os.CreateTemp(dir, "*.tmp")
	if err != nil {
		return fmt.Errorf("host store: %s: %w", path, err)
	}
	err = func() error {
		if _, err := f.Write(data); err != nil {
			return err
		}
		return f.Sync()
	}()
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(s.dir, path))
	}
	if err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("host store: %s: %w", path, err)
	}
	if err := syncDir(dir); err != nil {
		return fmt.Errorf("host store: %s: %w", path, err)
	}
	return nil
}

// makeDir makes a folder and its parents below the store durable.
func (s *Store) makeDir(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	parent := filepath.Dir(dir)
	if dir != s.dir {
		if err := s.makeDir(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(parent)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// get reads a file of at most max bytes.
func (s *Store) get(path string, max int) ([]byte, error) {
	f, err := os.Open(filepath.Join(s.dir, path))
	if err != nil {
		return nil, fmt.Errorf("host store: %s: %w", path, cause(err))
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, int64(max)+1))
	if err != nil {
		return nil, fmt.Errorf("host store: %s: %w", path, cause(err))
	}
	if len(b) > max {
		return nil, damaged(path, fmt.Errorf("size: got more than %d bytes", max))
	}
	return b, nil
}

// cause drops the operating system's own mention of the path.
func cause(err error) error {
	if p := (*fs.PathError)(nil); errors.As(err, &p) {
		return p.Err
	}
	return err
}

// DamagedError is a file that is there and cannot be what was put.
type DamagedError struct {
	Path string // below the store's folder
	Err  error
}

func (e *DamagedError) Error() string {
	return fmt.Sprintf("host store: %s: damaged: %v", e.Path, e.Err)
}
func (e *DamagedError) Unwrap() error { return e.Err }

func damaged(path string, err error) error { return &DamagedError{filepath.ToSlash(path), err} }

// lock takes the folder for this process, until it ends or Close.
func lock(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, ".lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("host store: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("host store: %s: %w", dir, ErrLocked)
		}
		return nil, fmt.Errorf("host store: lock %s: %w", dir, err)
	}
	return f, nil
}
