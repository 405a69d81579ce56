package request

import (
	"bytes"
	"encoding/json"
	"unicode/utf8"
)

// object is one JSON object's fields, and the bytes of each value.
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
	s := &scanner{b: body}
	if !json.Valid(body) || s.peek() != '{' {
		return nil, refuse("", "invalid_json", "body: want one JSON object and nothing after it")
	}
	if err := s.walk(0); err != nil {
		return nil, err
	}
	return fields(body), nil
}

// scanner walks over JSON that is known to be valid.
type scanner struct {
	b []byte
	i int
}

// peek skips white space and returns the next byte.
func (s *scanner) peek() byte {
	for s.b[s.i] == ' ' || s.b[s.i] == '\t' || s.b[s.i] == '\n' || s.b[s.i] == '\r' {
		s.i++
	}
	return s.b[s.i]
}

// next reports whether a list or object has one more member, after it consumed
// the comma before it or the closing bracket.
func (s *scanner) next() bool {
	switch s.peek() {
	case '}', ']':
		s.i++
		return false
	case ',':
		s.i++
		s.peek()
	}
	return true
}

// walk consumes one value and checks what json.Valid does not.
func (s *scanner) walk(depth int) error {
	open := s.peek()
	if open != '{' && open != '[' {
		s.scalar()
		return nil
	}
	if depth++; depth > maxDepth {
		return refuse("", "too_deep", "body: want at most %d levels of nesting", maxDepth)
	}
	s.i++
	var seen keys
	for s.next() {
		if open == '{' && !seen.add(s.key()) {
			return refuse("", "invalid_json", "body: an object has one key twice")
		}
		if err := s.walk(depth); err != nil {
			return err
		}
	}
	return nil
}

// skip consumes one value and returns its bytes.
func (s *scanner) skip() json.RawMessage {
	open := s.peek()
	start := s.i
	if open != '{' && open != '[' {
		s.scalar()
		return s.b[start:s.i]
	}
	for depth := 0; ; {
		switch s.b[s.i] {
		case '"':
			s.scalar()
			continue
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		}
		if s.i++; depth == 0 {
			return s.b[start:s.i]
		}
	}
}

// scalar consumes a string, a number, true, false or null.
func (s *scanner) scalar() {
	if s.b[s.i] != '"' {
		for s.i < len(s.b) && bytes.IndexByte([]byte(" \t\n\r,]}"), s.b[s.i]) < 0 {
			s.i++
		}
		return
	}
	for s.i++; s.b[s.i] != '"'; s.i++ {
		if s.b[s.i] == '\\' {
			s.i++
		}
	}
	s.i++
}

// key consumes a key and its colon.
func (s *scanner) key() string {
	start := s.i
	s.scalar()
	raw := s.b[start:s.i]
	s.peek()
	s.i++
	if bytes.IndexByte(raw, '\\') < 0 {
		return string(raw[1 : len(raw)-1])
	}
	var k string
	if json.Unmarshal(raw, &k) != nil { // it is valid
		return string(raw)
	}
	return k
}

// keys are those of one object: few, as a rule.
type keys struct {
	few  []string
	many map[string]bool
}

// add reports whether the key is new.
func (k *keys) add(key string) bool {
	if k.many == nil {
		for _, have := range k.few {
			if have == key {
				return false
			}
		}
		if k.few = append(k.few, key); len(k.few) < 16 {
			return true
		}
		k.many = make(map[string]bool, len(k.few))
		for _, have := range k.few {
			k.many[have] = true
		}
		return true
	}
	if k.many[key] {
		return false
	}
	k.many[key] = true
	return true
}

// fields reads an object that is known to be valid; of anything else it
// returns nil.
func fields(raw []byte) object {
	s := &scanner{b: raw}
	if len(raw) == 0 || s.peek() != '{' {
		return nil
	}
	s.i++
	o := object{}
	for s.next() {
		k := s.key()
		o[k] = s.skip()
	}
	return o
}

func isNull(raw json.RawMessage) bool { return string(raw) == "null" }

// readObject reads a nested object.
func readObject(param string, raw json.RawMessage) (object, error) {
	o := fields(raw)
	if o == nil {
		return nil, invalid(param, "an object")
	}
	return o, nil
}

func readList(param string, raw json.RawMessage, most int) ([]json.RawMessage, error) {
	s := &scanner{b: raw}
	if len(raw) == 0 || s.peek() != '[' {
		return nil, invalid(param, "a list")
	}
	s.i++
	var l []json.RawMessage
	n := 0
	for s.next() {
		if v := s.skip(); n < most {
			l = append(l, v)
		}
		n++
	}
	if n > most {
		return nil, refuse(param, "too_large", "%s: got %d entries, want at most %d", param, n, most)
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
