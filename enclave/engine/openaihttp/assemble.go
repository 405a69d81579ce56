package openaihttp

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
)

// assembly puts a stream's chunks together into the one document that a
// client without "stream" expects.
type assembly struct {
	usage   bool
	doc     map[string]any
	choices map[int]map[string]any
}

// maxChoices bounds the choices of one answer.
const maxChoices = 128

func (s *assembly) add(data []byte) error {
	bad := func(what string) error { return fmt.Errorf("%w: chunk: %s", ErrEngine, what) }
	var chunk map[string]any
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	if dec.Decode(&chunk) != nil {
		return bad("not the JSON it should be")
	}
	if s.doc == nil {
		s.doc, s.choices = make(map[string]any), make(map[int]map[string]any)
	}
	list, _ := chunk["choices"].([]any)
	delete(chunk, "choices")
	for k, v := range chunk {
		if v != nil || s.doc[k] == nil {
			s.doc[k] = v
		}
	}
	for _, v := range list {
		c, ok := v.(map[string]any)
		if !ok {
			return bad("choice: want an object")
		}
		index := 0
		if n, ok := c["index"].(json.Number); ok {
			i, err := n.Int64()
			if err != nil || i < 0 || i >= maxChoices {
				return bad("choice index: out of range")
			}
			index = int(i)
		}
		have := s.choices[index]
		if have == nil {
			have = map[string]any{"index": index, "message": map[string]any{"role": "assistant", "content": nil}, "finish_reason": nil, "logprobs": nil}
			s.choices[index] = have
		}
		if delta, ok := c["delta"].(map[string]any); ok {
			merge(have["message"].(map[string]any), delta)
		}
		if lp, ok := c["logprobs"].(map[string]any); ok {
			into, _ := have["logprobs"].(map[string]any)
			if into == nil {
				into = make(map[string]any)
			}
			for k, v := range lp {
				add, _ := v.([]any)
				old, _ := into[k].([]any)
				if into[k] = any(append(old, add...)); old == nil && add == nil {
					into[k] = nil
				}
			}
			have["logprobs"] = into
		}
		if c["finish_reason"] != nil {
			have["finish_reason"] = c["finish_reason"]
		}
	}
	return nil
}

// merge adds a delta to a message: text grows, lists of indexed parts (tool
// calls) merge by index, the rest is replaced.
func merge(into, delta map[string]any) {
	for k, v := range delta {
		switch v := v.(type) {
		case nil:
		case string:
			if old, ok := into[k].(string); ok && k != "role" && k != "id" && k != "type" {
				v = old + v
			}
			into[k] = v
		case map[string]any:
			old, ok := into[k].(map[string]any)
			if !ok {
				old = make(map[string]any)
				into[k] = old
			}
			merge(old, v)
		case []any:
			old, _ := into[k].([]any)
			for _, part := range v {
				p, ok := part.(map[string]any)
				if !ok {
					old = append(old, part)
					continue
				}
				at := slices.IndexFunc(old, func(o any) bool {
					have, ok := o.(map[string]any)
					return ok && p["index"] != nil && have["index"] == p["index"]
				})
				if at < 0 {
					at = len(old)
					old = append(old, make(map[string]any))
				}
				merge(old[at].(map[string]any), p)
			}
			into[k] = old
		default:
			into[k] = v
		}
	}
}

// document is the whole chat.completion.
func (s *assembly) document() ([]byte, error) {
	if s.doc == nil || len(s.choices) == 0 {
		return nil, fmt.Errorf("%w: answer: has no choices", ErrEngine)
	}
	s.doc["object"] = "chat.completion"
	var list []any
	for _, i := range slices.Sorted(maps.Keys(s.choices)) {
		c := s.choices[i]
		if calls, ok := c["message"].(map[string]any)["tool_calls"].([]any); ok {
			for _, call := range calls { // an index is of streams only
				if m, ok := call.(map[string]any); ok {
					delete(m, "index")
				}
			}
		}
		list = append(list, c)
	}
	s.doc["choices"] = list
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if enc.Encode(s.doc) != nil {
		return nil, fmt.Errorf("%w: answer: cannot be written as JSON", ErrEngine)
	}
	return buf.Bytes(), nil
}
