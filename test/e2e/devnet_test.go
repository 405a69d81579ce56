package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"golang.org/x/sys/unix"
)

// `cocoon-devnet --ask` is the shortest way from nothing to an answer.
func TestAsk(t *testing.T) {
	for _, tee := range []string{"tdx", "snp"} {
		cmd := exec.Command(filepath.Join(bin, "cocoon-devnet"), "--tee", tee, "--ask", greedy[0].ask)
		tmp := t.TempDir()
		cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
		var stderr strings.Builder
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil || string(out) != greedy[0].answer+"\n" {
			t.Errorf("%s: got %q, %v\n%s", tee, out, err, stderr.String())
		}
		for _, h := range []string{"x-cocoon-worker: 0:", "x-cocoon-cost: ", "x-cocoon-receipt: "} {
			if !strings.Contains(stderr.String(), h) {
				t.Errorf("%s: standard error lacks %q:\n%s", tee, h, stderr.String())
			}
		}
		if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
			t.Errorf("%s: a folder was left behind: %v", tee, left)
		}
	}
}

// A port that is taken is one clear error, at once, and nothing is left.
func TestPortTaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dir := filepath.Join(t.TempDir(), "net")
	cmd := exec.Command(filepath.Join(bin, "cocoon-devnet"), "--dir", dir, "--listen", l.Addr().String())
	out, err := cmd.CombinedOutput()
	if err == nil || cmd.ProcessState.ExitCode() != 1 || !strings.Contains(string(out), "already taken") || strings.Count(string(out), "\n") != 1 {
		t.Errorf("got exit %d:\n%s", cmd.ProcessState.ExitCode(), out)
	}
	if _, err := os.Stat(filepath.Join(dir, "devnet.json")); err == nil {
		t.Error("devnet.json was written")
	}
	if _, err := os.Stat(filepath.Join(dir, "network.json")); err == nil {
		t.Error("a network was founded")
	}
}

// An interrupt ends every role.
func TestChildrenEndWithTheNetwork(t *testing.T) {
	n := start(t, t.TempDir())
	pids := n.describe().PIDs
	if len(pids) != 4 {
		t.Errorf("pids: got %v, want chain, host, worker and proxy", pids)
	}
	n.cmd.Process.Kill() // not even asked
	<-n.done
	for role, pid := range pids {
		fd, err := unix.PidfdOpen(pid, 0)
		if errors.Is(err, unix.ESRCH) {
			continue // gone already
		}
		if err != nil {
			t.Fatal(err)
		}
		// The pipe that a role holds ends with the supervisor; the descriptor is readable once it has.
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 20_000)
		unix.Close(fd)
		if err != nil || n != 1 {
			t.Errorf("%s still runs (%v)", role, err)
		}
	}
}

// One more developer, with a wallet and a channel of their own, at the same time.
func TestConnect(t *testing.T) {
	n := start(t, t.TempDir())
	cmd := exec.Command(filepath.Join(bin, "cocoon-devnet"), "connect", "--dir", n.dir, "--name", "carol")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cmd.Process.Signal(os.Interrupt); cmd.Wait() }()
	said := map[string]string{}
	for sc := bufio.NewScanner(stdout); len(said) < 2 && sc.Scan(); {
		k, v, _ := strings.Cut(sc.Text(), " ")
		said[k] = v
	}
	token, err := os.ReadFile(said["token_file"])
	if err != nil {
		t.Fatalf("%v: %v", said, err)
	}
	carol := openai.NewClient(option.WithBaseURL(said["base_url"]), option.WithAPIKey(string(token)), option.WithMaxRetries(0))
	var wg sync.WaitGroup
	for _, c := range []*openai.Client{n.client(), &carol} {
		for range 4 {
			wg.Go(func() {
				if got, err := ask(context.Background(), c, "cocoon-toy", greedy[1].ask, 64); err != nil || got.Choices[0].Message.Content != greedy[1].answer {
					t.Errorf("got %v, %v%s", got, err, detail(err))
				}
			})
		}
	}
	wg.Wait()
	n.stop() // the worker hands out its last vouchers when it ends
	n.boot()
	report, code := audit(t, n.describe())
	if code != 0 || len(report.Channels) != 2 {
		t.Errorf("audit: exit %d, %d channels, findings %s; want two channels that add up", code, len(report.Channels), report.Findings)
	}
	for _, ch := range report.Channels {
		if ch.Settled == 0 {
			t.Errorf("channel %s: nothing settled", ch.Channel)
		}
	}
}

// Any OpenAI-compatible engine serves behind the worker.
func TestEngineURL(t *testing.T) {
	stopped := make(chan struct{}, 1)
	engine := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/v1/models":
			fmt.Fprint(w, `{"object":"list","data":[{"id":"parrot-7b","object":"model","created":1,"owned_by":"x"}]}`)
		case "/v1/chat/completions":
			var body struct {
				Model    string
				Messages []struct{ Content string }
				Stream   bool
			}
			if err := json.NewDecoder(r.Body).Decode(&body); err != nil || !body.Stream || body.Model != "parrot-7b" {
				http.Error(w, `{"error":{"message":"bad"}}`, 400)
				return
			}
			w.Header().Set("Content-Type", "text/event-stream")
			if body.Messages[0].Content == "count for ever" {
				for i := range 3 {
					fmt.Fprintf(w, `data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"parrot-7b","choices":[{"index":0,"delta":{"content":"%d "},"finish_reason":null}]}`+"\n\n", i)
					w.(http.Flusher).Flush()
				}
				<-r.Context().Done() // the worker hangs up
				stopped <- struct{}{}
				return
			}
			words := strings.SplitAfter(body.Messages[len(body.Messages)-1].Content, " ")
			for i, s := range words {
				b, _ := json.Marshal(s)
				fmt.Fprintf(w, `data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"parrot-7b","choices":[{"index":0,"delta":{"content":%s},"finish_reason":null}]}`+"\n\n", b)
				if i == len(words)-1 {
					fmt.Fprint(w, `data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"parrot-7b","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}`+"\n\n")
				}
				w.(http.Flusher).Flush()
			}
			fmt.Fprintf(w, `data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"parrot-7b","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":%d,"total_tokens":%d}}`+"\n\ndata: [DONE]\n\n", len(words), 9+len(words))
		default:
			http.NotFound(w, r)
		}
	}))
	defer engine.Close()
	n := start(t, t.TempDir(), "--engine-url", engine.URL)
	got, err := ask(context.Background(), n.client(), "parrot-7b", "say this again", 64)
	if err != nil {
		t.Fatalf("%v%s", err, detail(err))
	}
	if got.Choices[0].Message.Content != "say this again" || got.Usage.PromptTokens != 9 || got.Usage.CompletionTokens != 3 {
		t.Errorf("got %q, %+v", got.Choices[0].Message.Content, got.Usage)
	}
	s := n.client().Chat.Completions.NewStreaming(context.Background(), params("parrot-7b", "and in a stream", 64))
	text := ""
	for s.Next() {
		if c := s.Current().Choices; len(c) > 0 {
			text += c[0].Delta.Content
		}
	}
	if s.Err() != nil || text != "and in a stream" {
		t.Errorf("stream: got %q, %v", text, s.Err())
	}

	// Hanging up stops the engine; what was produced is billed, and no more.
	ctx, cancel := context.WithCancel(context.Background())
	s = n.client().Chat.Completions.NewStreaming(ctx, params("parrot-7b", "count for ever", 64))
	for text = ""; text != "0 1 2 " && s.Next(); {
		if c := s.Current().Choices; len(c) > 0 {
			text += c[0].Delta.Content
		}
	}
	cancel()
	s.Close()
	<-stopped
	if _, err := ask(context.Background(), n.client(), "parrot-7b", "still there?", 64); err != nil {
		t.Errorf("after a cancellation: %v%s", err, detail(err))
	}
	var line string
	limit, cancelLimit := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancelLimit()
	for line == "" && limit.Err() == nil { // the receipt comes when the worker has settled
		list, errOut, code := cocoon(t, "receipts", "list", "--dir", filepath.Dir(n.describe().TokenFile))
		if code != 0 {
			t.Fatal(errOut)
		}
		for l := range strings.Lines(list) {
			if strings.Contains(l, "status cancelled") {
				line = l
			}
		}
	}
	if !strings.Contains(line, " completion 3 ") {
		t.Errorf("got %q, want 3 tokens billed", line)
	}
}
