// Package engine is what a worker asks of an inference engine.
//
// An Engine runs one request at a time per call, any number of calls at once,
// and reports through a Sink: what it counted, and the answer's bytes exactly
// as the client will read them. It never bills: the Sink decides how far it
// may go. An Engine sees plaintext, so it must not log, store or measure any
// of it.
package engine

import (
	"context"
	"fmt"
	"net/http"
)

// Endpoint names an API operation by its OpenAI path below /v1.
type Endpoint string

// ChatCompletions is POST /v1/chat/completions.
const ChatCompletions Endpoint = "chat/completions"

// Model describes one model an engine can run.
type Model struct {
	Name          string // as clients ask for it
	WeightsRoot   string // "gguf-sha256:HEX", "verity-sha256:HEX" or "unmeasured" (DESIGN section 3)
	ContextTokens int    // longest prompt plus completion, in tokens
}

// Request is one job's body, already checked against the worker's allow-list.
type Request struct {
	Endpoint  Endpoint
	Model     string // Model.Name
	Body      []byte // the OpenAI JSON the client's SDK sent; not kept after Run returns
	CacheSalt string // isolates prefix caches between clients; opaque
	MaxTokens int    // completion ceiling in tokens, > 0; the engine stops there with finish reason "length"
}

// Usage counts tokens. Completion includes Reasoning; Prompt includes Cached.
type Usage struct {
	Prompt, Cached, Completion, Reasoning int
}

// Sink receives one job's counts and answer. Its methods are called from one
// goroutine at a time. An error from any of them ends the run: the engine
// stops within one token and returns that error.
type Sink interface {
	// Start reports the prompt's tokens before any is processed.
	// An engine that learns them only at the end skips the call.
	Start(prompt, cached int) error
	// Grant blocks until the n-th completion token (from 1) may be generated.
	Grant(ctx context.Context, n int) error
	// Write passes answer bytes: whole server-sent events (each ending in a
	// blank line, "data: [DONE]" included) for a streaming body, else parts
	// of one JSON document. p may be empty where only u has moved. The engine
	// may reuse p after Write returns.
	Write(p []byte, u Usage) error
}

// Result says how a run ended.
type Result struct {
	Usage        Usage
	FinishReason string // "stop", "length", "tool_calls", or "cancelled" when ctx ended it
}

// Engine runs models.
type Engine interface {
	// Models lists what is loaded, in a stable order.
	Models() []Model
	// Run blocks until the answer is complete, ctx ends, or the engine fails.
	// On a cancelled ctx it returns the usage so far, FinishReason
	// "cancelled" and ctx's error, within 100 ms. A *RequestError means that
	// nothing was generated and the client's request is at fault.
	Run(ctx context.Context, req Request, sink Sink) (Result, error)
}

// RequestError is a fault of the client's request, in the shape of an OpenAI
// error object. Message never quotes the prompt.
type RequestError struct {
	Status  int    // HTTP status, 4xx
	Type    string // for example "invalid_request_error"
	Code    string // machine-readable, may be empty
	Param   string // offending field, may be empty
	Message string
}

func (e *RequestError) Error() string {
	return fmt.Sprintf("engine: %d %s: %s", e.Status, http.StatusText(e.Status), e.Message)
}
