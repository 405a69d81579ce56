package main

import (
	"fmt"
	"runtime/debug"

	"golang.org/x/sys/unix"
)

// keepMemory keeps what is in memory from leaving it when the program dies: no
// core file, no debugger, and no arguments of functions in a panic's trace,
// which goes to the host's console.
func keepMemory() error {
	debug.SetTraceback("none")
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("core file limit: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("dumpable: %w", err)
	}
	return nil
}
