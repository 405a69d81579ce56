package e2e

import (
	"bytes"
	"context"

	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/shared"

	"cocoon/enclave/engine/gguf"
	"cocoon/enclave/engine/seed"
)

// What the seed model answers greedily. A change of model, template, tokenizer
// or arithmetic shows here.
var greedy = []struct{ ask, answer string }{
	{"What is the capital of Hungary?", "The capital of Hungary is Budapest."},
	{"Count from 3 to 9.", "3, 4, 5, 6, 7, 8, 9."},
}

// The official SDK, unmodified, against a whole network.
func TestOpenAISDK(t *testing.T) {
	n := start(t, t.TempDir())
	c, ctx := n.client(), context.Background()

	page, err := c.Models.List(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if len(page.Data) != 1 {
		t.Fatalf("models: got %d, want 1", len(page.Data))
	}
	model := page.Data[0].ID

	engine, err := gguf.OpenBytes(seed.Bytes(), gguf.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer engine.Close()

	t.Run("answers", func(t *testing.T) {
		for _, g := range greedy {
			got, err := ask(ctx, c, model, g.ask, 64)
			if err != nil {
				t.Fatal(err)
			}
			if got.Choices[0].Message.Content != g.answer || got.Choices[0].FinishReason != "stop" {
				t.Errorf("%q: got %q (%s), want %q (stop)", g.ask, got.Choices[0].Message.Content, got.Choices[0].FinishReason, g.answer)
			}
			body, err := json.Marshal(params(model, g.ask, 64))
			if err != nil {
				t.Fatal(err)
			}
			want, err := engine.CountChatTokens(body)
			if err != nil {
				t.Fatal(err)
			}
			if got.Usage.PromptTokens != int64(want) || got.Usage.TotalTokens != got.Usage.PromptTokens+got.Usage.CompletionTokens || got.Usage.CompletionTokens == 0 {
				t.Errorf("usage: got %+v, want %d prompt tokens", got.Usage, want)
			}
		}
	})

	t.Run("streams", func(t *testing.T) {
		p := params(model, greedy[1].ask, 64)
		p.StreamOptions = openai.ChatCompletionStreamOptionsParam{IncludeUsage: openai.Bool(true)}
		s := c.Chat.Completions.NewStreaming(ctx, p)
		acc, chunks := openai.ChatCompletionAccumulator{}, 0
		for s.Next() {
			chunks++
			acc.AddChunk(s.Current())
		}
		if err := s.Err(); err != nil {
			t.Fatal(err)
		}
		if acc.Choices[0].Message.Content != greedy[1].answer {
			t.Errorf("got %q, want %q", acc.Choices[0].Message.Content, greedy[1].answer)
		}
		if chunks < 5 {
			t.Errorf("got %d chunks: the answer did not stream", chunks)
		}
		if acc.Usage.CompletionTokens == 0 {
			t.Error("usage did not come with the last chunk")
		}
	})

	t.Run("a seed decides", func(t *testing.T) {
		sample := func(seed int64) string {
			p := params(model, "Tell me a story about a fox.", 60)
			p.Temperature, p.Seed = openai.Float(1.2), openai.Int(seed)
			r, err := c.Chat.Completions.New(ctx, p)
			if err != nil {
				t.Fatal(err)
			}
			return r.Choices[0].Message.Content
		}
		a, b := sample(1), sample(2)
		if a == b {
			t.Error("two seeds gave one story")
		}
		if again := sample(1); again != a {
			t.Errorf("seed 1 gave another story: %q, then %q", a, again)
		}
	})

	t.Run("errors are the API's own", func(t *testing.T) {
		for _, tt := range []struct {
			name   string
			do     func() error
			status int
			has    string
		}{
			{"no such model", func() error { _, err := ask(ctx, c, "no-such-model", "hi", 8); return err }, 404, "no-such-model"},
			{"an unknown field", func() error {
				_, err := c.Chat.Completions.New(ctx, params(model, "hi", 8), option.WithJSONSet("frobnicate", 1))
				return err
			}, 400, "frobnicate"},
			{"a wrong token", func() error {
				d := n.describe()
				other := openai.NewClient(option.WithBaseURL(d.BaseURL), option.WithAPIKey("wrong"), option.WithMaxRetries(0))
				_, err := ask(ctx, &other, model, "hi", 8)
				return err
			}, 401, ""},
			{"a prompt past the context", func() error {
				_, err := ask(ctx, c, model, strings.Repeat("word ", 20000), 8)
				return err
			}, 400, ""},
			{"a tool the engine does not do", func() error {
				p := params(model, "hi", 8)
				p.Tools = []openai.ChatCompletionToolUnionParam{openai.ChatCompletionFunctionTool(shared.FunctionDefinitionParam{Name: "f"})}
				_, err := c.Chat.Completions.New(ctx, p)
				return err
			}, 400, "tools"},
		} {
			err := tt.do()
			var apiErr *openai.Error
			if !errors.As(err, &apiErr) {
				t.Errorf("%s: got %v, want an API error", tt.name, err)
				continue
			}
			if apiErr.StatusCode != tt.status || !strings.Contains(apiErr.Message+apiErr.Param, tt.has) || apiErr.Message == "" {
				t.Errorf("%s: got %d %q (param %q), want %d naming %q", tt.name, apiErr.StatusCode, apiErr.Message, apiErr.Param, tt.status, tt.has)
			}
		}
	})

	t.Run("a cancellation leaves the accounts in order", func(t *testing.T) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		s := c.Chat.Completions.NewStreaming(ctx, params(model, "Tell me a long story about a dragon and a king.", 512))
		for i := 0; i < 3 && s.Next(); i++ {
		}
		if err := s.Err(); err != nil {
			t.Fatal(err)
		}
		cancel()
		s.Close()
		// The next job settles with the worker first, so it would be refused if the two disagreed.
		if _, err := ask(context.Background(), c, model, greedy[0].ask, 64); err != nil {
			t.Errorf("after a cancellation: %v", err)
		}
	})

	t.Run("the worker's evidence is shown", func(t *testing.T) {
		d := n.describe()
		token, err := os.ReadFile(d.TokenFile)
		if err != nil {
			t.Fatal(err)
		}
		req, _ := http.NewRequest("GET", d.BaseURL+"/attestation", nil)
		req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != 200 {
			t.Fatalf("%s: %v", resp.Status, err)
		}
		for _, want := range []string{`"accepted"`, `"test"`, "binding.report-data", d.WorkerID} {
			if !strings.Contains(string(b), want) {
				t.Errorf("/v1/attestation lacks %s", want)
			}
		}
	})
}

// Two models are listed and answer differently: the second has other weights.
func TestTwoModels(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, raw []byte) string {
		path := filepath.Join(dir, name+".gguf")
		if err := os.WriteFile(path, bytes.Replace(raw, []byte("cocoon-toy"), []byte(name), 1), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	other := seed.Bytes()
	for i := len(other) / 2; i < len(other)/2+600_000; i++ {
		other[i] ^= 0x55
	}
	n := start(t, filepath.Join(dir, "net"), "--model", write("cocoon-one", seed.Bytes()), "--model", write("cocoon-two", other))
	c := n.client()
	page, err := c.Models.List(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if len(page.Data) != 2 || page.Data[0].ID != "cocoon-one" || page.Data[1].ID != "cocoon-two" {
		t.Fatalf("models: got %+v, want cocoon-one and cocoon-two", page.Data)
	}
	var answers []string
	for _, m := range page.Data {
		r, err := ask(context.Background(), c, m.ID, greedy[0].ask, 32)
		if err != nil {
			t.Fatalf("%s: %v", m.ID, err)
		}
		answers = append(answers, r.Choices[0].Message.Content)
	}
	if answers[0] != greedy[0].answer || answers[1] == answers[0] {
		t.Errorf("got %q, want the seed's answer and another", answers)
	}
}
