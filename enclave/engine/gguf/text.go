package gguf

import (
	"strings"
	"unicode/utf8"
)

// textOut turns token bytes into answer text: it never splits a character
// across two pieces, and holds back what could be the start of a stop string.
type textOut struct {
	stops   []string
	partial []byte // an unfinished character
	held    string // valid UTF-8, some of which may begin a stop string
}

// push adds one token's bytes. It returns the text now certain, and whether a
// stop string ended the answer; neither it nor anything after it is returned.
func (o *textOut) push(b string) (text string, stopped bool) {
	o.partial = append(o.partial, b...)
	n := completeRunes(o.partial)
	o.held += strings.ToValidUTF8(string(o.partial[:n]), "\ufffd")
	o.partial = append(o.partial[:0], o.partial[n:]...)
	return o.release()
}

// flush returns what is left when no more tokens come.
func (o *textOut) flush() (text string, stopped bool) {
	if len(o.partial) > 0 {
		o.held += "\ufffd"
		o.partial = o.partial[:0]
	}
	text, stopped = o.release()
	if !stopped {
		text += o.held
	}
	o.held = ""
	return text, stopped
}

func (o *textOut) release() (string, bool) {
	first := -1
	for _, s := range o.stops {
		if i := strings.Index(o.held, s); i >= 0 && (first < 0 || i < first) {
			first = i
		}
	}
	if first >= 0 {
		text := o.held[:first]
		o.held = ""
		return text, true
	}
	keep := 0
	for _, s := range o.stops {
		for n := min(len(s)-1, len(o.held)); n > keep; n-- {
			if strings.HasSuffix(o.held, s[:n]) {
				keep = n
			}
		}
	}
	text := o.held[:len(o.held)-keep]
	o.held = o.held[len(text):]
	return text, false
}

// completeRunes is the length of b without an unfinished character at its end.
func completeRunes(b []byte) int {
	for i := len(b) - 1; i >= 0 && i >= len(b)-utf8.UTFMax+1; i-- {
		if utf8.RuneStart(b[i]) {
			if !utf8.FullRune(b[i:]) {
				return i
			}
			break
		}
	}
	return len(b)
}
