package gguf

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

const seedTemplate = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"

// tinyModel is a whole random model: a vocabulary of 272, two layers, a
// separate output, grouped heads, rotation of half of each head.
func tinyModel(typ uint32) []byte {
	rng := rand.New(rand.NewPCG(9, 9))
	pieces := []string{"<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"}
	types := []int32{2, 3, 3, 3, 3}
	for i := range 256 {
		pieces, types = append(pieces, fmt.Sprintf("<0x%02X>", i)), append(types, 6)
	}
	for _, p := range []string{"▁", "a", "b", "c", "ab", "abc", "▁a", "user", "r", "u", "s"} {
		pieces, types = append(pieces, p), append(types, 1)
	}
	var ps, ss, ts []byte
	for i, p := range pieces {
		ps = append(ps, str(p)...)
		ss = binary.LittleEndian.AppendUint32(ss, math.Float32bits(float32(-i)))
		ts = binary.LittleEndian.AppendUint32(ts, uint32(types[i]))
	}
	n := uint64(len(pieces))
	b := new(builder).str("general.architecture", "llama").str("general.name", "Tiny Model").
		u32("llama.context_length", 64).u32("llama.embedding_length", 64).u32("llama.block_count", 2).u32("llama.feed_forward_length", 96).
		u32("llama.attention.head_count", 4).u32("llama.attention.head_count_kv", 2).f32("llama.attention.layer_norm_rms_epsilon", 1e-5).
		u32("llama.rope.dimension_count", 8).str("tokenizer.ggml.model", "llama").
		kv("tokenizer.ggml.tokens", 9, array(8, len(pieces), ps)).kv("tokenizer.ggml.scores", 9, array(6, len(pieces), ss)).
		kv("tokenizer.ggml.token_type", 9, array(5, len(pieces), ts)).str("tokenizer.chat_template", seedTemplate)
	weights := func(name string, cols, rows uint64) {
		var data []byte
		for i := range cols * rows {
			switch v := rng.Float32()/2 - 0.25; typ {
			case typeF32:
				data = binary.LittleEndian.AppendUint32(data, math.Float32bits(v))
			case typeF16: // 2**-3 to 2**-2, either sign
				data = binary.LittleEndian.AppendUint16(data, 0x3000|uint16(rng.IntN(1024))|uint16(rng.IntN(2))<<15)
			case typeQ8_0:
				if i%32 == 0 {
					data = binary.LittleEndian.AppendUint16(data, 0x1800) // 2**-9
				}
				data = append(data, byte(int8(v*500)))
			}
		}
		b.tensor(name, typ, data, cols, rows)
	}
	norm := func(name string) {
		var data []byte
		for range 64 {
			data = binary.LittleEndian.AppendUint32(data, math.Float32bits(1))
		}
		b.tensor(name, typeF32, data, 64)
	}
	weights("token_embd.weight", 64, n)
	for i := range 2 {
		p := fmt.Sprintf("blk.%d.", i)
		norm(p + "attn_norm.weight")
		weights(p+"attn_q.weight", 64, 64)
		weights(p+"attn_k.weight", 64, 32)
		weights(p+"attn_v.weight", 64, 32)
		weights(p+"attn_output.weight", 64, 64)
		norm(p + "ffn_norm.weight")
		weights(p+"ffn_gate.weight", 64, 96)
		weights(p+"ffn_up.weight", 64, 96)
		weights(p+"ffn_down.weight", 96, 64)
	}
	norm("output_norm.weight")
	weights("output.weight", 64, n)
	return b.file()
}

// TestForwardIsTheArchitecture compares logits with a plain float64 llama.
func TestForwardIsTheArchitecture(t *testing.T) {
	for name, typ := range map[string]uint32{"F32": typeF32, "F16": typeF16, "Q8_0": typeQ8_0} {
		t.Run(name, func(t *testing.T) {
			for _, k := range availableKernels() {
				e, err := OpenBytes(tinyModel(typ), Config{kernels: &k, Threads: 1})
				if err != nil {
					t.Fatal(err)
				}
				defer e.Close()
				if e.Models()[0].Name != "tiny-model" {
					t.Errorf("name: got %q", e.Models()[0].Name)
				}
				r := e.sched.runner
				tokens := []int32{1, 3, 270, 5, 100, 261, 266, 4}
				c := &cache{blocks: [][]float32{make([]float32, r.blockFloats())}}
				batch := make([]row, len(tokens))
				for i, id := range tokens {
					batch[i] = row{c: c, pos: i, token: id}
				}
				got := make([]float32, r.vocab)
				batch[len(batch)-1].logits = got
				if !r.forward(batch, func() bool { return false }) {
					t.Fatal("forward stopped")
				}
				want := slowForward(r.weights, tokens)
				tolerance := 1e-4
				if typ == typeQ8_0 { // activations are rounded to 8 bits
					tolerance = 0.05
				}
				var worst, size float64
				for i := range want {
					worst = max(worst, math.Abs(float64(got[i])-want[i]))
					size = max(size, math.Abs(want[i]))
				}
				if worst > tolerance*size || size == 0 {
					t.Errorf("%s: logits differ by up to %g of %g", k.name, worst, size)
				}
			}
		})
	}
}

// slowForward is the llama architecture, written for clarity.
func slowForward(w *weights, tokens []int32) []float64 {
	mul := func(m *matrix, x []float64) []float64 {
		out, r := make([]float64, m.rows), make([]float32, m.cols)
		for i := range out {
			m.row(r, i)
			for j, v := range x {
				out[i] += float64(r[j]) * v
			}
		}
		return out
	}
	norm := func(x []float64, g []float32) []float64 {
		var ss float64
		for _, v := range x {
			ss += v * v
		}
		out := make([]float64, len(x))
		for i, v := range x {
			out[i] = v / math.Sqrt(ss/float64(len(x))+float64(w.eps)) * float64(g[i])
		}
		return out
	}
	rope := func(v []float64, pos int) {
		for h := 0; h < len(v); h += w.headDim {
			for i := 0; i < w.rotary; i += 2 {
				a := float64(pos) * math.Pow(float64(w.theta), -float64(i)/float64(w.rotary))
				x, y := v[h+i], v[h+i+1]
				v[h+i], v[h+i+1] = x*math.Cos(a)-y*math.Sin(a), x*math.Sin(a)+y*math.Cos(a)
			}
		}
	}
	keys, vals := make([][][]float64, w.shape.layers), make([][][]float64, w.shape.layers)
	var x []float64
	for pos, id := range tokens {
		e := make([]float32, w.dim)
		w.embed.row(e, int(id))
		x = make([]float64, w.dim)
		for i, v := range e {
			x[i] = float64(v)
		}
		for i, l := range w.layers {
			h := norm(x, l.attnNorm)
			q, k, v := mul(l.q, h), mul(l.k, h), mul(l.v, h)
			rope(q, pos)
			rope(k, pos)
			keys[i], vals[i] = append(keys[i], k), append(vals[i], v)
			mixed := make([]float64, len(q))
			for head := range w.heads {
				at, kv := head*w.headDim, head/(w.heads/w.kvHeads)*w.headDim
				var sum float64
				for p := range keys[i] {
					var s float64
					for d := range w.headDim {
						s += q[at+d] * keys[i][p][kv+d]
					}
					s = math.Exp(s / math.Sqrt(float64(w.headDim)))
					sum += s
					for d := range w.headDim {
						mixed[at+d] += s * vals[i][p][kv+d]
					}
				}
				for d := range w.headDim {
					mixed[at+d] /= sum
				}
			}
			for j, v := range mul(l.o, mixed) {
				x[j] += v
			}
			h = norm(x, l.ffnNorm)
			g, u := mul(l.gate, h), mul(l.up, h)
			for j := range g {
				g[j] = g[j] / (1 + math.Exp(-g[j])) * u[j]
			}
			for j, v := range mul(l.down, g) {
				x[j] += v
			}
		}
	}
	return mul(w.output, norm(x, w.norm))
}
