package gguf

import (
	"container/heap"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode/utf8"
)

// Piece types (ggml, llama.h, enum llama_token_type).
const (
	pieceNormal  = 1
	pieceUnknown = 2
	pieceControl = 3
	pieceUser    = 4
	pieceUnused  = 5
	pieceByte    = 6
)

// spaceMark stands for a space inside sentencepiece pieces.
const spaceMark = "▁"

// tokenizer is a sentencepiece BPE vocabulary: adjacent pieces merge in order
// of score, and what has no piece falls back to bytes.
type tokenizer struct {
	pieces   []string // as stored
	types    []int64
	text     []string         // what each token adds to an answer
	merge    map[string]int32 // pieces that text may become: normal ones only
	scores   []float32
	user     []int32 // user-defined pieces, longest first match wins
	bytes    [256]int32
	unknown  int32
	bos, eos int32
	addBOS   bool
	addSpace bool
	longest  int // bytes in the longest piece
}

func newTokenizer(h *header) (*tokenizer, error) {
	if m, _ := h.meta["tokenizer.ggml.model"].(string); m != "llama" {
		return nil, fmt.Errorf("gguf: tokenizer.ggml.model: got %q, want \"llama\"", m)
	}
	pieces, _ := h.meta["tokenizer.ggml.tokens"].([]string)
	scores, _ := h.meta["tokenizer.ggml.scores"].([]float64)
	types, _ := h.meta["tokenizer.ggml.token_type"].([]int64)
	n := len(pieces)
	if n == 0 || len(scores) != n || len(types) != n {
		return nil, fmt.Errorf("gguf: tokenizer: got %d pieces, %d scores and %d types, want as many of each", n, len(scores), len(types))
	}
	t := &tokenizer{pieces: pieces, types: types, text: make([]string, n), scores: make([]float32, n), merge: make(map[string]int32, n), unknown: -1, longest: 1}
	for i := range t.bytes {
		t.bytes[i] = -1
	}
	for i, p := range pieces {
		if math.IsNaN(scores[i]) {
			return nil, fmt.Errorf("gguf: tokenizer: score of piece %d is not a number", i)
		}
		t.scores[i] = float32(scores[i])
		switch types[i] {
		case pieceNormal, pieceUser:
			if p == "" || !utf8.ValidString(p) {
				return nil, fmt.Errorf("gguf: tokenizer: piece %d is empty or not UTF-8", i)
			}
			t.longest = max(t.longest, len(p))
			t.text[i] = strings.ReplaceAll(p, spaceMark, " ")
			if types[i] == pieceUser {
				t.user = append(t.user, int32(i))
			} else if _, ok := t.merge[p]; !ok {
				t.merge[p] = int32(i)
			}
		case pieceByte:
			var b byte
			if n, err := fmt.Sscanf(p, "<0x%02X>", &b); n != 1 || err != nil || p != fmt.Sprintf("<0x%02X>", b) {
				return nil, fmt.Errorf("gguf: tokenizer: byte piece %d: want the form <0xHH>", i)
			}
			t.bytes[b] = int32(i)
			t.text[i] = string([]byte{b})
		case pieceUnknown, pieceControl, pieceUnused:
		default:
			return nil, fmt.Errorf("gguf: tokenizer: piece %d: type: got %d, want 1 to 6", i, types[i])
		}
	}
	var err error
	t.bos, err = t.special(h, "tokenizer.ggml.bos_token_id", 1)
	if err != nil {
		return nil, err
	}
	if t.eos, err = t.special(h, "tokenizer.ggml.eos_token_id", 2); err != nil {
		return nil, err
	}
	if _, ok := h.meta["tokenizer.ggml.unknown_token_id"]; ok {
		if t.unknown, err = t.special(h, "tokenizer.ggml.unknown_token_id", 0); err != nil {
			return nil, err
		}
	}
	t.addBOS, t.addSpace = true, true
	if v, ok := h.meta["tokenizer.ggml.add_bos_token"].(bool); ok {
		t.addBOS = v
	}
	if v, ok := h.meta["tokenizer.ggml.add_space_prefix"].(bool); ok {
		t.addSpace = v
	}
	for _, b := range t.bytes {
		if b < 0 && t.unknown < 0 {
			return nil, errors.New("gguf: tokenizer: has neither all byte pieces nor an unknown piece")
		}
	}
	return t, nil
}

func (t *tokenizer) special(h *header, key string, def uint64) (int32, error) {
	id := def
	if v, ok := h.meta[key]; ok {
		if id, ok = v.(uint64); !ok {
			return 0, fmt.Errorf("gguf: %s: got %T, want an unsigned integer", key, v)
		}
	}
	if id >= uint64(len(t.pieces)) {
		return 0, fmt.Errorf("gguf: %s: got %d, want below %d", key, id, len(t.pieces))
	}
	return int32(id), nil
}

// control finds the token of a marker that text itself must never produce.
func (t *tokenizer) control(piece string) (int32, error) {
	for i, p := range t.pieces {
		if p == piece && (t.types[i] == pieceControl || t.types[i] == pieceUser) {
			return int32(i), nil
		}
	}
	return 0, fmt.Errorf("gguf: tokenizer: has no control piece %q", piece)
}

// encode appends the tokens of text that follows a control token. No text,
// whatever it spells, becomes a control token or a banned one. User-defined
// pieces match first, leftmost and then longest.
func (t *tokenizer) encode(out []int32, text string, banned ...int32) []int32 {
	if t.addSpace && text != "" {
		text = " " + text
	}
	// next[i] is where t.user[i] occurs next, so that each is searched for
	// once from each of its own ends and the work stays linear.
	next := make([]int, len(t.user))
	for i := range next {
		next[i] = -1
	}
	for at := 0; at < len(text); {
		found, id := len(text), int32(-1)
		for i, u := range t.user {
			if slices.Contains(banned, u) {
				continue
			}
			if next[i] < at {
				next[i] = len(text)
				if j := strings.Index(text[at:], t.text[u]); j >= 0 {
					next[i] = at + j
				}
			}
			if next[i] < found || next[i] == found && id >= 0 && len(t.text[u]) > len(t.text[id]) {
				found, id = next[i], u
			}
		}
		out = t.encodePlain(out, strings.ReplaceAll(text[at:found], " ", spaceMark))
		at = found
		if id >= 0 {
			out = append(out, id)
			at += len(t.text[id])
		}
	}
	return out
}

// symbol is a run of the text that is one piece so far, in a linked list.
type symbol struct {
	start, end int // in the text
	prev, next int // symbols, -1 at the ends
}

type pair struct {
	score       float32
	left, right int
	size        int // bytes when queued; a changed size means it is stale
}

type pairs []pair

func (p pairs) Len() int { return len(p) }
func (p pairs) Less(i, j int) bool {
	if p[i].score != p[j].score {
		return p[i].score > p[j].score
	}
	return p[i].left < p[j].left
}
func (p pairs) Swap(i, j int) { p[i], p[j] = p[j], p[i] }
func (p *pairs) Push(v any)   { *p = append(*p, v.(pair)) }
func (p *pairs) Pop() any {
	old := *p
	v := old[len(old)-1]
	*p = old[:len(old)-1]
	return v
}

// encodePlain merges text, its spaces already marked, best score first and
// leftmost among equals, in O(n log n).
func (t *tokenizer) encodePlain(out []int32, text string) []int32 {
	if text == "" {
		return out
	}
	syms := make([]symbol, 0, len(text))
	for i := 0; i < len(text); {
		_, n := utf8.DecodeRuneInString(text[i:])
		syms = append(syms, symbol{i, i + n, len(syms) - 1, len(syms) + 1})
		i += n
	}
	syms[len(syms)-1].next = -1
	var queue pairs
	add := func(l, r int) {
		if l < 0 || r < 0 {
			return
		}
		if id, ok := t.merge[text[syms[l].start:syms[r].end]]; ok {
			heap.Push(&queue, pair{t.scores[id], l, r, syms[r].end - syms[l].start})
		}
	}
	for i := range len(syms) - 1 {
		add(i, i+1)
	}
	for len(queue) > 0 {
		p := heap.Pop(&queue).(pair)
		l, r := &syms[p.left], &syms[p.right]
		if l.start == l.end || r.start == r.end || r.end-l.start != p.size || l.next != p.right {
			continue
		}
		l.end, l.next = r.end, r.next
		r.start = r.end
		if l.next >= 0 {
			syms[l.next].prev = p.left
		}
		add(l.prev, p.left)
		add(p.left, l.next)
	}
	for i := 0; i >= 0; i = syms[i].next {
		out = t.piece(out, text[syms[i].start:syms[i].end])
	}
	return out
}

func (t *tokenizer) piece(out []int32, s string) []int32 {
	if id, ok := t.merge[s]; ok {
		return append(out, id)
	}
	if t.bytes[s[0]] < 0 {
		return append(out, t.unknown)
	}
	for _, b := range []byte(strings.ReplaceAll(s, spaceMark, " ")) {
		if t.bytes[b] < 0 {
			out = append(out, t.unknown)
			continue
		}
		out = append(out, t.bytes[b])
	}
	return out
}
