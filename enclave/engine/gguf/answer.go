package gguf

import (
	"bytes"
	"encoding/json"
	"fmt"

	"cocoon/enclave/engine"
)

// answer writes one completion in OpenAI's shapes.
type answer struct {
	sink    engine.Sink
	stream  bool
	usage   bool // a usage chunk was asked for
	id      string
	model   string // already quoted
	created int64
	event   bytes.Buffer
}

// quote appends s as JSON, with no more escapes than it needs.
func quote(b *bytes.Buffer, s string) {
	enc := json.NewEncoder(b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(s)       // a string always encodes
	b.Truncate(b.Len() - 1) // its newline
}

func (a *answer) begin(object string) {
	a.event.Reset()
	if a.stream {
		a.event.WriteString("data: ")
	}
	fmt.Fprintf(&a.event, `{"id":%q,"object":%q,"created":%d,"model":%s,"choices":[`, a.id, object, a.created, a.model)
}

// chunk writes one event with the given delta and finish reason, both JSON.
func (a *answer) chunk(delta func(*bytes.Buffer), finish string, u engine.Usage) error {
	a.begin("chat.completion.chunk")
	a.event.WriteString(`{"index":0,"delta":{`)
	delta(&a.event)
	a.event.WriteString(`},"logprobs":null,"finish_reason":` + finish + `}]`)
	if a.usage {
		a.event.WriteString(`,"usage":null`)
	}
	a.event.WriteString("}\n\n")
	return a.sink.Write(a.event.Bytes(), u)
}

// open writes the role, or a whole document's part before the text.
func (a *answer) open(u engine.Usage) error {
	if !a.stream {
		a.begin("chat.completion")
		a.event.WriteString(`{"index":0,"message":{"role":"assistant","content":"`)
		return a.sink.Write(a.event.Bytes(), u)
	}
	return a.chunk(func(b *bytes.Buffer) { b.WriteString(`"role":"assistant","content":"","refusal":null`) }, "null", u)
}

// add writes a piece of the answer's text.
func (a *answer) add(text string, u engine.Usage) error {
	if text == "" {
		return nil
	}
	if !a.stream { // the inside of a string literal
		a.event.Reset()
		quote(&a.event, text)
		return a.sink.Write(a.event.Bytes()[1:a.event.Len()-1], u)
	}
	return a.chunk(func(b *bytes.Buffer) {
		b.WriteString(`"content":`)
		quote(b, text)
	}, "null", u)
}

// close writes the finish reason and, where asked for, the usage.
func (a *answer) close(finish string, u engine.Usage) error {
	if a.stream {
		if err := a.chunk(func(*bytes.Buffer) {}, `"`+finish+`"`, u); err != nil {
			return err
		}
		a.event.Reset()
		if a.usage {
			a.begin("chat.completion.chunk")
			a.event.WriteString(`],"usage":`)
			usage(&a.event, u)
			a.event.WriteString("}\n\n")
		}
		a.event.WriteString("data: [DONE]\n\n")
		return a.sink.Write(a.event.Bytes(), u)
	}
	a.event.Reset()
	a.event.WriteString(`","refusal":null},"logprobs":null,"finish_reason":"` + finish + `"}],"usage":`)
	usage(&a.event, u)
	a.event.WriteString("}")
	return a.sink.Write(a.event.Bytes(), u)
}

func usage(b *bytes.Buffer, u engine.Usage) {
	fmt.Fprintf(b, `{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d,"prompt_tokens_details":{"cached_tokens":%d},"completion_tokens_details":{"reasoning_tokens":%d}}`,
		u.Prompt, u.Completion, u.Prompt+u.Completion, u.Cached, u.Reasoning)
}
