package openaihttp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"cocoon/enclave/engine"

	"github.com/google/go-cmp/cmp"
)

const secret = "the prompt nobody may see"

// fake is an engine whose answers the test writes.
type fake struct {
	*httptest.Server
	mu     sync.Mutex
	bodies []map[string]any
	calls  []string
	answer func(w http.ResponseWriter, r *http.Request, body map[string]any)
}

func newFake(t *testing.T, answer func(w http.ResponseWriter, r *http.Request, body map[string]any)) *fake {
	f := &fake{answer: answer}
	f.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		f.calls = append(f.calls, r.Method+" "+r.URL.Path)
		f.mu.Unlock()
		if r.URL.Path == "/v1/models" {
			fmt.Fprint(w, `{"object":"list","data":[{"id":"m","max_model_len":4096},{"id":"other","meta":{"n_ctx_train":512}}]}`)
			return
		}
		var body map[string]any
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			t.Errorf("engine got a body that is not JSON: %v", err)
		}
		f.mu.Lock()
		f.bodies = append(f.bodies, body)
		f.mu.Unlock()
		f.answer(w, r, body)
	}))
	f.Config.ErrorLog = log.New(io.Discard, "", 0) // some handlers die on purpose
	f.Start()
	t.Cleanup(f.Close)
	return f
}

func (f *fake) open(t *testing.T, cfg Config) *Engine {
	t.Helper()
	cfg.BaseURL = f.URL
	e, err := New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

type sink struct {
	out    strings.Builder
	writes []string
	usages []engine.Usage
	grants []int
	grant  func(ctx context.Context, n int) error
	write  func(p []byte) error
}

func (s *sink) Start(int, int) error { panic("the adapter cannot know the prompt's tokens") }
func (s *sink) Grant(ctx context.Context, n int) error {
	s.grants = append(s.grants, n)
	if s.grant != nil {
		return s.grant(ctx, n)
	}
	return nil
}
func (s *sink) Write(p []byte, u engine.Usage) error {
	s.out.Write(p)
	s.writes = append(s.writes, string(p))
	s.usages = append(s.usages, u)
	if s.write != nil {
		return s.write(p)
	}
	return nil
}

func job(fields string) engine.Request {
	return engine.Request{Endpoint: engine.ChatCompletions, Model: "m", MaxTokens: 1000, CacheSalt: "salt",
		Body: []byte(`{"model":"x","cache_salt":"stolen","messages":[{"role":"user","content":"` + secret + `"}]` + fields + `}`)}
}

const (
	roleEvent   = `data: {"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}` + "\n\n"
	finishEvent = `data: {"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}` + "\n\n"
	usageEvent  = `data: {"id":"c","object":"chat.completion.chunk","choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10,"prompt_tokens_details":{"cached_tokens":4}}}` + "\n\n"
	doneEvent   = "data: [DONE]\n\n"
)

func textEvent(s string) string {
	b, _ := json.Marshal(s)
	return `data: {"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":` + string(b) + `},"finish_reason":null}]}` + "\n\n"
}

// says answers with the given pieces, flushed one by one.
func says(pieces ...string) func(http.ResponseWriter, *http.Request, map[string]any) {
	return func(w http.ResponseWriter, _ *http.Request, _ map[string]any) {
		w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		for _, p := range pieces {
			io.WriteString(w, p)
			w.(http.Flusher).Flush()
		}
	}
}

var wantUsage = engine.Usage{Prompt: 7, Cached: 4, Completion: 3}

func TestStream(t *testing.T) {
	hello := roleEvent + textEvent("He") + textEvent(`llo "usage":{`) + textEvent("!") + finishEvent
	whole := hello + usageEvent + doneEvent
	cut := len(hello) / 2
	for _, c := range []struct {
		name   string
		fields string
		pieces []string
		want   string
	}{
		{"usage asked for", `,"stream":true,"stream_options":{"include_usage":true}`, []string{whole}, whole},
		{"usage not asked for", `,"stream":true`, []string{whole}, hello + doneEvent},
		{"events split between reads", `,"stream":true`, []string{whole[:cut], whole[cut : cut+1], whole[cut+1:]}, hello + doneEvent},
		{"carriage returns and comments", `,"stream":true`, []string{": ping\n\n", strings.ReplaceAll(whole, "\n", "\r\n")}, strings.ReplaceAll(hello, "\n", "\r\n") + doneEvent},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := newFake(t, says(c.pieces...)).open(t, Config{})
			var s sink
			res, err := e.Run(t.Context(), job(c.fields), &s)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, s.out.String()); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(engine.Result{Usage: wantUsage, FinishReason: "stop"}, res); diff != "" {
				t.Error(diff)
			}
			for _, w := range s.writes {
				if !strings.HasSuffix(strings.ReplaceAll(w, "\r", ""), "\n\n") {
					t.Errorf("a write ends inside an event: %q", w)
				}
			}
			if got := s.usages[len(s.usages)-1]; got != wantUsage {
				t.Errorf("last usage: got %+v, want %+v", got, wantUsage)
			}
		})
	}
}

func TestWholeDocument(t *testing.T) {
	tool := func(s string) string {
		return `data: {"id":"c","object":"chat.completion.chunk","created":5,"model":"m","choices":[{"index":0,"delta":{"tool_calls":[` + s + `]},"finish_reason":null}]}` + "\n\n"
	}
	f := newFake(t, says(roleEvent, textEvent("Hel"), textEvent("lo <b>"),
		tool(`{"index":0,"id":"call_1","type":"function","function":{"name":"f","arguments":""}}`),
		tool(`{"index":0,"function":{"arguments":"{\"a\":"}}`), tool(`{"index":0,"function":{"arguments":"1}"}}`),
		strings.Replace(finishEvent, "stop", "tool_calls", 1), usageEvent, doneEvent))
	var s sink
	res, err := f.open(t, Config{}).Run(t.Context(), job(""), &s)
	if err != nil {
		t.Fatal(err)
	}
	if res.FinishReason != "tool_calls" || res.Usage != wantUsage {
		t.Errorf("got %+v", res)
	}
	var got, want any
	if err := json.Unmarshal([]byte(s.out.String()), &got); err != nil {
		t.Fatalf("%v: %s", err, s.out.String())
	}
	json.Unmarshal([]byte(`{"id":"c","object":"chat.completion","created":5,"model":"m","choices":[{"index":0,"logprobs":null,"finish_reason":"tool_calls",
		"message":{"role":"assistant","content":"Hello <b>","tool_calls":[{"id":"call_1","type":"function","function":{"name":"f","arguments":"{\"a\":1}"}}]}}],
		"usage":{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10,"prompt_tokens_details":{"cached_tokens":4}}}`), &want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	progress := 0
	for _, u := range s.usages {
		progress = max(progress, u.Completion)
	}
	if len(s.writes) < 2 || progress < 3 {
		t.Errorf("got %d writes up to %d tokens, want the count to move before the end", len(s.writes), progress)
	}
}

func TestBodyIsOverwritten(t *testing.T) {
	for _, c := range []struct {
		name   string
		cfg    Config
		fields string
		want   map[string]any
	}{
		{"salt", Config{CacheSalt: true}, `,"stream":false`, map[string]any{"cache_salt": "salt", "max_tokens": 1000.0, "max_completion_tokens": 1000.0}},
		{"no salt", Config{}, `,"max_tokens":5`, map[string]any{"max_tokens": 5.0, "max_completion_tokens": 5.0}},
		{"ceiling", Config{}, `,"max_completion_tokens":5000`, map[string]any{"max_tokens": 1000.0, "max_completion_tokens": 1000.0}},
		{"choices share it", Config{}, `,"n":4`, map[string]any{"n": 4.0, "max_tokens": 250.0, "max_completion_tokens": 250.0}},
		{"stream options", Config{}, `,"stream":true,"stream_options":{"include_usage":false,"continuous_usage_stats":true}`, map[string]any{"max_tokens": 1000.0, "max_completion_tokens": 1000.0}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFake(t, says(roleEvent+textEvent("x")+finishEvent+usageEvent+doneEvent))
			if _, err := f.open(t, c.cfg).Run(t.Context(), job(c.fields), &sink{}); err != nil {
				t.Fatal(err)
			}
			c.want["model"], c.want["stream"] = "m", true
			if !c.cfg.CacheSalt { // nothing may be shared that no salt keeps apart
				c.want["cache_prompt"] = false
			}
			c.want["stream_options"] = map[string]any{"include_usage": true}
			c.want["messages"] = []any{map[string]any{"role": "user", "content": secret}}
			if diff := cmp.Diff(c.want, f.bodies[0]); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff([]string{"GET /v1/models", "POST /v1/chat/completions"}, f.calls); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestEngineFailures(t *testing.T) {
	start := roleEvent + textEvent("a")
	for name, answer := range map[string]func(http.ResponseWriter, *http.Request, map[string]any){
		"ends without [DONE]": says(start + finishEvent + usageEvent),
		"dies inside an event": func(w http.ResponseWriter, r *http.Request, b map[string]any) {
			says(start+`data: {"id`)(w, r, b)
			panic(http.ErrAbortHandler)
		},
		"dies at once":       func(http.ResponseWriter, *http.Request, map[string]any) { panic(http.ErrAbortHandler) },
		"error in the midst": says(start, `data: {"error":{"message":"`+secret+`","code":500}}`+"\n\n", doneEvent),
		"older error":        says(start, `data: {"object": "error", "message":"`+secret+`"}`+"\n\n", doneEvent),
		"error line":         says(start, `error: {"message":"`+secret+`"}`+"\n\n", doneEvent),
		"gave up":            says(start, strings.Replace(finishEvent, "stop", "abort", 1), usageEvent, doneEvent),
		"no usage":           says(start + finishEvent + doneEvent),
		"no finish":          says(start + usageEvent + doneEvent),
		"usage over ceiling": says(start, finishEvent, strings.Replace(usageEvent, `"completion_tokens":3`, `"completion_tokens":1001`, 1), doneEvent),
		"negative usage":     says(start, finishEvent, strings.Replace(usageEvent, `"prompt_tokens":7`, `"prompt_tokens":-7`, 1), doneEvent),
		"endless event":      says(start, "data: {"+strings.Repeat("x", maxEvent+1)),
		"500":                fails(500, `{"error":{"message":"`+secret+`"}}`),
		"503 loading":        fails(503, `{"error":{"message":"Loading model","type":"unavailable_error","code":503}}`),
		"401":                fails(401, `{"error":"key"}`),
		"404":                fails(404, `{"error":{"message":"model"}}`),
		"not a stream":       func(w http.ResponseWriter, _ *http.Request, _ map[string]any) { fmt.Fprint(w, `{}`) },
		"redirect": func(w http.ResponseWriter, r *http.Request, _ map[string]any) {
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t, answer)
			e := f.open(t, Config{})
			for _, stream := range []string{`,"stream":true`, ""} {
				_, err := e.Run(t.Context(), job(stream), &sink{})
				var re *engine.RequestError
				if !errors.Is(err, ErrEngine) || errors.As(err, &re) {
					t.Errorf("stream %q: got %v, want ErrEngine", stream, err)
				}
				if err != nil && strings.Contains(err.Error(), secret) {
					t.Errorf("the error quotes the prompt: %v", err)
				}
			}
			f.mu.Lock()
			defer f.mu.Unlock()
			for _, c := range f.calls {
				if strings.HasSuffix(c, "/elsewhere") {
					t.Error("followed a redirect")
				}
			}
		})
	}
}

func fails(status int, body string) func(http.ResponseWriter, *http.Request, map[string]any) {
	return func(w http.ResponseWriter, _ *http.Request, _ map[string]any) {
		w.WriteHeader(status)
		io.WriteString(w, body)
	}
}

func TestRequestErrors(t *testing.T) {
	long := engine.RequestError{Status: 400, Type: "invalid_request_error", Code: "context_length_exceeded", Param: "messages", Message: "messages: longer than this model's context"}
	plain := engine.RequestError{Status: 400, Type: "invalid_request_error", Message: "the engine refused the request"}
	for _, c := range []struct {
		name, body string
		status     int
		want       engine.RequestError
	}{
		{"vLLM length", `{"error":{"message":"This model's maximum context length is 4096 tokens. However, you requested ` + secret + `","type":"BadRequestError","param":null,"code":400}}`, 400, long},
		{"llama-server length", `{"error":{"code":400,"message":"the request exceeds the available context size","type":"exceed_context_size_error","n_ctx":4}}`, 400, long},
		{"OpenAI length", `{"error":{"message":"x","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}}`, 400, long},
		{"old vLLM, flat", `{"object":"error","message":"` + secret + `","type":"BadRequestError","param":"top_p","code":400}`, 400,
			engine.RequestError{Status: 400, Type: "invalid_request_error", Param: "top_p", Message: "the engine refused a field of the request"}},
		{"a field the client did not send", `{"error":{"message":"` + secret + `","param":"` + secret + `"}}`, 422, plain},
		{"not JSON", secret, 400, plain},
		{"busy", `{"error":{"message":"` + secret + `"}}`, 429, engine.RequestError{Status: 429, Type: "rate_limit_error", Code: "engine_overloaded", Message: "the engine's queue is full"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := newFake(t, fails(c.status, c.body)).open(t, Config{})
			_, err := e.Run(t.Context(), job(`,"top_p":2`), &sink{})
			var re *engine.RequestError
			if !errors.As(err, &re) {
				t.Fatalf("got %v, want a RequestError", err)
			}
			if diff := cmp.Diff(c.want, *re); diff != "" {
				t.Error(diff)
			}
			if errors.Is(err, ErrEngine) {
				t.Error("a RequestError is not the engine's failure")
			}
		})
	}
	e := newFake(t, fails(500, "")).open(t, Config{})
	for name, body := range map[string]string{"not JSON": `{"messages":` + secret, "null": "null", "stream": `{"stream":"` + secret + `"}`, "n": `{"n":5000}`, "max": `{"max_tokens":0}`, "options": `{"stream_options":{}}`} {
		r := job("")
		r.Body = []byte(body)
		_, err := e.Run(t.Context(), r, &sink{})
		var re *engine.RequestError
		if !errors.As(err, &re) || re.Status != 400 || strings.Contains(re.Message, secret) {
			t.Errorf("%s: got %v, want a 400 RequestError without the prompt", name, err)
		}
	}
}

// TestSlowCredit: the engine is far ahead; the sink pays for what it has seen.
func TestSlowCredit(t *testing.T) {
	const tokens = 600
	var all strings.Builder
	all.WriteString(roleEvent)
	for range tokens {
		all.WriteString(textEvent("x"))
	}
	all.WriteString(finishEvent + strings.Replace(usageEvent, `"completion_tokens":3`, fmt.Sprintf(`"completion_tokens":%d`, tokens), 1) + doneEvent)
	f := newFake(t, says(all.String()))
	var s sink
	seen, paid := 0, 256
	s.write = func(p []byte) error {
		seen += strings.Count(string(p), `"content":"x"`)
		if seen > paid {
			return fmt.Errorf("got %d tokens, paid for %d", seen, paid)
		}
		for seen > paid-128 { // as a client would, from what it sees
			paid += 256
		}
		return nil
	}
	s.grant = func(_ context.Context, n int) error {
		if n > paid {
			return fmt.Errorf("would wait for token %d with %d paid and %d seen", n, paid, seen)
		}
		return nil
	}
	res, err := f.open(t, Config{}).Run(t.Context(), job(`,"stream":true`), &s)
	if err != nil {
		t.Fatal(err)
	}
	if seen != tokens || res.Usage.Completion != tokens {
		t.Errorf("got %d tokens and usage %+v, want %d", seen, res.Usage, tokens)
	}
}

func TestCancelReachesTheEngine(t *testing.T) {
	for name, stop := range map[string]func(cancel context.CancelFunc, s *sink){
		"client leaves": func(cancel context.CancelFunc, s *sink) {
			s.write = func([]byte) error { cancel(); return nil }
		},
		"sink fails": func(_ context.CancelFunc, s *sink) {
			s.write = func([]byte) error { return io.ErrClosedPipe }
		},
		"no credit": func(cancel context.CancelFunc, s *sink) {
			s.grant = func(ctx context.Context, n int) error {
				if n < 2 {
					return nil
				}
				cancel()
				<-ctx.Done()
				return ctx.Err()
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			gone := make(chan struct{})
			f := newFake(t, func(w http.ResponseWriter, r *http.Request, b map[string]any) {
				says(roleEvent+textEvent("a"))(w, r, b)
				<-r.Context().Done()
				close(gone)
			})
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var s sink
			stop(cancel, &s)
			res, err := f.open(t, Config{}).Run(ctx, job(`,"stream":true`), &s)
			<-gone
			if name == "sink fails" {
				if !errors.Is(err, io.ErrClosedPipe) {
					t.Errorf("got %v, want the sink's error", err)
				}
			} else if !errors.Is(err, context.Canceled) || res.FinishReason != "cancelled" {
				t.Errorf("got %+v, %v; want cancelled", res, err)
			}
		})
	}
}

func TestNew(t *testing.T) {
	f := newFake(t, nil)
	e := f.open(t, Config{})
	if diff := cmp.Diff([]engine.Model{{Name: "m", WeightsRoot: "unmeasured", ContextTokens: 4096}, {Name: "other", WeightsRoot: "unmeasured", ContextTokens: 512}}, e.Models()); diff != "" {
		t.Error(diff)
	}
	e = f.open(t, Config{Models: []string{"m"}, WeightsRoot: "verity-sha256:00", ContextTokens: 100})
	if diff := cmp.Diff([]engine.Model{{Name: "m", WeightsRoot: "verity-sha256:00", ContextTokens: 100}}, e.Models()); diff != "" {
		t.Error(diff)
	}
	if _, err := New(t.Context(), Config{BaseURL: f.URL, Models: []string{"none"}}); err == nil {
		t.Error("a model that the engine lacks: got no error")
	}
	for _, bad := range []string{"", "ftp://h", "http://u:p@h", "http://h/path", "http://h?q=1", "http://h#f", "http://", "\x00"} {
		if _, err := New(t.Context(), Config{BaseURL: bad}); err == nil {
			t.Errorf("base URL %q: got no error", bad)
		}
	}
	for _, bad := range []string{"", "[]", `{"data":[]}`, `{"data":[{"id":"a"}]}`, `{"data":[{"id":"","max_model_len":1}]}`, `{"data":[{"id":"a","max_model_len":1},{"id":"a","max_model_len":1}]}`} {
		if _, err := parseModels([]byte(bad), Config{}); err == nil {
			t.Errorf("model list %q: got no error", bad)
		}
	}
}

func TestProxyVariablesAreIgnored(t *testing.T) {
	c := plainClient(&http.Client{Transport: http.DefaultTransport})
	if tr := c.Transport.(*http.Transport); tr.Proxy != nil {
		t.Error("a proxy function is set")
	}
	if http.DefaultTransport.(*http.Transport).Proxy == nil {
		t.Error("the caller's transport was changed")
	}
}

// FuzzStream: whatever an engine sends, what is passed on is whole events and
// an end is never invented.
func FuzzStream(f *testing.F) {
	whole := roleEvent + textEvent("a") + finishEvent + usageEvent + doneEvent
	for _, s := range []string{"", whole, strings.ReplaceAll(whole, "\n", "\r\n"), whole[:len(whole)/2], "data: {\"error\"\n\n", ":\n\n\n\n" + whole, "data:\n\n"} {
		f.Add([]byte(s), true)
		f.Add([]byte(s), false)
	}
	f.Fuzz(func(t *testing.T, b []byte, stream bool) {
		var s sink
		a := &answer{sink: &s, stream: stream, limit: 100}
		err := a.read(t.Context(), strings.NewReader(string(b)))
		if err == nil && (!a.stated || a.finish == "" || !a.done) {
			t.Fatal("took an incomplete answer for complete")
		}
		if stream && err != nil && strings.Contains(s.out.String(), "data: [DONE]") {
			t.Fatal("an answer that failed was ended")
		}
		if !stream && err == nil && !json.Valid([]byte(s.out.String())) {
			t.Fatalf("not JSON: %q", s.out.String())
		}
	})
}
