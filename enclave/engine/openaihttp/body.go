package openaihttp

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"

	"cocoon/enclave/engine"
)

// body is a request as the engine will get it.
type body struct {
	json       []byte
	fields     map[string]json.RawMessage // as the client sent them
	stream     bool                       // the client asked for one
	usageAsked bool                       // and for its usage chunk
}

func (b body) reader() io.Reader { return bytes.NewReader(b.json) }

func invalid(param, want string) error {
	return &engine.RequestError{Status: 400, Type: "invalid_request_error", Code: "invalid_value", Param: param, Message: param + ": want " + want}
}

// rewrite sets the fields that are not the client's to choose. The engine
// always streams: a whole document would show no progress to pay by, and is
// put together from the stream instead.
func rewrite(req engine.Request, salt bool) (body, error) {
	var b body
	if len(req.Body) > maxBody {
		return b, invalid("body", fmt.Sprintf("at most %d bytes", maxBody))
	}
	if json.Unmarshal(req.Body, &b.fields) != nil || b.fields == nil {
		return b, invalid("body", "one JSON object")
	}
	if req.MaxTokens < 1 {
		return b, fmt.Errorf("openaihttp: max tokens: got %d, want at least 1", req.MaxTokens)
	}
	out := make(map[string]any, len(b.fields)+6)
	for k, v := range b.fields {
		out[k] = v
	}
	set := func(key string) bool { v, ok := b.fields[key]; return ok && string(v) != "null" }
	if set("stream") && json.Unmarshal(b.fields["stream"], &b.stream) != nil {
		return b, invalid("stream", "a boolean")
	}
	if set("stream_options") {
		var o struct {
			IncludeUsage bool `json:"include_usage"`
		}
		if json.Unmarshal(b.fields["stream_options"], &o) != nil {
			return b, invalid("stream_options", "an object")
		}
		if !b.stream {
			return b, invalid("stream_options", "it only with stream true")
		}
		b.usageAsked = o.IncludeUsage
	}
	n, limit := 1, req.MaxTokens
	if set("n") && (json.Unmarshal(b.fields["n"], &n) != nil || n < 1 || n > req.MaxTokens) {
		return b, invalid("n", "a positive integer of at most the completion ceiling")
	}
	limit /= n
	for _, key := range []string{"max_tokens", "max_completion_tokens"} {
		var m int
		if !set(key) {
			continue
		}
		if json.Unmarshal(b.fields[key], &m) != nil || m < 1 {
			return b, invalid(key, "a positive integer")
		}
		limit = min(limit, m)
	}
	out["model"] = req.Model
	out["stream"] = true
	out["stream_options"] = map[string]bool{"include_usage": true}
	out["max_tokens"], out["max_completion_tokens"] = limit, limit
	delete(out, "cache_salt")
	delete(out, "cache_prompt")
	if !salt { // llama-server knows no salt, and would show who asked what before
		out["cache_prompt"] = false
	}
	if salt && req.CacheSalt != "" {
		out["cache_salt"] = req.CacheSalt
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if enc.Encode(out) != nil {
		return b, invalid("body", "one JSON object")
	}
	b.json = buf.Bytes()
	return b, nil
}
