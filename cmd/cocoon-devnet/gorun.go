package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"
)

// withGoRun returns a context that ends when `go run`, if that started this
// program, is gone: it passes no signal on, so killing it would leave a network
// behind that nobody knows of.
func withGoRun(ctx context.Context) context.Context {
	parent := os.Getppid()
	comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", parent))
	if err != nil || strings.TrimSpace(string(comm)) != "go" {
		return ctx
	}
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		tick := time.NewTicker(500 * time.Millisecond)
		defer tick.Stop()
		for os.Getppid() == parent {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
		cancel()
	}()
	return ctx
}
