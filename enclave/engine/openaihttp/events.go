package openaihttp

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"

	"cocoon/enclave/engine"
)

// batchTokens is how many events with text are passed on at most at a time
// and asked for in one Grant. It is less than the half window by which a
// client pays ahead, so what it was not yet shown never keeps it from paying.
const batchTokens = 64

// answer passes one stream on.
type answer struct {
	sink       engine.Sink
	stream     bool
	usageAsked bool
	limit      int // completion tokens

	counted int // events with text so far
	usage   engine.Usage
	stated  bool // usage is the engine's
	finish  string
	done    bool // [DONE] was read
	whole   assembly
}

var buffers = sync.Pool{New: func() any { b := make([]byte, readBytes); return &b }}

// read passes whole events on as they come: all that one read returned, in
// one Write, save that none exceeds batchTokens.
func (a *answer) read(ctx context.Context, r io.Reader) error {
	pooled := buffers.Get().(*[]byte)
	buf := *pooled
	defer func() {
		clear(buf) // plaintext
		*pooled = buf
		if len(buf) <= 256<<10 {
			buffers.Put(pooled)
		}
	}()
	used, scanned, total := 0, 0, 0
	for {
		if used == len(buf) {
			if used >= maxEvent {
				return fmt.Errorf("%w: event: longer than %d bytes", ErrEngine, maxEvent)
			}
			grown := make([]byte, 2*len(buf))
			copy(grown, buf)
			clear(buf)
			buf = grown
		}
		n, err := r.Read(buf[used:])
		used += n
		if total += n; total > maxAnswer {
			return fmt.Errorf("%w: answer: longer than %d bytes", ErrEngine, maxAnswer)
		}
		whole := lastEventEnd(buf[:used], scanned)
		if whole > 0 {
			if err := a.pass(ctx, buf[:whole]); err != nil {
				return err
			}
			used = copy(buf, buf[whole:used])
		}
		scanned = max(0, used-3)
		if a.done {
			return a.end()
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return fmt.Errorf("%w: answer ended early: %w", ErrEngine, err)
		}
	}
}

// lastEventEnd is the offset after the last blank line of b, or 0. Nothing
// before from can end one.
func lastEventEnd(b []byte, from int) int {
	for i := len(b) - 1; i > from; i-- {
		if b[i] == '\n' && (b[i-1] == '\n' || i >= 3 && b[i-1] == '\r' && b[i-2] == '\n') {
			return i + 1
		}
	}
	return 0
}

// nextEventEnd is the offset after the first blank line of b, which has one.
func nextEventEnd(b []byte) int {
	lf := bytes.Index(b, []byte("\n\n"))
	if lf >= 0 {
		b = b[:lf]
	}
	if crlf := bytes.Index(b, []byte("\n\r\n")); crlf >= 0 {
		return crlf + 3
	}
	return lf + 2
}

// pass handles whole events.
func (a *answer) pass(ctx context.Context, b []byte) error {
	start, at, text := 0, 0, 0 // of the batch, of the event, events with text in the batch
	flush := func() error {
		more := text > 0
		if more {
			if err := a.grant(ctx, a.counted+text); err != nil {
				return err
			}
			a.counted += text
			text = 0
		}
		p := b[start:at]
		start = at
		if !a.stream { // nothing to show yet but the count
			p = p[:0]
		} else {
			more = len(p) > 0
		}
		if !more {
			return nil
		}
		return a.sink.Write(p, a.progress())
	}
	for at < len(b) && !a.done {
		end := at + nextEventEnd(b[at:])
		ev := b[at:end]
		kind, err := a.classify(ev)
		if err != nil {
			return err
		}
		switch kind {
		case withText:
			if text == batchTokens {
				if err := flush(); err != nil {
					return err
				}
			}
			text++
		case ofUsage, ofNothing:
			if err := flush(); err != nil {
				return err
			}
			if kind == ofNothing || !a.usageAsked {
				start = end
			}
		case ofEnd: // passed on by end
			if err := flush(); err != nil {
				return err
			}
			a.done = true
			return nil
		}
		at = end
	}
	if err := flush(); err != nil {
		return err
	}
	if a.finish != "" { // no more text to ask for
		return nil
	}
	return a.grant(ctx, a.counted+1)
}

// grant asks for the n-th token. Events are not quite tokens, so n stays
// within what the engine was told to stop at.
func (a *answer) grant(ctx context.Context, n int) error {
	return a.sink.Grant(ctx, min(n, a.limit))
}

// progress is the usage to state with bytes on the way.
func (a *answer) progress() engine.Usage {
	if a.stated {
		return a.usage
	}
	a.usage = engine.Usage{Completion: min(a.counted, a.limit)}
	return a.usage
}

// end completes the answer once [DONE] was read.
func (a *answer) end() error {
	if !a.stated {
		return fmt.Errorf("%w: answer: states no usage", ErrEngine)
	}
	if a.finish == "" {
		return fmt.Errorf("%w: answer: states no finish reason", ErrEngine)
	}
	if a.stream {
		return a.sink.Write([]byte("data: [DONE]\n\n"), a.usage)
	}
	doc, err := a.whole.document()
	if err != nil {
		return err
	}
	return a.sink.Write(doc, a.usage)
}

type kind int

const (
	other kind = iota
	withText
	ofUsage
	ofNothing // not passed on
	ofEnd
)

// classify looks at an event's bytes without parsing it. The patterns are
// sound: inside a JSON string a quote follows a backslash, so none of them
// can match there.
func (a *answer) classify(ev []byte) (kind, error) {
	ev = bytes.TrimSpace(ev)
	data, ok := bytes.CutPrefix(ev, []byte("data:"))
	if !ok {
		if len(ev) == 0 || ev[0] == ':' { // a comment, to keep the connection up
			return ofNothing, nil
		}
		return 0, fmt.Errorf("%w: answer: has an event that is not data", ErrEngine)
	}
	if bytes.IndexByte(ev, '\n') >= 0 || bytes.IndexByte(ev, '\r') >= 0 {
		return 0, fmt.Errorf("%w: answer: has an event of several lines", ErrEngine)
	}
	data = bytes.TrimSpace(data)
	if string(data) == "[DONE]" {
		return ofEnd, nil
	}
	if !bytes.HasPrefix(data, []byte("{")) || bytes.HasPrefix(data, []byte(`{"error"`)) || value(data, `choices"`) == nil {
		return 0, fmt.Errorf("%w: answer: the engine reported an error in its midst", ErrEngine)
	}
	if v := value(data, `finish_reason"`); len(v) > 0 && v[0] == '"' {
		if err := a.finished(v[1:]); err != nil {
			return 0, err
		}
	}
	if v := value(data, `usage"`); len(v) > 0 && v[0] == '{' {
		return a.readUsage(data)
	}
	if !a.stream {
		if err := a.whole.add(data); err != nil {
			return 0, err
		}
	}
	for _, key := range []string{`content"`, `reasoning_content"`, `reasoning"`, `tool_calls"`, `refusal"`} {
		if v := value(data, key); len(v) > 1 && (v[0] == '"' && v[1] != '"' || v[0] == '[' && v[1] != ']') {
			return withText, nil
		}
	}
	return other, nil
}

// value is what follows the first occurrence of a key in data. The key is
// given without its opening quote, which is too common a byte to search by.
func value(data []byte, key string) []byte {
	for from := 0; ; {
		i := bytes.Index(data[from:], []byte(key))
		if i < 0 {
			return nil
		}
		i += from
		from = i + len(key)
		if i == 0 || data[i-1] != '"' {
			continue
		}
		if v := bytes.TrimLeft(data[from:], " "); len(v) > 0 && v[0] == ':' {
			return bytes.TrimLeft(v[1:], " ")
		}
	}
}

// finished notes a finish reason, up to its closing quote.
func (a *answer) finished(v []byte) error {
	i := bytes.IndexByte(v, '"')
	if i < 1 || i > 32 {
		return fmt.Errorf("%w: answer: finish reason: want 1 to 32 bytes", ErrEngine)
	}
	switch reason := string(v[:i]); reason {
	case "stop", "length", "tool_calls":
		a.finish = reason
	case "abort", "error":
		return fmt.Errorf("%w: answer: the engine gave up", ErrEngine)
	default: // content_filter, function_call and what may come
		a.finish = "stop"
	}
	return nil
}

// readUsage parses the one chunk that states usage.
func (a *answer) readUsage(data []byte) (kind, error) {
	var c struct {
		Choices []json.RawMessage `json:"choices"`
		Usage   struct {
			Prompt     int `json:"prompt_tokens"`
			Completion int `json:"completion_tokens"`
			PromptD    *struct {
				Cached int `json:"cached_tokens"`
			} `json:"prompt_tokens_details"`
			CompletionD *struct {
				Reasoning int `json:"reasoning_tokens"`
			} `json:"completion_tokens_details"`
		} `json:"usage"`
	}
	if json.Unmarshal(data, &c) != nil {
		return 0, fmt.Errorf("%w: usage: not the JSON it should be", ErrEngine)
	}
	u := engine.Usage{Prompt: c.Usage.Prompt, Completion: c.Usage.Completion}
	if c.Usage.PromptD != nil {
		u.Cached = c.Usage.PromptD.Cached
	}
	if c.Usage.CompletionD != nil {
		u.Reasoning = c.Usage.CompletionD.Reasoning
	}
	if u.Prompt < 1 || u.Prompt > 1<<31 || u.Cached < 0 || u.Cached > u.Prompt || u.Completion < 0 || u.Completion > a.limit || u.Reasoning < 0 || u.Reasoning > u.Completion {
		return 0, fmt.Errorf("%w: usage: got %+v, want at least one prompt token, at most %d completion tokens, and parts no larger than their wholes", ErrEngine, u, a.limit)
	}
	a.usage, a.stated = u, true
	a.whole.usage = true
	if !a.stream {
		if err := a.whole.add(data); err != nil {
			return 0, err
		}
	}
	if len(c.Choices) > 0 { // usage that came with an answer's last chunk
		return other, nil
	}
	return ofUsage, nil
}
