// Package request decides which bodies may reach an engine.
//
// It promises that whatever passes is one JSON object of bounded size and
// depth, without a repeated key, with fields from a list that is known to be
// harmless, media as data: URLs alone, and answers, log probabilities and
// grammars bounded; and that the number of prompt tokens which the body can
// become is bounded before any engine sees it (DESIGN section 4). Unlisted
// fields are refused by name, so that a new engine's new field cannot open a
// door by itself. Errors never quote a value.
//
// It does not judge what a prompt says, nor whether an engine supports a field.
package request

import (
	"fmt"
	"math"

	"cocoon/attestation"
	"cocoon/enclave/engine"
)

// Bounds on a body.
const (
	MaxBytes        = 32 << 20
	maxDepth        = 48
	maxMessages     = 4096
	maxParts        = 1024 // of one message
	maxTools        = 256
	maxMedia        = 64
	maxChoices      = 8 // n
	maxTopLogprobs  = 20
	maxGrammarBytes = 64 << 10 // a JSON schema, grammar or regular expression
	maxStops        = 16
	maxBiases       = 1024
	maxMetadata     = 16 << 10 // bytes of a field that only labels the request
)

// Checked is what is known of a body that may be run.
type Checked struct {
	Model     string
	Stream    bool
	Choices   uint64 // n
	MaxTokens uint64 // what the client asked for at most; 0 if it did not say
	Messages  uint64
	Tools     uint64
	Media     uint64
	MediaSize uint64 // bytes of the body that are media
	Size      uint64 // bytes of the body
}

// PromptBound is the most prompt tokens that the body can become under a
// release's allowances: one for each byte that is not a medium's, and the
// allowance for each message, tool and medium. A byte is at least one token's
// worth, as every tokenizer in use falls back to bytes at worst.
func (c Checked) PromptBound(a attestation.Allowances) (uint64, error) {
	bound := c.Size - c.MediaSize
	for _, part := range []struct{ n, each uint64 }{{c.Messages, a.Message}, {c.Tools, a.Tool}, {c.Media, a.Medium}} {
		if part.each != 0 && part.n > (math.MaxUint32-bound)/part.each {
			return 0, refuse("messages", "too_large", "messages: the prompt can become more than %d tokens", uint32(math.MaxUint32))
		}
		bound += part.n * part.each
	}
	return bound, nil
}

// Check reads the body of a request to an endpoint. Its error is an
// *engine.RequestError.
func Check(e engine.Endpoint, body []byte) (Checked, error) {
	if e != engine.ChatCompletions {
		return Checked{}, &engine.RequestError{Status: 404, Type: "invalid_request_error", Code: "unknown_endpoint", Message: "endpoint: this worker serves chat/completions"}
	}
	root, err := parseObject(body)
	if err != nil {
		return Checked{}, err
	}
	c := Checked{Choices: 1, Size: uint64(len(body))}
	if err := c.chat(root); err != nil {
		return Checked{}, err
	}
	return c, nil
}

func refuse(param, code, format string, args ...any) error {
	return &engine.RequestError{Status: 400, Type: "invalid_request_error", Code: code, Param: param, Message: fmt.Sprintf(format, args...)}
}

func invalid(param, want string) error {
	return refuse(param, "invalid_value", "%s: want %s", param, want)
}

// unknown names a field that is not on the list, if the name cannot be text of a prompt.
func unknown(at, key string) error {
	where := at
	if where == "" {
		where = "body"
	}
	ok := len(key) > 0 && len(key) <= 64
	for _, c := range []byte(key) {
		ok = ok && (c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '_')
	}
	if !ok {
		return refuse(at, "unknown_parameter", "%s: has an unknown field", where)
	}
	if at != "" {
		key = at + "." + key
	}
	return refuse(key, "unknown_parameter", "%s: unknown field", key)
}
