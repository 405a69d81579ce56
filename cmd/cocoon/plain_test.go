package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

func TestPlain(t *testing.T) {
	for in, want := range map[string]string{
		"a\tb\n":                         "a\tb\n",
		"Budapest, őszi €1":              "Budapest, őszi €1",
		"\x1b[2J\x1b]0;owned\a":          `\u001b[2J\u001b]0;owned\u0007`,
		"over\rwritten\b":                `over\u000dwritten\u0008`,
		"\u009b31m":                      `\u009b31m`,
		"\x9b31m":                        `\x9b31m`,
		"gpj.\u202eexe":                  `gpj.\u202eexe`,
		"\U000e0041":                     `\udb40\udc41`,
		"\u007f\u2028\ufeff\u00a0":       `\u007f\u2028\ufeff\u00a0`,
		"cut \xe2\x82":                   `cut \xe2\x82`,
		"a replacement character \ufffd": "a replacement character \ufffd",
	} {
		var b bytes.Buffer
		if n, err := (plain{&b}).Write([]byte(in)); err != nil || n != len(in) || b.String() != want {
			t.Errorf("%q: got %q, %d, %v, want %q", in, b.String(), n, err, want)
		}
	}
	const odd = "\x1b \u007f \u202e \U000e0041"
	doc, err := json.Marshal(odd)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	var back string
	if _, err := (plain{&b}).Write(doc); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b.Bytes(), &back); err != nil || back != odd {
		t.Errorf("JSON: got %q, %v from %s", back, err, b.Bytes())
	}
}

// An error may quote what a stranger's file is called.
func TestErrorsArePlain(t *testing.T) {
	var out, err bytes.Buffer
	if code := run(t.Context(), []string{"audit", "--log", "gone\x1b[2J", "--ton-config", "c", "--registry", "0:" + strings.Repeat("1", 64)}, &out, &err); code != exitFailed {
		t.Errorf("code: got %d", code)
	}
	if strings.ContainsRune(err.String()+out.String(), 0x1b) || !strings.Contains(err.String(), "gone") {
		t.Errorf("got %q", err.String())
	}
}
