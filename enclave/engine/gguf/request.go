package gguf

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"cocoon/enclave/engine"
)

// Bounds on a request.
const (
	maxBody     = 32 << 20 // bytes
	maxMessages = 4096
	maxStops    = 4
	maxStop     = 1024 // bytes of one stop string
	maxBiases   = 1024
)

// chatRequest is a chat completion request that this engine can serve.
type chatRequest struct {
	messages     []message
	sampling     sampling
	seeded       bool
	stops        []string
	maxTokens    int // 0 if the client set none
	stream       bool
	includeUsage bool
}

// badRequest names a field and what it should be, never what it was: a value
// may be part of the prompt.
func badRequest(param, code, format string, args ...any) error {
	return &engine.RequestError{Status: 400, Type: "invalid_request_error", Code: code, Param: param, Message: fmt.Sprintf(format, args...)}
}

func invalid(param, want string) error {
	return badRequest(param, "invalid_value", "%s: want %s", param, want)
}

func unsupported(param string) error {
	return badRequest(param, "unsupported_parameter", "%s: not supported by this model's engine", param)
}

// parseChat reads the body of POST /v1/chat/completions.
func parseChat(body []byte, vocab int) (chatRequest, error) {
	q := chatRequest{sampling: sampling{temperature: 1, topP: 1}}
	if len(body) > maxBody {
		return q, badRequest("", "", "body: want at most %d bytes", maxBody)
	}
	var fields map[string]json.RawMessage
	if json.Unmarshal(body, &fields) != nil || fields == nil {
		return q, badRequest("", "", "body: want one JSON object")
	}
	var most, mostOld int
	for _, key := range slices.Sorted(maps.Keys(fields)) {
		raw := fields[key]
		if isNull(raw) && key != "messages" {
			continue
		}
		var err error
		switch key {
		case "model", "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key",
			"prompt_cache_retention", "cache_salt", "parallel_tool_calls", "reasoning_effort", "verbosity":
			// No effect here.
		case "messages":
			q.messages, err = parseMessages(raw)
		case "stream":
			err = decode(key, raw, &q.stream, "a boolean")
		case "stream_options":
			q.includeUsage, err = parseStreamOptions(raw)
		case "max_completion_tokens":
			err = integer(key, raw, &most, 1, math.MaxInt32)
		case "max_tokens":
			err = integer(key, raw, &mostOld, 1, math.MaxInt32)
		case "n":
			var n int
			if err = integer(key, raw, &n, 1, math.MaxInt32); err == nil && n != 1 {
				err = badRequest(key, "unsupported_parameter", "n: want 1: this model's engine gives one answer per request")
			}
		case "stop":
			q.stops, err = parseStops(raw)
		case "seed":
			var n int64
			err = decode(key, raw, &n, "an integer")
			q.sampling.seed, q.seeded = uint64(n), true
		case "temperature":
			err = number(key, raw, &q.sampling.temperature, 0, 2)
		case "top_p":
			err = number(key, raw, &q.sampling.topP, 0, 1)
		case "min_p":
			err = number(key, raw, &q.sampling.minP, 0, 1)
		case "top_k":
			err = integer(key, raw, &q.sampling.topK, -1, math.MaxInt32)
		case "frequency_penalty":
			err = number(key, raw, &q.sampling.frequency, -2, 2)
		case "presence_penalty":
			err = number(key, raw, &q.sampling.presence, -2, 2)
		case "repetition_penalty":
			err = number(key, raw, &q.sampling.repetition, 0.01, 10)
		case "logit_bias":
			q.sampling.bias, err = parseBias(raw, vocab)
		default:
			err = refuse(key, raw)
		}
		if err != nil {
			return q, err
		}
	}
	if len(q.messages) == 0 {
		return q, badRequest("messages", "missing_required_parameter", "messages: want at least one")
	}
	if q.includeUsage && !q.stream {
		return q, badRequest("stream_options", "", "stream_options: want it only with stream true")
	}
	if q.maxTokens = most; most == 0 {
		q.maxTokens = mostOld
	}
	return q, nil
}

// refuse answers for fields without support: their neutral values pass.
func refuse(key string, raw json.RawMessage) error {
	compact := new(bytes.Buffer)
	if json.Compact(compact, raw) != nil {
		return badRequest("", "", "body: want one JSON object")
	}
	neutral := map[string][]string{
		"tools": {`[]`}, "functions": {`[]`}, "tool_choice": {`"none"`, `"auto"`}, "function_call": {`"none"`, `"auto"`},
		"response_format": {`{"type":"text"}`}, "logprobs": {`false`}, "top_logprobs": {`0`},
		"modalities": {`["text"]`}, "audio": nil, "prediction": nil, "web_search_options": nil,
	}
	values, known := neutral[key]
	for _, v := range values {
		if compact.String() == v {
			return nil
		}
	}
	if known {
		return unsupported(key)
	}
	if len(key) > 64 {
		key = ""
	}
	for _, c := range key { // anything else might be prompt text
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' {
			key = ""
			break
		}
	}
	if key == "" {
		return badRequest("", "unknown_parameter", "body: has an unknown field")
	}
	return badRequest(key, "unknown_parameter", "%s: unknown field", key)
}

func isNull(raw json.RawMessage) bool { return string(raw) == "null" }

func decode(param string, raw json.RawMessage, to any, want string) error {
	if json.Unmarshal(raw, to) != nil {
		return invalid(param, want)
	}
	return nil
}

func integer(param string, raw json.RawMessage, to *int, lo, hi int) error {
	if json.Unmarshal(raw, to) != nil || *to < lo || *to > hi {
		return invalid(param, fmt.Sprintf("an integer from %d to %d", lo, hi))
	}
	return nil
}

func number(param string, raw json.RawMessage, to *float32, lo, hi float64) error {
	var f float64
	if json.Unmarshal(raw, &f) != nil || !(f >= lo && f <= hi) {
		return invalid(param, fmt.Sprintf("a number from %g to %g", lo, hi))
	}
	*to = float32(f)
	return nil
}

func parseStreamOptions(raw json.RawMessage) (bool, error) {
	var o map[string]json.RawMessage
	if err := decode("stream_options", raw, &o, "an object"); err != nil {
		return false, err
	}
	usage := false
	for key, raw := range o {
		switch key {
		case "include_usage":
			if err := decode("stream_options.include_usage", raw, &usage, "a boolean"); err != nil {
				return false, err
			}
		case "include_obfuscation": // padding is the sealed channel's work
		default:
			return false, badRequest("stream_options", "unknown_parameter", "stream_options: has an unknown field")
		}
	}
	return usage, nil
}

func parseStops(raw json.RawMessage) ([]string, error) {
	var one string
	stops := []string{}
	if json.Unmarshal(raw, &one) == nil {
		stops = append(stops, one)
	} else if json.Unmarshal(raw, &stops) != nil {
		return nil, invalid("stop", "a string or a list of strings")
	}
	if len(stops) > maxStops {
		return nil, invalid("stop", fmt.Sprintf("at most %d strings", maxStops))
	}
	for _, s := range stops {
		if s == "" || len(s) > maxStop {
			return nil, invalid("stop", fmt.Sprintf("strings of 1 to %d bytes", maxStop))
		}
	}
	return stops, nil
}

func parseBias(raw json.RawMessage, vocab int) (map[int32]float32, error) {
	var m map[string]float64
	want := "at most " + strconv.Itoa(maxBiases) + " token numbers with numbers from -100 to 100"
	if json.Unmarshal(raw, &m) != nil || len(m) > maxBiases {
		return nil, invalid("logit_bias", want)
	}
	out := make(map[int32]float32, len(m))
	for k, v := range m {
		id, err := strconv.Atoi(k)
		if err != nil || id < 0 || id >= vocab || !(v >= -100 && v <= 100) {
			return nil, invalid("logit_bias", want)
		}
		out[int32(id)] = float32(v)
	}
	return out, nil
}

func parseMessages(raw json.RawMessage) ([]message, error) {
	var list []map[string]json.RawMessage
	if json.Unmarshal(raw, &list) != nil || len(list) > maxMessages {
		return nil, invalid("messages", fmt.Sprintf("a list of at most %d messages", maxMessages))
	}
	out := make([]message, len(list))
	for i, m := range list {
		at := fmt.Sprintf("messages[%d]", i)
		for key, raw := range m {
			var err error
			switch field := at + "." + key; key {
			case "role":
				out[i].role, err = parseRole(field, raw)
			case "content":
				out[i].content, err = parseContent(field, raw)
			case "name", "tool_call_id": // ChatML has no place for them
			case "tool_calls", "function_call", "audio", "refusal":
				if !isNull(raw) && string(raw) != "[]" {
					err = unsupported(field)
				}
			default:
				err = badRequest(at, "unknown_parameter", "%s: has an unknown field", at)
			}
			if err != nil {
				return nil, err
			}
		}
		if out[i].role == "" {
			return nil, badRequest(at+".role", "missing_required_parameter", "%s.role: missing", at)
		}
		if _, ok := m["content"]; !ok {
			return nil, badRequest(at+".content", "missing_required_parameter", "%s.content: missing", at)
		}
	}
	return out, nil
}

func parseRole(param string, raw json.RawMessage) (string, error) {
	var role string
	_ = json.Unmarshal(raw, &role)
	switch role {
	case "developer":
		return "system", nil
	case "system", "user", "assistant", "tool":
		return role, nil
	}
	return "", invalid(param, "system, developer, user, assistant or tool")
}

// parseContent reads a string or a list of text parts, which are joined.
func parseContent(param string, raw json.RawMessage) (string, error) {
	var s string
	if json.Unmarshal(raw, &s) == nil && !isNull(raw) {
		return s, nil
	}
	var parts []struct {
		Type string  `json:"type"`
		Text *string `json:"text"`
	}
	if json.Unmarshal(raw, &parts) != nil || isNull(raw) {
		return "", invalid(param, "a string or a list of text parts")
	}
	var text strings.Builder
	for j, p := range parts {
		if p.Type != "text" {
			return "", unsupported(fmt.Sprintf("%s[%d].type", param, j))
		}
		if p.Text == nil || !utf8.ValidString(*p.Text) {
			return "", invalid(fmt.Sprintf("%s[%d].text", param, j), "a string")
		}
		text.WriteString(*p.Text)
	}
	return text.String(), nil
}
