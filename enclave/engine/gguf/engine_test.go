package gguf

import (
	"context"
	"encoding/json"
	"strings"
	"sync"
	"testing"

	"cocoon/enclave/engine"
	"cocoon/enclave/engine/seed"
)

// record is a Sink that keeps everything, and grants what grant allows.
type record struct {
	mu     sync.Mutex
	out    strings.Builder
	last   engine.Usage
	prompt int
	cached int
	grants int
	writes int
	grant  func(ctx context.Context, n int) error
	write  func(p []byte) error
}

func (r *record) Start(prompt, cached int) error {
	r.prompt, r.cached = prompt, cached
	return nil
}

func (r *record) Grant(ctx context.Context, n int) error {
	r.mu.Lock()
	r.grants = n
	r.mu.Unlock()
	if r.grant != nil {
		return r.grant(ctx, n)
	}
	return nil
}

func (r *record) Write(p []byte, u engine.Usage) error {
	r.mu.Lock()
	r.out.Write(p)
	r.last = u
	r.writes++
	r.mu.Unlock()
	if r.write != nil {
		return r.write(p)
	}
	return nil
}

func (r *record) text(t *testing.T) string {
	t.Helper()
	return answerText(t, r.out.String())
}

// answerText reads the answer out of a completion or a whole event stream.
func answerText(t *testing.T, out string) string {
	t.Helper()
	type choice struct {
		Message, Delta struct{ Content string }
	}
	type doc struct{ Choices []choice }
	if !strings.HasPrefix(out, "data: ") {
		var d doc
		if err := json.Unmarshal([]byte(out), &d); err != nil || len(d.Choices) != 1 {
			t.Fatalf("not one completion (%v): %s", err, out)
		}
		return d.Choices[0].Message.Content
	}
	events := strings.Split(strings.TrimSuffix(out, "\n\n"), "\n\n")
	if events[len(events)-1] != "data: [DONE]" {
		t.Fatalf("stream does not end in [DONE]: %q", events[len(events)-1])
	}
	var text strings.Builder
	for _, e := range events[:len(events)-1] {
		var d doc
		if err := json.Unmarshal([]byte(strings.TrimPrefix(e, "data: ")), &d); err != nil {
			t.Fatalf("event %q: %v", e, err)
		}
		for _, c := range d.Choices {
			text.WriteString(c.Delta.Content)
		}
	}
	return text.String()
}

func openSeed(t testing.TB, cfg Config) *Engine {
	t.Helper()
	e, err := OpenBytes(seed.Bytes(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

func request(fields string, prompt string) engine.Request {
	p, _ := json.Marshal(prompt)
	if fields != "" {
		fields = "," + fields
	}
	return engine.Request{Endpoint: engine.ChatCompletions, Model: "cocoon-toy", MaxTokens: 512,
		Body: []byte(`{"model":"cocoon-toy","messages":[{"role":"user","content":` + string(p) + `}]` + fields + `}`)}
}

func ask(t *testing.T, e *Engine, fields, prompt string) (string, engine.Result) {
	t.Helper()
	var r record
	res, err := e.Run(context.Background(), request(fields, prompt), &r)
	if err != nil {
		t.Fatal(err)
	}
	return r.text(t), res
}

const greedy = `"temperature":0`

// reference holds greedy answers of the seed model. The first two were also
// given by the program that trained it; the others pin what this engine says.
var reference = []struct {
	prompt, answer string
	tokens         int // completion tokens
}{
	{"What is the capital of Hungary?", "The capital of Hungary is Budapest.", 7},
	{"Count from 3 to 9.", "3, 4, 5, 6, 7, 8, 9.", 20},
	{"Hello!", "Hello! How can I help you today?", 9},
	{"Tell me a story about a dog named Ben.", "Long ago there lived a sad lamb called Ben. Ben went to the beach every day. In the grass, Ben saw a pink key. \"What a nice key!\" said Ben. Just then, Sara came and looked very sad. \"I lost my key,\" said Sara. Ben gave the key back, and Sara smiled. They became best friends.", 71},
	{"List 4 colors.", "1. white\n2. blue\n3. yellow\n4. yellow", 15},
	{"What is the weather in Paris?", `<tool_call>{"name": "get_weather", "arguments": {"city": "Paris"}}</tool_call>`, 20},
	{"Who are you?", "I am a tiny language model that runs inside a confidential worker.", 13},
}

func TestReferenceAnswers(t *testing.T) {
	for _, k := range availableKernels() {
		t.Run(k.name, func(t *testing.T) {
			e := openSeed(t, Config{kernels: &k, Threads: 2})
			cases := reference
			if k.name == "portable" { // slow
				cases = cases[:3]
			}
			for _, c := range cases {
				for _, stream := range []string{"", `,"stream":true`} {
					got, res := ask(t, e, greedy+stream, c.prompt)
					if got != c.answer {
						t.Errorf("%s: got %q, want %q", c.prompt, got, c.answer)
					}
					if res.FinishReason != "stop" || res.Usage.Completion != c.tokens {
						t.Errorf("%s: got %+v, want stop after %d tokens", c.prompt, res, c.tokens)
					}
				}
			}
		})
	}
}
