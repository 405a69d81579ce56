package main

import (
	"io"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// plain passes text on, with everything escaped that a terminal might act on or
// hide: what is printed holds names and reasons that workers, hosts and files
// of strangers chose. JSON stays the JSON it was.
type plain struct{ w io.Writer }

// Write reports p as written if all that stands for it was.
func (t plain) Write(p []byte) (int, error) {
	out := make([]byte, 0, len(p))
	for rest := p; len(rest) > 0; {
		r, n := utf8.DecodeRune(rest)
		switch {
		case r == '\n' || r == '\t' || unicode.IsPrint(r) && (r != utf8.RuneError || n > 1):
			out = append(out, rest[:n]...)
		case r == utf8.RuneError:
			out = append(out, '\\', 'x', digits[rest[0]>>4], digits[rest[0]&15])
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			out = escape(escape(out, high), low)
		default:
			out = escape(out, r)
		}
		rest = rest[n:]
	}
	if _, err := t.w.Write(out); err != nil {
		return 0, err
	}
	return len(p), nil
}

const digits = "0123456789abcdef"

func escape(b []byte, r rune) []byte {
	return append(b, '\\', 'u', digits[r>>12&15], digits[r>>8&15], digits[r>>4&15], digits[r&15])
}
