// Package gguf runs llama-family chat models from GGUF files, on the CPU, in
// this process.
//
// Open reads a file once, front to back, and states the SHA-256 of exactly the
// bytes it runs, tokenizer and chat template included. The engine reads F32,
// F16 and Q8_0 tensors, a sentencepiece vocabulary and a ChatML template, and
// refuses anything else rather than answer wrongly. Calls to Run share one
// batch, token by token; a call's answer depends on its own request and seed
// alone. Text in a message never becomes a control token.
//
// It writes no log and puts no text of a request in an error. It does not wipe
// memory: prompts and cached keys and values stay in it until they are
// overwritten, and where a cache salt was given, a later call with the same
// salt starts from them. Time per token shows how busy the engine is.
package gguf

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"cocoon/enclave/engine"
)

// Config tunes an engine. Its zero value is usable.
type Config struct {
	Name          string           // as clients ask for it; by default the file's general.name, lower case and dashed
	MaxSequences  int              // answers computed at once, 1 to 64; default 16
	MaxQueue      int              // further calls that may wait; default 4 per sequence; beyond, RequestError 429
	ContextTokens int              // longest prompt plus completion; default and at most the model's own
	Threads       int              // default GOMAXPROCS
	Random        io.Reader        // ids, and seeds where the client gives none; default crypto/rand
	Clock         func() time.Time // default time.Now

	kernels *kernels // for tests
}

// Engine is one loaded model.
type Engine struct {
	cfg   Config
	model engine.Model
	tok   *tokenizer
	chat  *chatML
	sched *scheduler
	close sync.Once

	slots chan struct{} // one token per sequence that may start
	mu    sync.Mutex
	queue int
	idle  []*idleCache // least recently used first
}

// idleCache is a cache that no sequence uses, and whose salt may use it again.
type idleCache struct {
	*cache
	salt string
}

var _ engine.Engine = (*Engine)(nil)

// OpenFile loads the file at path. Where neither cfg nor the file names the
// model, the file's own name does.
func OpenFile(path string, cfg Config) (*Engine, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("gguf: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("gguf: %w", err)
	}
	return open(f, st.Size(), cfg, strings.TrimSuffix(filepath.Base(path), ".gguf"))
}

// OpenBytes loads a file held in memory; b is not kept.
func OpenBytes(b []byte, cfg Config) (*Engine, error) {
	return Open(bytes.NewReader(b), int64(len(b)), cfg)
}

// Open loads a GGUF version 3 file of the given size in bytes, reading each
// byte once. The engine holds threads and memory until Close.
func Open(r io.ReaderAt, size int64, cfg Config) (*Engine, error) {
	return open(r, size, cfg, "")
}

func open(r io.ReaderAt, size int64, cfg Config, fallback string) (*Engine, error) {
	s := newStream(r, size)
	h, err := parseHeader(s)
	if err != nil {
		return nil, err
	}
	sh, err := readShape(h)
	if err != nil {
		return nil, err
	}
	tok, err := newTokenizer(h)
	if err != nil {
		return nil, err
	}
	sh.vocab = len(tok.pieces)
	chat, err := newChatML(h, tok)
	if err != nil {
		return nil, err
	}
	if cfg, err = cfg.complete(h, sh, fallback); err != nil {
		return nil, err
	}
	w, err := readWeights(s, h, sh)
	if err != nil {
		return nil, err
	}
	w.context = cfg.ContextTokens
	e := &Engine{
		cfg: cfg, tok: tok, chat: chat,
		model: engine.Model{Name: cfg.Name, WeightsRoot: "gguf-sha256:" + s.digest(), ContextTokens: cfg.ContextTokens},
		slots: make(chan struct{}, cfg.MaxSequences),
	}
	for range cfg.MaxSequences {
		e.slots <- struct{}{}
		e.idle = append(e.idle, &idleCache{cache: &cache{}})
	}
	run := newRunner(w, *cfg.kernels, newPool(cfg.Threads), maxRows, cfg.MaxSequences)
	e.sched = newScheduler(run, cfg.MaxSequences, cfg.Clock)
	return e, nil
}

// complete fills in defaults and checks what was given.
func (c Config) complete(h *header, sh shape, fallback string) (Config, error) {
	if c.Name == "" {
		name, _ := h.meta["general.name"].(string)
		if c.Name = modelName(name); c.Name == "" {
			c.Name = modelName(fallback)
		}
		if c.Name == "" {
			return c, errors.New("gguf: general.name: missing; name the model in Config")
		}
	}
	c.MaxSequences = cmp.Or(c.MaxSequences, 16)
	c.MaxQueue = cmp.Or(c.MaxQueue, 4*c.MaxSequences)
	c.ContextTokens = min(cmp.Or(c.ContextTokens, sh.context), sh.context)
	c.Threads = cmp.Or(c.Threads, runtime.GOMAXPROCS(0))
	if c.MaxSequences < 1 || c.MaxSequences > 64 || c.MaxQueue < 0 || c.ContextTokens < 2 || c.Threads < 1 || c.Threads > 1024 {
		return c, fmt.Errorf("gguf: config: got %d sequences, queue %d, context %d, %d threads; want 1 to 64, 0 or more, 2 or more, 1 to 1024",
			c.MaxSequences, c.MaxQueue, c.ContextTokens, c.Threads)
	}
	if c.Random == nil {
		c.Random = rand.Reader
	}
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if c.kernels == nil {
		all := availableKernels()
		c.kernels = &all[len(all)-1]
	}
	return c, nil
}

// modelName makes s lower case, with dashes for all but letters, digits, dots
// and underscores.
func modelName(s string) string {
	var b strings.Builder
	for _, c := range strings.ToLower(s) {
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '.', c == '_':
			b.WriteRune(c)
		case !strings.HasSuffix(b.String(), "-"):
			b.WriteByte('-')
		}
	}
	name := strings.Trim(b.String(), "-")
	return name[:min(len(name), 128)]
}

// Close stops the engine. Calls to Run in progress return ErrClosed.
func (e *Engine) Close() error {
	e.close.Do(func() {
		close(e.sched.stop)
		<-e.sched.ended
		e.sched.pool.close()
	})
	return nil
}

// Models returns the one model.
func (e *Engine) Models() []engine.Model { return []engine.Model{e.model} }

// CountChatTokens returns how many tokens the prompt of a chat request takes.
func (e *Engine) CountChatTokens(body []byte) (int, error) {
	_, prompt, err := e.prompt(body)
	return len(prompt), err
}

// prompt parses a request and encodes its messages. A prompt that cannot fit
// is refused before the work of encoding it.
func (e *Engine) prompt(body []byte) (chatRequest, []int32, error) {
	q, err := parseChat(body, len(e.tok.pieces))
	if err != nil {
		return q, nil, err
	}
	size := 0
	for _, m := range q.messages {
		size += len(m.content)
	}
	// Each token but the special ones stands for at most longest bytes of
	// text, in which a space is one byte rather than its mark's three.
	if size/e.tok.longest >= e.model.ContextTokens {
		return q, nil, e.tooLong()
	}
	prompt := e.chat.encode(e.tok, q.messages)
	if len(prompt) >= e.model.ContextTokens {
		return q, nil, e.tooLong()
	}
	return q, prompt, nil
}

func (e *Engine) tooLong() error {
	return badRequest("messages", "context_length_exceeded", "messages: want fewer than %d tokens, this model's context", e.model.ContextTokens)
}

// Run answers one chat completion. Completion tokens are those of the answer,
// a withheld stop string included; the end-of-turn token is not counted.
func (e *Engine) Run(ctx context.Context, req engine.Request, sink engine.Sink) (engine.Result, error) {
	var res engine.Result
	if err := ctx.Err(); err != nil {
		return engine.Result{FinishReason: "cancelled"}, err
	}
	if req.MaxTokens < 1 {
		return res, fmt.Errorf("gguf: max tokens: got %d, want at least 1", req.MaxTokens)
	}
	if req.Endpoint != engine.ChatCompletions {
		return res, &engine.RequestError{Status: 404, Type: "invalid_request_error", Code: "unsupported_endpoint", Message: "endpoint: this model's engine serves chat completions only"}
	}
	if req.Model != e.model.Name {
		return res, &engine.RequestError{Status: 404, Type: "invalid_request_error", Code: "model_not_found", Param: "model", Message: "model: not loaded here"}
	}
	q, prompt, err := e.prompt(req.Body)
	if err != nil {
		return res, err
	}
	limit := min(req.MaxTokens, e.model.ContextTokens-len(prompt))
	if q.maxTokens > 0 {
		limit = min(limit, q.maxTokens)
	}
	var random [24]byte
	if _, err := io.ReadFull(e.cfg.Random, random[:]); err != nil {
		return res, fmt.Errorf("gguf: random: %w", err)
	}
	if !q.seeded {
		q.sampling.seed = binary.LittleEndian.Uint64(random[16:])
	}
	if err := e.enter(ctx); err != nil {
		if ctx.Err() != nil {
			res.FinishReason = "cancelled"
		}
		return res, err
	}
	c, cached := e.takeCache(req.CacheSalt, prompt)
	g := &generation{
		Engine: e, ctx: ctx, sink: sink, limit: limit,
		seq:     &sequence{ctx: ctx, cache: c.cache, logits: make([]float32, len(e.tok.pieces)), ready: make(chan struct{}, 1), free: func() { e.giveCache(c) }},
		sampler: newSampler(q.sampling, prompt),
		out:     textOut{stops: q.stops},
		usage:   engine.Usage{Prompt: len(prompt), Cached: cached},
	}
	name := new(bytes.Buffer)
	quote(name, e.model.Name)
	g.answer = answer{sink: sink, stream: q.stream, usage: q.includeUsage, id: "chatcmpl-" + hex.EncodeToString(random[:16]), model: name.String(), created: e.cfg.Clock().Unix()}
	finish, err := g.run(prompt[cached:])
	res = engine.Result{Usage: g.usage, FinishReason: finish}
	if ctx.Err() != nil && err != nil {
		res.FinishReason, err = "cancelled", ctx.Err()
	}
	return res, err
}

// enter waits for a place among the sequences, in order of arrival.
func (e *Engine) enter(ctx context.Context) error {
	select {
	case <-e.slots:
		return nil
	default:
	}
	e.mu.Lock()
	if e.queue >= e.cfg.MaxQueue {
		e.mu.Unlock()
		return &engine.RequestError{Status: 429, Type: "rate_limit_error", Code: "engine_overloaded", Message: "the engine's queue is full"}
	}
	e.queue++
	e.mu.Unlock()
	defer func() {
		e.mu.Lock()
		e.queue--
		e.mu.Unlock()
	}()
	select {
	case <-e.slots:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-e.sched.ended:
		return ErrClosed
	}
}

// takeCache picks an idle cache: the one of this salt with the longest common
// start, else the least recently used. cached says how many tokens of the
// prompt it already holds; at least one is left to compute.
func (e *Engine) takeCache(salt string, prompt []int32) (c *idleCache, cached int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	best := 0
	for i, c := range e.idle {
		if salt == "" || c.salt != salt {
			continue
		}
		n := 0
		for n < len(prompt)-1 && n < len(c.tokens) && prompt[n] == c.tokens[n] {
			n++
		}
		if n > cached {
			best, cached = i, n
		}
	}
	c = e.idle[best]
	e.idle = slices.Delete(e.idle, best, best+1)
	c.salt, c.tokens = salt, c.tokens[:cached]
	return c, cached
}

// giveCache returns a cache and the place that went with it.
func (e *Engine) giveCache(c *idleCache) {
	e.mu.Lock()
	e.idle = append(e.idle, c)
	e.mu.Unlock()
	e.slots <- struct{}{}
}
