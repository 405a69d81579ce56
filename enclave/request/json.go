package request

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"unicode/utf8"
)

// object is one JSON object's fields, and the order-free bytes of each value.
type object map[string]json.RawMessage

// parseObject reads a body that is one JSON object, of bounded size and depth,
// in UTF-8, in which no object repeats a key: two parsers that disagree on
// which of two counts must not see one.
func parseObject(body []byte) (object, error) {
	if len(body) > MaxBytes {
		return nil, refuse("", "too_large", "body: got %d bytes, want at most %d", len(body), MaxBytes)
	}
	if !utf8.Valid(body) {
		return nil, refuse("", "invalid_json", "body: want UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	if err := walk(d, 0); err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, refuse("", "invalid_json", "body: want one JSON object and nothing after it")
	}
	var o object
	if json.Unmarshal(body, &o) != nil || o == nil {
		return nil, refuse("", "invalid_json", "body: want one JSON object")
	}
	return o, nil
}

// walk consumes one value.
func walk(d *json.Decoder, depth int) error {
	t, err := d.Token()
	if err != nil {
		return refuse("", "invalid_json", "body: want JSON")
	}
	open, ok := t.(json.Delim)
	if !ok {
		return nil
	}
	if depth++; depth > maxDepth {
		return refuse("", "too_deep", "body: want at most %d levels of nesting", maxDepth)
	}
	seen := map[string]bool{}
	for d.More() {
		if open == '{' {
			t, err := d.Token()
			key, ok := t.(string)
			if err != nil || !ok {
				return refuse("", "invalid_json", "body: want JSON")
			}
			if seen[key] {
				return refuse("", "invalid_json", "body: an object has one key twice")
			}
			seen[key] = true
		}
		if err := walk(d, depth); err != nil {
			return err
		}
	}
	if _, err := d.Token(); err != nil {
		return refuse("", "invalid_json", "body: want JSON")
	}
	return nil
}

func isNull(raw json.RawMessage) bool { return string(raw) == "null" }

// readObject reads a nested object.
func readObject(param string, raw json.RawMessage) (object, error) {
	var o object
	if json.Unmarshal(raw, &o) != nil || o == nil {
		return nil, invalid(param, "an object")
	}
	return o, nil
}

func readList(param string, raw json.RawMessage, most int) ([]json.RawMessage, error) {
	var l []json.RawMessage
	if json.Unmarshal(raw, &l) != nil || isNull(raw) {
		return nil, invalid(param, "a list")
	}
	if len(l) > most {
		return nil, refuse(param, "too_large", "%s: got %d entries, want at most %d", param, len(l), most)
	}
	return l, nil
}

func readString(param string, raw json.RawMessage) (string, error) {
	var s string
	if isNull(raw) || json.Unmarshal(raw, &s) != nil {
		return "", invalid(param, "a string")
	}
	return s, nil
}
