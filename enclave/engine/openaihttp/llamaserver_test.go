package openaihttp_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"cocoon/enclave/engine"
	"cocoon/enclave/engine/gguf"
	"cocoon/enclave/engine/openaihttp"
	"cocoon/enclave/engine/seed"
)

type plain struct{ strings.Builder }

func (*plain) Start(int, int) error { return nil }

func (*plain) Grant(context.Context, int) error { return nil }

func (p *plain) Write(b []byte, _ engine.Usage) error {
	p.Builder.Write(b)
	return nil
}

// TestAgainstLlamaServer compares the embedded engine with a llama-server that
// has the seed model loaded, through this adapter. Counts must agree exactly;
// greedy texts nearly always, for the two round differently.
func TestAgainstLlamaServer(t *testing.T) {
	url := os.Getenv("COCOON_LLAMA_SERVER")
	if url == "" {
		t.Skip("COCOON_LLAMA_SERVER is not set: the adapter was NOT tested against a real engine")
	}
	theirs, err := openaihttp.New(t.Context(), openaihttp.Config{BaseURL: url})
	if err != nil {
		t.Fatal(err)
	}
	ours, err := gguf.OpenBytes(seed.Bytes(), gguf.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	run := func(e engine.Engine, prompt string, stream bool) (string, engine.Result) {
		body, _ := json.Marshal(map[string]any{"messages": []map[string]string{{"role": "user", "content": prompt}}, "temperature": 0, "stream": stream})
		var out plain
		res, err := e.Run(t.Context(), engine.Request{Endpoint: engine.ChatCompletions, Model: e.Models()[0].Name, MaxTokens: 120, Body: body}, &out)
		if err != nil {
			t.Fatal(err)
		}
		return text(t, out.String(), stream), res
	}
	long, _ := json.Marshal(map[string]any{"messages": []map[string]string{{"role": "user", "content": strings.Repeat("dog ", 2000)}}})
	for _, e := range []engine.Engine{ours, theirs} {
		_, err := e.Run(t.Context(), engine.Request{Endpoint: engine.ChatCompletions, Model: e.Models()[0].Name, MaxTokens: 5, Body: long}, &plain{})
		var re *engine.RequestError
		if !errors.As(err, &re) || re.Code != "context_length_exceeded" {
			t.Errorf("a prompt beyond the context: got %v, want context_length_exceeded", err)
		}
	}
	same, all := 0, 0
	for _, prompt := range []string{"Hello!", "Who are you?", "What can you do?", "Count from 3 to 9.", "List 4 colors.", "What is the capital of Hungary?", "What is the capital of Japan?",
		"What is the weather in Paris?", "Tell me a story about a dog named Ben.", "Tell me a story about Lily in the park.", "Define the word \"house\".", "Repeat after me: zebra crossing", "Ünïcödé 日本語 👍?", " two  spaces\n\tand a tab "} {
		for _, stream := range []bool{false, true} {
			a, ar := run(ours, prompt, stream)
			b, br := run(theirs, prompt, stream)
			all++
			if ar.Usage.Prompt != br.Usage.Prompt {
				t.Errorf("%q: prompt: got %d tokens, llama-server counts %d", prompt, ar.Usage.Prompt, br.Usage.Prompt)
			}
			if a == b {
				same++
				if ar.FinishReason != br.FinishReason {
					t.Errorf("%q: finish reason: got %s, llama-server says %s", prompt, ar.FinishReason, br.FinishReason)
				}
				t.Logf("%q: same, completion tokens %d and %d", prompt, ar.Usage.Completion, br.Usage.Completion)
			} else {
				t.Logf("%q:\n ours   %q\n theirs %q", prompt, a, b)
			}
		}
	}
	if same*4 < all*3 {
		t.Errorf("got %d of %d answers alike, want three quarters", same, all)
	}
}

func text(t *testing.T, out string, stream bool) string {
	t.Helper()
	type doc struct {
		Choices []struct{ Message, Delta struct{ Content string } }
	}
	var d doc
	if !stream {
		if err := json.Unmarshal([]byte(out), &d); err != nil || len(d.Choices) != 1 {
			t.Fatalf("not one completion (%v): %s", err, out)
		}
		return d.Choices[0].Message.Content
	}
	var b strings.Builder
	for _, ev := range strings.Split(strings.TrimSuffix(out, "data: [DONE]\n\n"), "\n\n") {
		if ev == "" {
			continue
		}
		d = doc{}
		if err := json.Unmarshal([]byte(strings.TrimPrefix(ev, "data: ")), &d); err != nil {
			t.Fatal(fmt.Errorf("%q: %w", ev, err))
		}
		for _, c := range d.Choices {
			b.WriteString(c.Delta.Content)
		}
	}
	return b.String()
}
