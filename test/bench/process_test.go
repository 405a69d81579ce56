package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// roleEnv names the role of a process, and argsEnv its arguments as JSON.
const (
	roleEnv = "COCOON_BENCH_ROLE"
	argsEnv = "COCOON_BENCH_ARGS"
)

// usage is what a process has used so far.
type usage struct {
	CPU time.Duration `json:"cpu"`
	RSS int64         `json:"rss"` // bytes now
}

// child is the process's own side. It serves until its standard input ends.
type child struct {
	ctx   context.Context
	ready func(addr string)
	tell  func(key, value string) // takes what the parent sets; replaced before ready
}

func (c *child) args(v any) error { return json.Unmarshal([]byte(os.Getenv(argsEnv)), v) }

func runRole(role func(*child) error) error {
	if role == nil {
		return errors.New("no such role")
	}
	ctx, cancel := context.WithCancel(context.Background())
	c := &child{ctx: ctx, ready: func(addr string) { fmt.Printf("ready %s\n", addr) }}
	c.tell = func(key, value string) {}
	done := make(chan error, 1)
	go func() { done <- role(c) }()
	go func() {
		defer cancel()
		in := bufio.NewScanner(os.Stdin)
		for in.Scan() {
			key, value, _ := strings.Cut(in.Text(), " ")
			switch key {
			case "usage":
				b, _ := json.Marshal(used())
				fmt.Printf("usage %s\n", b)
			case "trim":
				debug.FreeOSMemory()
				fmt.Println("ok")
			case "profile":
				f, err := os.Create(value)
				if err == nil {
					err = pprof.StartCPUProfile(f)
				}
				fmt.Println("ok", err)
			case "profiled":
				pprof.StopCPUProfile()
				fmt.Println("ok")
			default:
				c.tell(key, value)
				fmt.Println("ok")
			}
		}
	}()
	return <-done
}

func used() usage {
	var r syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &r)
	u := usage{CPU: time.Duration(r.Utime.Nano() + r.Stime.Nano())}
	b, _ := os.ReadFile("/proc/self/statm")
	if f := strings.Fields(string(b)); len(f) > 1 {
		n, _ := strconv.ParseInt(f[1], 10, 64)
		u.RSS = n * int64(os.Getpagesize())
	}
	return u
}

// process is one that the benchmark started: this program again.
type process struct {
	tb   testing.TB
	name string
	addr string
	in   io.WriteCloser
	out  *bufio.Scanner
	mu   sync.Mutex
}

// start runs a role until the test's end.
func start(tb testing.TB, name string, args any) *process {
	tb.Helper()
	if runtime.GOOS != "linux" {
		tb.Skip("processes are measured through /proc")
	}
	b, err := json.Marshal(args)
	if err != nil {
		tb.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		tb.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), roleEnv+"="+name, argsEnv+"="+string(b))
	cmd.Stderr = os.Stderr
	p := &process{tb: tb, name: name}
	if p.in, err = cmd.StdinPipe(); err != nil {
		tb.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	p.out = bufio.NewScanner(out)
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		p.in.Close()
		if err := cmd.Wait(); err != nil {
			tb.Errorf("%s: %v", name, err)
		}
	})
	if !p.out.Scan() {
		tb.Fatalf("%s: ended before it was ready", name)
	}
	p.addr = strings.TrimPrefix(p.out.Text(), "ready ")
	return p
}

// ask sends one line and returns the answer's.
func (p *process) ask(line string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, err := fmt.Fprintln(p.in, line); err != nil {
		p.tb.Fatalf("%s: %v", p.name, err)
	}
	if !p.out.Scan() {
		p.tb.Fatalf("%s: ended", p.name)
	}
	return p.out.Text()
}

func (p *process) used() usage {
	var u usage
	if err := json.Unmarshal([]byte(strings.TrimPrefix(p.ask("usage"), "usage ")), &u); err != nil {
		p.tb.Fatalf("%s: usage: %v", p.name, err)
	}
	return u
}

// profiled profiles the processes while f runs, if -profiles asks for it.
func profiled(b testing.TB, f func(), list ...*process) {
	if *profiles == "" {
		f()
		return
	}
	if err := os.MkdirAll(*profiles, 0o755); err != nil {
		b.Fatal(err)
	}
	cell := strings.ReplaceAll(strings.TrimPrefix(b.Name(), "Benchmark"), "/", "-")
	for _, p := range list {
		path, err := filepath.Abs(filepath.Join(*profiles, cell+"-"+p.name+".pprof"))
		if err != nil {
			b.Fatal(err)
		}
		p.ask("profile " + path)
		defer p.ask("profiled")
	}
	f()
}
