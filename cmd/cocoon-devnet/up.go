package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"cocoon/enclave/engine/seed"
)

// up brings the network up and keeps it until ctx ends, or until the question was answered.
func up(ctx context.Context, opt options, stdout, stderr io.Writer) error {
	if opt.dir == "" {
		dir, err := os.MkdirTemp("", "cocoon-devnet-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		opt.dir = dir
	}
	abs, err := filepath.Abs(opt.dir)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(abs, 0o700); err != nil {
		return err
	}
	d := layout(abs)
	unlock, err := lock(d.path("lock"))
	if err != nil {
		return err
	}
	defer unlock()
	os.Remove(d.devnetJSON())
	if opt.ask != "" && !opt.listenGiven {
		opt.listen = "127.0.0.1:0"
	}
	if opt.listen, err = portIsFree(opt.listen); err != nil {
		return err
	}
	n, err := open(d, opt)
	if err != nil {
		return err
	}
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	s := &supervisor{exe: exe, log: stderr, onStart: func() {}}
	for _, name := range []string{"chain", "host", "worker"} {
		s.roles = append(s.roles, &role{name: name, args: []string{"role", name, "--dir", string(d)}})
	}
	s.roles = append(s.roles, &role{name: "proxy", args: []string{"role", "proxy", "--dir", string(d), "--listen", opt.listen, "--name", "default"}})

	describe := func() error {
		return writeJSON(d.devnetJSON(), devnet{
			BaseURL: "http://" + opt.listen + "/v1", TokenFile: filepath.Join(d.client("default"), "token"), PIDs: s.pids(),
			TONConfig: d.tonConfig(), Registry: n.Registry.String(), Log: d.hostStore(), LogURL: "http://" + n.HostAddr,
			Worker: n.WorkerAddr, WorkerID: n.WorkerID.String(), TestRoots: d.testRoots(), Rebuilder: fmt.Sprintf("%x", n.Rebuilder), GlobalID: n.GlobalID, Dir: string(d),
		})
	}
	ctx, done := context.WithCancel(ctx)
	defer done()
	var answer error
	err = s.run(ctx, func() error {
		s.onStart = func() {
			if err := describe(); err != nil {
				fmt.Fprintln(stderr, "cocoon-devnet: error:", err)
			}
		}
		if err := describe(); err != nil {
			return err
		}
		if opt.ask != "" {
			answer = ask(ctx, d, opt.ask, stdout, stderr)
			done()
			return nil
		}
		welcome(stderr, d, n, opt.listen)
		return nil
	})
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	return errors.Join(err, answer)
}

func welcome(w io.Writer, d layout, n *network, listen string) {
	toy := ""
	if n.EngineURL == "" && n.Models[0].File == "" {
		toy = "\nThe model is a toy of " + fmt.Sprintf("%.1f", float64(len(seed.Bytes()))/1e6) + " MB that really runs; --model FILE or --engine-url URL serves another."
	}
	fmt.Fprintf(w, `The network is up. Point any OpenAI SDK at it:

  export OPENAI_BASE_URL=http://%s/v1
  export OPENAI_API_KEY=$(cat %s)

  curl -N $OPENAI_BASE_URL/chat/completions -H "Authorization: Bearer $OPENAI_API_KEY" -H "Content-Type: application/json" \
    -d '{"model":"%s","stream":true,"messages":[{"role":"user","content":"What is the capital of Hungary?"}]}'
%s
Everything about it is in %s. Interrupt to end.
`, listen, filepath.Join(d.client("default"), "token"), n.Models[0].Name, toy, d.devnetJSON())
}

// portIsFree resolves port 0, and says early and clearly that a port is taken.
func portIsFree(addr string) (string, error) {
	l, err := net.Listen("tcp", addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		return "", fmt.Errorf("--listen %s: the port is already taken; give another, or 127.0.0.1:0 for any", addr)
	}
	if err != nil {
		return "", fmt.Errorf("--listen %s: %w", addr, err)
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// lock makes the folder one supervisor's.
func lock(path string) (func(), error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: another cocoon-devnet runs in this folder", filepath.Dir(path))
	}
	return func() { f.Close() }, nil
}
