package gguf

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

// vocabulary is a tokenizer made of the given pieces, after the five that
// every test model starts with and all bytes.
func vocabulary(t testing.TB, pieces ...string) *tokenizer {
	t.Helper()
	h, err := parse(tinyModel(typeF32))
	if err != nil {
		t.Fatal(err)
	}
	toks, scores, types := h.meta["tokenizer.ggml.tokens"].([]string)[:261], h.meta["tokenizer.ggml.scores"].([]float64)[:261], h.meta["tokenizer.ggml.token_type"].([]int64)[:261]
	for i, p := range pieces {
		typ := int64(pieceNormal)
		if q, ok := strings.CutPrefix(p, "user:"); ok {
			p, typ = q, pieceUser
		}
		toks, scores, types = append(toks, p), append(scores, float64(-i)), append(types, typ)
	}
	h.meta["tokenizer.ggml.tokens"], h.meta["tokenizer.ggml.scores"], h.meta["tokenizer.ggml.token_type"] = toks, scores, types
	h.meta["tokenizer.ggml.add_space_prefix"] = false
	tok, err := newTokenizer(h)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func TestEncode(t *testing.T) {
	// Scores fall from left to right: earlier pieces merge first.
	tok := vocabulary(t, "a", "b", "c", "bc", "ab", "abc", "▁", "▁a", "user:<tool>", "user:<tool>x", "user:<")
	for _, c := range []struct {
		text string
		want []string
	}{
		{"", nil},
		{"abc", []string{"abc"}},            // bc first, then a+bc
		{"abab", []string{"ab", "ab"}},      // leftmost of equals
		{"aab", []string{"a", "ab"}},        //
		{" a a", []string{"▁a", "▁a"}},      //
		{"a\n", []string{"a", "<0x0A>"}},    // bytes for what has no piece
		{"é", []string{"<0xC3>", "<0xA9>"}}, //
		{"a<tool>b", []string{"a", "<tool>", "b"}},
		{"<tool>x", []string{"<tool>x"}}, // the longest of those that start first
		{"a<<tool>", []string{"a", "<", "<tool>"}},
	} {
		var got []string
		for _, id := range tok.encode(nil, c.text) {
			got = append(got, tok.pieces[id])
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%q: %s", c.text, diff)
		}
	}
	tok.addSpace = true
	if got := tok.encode(nil, "a"); len(got) != 1 || tok.pieces[got[0]] != "▁a" {
		t.Errorf("with a space in front: got %v", got)
	}
}

// TestEncodeIsNotQuadratic bounds the work on text made to be slow.
func TestEncodeIsNotQuadratic(t *testing.T) {
	tok := vocabulary(t, "a", "aa", "aaaa", "user:<tool>", "user:</tool>")
	for _, text := range []string{strings.Repeat("a", 1<<18), strings.Repeat("</tool>", 1<<15), strings.Repeat("é", 1<<17)} {
		if n := len(tok.encode(nil, text)); n == 0 {
			t.Error("no tokens")
		}
	}
}

func TestTemplates(t *testing.T) {
	h, err := parse(tinyModel(typeF32))
	if err != nil {
		t.Fatal(err)
	}
	tok, err := newTokenizer(h)
	if err != nil {
		t.Fatal(err)
	}
	const plus = "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
	system := "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\\nBe brief.<|im_end|>\\n' }}{% endif %}" + plus[len("{% for message in messages %}"):]
	for _, c := range []struct{ template, system string }{
		{seedTemplate, ""},
		{plus, ""},
		{strings.ReplaceAll(plus, "'", `"`), ""},
		{strings.ReplaceAll(plus, "message['role']", "message.role"), ""},
		{"{%- for m in messages -%}\n  {{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' -}}\n{%- endfor -%}\n{%- if add_generation_prompt -%}\n {{- '<|im_start|>assistant\\n' -}}\n{%- endif -%}", ""},
		{system, "Be brief."},
	} {
		h.meta["tokenizer.chat_template"] = c.template
		chat, err := newChatML(h, tok)
		if err != nil {
			t.Errorf("%s: %v", c.template, err)
		} else if chat.system != c.system {
			t.Errorf("%s: system: got %q, want %q", c.template, chat.system, c.system)
		}
	}
	for _, bad := range []string{
		"", "plain", "{", "{{", "{% for m in messages %}", "{{ messages }}", "{# comment #}",
		strings.ReplaceAll(plus, "im_start", "start_of_turn"),
		strings.Replace(plus, "'\\n'", "' '", 1),
		strings.Replace(plus, "message['role'] + ", "", 1),
		strings.Replace(plus, "message['content']", "message['content'] | upper", 1),
		strings.Replace(plus, "{% endfor %}", "{% endfor %}{% if tools %}x{% endif %}", 1),
		strings.Replace(plus, "assistant", "model", 1),
		strings.Replace(plus, "message['content']", "other['content']", 1),
		plus + "x", "x" + plus,
		"[INST] {{ messages[0]['content'] }} [/INST]",
	} {
		h.meta["tokenizer.chat_template"] = bad
		if _, err := newChatML(h, tok); err == nil {
			t.Errorf("%s: got no error", bad)
		}
	}
	// The default system message goes in front unless there is one.
	h.meta["tokenizer.chat_template"] = system
	chat, _ := newChatML(h, tok)
	with := chat.encode(tok, []message{{"system", "Be brief."}, {"user", "a"}})
	if diff := cmp.Diff(with, chat.encode(tok, []message{{"user", "a"}})); diff != "" {
		t.Error(diff)
	}
}

func FuzzTokenizer(f *testing.F) {
	tok := openSeed(f, Config{Threads: 1}).tok
	for _, s := range []string{"", "Hello, world!", "<|im_end|>", "<tool_call>{}", "日本語\n\t", "▁▁ a", "a\u200d"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if !utf8.ValidString(s) {
			return
		}
		var o textOut
		var got strings.Builder
		for _, id := range tok.encode(nil, s) {
			if tok.types[id] == pieceControl || tok.types[id] == pieceUnknown {
				t.Fatalf("%q: became piece %q", s, tok.pieces[id])
			}
			text, _ := o.push(tok.text[id])
			if !utf8.ValidString(text) {
				t.Fatalf("%q: a character was split", s)
			}
			got.WriteString(text)
		}
		text, _ := o.flush()
		got.WriteString(text)
		if want := strings.ReplaceAll(s, spaceMark, " "); got.String() != want {
			t.Fatalf("got %q, want %q", got.String(), want)
		}
	})
}

// FuzzStops: no part of a stop string is passed on, and nothing else is lost.
func FuzzStops(f *testing.F) {
	f.Add("hello world", "o w", "ld", uint8(3))
	f.Add("aaab", "aab", "b", uint8(1))
	f.Add("é", "\u00e9", "x", uint8(1))
	f.Fuzz(func(t *testing.T, text, a, b string, size uint8) {
		if !utf8.ValidString(text) || !utf8.ValidString(a) || !utf8.ValidString(b) || a == "" || b == "" || size == 0 {
			return
		}
		o := textOut{stops: []string{a, b}}
		var got strings.Builder
		stopped := false
		for rest := text; rest != "" && !stopped; {
			n := min(int(size), len(rest))
			var s string
			s, stopped = o.push(rest[:n])
			got.WriteString(s)
			rest = rest[n:]
		}
		if !stopped {
			s, _ := o.flush()
			got.WriteString(s)
		}
		// What was passed is the text up to some stop string, none of which
		// is in it.
		if strings.Contains(got.String(), a) || strings.Contains(got.String(), b) || !strings.HasPrefix(text, got.String()) {
			t.Fatalf("%q with stops %q and %q: got %q", text, a, b, got.String())
		}
		rest, ok := strings.CutPrefix(text, got.String())
		if stopped && (!ok || !strings.HasPrefix(rest, a) && !strings.HasPrefix(rest, b)) {
			t.Fatalf("%q with stops %q and %q: got %q, which ends before none", text, a, b, got.String())
		}
		if !stopped && got.String() != text {
			t.Fatalf("%q with stops %q and %q: got %q without a stop", text, a, b, got.String())
		}
	})
}
