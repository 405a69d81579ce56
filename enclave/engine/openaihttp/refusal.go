package openaihttp

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"cocoon/enclave/engine"
)

// refusal turns an engine's error answer into ours. Only what the engine
// blames on the request becomes a RequestError; its message never passes,
// because engines quote the prompt in it, and its field name passes only if it
// is one that the client sent.
func refusal(resp *http.Response, b body) error {
	status := resp.StatusCode
	text, _ := io.ReadAll(io.LimitReader(resp.Body, maxError))
	switch status {
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity:
	case http.StatusTooManyRequests:
		return &engine.RequestError{Status: status, Type: "rate_limit_error", Code: "engine_overloaded", Message: "the engine's queue is full"}
	default:
		return fmt.Errorf("%w: got status %d, want 200", ErrEngine, status)
	}
	// OpenAI and vLLM nest the object; older vLLM sends it flat. Codes may be
	// integers, which only repeat the status.
	var doc struct {
		Error json.RawMessage `json:"error"`
	}
	var o struct {
		Type  string          `json:"type"`
		Code  json.RawMessage `json:"code"`
		Param json.RawMessage `json:"param"`
	}
	if json.Unmarshal(text, &doc) == nil && len(doc.Error) > 0 {
		_ = json.Unmarshal(doc.Error, &o)
	} else {
		_ = json.Unmarshal(text, &o)
	}
	e := &engine.RequestError{Status: http.StatusBadRequest, Type: "invalid_request_error", Message: "the engine refused the request"}
	if o.Type == "exceed_context_size_error" || string(o.Code) == `"context_length_exceeded"` || tooLong(text) {
		e.Code, e.Param, e.Message = "context_length_exceeded", "messages", "messages: longer than this model's context"
		return e
	}
	var param string
	if json.Unmarshal(o.Param, &param) == nil {
		if _, sent := b.fields[param]; sent && len(param) <= 64 {
			e.Param, e.Message = param, "the engine refused a field of the request"
		}
	}
	return e
}

// tooLong recognises the messages of vLLM, SGLang and llama-server.
func tooLong(text []byte) bool {
	text = bytes.ToLower(text)
	for _, s := range []string{"maximum context length", "context length of", "exceeds the available context size", "longer than the model's context length"} {
		if bytes.Contains(text, []byte(s)) {
			return true
		}
	}
	return false
}
