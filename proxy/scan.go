package proxy

import (
	"bytes"
	"encoding/json"
	"math"
	"math/bits"
	"strconv"

	"cocoon/attestation"
)

// promptBucket is what prompt ceilings are rounded up to at least, in tokens:
// they stand outside the seal.
const promptBucket = 256

// request is what the proxy must know of a body. Everything else, and whether
// any of it is allowed, is between the SDK and the worker.
type request struct {
	Model    string
	Stream   bool
	Max      uint64 // completion tokens asked for at most, all choices; 0 if not said
	Choices  uint64
	Messages uint64
	Tools    uint64
	Media    uint64
	Inline   uint64 // bytes of the body that are media
	Size     uint64 // bytes of the body
}

// readRequest scans a body. It keeps nothing of it.
func readRequest(body []byte) (request, error) {
	q := request{Choices: 1, Size: uint64(len(body))}
	if !json.Valid(body) {
		return q, badRequest("", "invalid_json", "the body is not valid JSON")
	}
	s := &scanner{b: body}
	if s.peek() != '{' {
		return q, badRequest("", "invalid_json", "the body is not a JSON object")
	}
	var err error
	s.object(func(key string) {
		switch key {
		case "model":
			q.Model = s.text()
		case "stream":
			q.Stream = string(s.value()) == "true"
		case "n":
			err = first(err, s.count("n", &q.Choices))
		case "max_tokens", "max_completion_tokens":
			var n uint64
			err = first(err, s.count(key, &n))
			if n > 0 && (q.Max == 0 || n < q.Max) {
				q.Max = n
			}
		case "tools", "functions":
			s.list(func() { q.Tools++; s.value() })
		case "messages":
			s.list(func() { q.Messages++; q.message(s) })
		default:
			s.value()
		}
	})
	if err == nil && q.Model == "" {
		err = badRequest("model", "missing_required_parameter", "model: missing")
	}
	if err == nil && (q.Choices == 0 || q.Choices > 128) {
		err = badRequest("n", "invalid_value", "n: want 1 to 128")
	}
	if err == nil && attestation.CheckModelName(q.Model) != nil {
		err = &apiError{Status: 404, Type: "invalid_request_error", Code: "model_not_found", Param: "model", Message: "no worker has a model of that name"}
	}
	if q.Max > math.MaxInt32/max(q.Choices, 1) {
		q.Max = math.MaxInt32
	} else {
		q.Max *= q.Choices
	}
	return q, err
}

func first(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

func badRequest(param, code, message string) *apiError {
	return &apiError{Status: 400, Type: "invalid_request_error", Code: code, Param: param, Message: message}
}

// message counts the media of one message.
func (q *request) message(s *scanner) {
	s.object(func(key string) {
		if key != "content" {
			s.value()
			return
		}
		s.list(func() {
			isMedium, inline := false, uint64(0)
			s.object(func(key string) {
				switch key {
				case "type":
					kind := s.text()
					isMedium = kind != "text" && kind != "refusal"
				case "image_url", "video_url", "audio_url", "input_audio", "file":
					s.object(func(key string) {
						switch key {
						case "url", "data", "file_data":
							inline += uint64(len(s.text()))
						default:
							s.value()
						}
					})
				default:
					s.value()
				}
			})
			if isMedium {
				q.Media++
				q.Inline += inline
			}
		})
	})
}

// promptCeiling is the most prompt tokens that the body can become under a
// release's allowances, rounded up to a bucket: one token for each byte that
// is not a medium's, and the allowance for each message, tool and medium.
func (q *request) promptCeiling(a attestation.Allowances) uint64 {
	bound := q.Size - min(q.Inline, q.Size)
	for _, part := range []struct{ n, each uint64 }{{q.Messages, a.Message}, {q.Tools, a.Tool}, {q.Media, a.Medium}} {
		hi, lo := bits.Mul64(part.n, part.each)
		if hi != 0 || lo > math.MaxUint32 {
			return math.MaxUint32
		}
		bound = min(bound+lo, math.MaxUint32)
	}
	return min(bucket(bound), math.MaxUint32)
}

// bucket rounds up by at most a quarter, and to promptBucket at least.
func bucket(n uint64) uint64 {
	step := uint64(promptBucket)
	if n > 4*promptBucket {
		step = 1 << (bits.Len64(n) - 3)
	}
	return max((n+step-1)/step*step, promptBucket)
}

// scanner walks over JSON that is known to be valid. Where a value is not of
// the kind asked for, it is skipped.
type scanner struct {
	b []byte
	i int
}

func (s *scanner) peek() byte {
	for s.i < len(s.b) && (s.b[s.i] == ' ' || s.b[s.i] == '\t' || s.b[s.i] == '\n' || s.b[s.i] == '\r') {
		s.i++
	}
	if s.i == len(s.b) {
		return 0
	}
	return s.b[s.i]
}

// object calls field for each key; field must consume the value.
func (s *scanner) object(field func(key string)) {
	if s.peek() != '{' {
		s.value()
		return
	}
	s.i++
	for s.peek() == '"' {
		key := s.text()
		s.peek()
		s.i++ // colon
		field(key)
		if s.peek() == ',' {
			s.i++
		}
	}
	s.i++
}

// list calls element for each element; element must consume it.
func (s *scanner) list(element func()) {
	if s.peek() != '[' {
		s.value()
		return
	}
	s.i++
	for s.peek() != ']' {
		element()
		if s.peek() == ',' {
			s.i++
		}
	}
	s.i++
}

// value consumes any value and returns its bytes.
func (s *scanner) value() []byte {
	s.peek()
	start := s.i
	depth := 0
	for s.i < len(s.b) {
		switch s.b[s.i] {
		case '"':
			s.skipString()
		case '{', '[':
			depth++
			s.i++
		case '}', ']':
			if depth == 0 {
				return s.b[start:s.i] // the end of what a scalar stands in
			}
			depth--
			s.i++
		case ',', ' ', '\t', '\n', '\r':
			if depth == 0 {
				return s.b[start:s.i]
			}
			s.i++
			continue
		default:
			s.i++
			continue
		}
		if depth == 0 {
			return s.b[start:s.i]
		}
	}
	return s.b[start:s.i]
}

func (s *scanner) skipString() {
	s.i++
	for s.i < len(s.b) && s.b[s.i] != '"' {
		if s.b[s.i] == '\\' {
			s.i++
		}
		s.i++
	}
	s.i++
}

// text consumes a string; of anything else it returns "".
func (s *scanner) text() string {
	v := s.value()
	if len(v) < 2 || v[0] != '"' {
		return ""
	}
	if bytes.IndexByte(v, '\\') < 0 {
		return string(v[1 : len(v)-1])
	}
	var t string
	if json.Unmarshal(v, &t) != nil {
		return ""
	}
	return t
}

// count reads a positive whole number; null leaves n as it is.
func (s *scanner) count(param string, n *uint64) error {
	v := s.value()
	if string(v) == "null" {
		return nil
	}
	u, err := strconv.ParseUint(string(v), 10, 31)
	if err != nil || u == 0 {
		return badRequest(param, "invalid_value", param+": want a positive whole number")
	}
	*n = u
	return nil
}
