package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"time"
)

// readyLine is what a role prints on its standard output once it serves.
const readyLine = "ready"

// role is one process of the network. It is this program again, with other arguments.
type role struct {
	name string
	args []string

	mu   sync.Mutex
	cmd  *exec.Cmd
	dead chan struct{} // closed when the current process has ended
}

// supervisor starts roles in order, restarts one that dies, and ends them all with itself.
type supervisor struct {
	exe     string
	roles   []*role
	onStart func() // called whenever a process id has changed
	log     io.Writer
}

// start runs a role's process and waits until it is ready. A role that ends
// before that is an error that carries its last words.
func (s *supervisor) start(ctx context.Context, r *role) error {
	cmd := exec.Command(s.exe, r.args...)
	cmd.Stderr = s.log
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	// The child reads its standard input and ends with it, so that it dies with
	// this process however this process dies.
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("%s: %w", r.name, err)
	}
	ready, dead := make(chan struct{}), make(chan struct{})
	go func() {
		sc := bufio.NewScanner(out)
		once := sync.Once{}
		for sc.Scan() {
			if sc.Text() == readyLine {
				once.Do(func() { close(ready) })
			} else {
				fmt.Fprintln(s.log, sc.Text())
			}
		}
		cmd.Wait()
		in.Close()
		close(dead)
	}()
	r.mu.Lock()
	r.cmd, r.dead = cmd, dead
	r.mu.Unlock()
	select {
	case <-ready:
		s.onStart()
		return nil
	case <-dead:
		return fmt.Errorf("%s ended before it was ready: %s", r.name, cmd.ProcessState)
	case <-ctx.Done():
		cmd.Process.Kill()
		<-dead
		return ctx.Err()
	}
}

// run starts every role, calls up, and keeps them running until ctx ends.
func (s *supervisor) run(ctx context.Context, up func() error) error {
	defer s.stop()
	for _, r := range s.roles {
		if err := s.start(ctx, r); err != nil {
			return err
		}
	}
	if err := up(); err != nil {
		return err
	}
	var wg sync.WaitGroup
	for _, r := range s.roles {
		wg.Add(1)
		go func() { defer wg.Done(); s.keep(ctx, r) }()
	}
	wg.Wait()
	return nil
}

// keep restarts a role until ctx ends, with a growing pause between tries.
func (s *supervisor) keep(ctx context.Context, r *role) {
	pause := 100 * time.Millisecond
	for {
		r.mu.Lock()
		dead := r.dead
		r.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-dead:
		}
		fmt.Fprintf(s.log, "cocoon-devnet: %s ended; starting it again\n", r.name)
		if err := s.start(ctx, r); err != nil {
			if ctx.Err() != nil {
				return
			}
			fmt.Fprintf(s.log, "cocoon-devnet: error: %v\n", err)
			select {
			case <-ctx.Done():
				return
			case <-time.After(pause):
			}
			pause = min(2*pause, 5*time.Second)
			continue
		}
		fmt.Fprintf(s.log, "cocoon-devnet: %s serves again\n", r.name)
		pause = 100 * time.Millisecond
	}
}

// stop asks the roles to end, the last started first, and kills what does not.
func (s *supervisor) stop() {
	for i := len(s.roles) - 1; i >= 0; i-- {
		r := s.roles[i]
		r.mu.Lock()
		cmd, dead := r.cmd, r.dead
		r.mu.Unlock()
		if cmd == nil {
			continue
		}
		cmd.Process.Signal(os.Interrupt)
		select {
		case <-dead:
		case <-time.After(10 * time.Second):
			cmd.Process.Kill()
			<-dead
		}
	}
}

// pids returns the live processes by role.
func (s *supervisor) pids() map[string]int {
	m := make(map[string]int, len(s.roles))
	for _, r := range s.roles {
		r.mu.Lock()
		if r.cmd != nil && r.cmd.Process != nil {
			m[r.name] = r.cmd.Process.Pid
		}
		r.mu.Unlock()
	}
	return m
}

// withParent returns a context that ends with ctx or with the supervisor.
func withParent(ctx context.Context, stdin io.Reader) context.Context {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		io.Copy(io.Discard, stdin)
		cancel(errors.New("the supervisor is gone"))
	}()
	return ctx
}
