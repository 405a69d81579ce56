package gguf

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"cocoon/enclave/engine"

	"github.com/google/go-cmp/cmp"
)

const story = "Tell me a story about a dog named Ben."

// endless keeps the toy from ending its turn.
const endless = `"temperature":0,"logit_bias":{"4":-100,"2":-100}`

func TestBatchChangesNothing(t *testing.T) {
	e := openSeed(t, Config{MaxSequences: 5, MaxQueue: 100, Threads: 2})
	sampled := make(map[string]string)
	for i := range 4 {
		fields := fmt.Sprintf(`"temperature":1.2,"top_p":0.9,"seed":%d`, i)
		sampled[fields], _ = ask(t, e, fields, story)
	}
	if sampled[`"temperature":1.2,"top_p":0.9,"seed":0`] == sampled[`"temperature":1.2,"top_p":0.9,"seed":1`] {
		t.Error("two seeds gave one answer")
	}
	var wg sync.WaitGroup
	check := func(fields, prompt, want string) {
		wg.Go(func() {
			var r record
			if _, err := e.Run(t.Context(), request(fields, prompt), &r); err != nil {
				t.Error(err)
			} else if got := answerText(t, r.out.String()); got != want {
				t.Errorf("%s in a batch: got %q, want %q", prompt, got, want)
			}
		})
	}
	for range 3 {
		for _, c := range reference {
			check(greedy, c.prompt, c.answer)
		}
		for fields, want := range sampled {
			check(fields, story, want)
		}
	}
	wg.Wait()
}

func TestUsageIsTheTokenizersCount(t *testing.T) {
	e := openSeed(t, Config{})
	for _, c := range reference {
		req := request(greedy+`,"stream":true,"stream_options":{"include_usage":true}`, c.prompt)
		var r record
		res, err := e.Run(t.Context(), req, &r)
		if err != nil {
			t.Fatal(err)
		}
		prompt, err := e.CountChatTokens(req.Body)
		if err != nil {
			t.Fatal(err)
		}
		want := engine.Usage{Prompt: prompt, Completion: len(e.tok.encode(nil, c.answer))}
		if res.Usage != want || r.last != want || r.prompt != prompt {
			t.Errorf("%s: got result %+v, last write %+v, start %d; want %+v", c.prompt, res.Usage, r.last, r.prompt, want)
		}
		events := strings.Split(r.out.String(), "\n\n")
		var chunk struct {
			Object  string
			Choices []any
			Usage   map[string]any
		}
		if err := json.Unmarshal([]byte(strings.TrimPrefix(events[len(events)-3], "data: ")), &chunk); err != nil {
			t.Fatal(err)
		}
		if len(chunk.Choices) != 0 || chunk.Usage["prompt_tokens"] != float64(want.Prompt) || chunk.Usage["completion_tokens"] != float64(want.Completion) || chunk.Usage["total_tokens"] != float64(want.Prompt+want.Completion) {
			t.Errorf("usage chunk: got %+v, want %+v", chunk, want)
		}
	}
}

func TestShapeOfAnswers(t *testing.T) {
	e := openSeed(t, Config{Clock: func() time.Time { return time.Unix(1700000000, 0) }, Random: bytes.NewReader(make([]byte, 1000))})
	var r record
	if _, err := e.Run(t.Context(), request(greedy+`,"stream":true,"max_tokens":2`, "Hello!"), &r); err != nil {
		t.Fatal(err)
	}
	head := `data: {"id":"chatcmpl-00000000000000000000000000000000","object":"chat.completion.chunk","created":1700000000,"model":"cocoon-toy","choices":[{"index":0,"delta":{`
	want := head + `"role":"assistant","content":"","refusal":null},"logprobs":null,"finish_reason":null}]}` + "\n\n" +
		head + `"content":"Hello"},"logprobs":null,"finish_reason":null}]}` + "\n\n" +
		head + `"content":"!"},"logprobs":null,"finish_reason":null}]}` + "\n\n" +
		head + `},"logprobs":null,"finish_reason":"length"}]}` + "\n\ndata: [DONE]\n\n"
	if diff := cmp.Diff(want, r.out.String()); diff != "" {
		t.Error(diff)
	}
	r = record{}
	if _, err := e.Run(t.Context(), request(greedy, "Hello!"), &r); err != nil {
		t.Fatal(err)
	}
	want = `{"id":"chatcmpl-00000000000000000000000000000000","object":"chat.completion","created":1700000000,"model":"cocoon-toy","choices":[{"index":0,"message":{"role":"assistant","content":"Hello! How can I help you today?","refusal":null},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":14,"completion_tokens":9,"total_tokens":23,"prompt_tokens_details":{"cached_tokens":0},"completion_tokens_details":{"reasoning_tokens":0}}}`
	if diff := cmp.Diff(want, r.out.String()); diff != "" {
		t.Error(diff)
	}
	if r.writes < 9 {
		t.Errorf("got %d writes, want the count to move with the answer", r.writes)
	}
}

func TestLimitsAndStops(t *testing.T) {
	e := openSeed(t, Config{})
	const full = "Hello! How can I help you today?"
	for _, c := range []struct {
		fields string
		max    int
		want   string
		finish string
		tokens int
	}{
		{``, 512, full, "stop", 9},
		{`,"max_tokens":3`, 512, "Hello! How", "length", 3},
		{`,"max_completion_tokens":2,"max_tokens":9`, 512, "Hello!", "length", 2},
		{``, 3, "Hello! How", "length", 3},
		{`,"max_tokens":9`, 512, full, "length", 9},
		{`,"stop":"help"`, 512, "Hello! How can I ", "stop", 6},
		{`,"stop":"n I h"`, 512, "Hello! How ca", "stop", 6}, // across tokens
		{`,"stop":["zzz","day?","you t"]`, 512, "Hello! How can I help ", "stop", 8},
		{`,"stop":"Hello"`, 512, "", "stop", 1},
		{`,"stop":"day?!"`, 512, full, "stop", 9}, // held back, never completed
		{`,"stop":["today?","?"]`, 512, "Hello! How can I help you ", "stop", 9},
	} {
		for _, stream := range []string{"", `,"stream":true`} {
			req := request(greedy+c.fields+stream, "Hello!")
			req.MaxTokens = c.max
			var r record
			res, err := e.Run(t.Context(), req, &r)
			if err != nil {
				t.Fatal(err)
			}
			if got := r.text(t); got != c.want || res.FinishReason != c.finish || res.Usage.Completion != c.tokens {
				t.Errorf("%s: got %q, %+v; want %q, %s after %d", c.fields, got, res, c.want, c.finish, c.tokens)
			}
			if r.grants < res.Usage.Completion {
				t.Errorf("%s: %d tokens of %d were granted", c.fields, r.grants, res.Usage.Completion)
			}
		}
	}
	// The context ends an answer, too.
	req := request(endless, story)
	req.MaxTokens = 1 << 20
	var r record
	res, err := e.Run(t.Context(), req, &r)
	if err != nil || res.FinishReason != "length" || res.Usage.Prompt+res.Usage.Completion != 1024 {
		t.Errorf("at the end of the context: got %+v, %v", res, err)
	}
}

// blocked returns a grant that waits at token n until ctx ends, and a channel
// that is closed when it does.
func blocked(at int) (func(context.Context, int) error, chan struct{}) {
	reached := make(chan struct{})
	return func(ctx context.Context, n int) error {
		if n < at {
			return nil
		}
		close(reached)
		<-ctx.Done()
		return ctx.Err()
	}, reached
}

func TestCancel(t *testing.T) {
	e := openSeed(t, Config{MaxSequences: 2, Threads: 2})
	t.Run("waiting for a grant", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var r record
		var reached chan struct{}
		r.grant, reached = blocked(5)
		go func() { <-reached; cancel() }()
		res, err := e.Run(ctx, request(endless, story), &r)
		if !errors.Is(err, context.Canceled) || res.FinishReason != "cancelled" || res.Usage.Completion != 4 {
			t.Errorf("got %+v, %v; want cancelled after 4 tokens", res, err)
		}
	})
	t.Run("in a step", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		r := record{write: func([]byte) error { cancel(); return nil }}
		res, err := e.Run(ctx, request(endless+`,"stream":true`, story), &r)
		if !errors.Is(err, context.Canceled) || res.FinishReason != "cancelled" || res.Usage.Completion > 1 {
			t.Errorf("got %+v, %v; want cancelled within a token", res, err)
		}
	})
	t.Run("in a prompt", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		r := record{grant: func(context.Context, int) error { go cancel(); return nil }}
		res, err := e.Run(ctx, request(endless, strings.Repeat("dog ", 900)), &r)
		if !errors.Is(err, context.Canceled) || res.FinishReason != "cancelled" {
			t.Errorf("got %+v, %v; want cancelled", res, err)
		}
	})
	t.Run("sink fails", func(t *testing.T) {
		fault := errors.New("gone")
		r := record{write: func([]byte) error { return fault }}
		if _, err := e.Run(t.Context(), request(endless, story), &r); err != fault {
			t.Errorf("got %v, want the sink's own error", err)
		}
		if r.writes != 1 {
			t.Errorf("got %d writes, want none after the error", r.writes)
		}
	})
	// Every place is free again, and no cache holds half a step.
	for range 2 {
		if got, _ := ask(t, e, greedy, "Hello!"); got != "Hello! How can I help you today?" {
			t.Errorf("after cancelling: got %q", got)
		}
	}
	if len(e.slots) != 2 || len(e.idle) != 2 {
		t.Errorf("got %d places and %d caches back, want 2", len(e.slots), len(e.idle))
	}
}

func TestWaitingForCreditStallsNobody(t *testing.T) {
	e := openSeed(t, Config{MaxSequences: 2})
	ctx, cancel := context.WithCancel(t.Context())
	var poor record
	var reached chan struct{}
	poor.grant, reached = blocked(10)
	var wg sync.WaitGroup
	wg.Go(func() { e.Run(ctx, request(endless, story), &poor) })
	<-reached
	for _, c := range reference {
		if got, _ := ask(t, e, greedy, c.prompt); got != c.answer {
			t.Errorf("got %q, want %q", got, c.answer)
		}
	}
	cancel()
	wg.Wait()
}

func TestQueueIsBounded(t *testing.T) {
	e := openSeed(t, Config{MaxSequences: 1, MaxQueue: 1})
	ctx, cancel := context.WithCancel(t.Context())
	var first record
	var reached chan struct{}
	first.grant, reached = blocked(2)
	var wg sync.WaitGroup
	wg.Go(func() { e.Run(ctx, request(endless, story), &first) })
	<-reached
	queued := make(chan error, 2)
	for range 2 { // one waits, one is refused
		go func() {
			_, err := e.Run(ctx, request(greedy, "Hello!"), &record{})
			queued <- err
		}()
	}
	var re *engine.RequestError
	if err := <-queued; !errors.As(err, &re) || re.Status != 429 {
		t.Errorf("got %v, want a 429 RequestError", err)
	}
	cancel()
	if err := <-queued; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the queued call cancelled", err)
	}
	wg.Wait()
	if got, _ := ask(t, e, greedy, "Hello!"); got != "Hello! How can I help you today?" {
		t.Errorf("got %q", got)
	}
}

func TestPrefixCacheBelongsToItsSalt(t *testing.T) {
	e := openSeed(t, Config{MaxSequences: 2})
	run := func(salt, prompt string) (engine.Usage, string) {
		req := request(greedy, prompt)
		req.CacheSalt = salt
		var r record
		res, err := e.Run(t.Context(), req, &r)
		if err != nil {
			t.Fatal(err)
		}
		if r.cached != res.Usage.Cached {
			t.Errorf("start said %d cached, usage %d", r.cached, res.Usage.Cached)
		}
		return res.Usage, r.text(t)
	}
	u, want := run("a", story)
	if u.Cached != 0 {
		t.Errorf("first: got %d cached", u.Cached)
	}
	u, got := run("a", story)
	if u.Cached != u.Prompt-1 || got != want {
		t.Errorf("again: got %+v and %q, want all but one token cached and %q", u, got, want)
	}
	for _, salt := range []string{"b", ""} {
		if u, got := run(salt, story); u.Cached != 0 || got != want {
			t.Errorf("salt %q: got %+v and %q, want nothing cached and %q", salt, u, got, want)
		}
	}
	if u, _ := run("", story); u.Cached != 0 {
		t.Errorf("no salt: got %d cached", u.Cached)
	}
}

func TestClose(t *testing.T) {
	e := openSeed(t, Config{})
	r := record{grant: func(_ context.Context, n int) error {
		if n == 3 {
			e.Close()
		}
		return nil
	}}
	if _, err := e.Run(t.Context(), request(endless, story), &r); !errors.Is(err, ErrClosed) {
		t.Errorf("got %v, want ErrClosed", err)
	}
	if _, err := e.Run(t.Context(), request(endless, story), &record{}); !errors.Is(err, ErrClosed) {
		t.Errorf("after closing: got %v, want ErrClosed", err)
	}
}

func TestTextIsNeverSplitInACharacter(t *testing.T) {
	e := openSeed(t, Config{})
	// The toy cannot say these; the tokenizer and textOut can.
	for _, want := range []string{"héllo wörld", "日本語", "👩‍👩‍👧‍👦!", "a▁b"} {
		var o textOut
		var got strings.Builder
		for _, id := range e.tok.encode(nil, want) {
			s, _ := o.push(e.tok.text[id])
			if !utf8.ValidString(s) {
				t.Fatalf("%q: a piece splits a character: %q", want, s)
			}
			got.WriteString(s)
		}
		s, _ := o.flush()
		got.WriteString(s)
		if w := strings.ReplaceAll(want, "▁", " "); got.String() != w {
			t.Errorf("got %q, want %q", got.String(), w)
		}
	}
	var o textOut
	for _, b := range []string{"a", "\xe6", "\x97", "b\xff", "\xe6"} {
		if s, _ := o.push(b); !utf8.ValidString(s) {
			t.Errorf("invalid bytes passed: %q", s)
		}
	}
	if s, _ := o.flush(); s != "\ufffd" {
		t.Errorf("flush: got %q, want a replacement character", s)
	}
}
