// Package openaihttp runs models in an OpenAI-compatible HTTP engine: vLLM,
// SGLang, llama-server.
//
// It calls two routes and no others: GET /v1/models once, and POST
// /v1/chat/completions. It overwrites the fields by which a client could
// reach another client's cache, another model or more tokens than were paid
// for; streams bytes as the engine sent them; and takes an answer for complete
// only if the engine said so and stated its usage. No text of the engine's
// errors is passed on, because engines quote requests in theirs.
//
// It trusts the engine with the plaintext and the counts: what runs there is
// the image's business. Whether the engine's other routes are closed to other
// processes is too; bind it to loopback.
package openaihttp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"cocoon/enclave/engine"
)

// ErrEngine is wrapped by every failure that is the engine's: it died, broke
// the protocol or refused for reasons of its own. It is never a RequestError.
var ErrEngine = errors.New("openaihttp: engine failed")

// Bounds on what an engine may send.
const (
	maxModels = 1 << 20 // bytes of the model list
	maxEvent  = 1 << 20 // bytes of one event
	maxAnswer = 64 << 20
	maxError  = 64 << 10
	maxBody   = 64 << 20 // bytes of a request

	readBytes = 16 << 10 // of an answer at a time
)

// Config says which engine to use, and how.
type Config struct {
	BaseURL       string       // "http://127.0.0.1:8000": no path but an optional /v1, query or user
	HTTPClient    *http.Client // nil: a fresh one; its redirects and proxy are switched off either way
	APIKey        string       // sent as a bearer token, if not empty
	Models        []string     // those to offer, of the engine's; empty: all
	WeightsRoot   string       // of all models; default "unmeasured"
	ContextTokens int          // where the engine's model list does not say
	CacheSalt     bool         // send each request's salt as cache_salt (vLLM, SGLang); otherwise none is sent, and llama-server is told to share no cache
}

// LogValue keeps the key out of logs.
func (c Config) LogValue() slog.Value {
	return slog.GroupValue(slog.Any("models", c.Models), slog.String("weights_root", c.WeightsRoot), slog.Bool("cache_salt", c.CacheSalt))
}

// Engine is a client of one HTTP engine.
type Engine struct {
	cfg    Config
	client *http.Client
	base   string
	models []engine.Model
}

var _ engine.Engine = (*Engine)(nil)

// New asks the engine which models it has.
func New(ctx context.Context, cfg Config) (*Engine, error) {
	u, err := url.Parse(cfg.BaseURL)
	if err != nil {
		return nil, errors.New("openaihttp: base URL: cannot be parsed")
	}
	path := strings.TrimSuffix(strings.TrimSuffix(u.Path, "/"), "/v1")
	if (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || path != "" {
		return nil, errors.New("openaihttp: base URL: want http://HOST:PORT or https://HOST:PORT")
	}
	if cfg.WeightsRoot == "" {
		cfg.WeightsRoot = "unmeasured"
	}
	e := &Engine{cfg: cfg, client: plainClient(cfg.HTTPClient), base: u.Scheme + "://" + u.Host}
	if e.models, err = e.discover(ctx); err != nil {
		return nil, err
	}
	return e, nil
}

// plainClient is c without redirects, cookies, proxies from the environment,
// compression, or a time limit of its own: streams last as long as their job.
func plainClient(c *http.Client) *http.Client {
	out := &http.Client{}
	if c != nil {
		out.Transport = c.Transport
	}
	out.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	t, ok := out.Transport.(*http.Transport)
	switch {
	case ok:
		t = t.Clone()
	case out.Transport == nil:
		t = &http.Transport{MaxIdleConnsPerHost: 64, IdleConnTimeout: time.Minute}
	default: // the caller's own round tripper
		return out
	}
	t.Proxy = nil
	t.DisableCompression = true
	t.ReadBufferSize = readBytes
	t.MaxResponseHeaderBytes = 64 << 10
	out.Transport = t
	return out
}

func (e *Engine) request(ctx context.Context, method, path string, body io.Reader) (*http.Request, error) {
	r, err := http.NewRequestWithContext(ctx, method, e.base+path, body)
	if err != nil {
		return nil, fmt.Errorf("%w: request: %w", ErrEngine, err)
	}
	r.Header.Set("User-Agent", "cocoon")
	if e.cfg.APIKey != "" {
		r.Header.Set("Authorization", "Bearer "+e.cfg.APIKey)
	}
	return r, nil
}

// discover reads GET /v1/models.
func (e *Engine) discover(ctx context.Context) ([]engine.Model, error) {
	r, err := e.request(ctx, http.MethodGet, "/v1/models", nil)
	if err != nil {
		return nil, err
	}
	resp, err := e.client.Do(r)
	if err != nil {
		return nil, fmt.Errorf("%w: model list: %w", ErrEngine, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxModels+1))
	if err != nil {
		return nil, fmt.Errorf("%w: model list: %w", ErrEngine, err)
	}
	if resp.StatusCode != http.StatusOK || len(b) > maxModels {
		return nil, fmt.Errorf("%w: model list: got status %d and %d bytes, want 200 and at most %d", ErrEngine, resp.StatusCode, len(b), maxModels)
	}
	models, err := parseModels(b, e.cfg)
	if err != nil {
		return nil, err
	}
	return models, nil
}

// parseModels reads a model list and keeps the configured ones.
func parseModels(b []byte, cfg Config) ([]engine.Model, error) {
	var list struct {
		Data []struct {
			ID          string `json:"id"`
			MaxModelLen int    `json:"max_model_len"` // vLLM, SGLang
			Meta        struct {
				Ctx      int `json:"n_ctx"` // llama-server
				CtxTrain int `json:"n_ctx_train"`
			} `json:"meta"`
		} `json:"data"`
	}
	if err := json.Unmarshal(b, &list); err != nil {
		return nil, fmt.Errorf("%w: model list: not the JSON it should be", ErrEngine)
	}
	var models []engine.Model
	for _, m := range list.Data {
		if len(cfg.Models) > 0 && !slices.Contains(cfg.Models, m.ID) {
			continue
		}
		if m.ID == "" || len(m.ID) > 256 {
			return nil, fmt.Errorf("%w: model list: model name: got %d bytes, want 1 to 256", ErrEngine, len(m.ID))
		}
		if slices.ContainsFunc(models, func(have engine.Model) bool { return have.Name == m.ID }) {
			return nil, fmt.Errorf("%w: model list: %q: listed twice", ErrEngine, m.ID)
		}
		tokens := cfg.ContextTokens
		for _, n := range []int{m.Meta.CtxTrain, m.Meta.Ctx, m.MaxModelLen} {
			if n > 0 {
				tokens = n
			}
		}
		if cfg.ContextTokens > 0 {
			tokens = min(tokens, cfg.ContextTokens)
		}
		if tokens <= 0 {
			return nil, fmt.Errorf("openaihttp: model %q: the engine does not state its context; set ContextTokens", m.ID)
		}
		models = append(models, engine.Model{Name: m.ID, WeightsRoot: cfg.WeightsRoot, ContextTokens: tokens})
	}
	for _, want := range cfg.Models {
		if !slices.ContainsFunc(models, func(m engine.Model) bool { return m.Name == want }) {
			return nil, fmt.Errorf("openaihttp: model %q: the engine does not have it", want)
		}
	}
	if len(models) == 0 {
		return nil, fmt.Errorf("%w: model list: got none", ErrEngine)
	}
	return models, nil
}

// Models lists what the engine had when New asked.
func (e *Engine) Models() []engine.Model { return slices.Clone(e.models) }

// Run answers one chat completion. It does not call Start: such engines tell
// the prompt's tokens at the end. The counts given to Write on the way are of
// events with text in them; the Result's are the engine's own.
func (e *Engine) Run(ctx context.Context, req engine.Request, sink engine.Sink) (engine.Result, error) {
	var res engine.Result
	if req.Endpoint != engine.ChatCompletions {
		return res, &engine.RequestError{Status: 404, Type: "invalid_request_error", Code: "unsupported_endpoint", Message: "endpoint: this worker serves chat completions only"}
	}
	if !slices.ContainsFunc(e.models, func(m engine.Model) bool { return m.Name == req.Model }) {
		return res, &engine.RequestError{Status: 404, Type: "invalid_request_error", Code: "model_not_found", Param: "model", Message: "model: not loaded here"}
	}
	body, err := rewrite(req, e.cfg.CacheSalt)
	if err != nil {
		return res, err
	}
	a := &answer{sink: sink, stream: body.stream, usageAsked: body.usageAsked, limit: req.MaxTokens}
	err = e.relay(ctx, body, a)
	res = engine.Result{Usage: a.usage, FinishReason: a.finish}
	if err != nil && ctx.Err() != nil {
		res.FinishReason, err = "cancelled", ctx.Err()
	}
	return res, err
}

// relay sends the request and passes the answer on. The upstream request ends
// with it, however it ends.
func (e *Engine) relay(ctx context.Context, body body, a *answer) error {
	if err := a.sink.Grant(ctx, 1); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r, err := e.request(ctx, http.MethodPost, "/v1/chat/completions", body.reader())
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Accept", "text/event-stream")
	resp, err := e.client.Do(r)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrEngine, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return refusal(resp, body)
	}
	if ct, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";"); ct != "text/event-stream" || resp.Header.Get("Content-Encoding") != "" {
		return fmt.Errorf("%w: answer: want an uncompressed event stream", ErrEngine)
	}
	return a.read(ctx, resp.Body)
}
