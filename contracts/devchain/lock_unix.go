//go:build unix

package devchain

import (
	"fmt"
	"os"
	"syscall"
)

// lock keeps a second process off the journal; the kernel lifts it when the
// first one ends, however it does.
func lock(f *os.File) error {
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return fmt.Errorf("in use by another process: %w", err)
	}
	return nil
}
