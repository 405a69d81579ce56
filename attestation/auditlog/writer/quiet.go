package writer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"k8s.io/klog/v2"
)

// once guards the storage's logger, which is a variable of the process.
var once sync.Once

// quietStorage sends the storage's warnings to log, and nothing to the
// process's own streams.
func quietStorage(log *slog.Logger) {
	once.Do(func() {
		var h slog.Handler = slog.DiscardHandler
		if log != nil {
			h = log.Handler()
		}
		klog.SetSlogLogger(slog.New(warnings{h}))
	})
}

// warnings passes on what is at least a warning.
type warnings struct{ slog.Handler }

func (w warnings) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= slog.LevelWarn && w.Handler.Enabled(ctx, l)
}

func (w warnings) WithAttrs(a []slog.Attr) slog.Handler { return warnings{w.Handler.WithAttrs(a)} }
func (w warnings) WithGroup(g string) slog.Handler      { return warnings{w.Handler.WithGroup(g)} }

// lockDir makes the folder and takes its lock, which ends with the process.
func lockDir(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("log writer: %w", err)
	}
	parent := filepath.Dir(filepath.Clean(dir))
	if err := errors.Join(syncDir(parent), syncDir(filepath.Dir(parent))); err != nil { // the folders' own names must last, too
		return nil, fmt.Errorf("log writer: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, ".lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("log writer: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("log writer: %s is open in another process", dir)
		}
		return nil, fmt.Errorf("log writer: lock %s: %w", dir, err)
	}
	return f, nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
