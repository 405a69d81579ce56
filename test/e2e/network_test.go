// Package e2e drives whole networks, as processes, through the interfaces
// that their users have.
package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
)

var bin string // folder of the built commands

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "cocoon-e2e-")
	if err == nil {
		err = readCommands()
	}
	if err == nil {
		bin = dir
		out, berr := exec.Command("go", "build", "-o", dir+string(filepath.Separator), "cocoon/cmd/...").CombinedOutput()
		if err = berr; err != nil {
			fmt.Fprintf(os.Stderr, "%s", out)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e: cannot build the commands:", err)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// network is a running cocoon-devnet.
type network struct {
	t    *testing.T
	cmd  *exec.Cmd
	dir  string
	args []string
	done chan struct{}

	mu    sync.Mutex
	lines []string      // what it said on standard error
	more  chan struct{} // closed and replaced at each line
}

// description is devnet.json.
type description struct {
	BaseURL   string         `json:"base_url"`
	TokenFile string         `json:"token_file"`
	PIDs      map[string]int `json:"pids"`
	TONConfig string         `json:"ton_config"`
	Registry  string         `json:"registry"`
	Log       string         `json:"log"`
	Worker    string         `json:"worker"`
	WorkerID  string         `json:"worker_id"`
	TestRoots string         `json:"test_roots"`
	Rebuilder string         `json:"rebuilder"`
}

// start brings a network up in dir and waits until it says that it is.
func start(t *testing.T, dir string, args ...string) *network {
	t.Helper()
	n := &network{t: t, dir: dir, args: append([]string{"--dir", dir, "--listen", "127.0.0.1:0"}, args...)}
	n.boot()
	t.Cleanup(n.stop)
	return n
}

func (n *network) boot() {
	n.t.Helper()
	n.cmd = exec.Command(filepath.Join(bin, "cocoon-devnet"), n.args...)
	stderr, err := n.cmd.StderrPipe()
	if err != nil {
		n.t.Fatal(err)
	}
	if err := n.cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	n.mu.Lock()
	n.lines, n.more = nil, make(chan struct{})
	n.mu.Unlock()
	n.done = make(chan struct{})
	go func(cmd *exec.Cmd, done chan struct{}) {
		sc := bufio.NewScanner(stderr)
		for sc.Scan() {
			n.mu.Lock()
			n.lines = append(n.lines, sc.Text())
			close(n.more)
			n.more = make(chan struct{})
			n.mu.Unlock()
		}
		cmd.Wait()
		close(done)
	}(n.cmd, n.done)
	n.await("The network is up", 1)
}

// await waits until what was said holds s n times. It returns where the n-th stood.
func (n *network) await(s string, times int) {
	n.t.Helper()
	limit := time.NewTimer(90 * time.Second)
	defer limit.Stop()
	for {
		n.mu.Lock()
		count := 0
		for _, l := range n.lines {
			if strings.Contains(l, s) {
				count++
			}
		}
		more := n.more
		n.mu.Unlock()
		if count >= times {
			return
		}
		select {
		case <-more:
		case <-n.done:
			n.t.Fatalf("the network ended before it said %q %d times:\n%s", s, times, n.said())
		case <-limit.C:
			n.t.Fatalf("the network did not say %q %d times:\n%s", s, times, n.said())
		}
	}
}

func (n *network) said() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return strings.Join(n.lines, "\n")
}

func (n *network) stop() {
	n.cmd.Process.Signal(syscall.SIGINT)
	select {
	case <-n.done:
	case <-time.After(30 * time.Second):
		n.cmd.Process.Kill()
		<-n.done
		n.t.Errorf("the network did not end when interrupted:\n%s", n.said())
	}
}

func (n *network) describe() description {
	n.t.Helper()
	b, err := os.ReadFile(filepath.Join(n.dir, "devnet.json"))
	if err != nil {
		n.t.Fatal(err)
	}
	var d description
	if err := json.Unmarshal(b, &d); err != nil {
		n.t.Fatal(err)
	}
	return d
}

// kill ends a role as a power cut would, and waits until it serves again.
func (n *network) kill(role string) {
	n.t.Helper()
	n.mu.Lock()
	before := 0
	for _, l := range n.lines {
		if strings.Contains(l, role+" serves again") {
			before++
		}
	}
	n.mu.Unlock()
	if err := syscall.Kill(n.describe().PIDs[role], syscall.SIGKILL); err != nil {
		n.t.Fatal(err)
	}
	n.await(role+" serves again", before+1)
}

func (n *network) client() *openai.Client {
	n.t.Helper()
	d := n.describe()
	token, err := os.ReadFile(d.TokenFile)
	if err != nil {
		n.t.Fatal(err)
	}
	c := openai.NewClient(option.WithBaseURL(d.BaseURL), option.WithAPIKey(strings.TrimSpace(string(token))), option.WithMaxRetries(0))
	return &c
}

// ask returns a greedy answer.
func ask(ctx context.Context, c *openai.Client, model, text string, maxTokens int64) (*openai.ChatCompletion, error) {
	return c.Chat.Completions.New(ctx, params(model, text, maxTokens))
}

func params(model, text string, maxTokens int64) openai.ChatCompletionNewParams {
	return openai.ChatCompletionNewParams{
		Model: model, Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage(text)},
		Temperature: openai.Float(0), MaxCompletionTokens: openai.Int(maxTokens),
	}
}

// cocoon runs the production command line and returns what it said and how it ended.
func cocoon(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, errOut strings.Builder
	cmd := exec.Command(filepath.Join(bin, "cocoon"), args...)
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	if _, ok := err.(*exec.ExitError); err != nil && !ok {
		t.Fatal(err)
	}
	return out.String(), errOut.String(), cmd.ProcessState.ExitCode()
}

// detail is an API error's own words.
func detail(err error) string {
	var e *openai.Error
	if errors.As(err, &e) {
		return ": " + e.Message
	}
	return ""
}
