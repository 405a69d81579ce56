package gguf

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cocoon/enclave/engine/seed"
)

// builder writes small GGUF files.
type builder struct {
	meta, infos, data []byte
	entries, tensors  int
}

func str(s string) []byte {
	return append(binary.LittleEndian.AppendUint64(nil, uint64(len(s))), s...)
}

func (b *builder) kv(key string, typ uint32, value []byte) *builder {
	b.entries++
	b.meta = append(binary.LittleEndian.AppendUint32(append(b.meta, str(key)...), typ), value...)
	return b
}

func (b *builder) u32(key string, v uint32) *builder {
	return b.kv(key, 4, binary.LittleEndian.AppendUint32(nil, v))
}

func (b *builder) f32(key string, v float32) *builder {
	return b.kv(key, 6, binary.LittleEndian.AppendUint32(nil, math.Float32bits(v)))
}

func (b *builder) str(key, v string) *builder { return b.kv(key, 8, str(v)) }

func array(typ uint32, n int, elements []byte) []byte {
	return append(binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint32(nil, typ), uint64(n)), elements...)
}

func (b *builder) tensor(name string, typ uint32, data []byte, dims ...uint64) *builder {
	b.tensors++
	b.infos = binary.LittleEndian.AppendUint32(append(b.infos, str(name)...), uint32(len(dims)))
	for _, d := range dims {
		b.infos = binary.LittleEndian.AppendUint64(b.infos, d)
	}
	b.infos = binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint32(b.infos, typ), uint64(len(b.data)))
	b.data = pad(append(b.data, data...))
	return b
}

func pad(b []byte) []byte { return append(b, make([]byte, -len(b)&31)...) }

func (b *builder) file() []byte {
	out := binary.LittleEndian.AppendUint32([]byte("GGUF"), 3)
	out = binary.LittleEndian.AppendUint64(out, uint64(b.tensors))
	out = binary.LittleEndian.AppendUint64(out, uint64(b.entries))
	return append(pad(append(append(out, b.meta...), b.infos...)), b.data...)
}

func parse(b []byte) (*header, error) {
	return parseHeader(newStream(bytes.NewReader(b), int64(len(b))))
}

func TestHeaderIsReadBack(t *testing.T) {
	b := new(builder).u32("u", 7).f32("f", 1.5).str("s", "x").
		kv("a", 9, array(8, 2, append(str("p"), str("q")...))).kv("i", 9, array(5, 1, []byte{255, 255, 255, 255})).
		kv("b", 7, []byte{1}).tensor("t", typeQ8_0, make([]byte, 68), 32, 2).tensor("v", typeF32, make([]byte, 12), 3)
	h, err := parse(b.file())
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprintf("%v %v %v %v %v %v %v", h.meta["u"], h.meta["f"], h.meta["s"], h.meta["a"], h.meta["i"], h.meta["b"], h.tensors)
	if want := "7 1.5 x [p q] [-1] true [{t [32 2] 8 0 68} {v [3] 0 96 12}]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	full := b.file()
	if _, err := parse(full[:len(full)-20]); err != nil {
		t.Errorf("without the last padding: %v", err)
	}
}

func TestBadFilesAreRefused(t *testing.T) {
	good := new(builder).u32("u", 7).tensor("t", typeF32, make([]byte, 64), 16)
	edit := func(at int, v ...byte) []byte {
		f := good.file()
		copy(f[at:], v)
		return f
	}
	huge := []byte{255, 255, 255, 255, 255, 255, 255, 127}
	for name, f := range map[string][]byte{
		"empty":                 {},
		"magic":                 edit(0, 'g'),
		"version":               edit(4, 2),
		"many tensors":          edit(8, huge...),
		"many entries":          edit(16, huge...),
		"long key":              edit(24, huge...),
		"trailing byte":         append(good.file(), 0),
		"trailing block":        append(good.file(), make([]byte, 32)...),
		"padding not zero":      edit(len(good.file())-65, 1),
		"repeated key":          new(builder).u32("u", 1).u32("u", 1).file(),
		"empty key":             new(builder).u32("", 1).file(),
		"repeated tensor":       new(builder).tensor("t", typeF32, make([]byte, 32), 8).tensor("t", typeF32, make([]byte, 32), 8).file(),
		"value type":            new(builder).kv("k", 13, make([]byte, 8)).file(),
		"boolean":               new(builder).kv("k", 7, []byte{2}).file(),
		"array of arrays":       new(builder).kv("k", 9, array(9, 1, array(4, 0, nil))).file(),
		"array too long":        new(builder).kv("k", 9, array(4, 1<<40, nil)).file(),
		"string too long":       new(builder).kv("k", 8, huge).file(),
		"alignment of zero":     new(builder).u32("general.alignment", 0).file(),
		"alignment not a power": new(builder).u32("general.alignment", 24).file(),
		"alignment too large":   new(builder).u32("general.alignment", 1<<20).file(),
		"no dimensions":         new(builder).tensor("t", typeF32, nil).file(),
		"five dimensions":       new(builder).tensor("t", typeF32, make([]byte, 4), 1, 1, 1, 1, 1).file(),
		"dimension of zero":     new(builder).tensor("t", typeF32, nil, 0).file(),
		"dimensions overflow":   new(builder).tensor("t", typeF32, nil, 1<<32, 1<<32).file(),
		"beyond the file":       new(builder).tensor("t", typeF32, make([]byte, 32), 1<<20).file(),
		"tensor type":           new(builder).tensor("t", 2, make([]byte, 32), 32).file(),
		"ragged row":            new(builder).tensor("t", typeQ8_0, make([]byte, 34), 31).file(),
	} {
		if _, err := parse(f); err == nil {
			t.Errorf("%s: got no error", name)
		} else if !strings.HasPrefix(err.Error(), "gguf: ") {
			t.Errorf("%s: got %v, want an error of this package", name, err)
		}
	}
	f := good.file()
	for n := range f {
		if _, err := parse(f[:n]); err == nil {
			t.Errorf("truncated to %d of %d bytes: got no error", n, len(f))
		}
	}
}

func TestHalfToFloat(t *testing.T) {
	for h, want := range map[uint16]float32{0: 0, 0x3c00: 1, 0xc000: -2, 1: 1.0 / (1 << 24), 0x7bff: 65504, 0x3555: 0.33325195, 0x8400: -1.0 / (1 << 14)} {
		if got := halfToFloat(h); got != want {
			t.Errorf("%#04x: got %v, want %v", h, got, want)
		}
	}
	if v := halfToFloat(0x7c00); !math.IsInf(float64(v), 1) {
		t.Errorf("infinity: got %v", v)
	}
	if v := halfToFloat(0x7e00); v == v {
		t.Errorf("NaN: got %v", v)
	}
}

// seedWith is the seed file with one metadata byte string replaced by another
// of the same length.
func seedWith(t *testing.T, old, new string) []byte {
	t.Helper()
	f := seed.Bytes()
	if len(old) != len(new) || bytes.Count(f, []byte(old)) != 1 {
		t.Fatalf("%q: not once in the file, or %q is of another length", old, new)
	}
	return bytes.Replace(f, []byte(old), []byte(new), 1)
}

func TestOpen(t *testing.T) {
	e := openSeed(t, Config{})
	sum := sha256.Sum256(seed.Bytes())
	m := e.Models()[0]
	if m.Name != "cocoon-toy" || m.ContextTokens != 1024 || m.WeightsRoot != "gguf-sha256:"+hex.EncodeToString(sum[:]) {
		t.Errorf("got %+v", m)
	}
	if m := openSeed(t, Config{Name: "mine", ContextTokens: 100}).Models()[0]; m.Name != "mine" || m.ContextTokens != 100 {
		t.Errorf("got %+v", m)
	}
	path := filepath.Join(t.TempDir(), "Some Model (v2).gguf")
	if err := os.WriteFile(path, seedWith(t, "cocoon-toy", "?!?!?!?!?!"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := OpenFile(path, Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got := f.Models()[0].Name; got != "some-model-v2" {
		t.Errorf("name from the file's: got %q", got)
	}
	for _, c := range []struct{ old, new, want string }{
		{"\x05\x00\x00\x00\x00\x00\x00\x00llama", "\x05\x00\x00\x00\x00\x00\x00\x00qwen2", "general.architecture"},
		{"add_generation_prompt", "add_generation_remark", "tokenizer.chat_template"},
		{"<|im_end|>\n{%", "<|im_END|>\n{%", "tokenizer.chat_template"},
		{"blk.2.ffn_up.weight", "blk.2.ffn_up.weighs", "blk.2.ffn_up.weigh"},
		{"blk.4.ffn_up.weight", "blk.5.ffn_up.weight", "blk.5.ffn_up.weight"},
		{"llama.block_count", "llama.block_counz", "llama.block_count"},
		{"<0x41>", "<0x4g>", "byte piece"},
	} {
		f := seed.Bytes()
		i := bytes.Index(f, []byte(c.old))
		if i < 0 || len(c.old) != len(c.new) {
			t.Fatalf("%q: not in the file", c.old)
		}
		copy(f[i:], c.new)
		if _, err := OpenBytes(f, Config{}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q for %q: got %v, want an error about %s", c.new, c.old, err, c.want)
		}
	}
	for _, c := range []Config{{MaxSequences: -1}, {MaxSequences: 65}, {MaxQueue: -1}, {ContextTokens: 1}, {Threads: -1}} {
		if _, err := OpenBytes(seed.Bytes(), c); err == nil {
			t.Errorf("%+v: got no error", c)
		}
	}
}

// onceReader changes its mind when a byte is read twice.
type onceReader struct {
	b    []byte
	seen []bool
	t    *testing.T
}

func (r *onceReader) ReadAt(p []byte, off int64) (int, error) {
	n := copy(p, r.b[off:])
	for i := range n {
		if r.seen[int(off)+i] {
			r.t.Fatalf("byte %d was read twice", int(off)+i)
		}
		r.seen[int(off)+i] = true
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func TestEveryByteIsReadOnceAndHashed(t *testing.T) {
	b := seed.Bytes()
	r := &onceReader{b: b, seen: make([]bool, len(b)), t: t}
	e, err := Open(r, int64(len(b)), Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	for i, s := range r.seen {
		if !s {
			t.Fatalf("byte %d was never read", i)
		}
	}
}

func FuzzHeader(f *testing.F) {
	f.Add(new(builder).u32("u", 7).str("s", "x").kv("a", 9, array(8, 1, str("p"))).tensor("t", typeF32, make([]byte, 64), 16).file())
	f.Add(tinyModel(typeQ8_0))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := parse(b)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "gguf: ") {
				t.Fatalf("got %v, want an error of this package", err)
			}
			return
		}
		var at int64
		for _, tensor := range h.tensors {
			if tensor.offset < at || tensor.size <= 0 || h.end+tensor.offset+tensor.size > int64(len(b)) {
				t.Fatalf("tensor %q overlaps or leaves the file", tensor.name)
			}
			at = tensor.offset + tensor.size
		}
		readShape(h)
		if tok, err := newTokenizer(h); err == nil {
			newChatML(h, tok)
		}
	})
}

// FuzzOpen also runs what it could load.
func FuzzOpen(f *testing.F) {
	f.Add(new(builder).u32("u", 7).tensor("t", typeF32, make([]byte, 64), 16).file())
	f.Add(tinyModel(typeQ8_0))
	f.Add(tinyModel(typeF32)[:600])
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := OpenBytes(b, Config{Threads: 1, MaxSequences: 1, ContextTokens: 16})
		if err != nil {
			if !strings.HasPrefix(err.Error(), "gguf: ") {
				t.Fatalf("got %v, want an error of this package", err)
			}
			return
		}
		defer e.Close()
		req := request(`"max_tokens":2,"seed":1`, "a")
		req.Model = e.Models()[0].Name
		e.Run(t.Context(), req, &record{})
	})
}
