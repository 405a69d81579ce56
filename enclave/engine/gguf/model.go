package gguf

import (
	"fmt"
	"math"
)

// shape is what a llama-family model's metadata says of its tensors.
type shape struct {
	dim, layers, ffn, heads, kvHeads, headDim, rotary, vocab, context int
	eps, theta                                                        float32
}

type layer struct {
	attnNorm, ffnNorm []float32
	q, k, v, o        *matrix
	gate, up, down    *matrix
}

// weights is a loaded model, read only.
type weights struct {
	shape
	embed, output *matrix // the same one if tied
	norm          []float32
	layers        []layer
	inverse       []float32 // rotary frequencies per position, rotary/2 of them
}

// metaInt reads an integer between lo and hi, or def where the key is absent
// and def is not negative.
func (h *header) metaInt(key string, def, lo, hi int) (int, error) {
	v, ok := h.meta[key]
	if !ok && def >= 0 {
		return def, nil
	}
	n := -1
	switch v := v.(type) {
	case uint64:
		if v <= math.MaxInt32 {
			n = int(v)
		}
	case int64:
		if v >= 0 && v <= math.MaxInt32 {
			n = int(v)
		}
	}
	if n < lo || n > hi {
		return 0, fmt.Errorf("gguf: %s: got %v, want an integer from %d to %d", key, v, lo, hi)
	}
	return n, nil
}

func (h *header) metaFloat(key string, def, lo, hi float64) (float32, error) {
	v, ok := h.meta[key]
	if !ok && def > 0 {
		return float32(def), nil
	}
	f, ok := v.(float64)
	if !ok || !(f >= lo && f <= hi) {
		return 0, fmt.Errorf("gguf: %s: got %v, want a number from %g to %g", key, v, lo, hi)
	}
	return float32(f), nil
}

// readShape reads the hyperparameters and refuses every variation of the
// architecture that forward does not compute.
func readShape(h *header) (shape, error) {
	var s shape
	if a, _ := h.meta["general.architecture"].(string); a != "llama" {
		return s, fmt.Errorf("gguf: general.architecture: got %q, want \"llama\"", a)
	}
	if t, ok := h.meta["llama.rope.scaling.type"]; ok && t != "none" {
		return s, fmt.Errorf("gguf: llama.rope.scaling.type: got %v, want none", t)
	}
	for _, key := range []string{"llama.expert_count", "llama.attention.sliding_window"} {
		if n, err := h.metaInt(key, 0, 0, math.MaxInt32); err != nil || n != 0 {
			return s, fmt.Errorf("gguf: %s: got %v, want none", key, h.meta[key])
		}
	}
	for _, key := range []string{"llama.logit_scale", "llama.embedding_scale", "llama.residual_scale", "llama.attention.scale"} {
		if v, ok := h.meta[key]; ok {
			return s, fmt.Errorf("gguf: %s: got %v, want none", key, v)
		}
	}
	var err error
	for _, f := range []struct {
		to          *int
		key         string
		def, lo, hi int
	}{
		{&s.dim, "llama.embedding_length", -1, 8, 1 << 16},
		{&s.layers, "llama.block_count", -1, 1, 1 << 10},
		{&s.ffn, "llama.feed_forward_length", -1, 8, 1 << 20},
		{&s.heads, "llama.attention.head_count", -1, 1, 1 << 10},
		{&s.context, "llama.context_length", -1, 16, 1 << 20},
	} {
		if *f.to, err = h.metaInt(f.key, f.def, f.lo, f.hi); err != nil {
			return s, err
		}
	}
	if s.kvHeads, err = h.metaInt("llama.attention.head_count_kv", s.heads, 1, s.heads); err != nil {
		return s, err
	}
	if s.headDim, err = h.metaInt("llama.attention.key_length", s.dim/s.heads, 2, 1<<12); err != nil {
		return s, err
	}
	if v, err := h.metaInt("llama.attention.value_length", s.headDim, s.headDim, s.headDim); err != nil || v != s.headDim {
		return s, err
	}
	if s.rotary, err = h.metaInt("llama.rope.dimension_count", s.headDim, 2, s.headDim); err != nil {
		return s, err
	}
	if s.heads%s.kvHeads != 0 || s.rotary%2 != 0 || s.headDim < 2 {
		return s, fmt.Errorf("gguf: heads: got %d with %d key-value heads, %d rotary dimensions; want a multiple and an even number", s.heads, s.kvHeads, s.rotary)
	}
	if s.eps, err = h.metaFloat("llama.attention.layer_norm_rms_epsilon", 0, 1e-12, 1); err != nil {
		return s, err
	}
	s.theta, err = h.metaFloat("llama.rope.freq_base", 10000, 1, 1e12)
	return s, err
}

// readWeights reads the tensor data that follows the header, each byte once.
func readWeights(s *stream, h *header, sh shape) (*weights, error) {
	w := &weights{shape: sh, layers: make([]layer, sh.layers)}
	var norm *matrix
	kv, qd := sh.kvHeads*sh.headDim, sh.heads*sh.headDim
	type slot struct {
		to         **matrix
		rows, cols int
	}
	slots := map[string]slot{
		"token_embd.weight":  {&w.embed, sh.vocab, sh.dim},
		"output.weight":      {&w.output, sh.vocab, sh.dim},
		"output_norm.weight": {&norm, 1, sh.dim},
	}
	norms := make([][2]*matrix, sh.layers)
	for i := range w.layers {
		l, p := &w.layers[i], fmt.Sprintf("blk.%d.", i)
		slots[p+"attn_norm.weight"] = slot{&norms[i][0], 1, sh.dim}
		slots[p+"ffn_norm.weight"] = slot{&norms[i][1], 1, sh.dim}
		slots[p+"attn_q.weight"] = slot{&l.q, qd, sh.dim}
		slots[p+"attn_k.weight"] = slot{&l.k, kv, sh.dim}
		slots[p+"attn_v.weight"] = slot{&l.v, kv, sh.dim}
		slots[p+"attn_output.weight"] = slot{&l.o, sh.dim, qd}
		slots[p+"ffn_gate.weight"] = slot{&l.gate, sh.ffn, sh.dim}
		slots[p+"ffn_up.weight"] = slot{&l.up, sh.ffn, sh.dim}
		slots[p+"ffn_down.weight"] = slot{&l.down, sh.dim, sh.ffn}
	}
	// All shapes are checked before any data is read.
	present := make(map[string]bool)
	for _, t := range h.tensors {
		sl, ok := slots[t.name]
		if !ok {
			return nil, fmt.Errorf("gguf: tensor %q: none that this llama engine computes with", t.name)
		}
		if rows := t.elements() / t.dims[0]; t.dims[0] != sl.cols || rows != sl.rows {
			return nil, fmt.Errorf("gguf: tensor %q: got %d rows of %d, want %d of %d", t.name, rows, t.dims[0], sl.rows, sl.cols)
		}
		if sl.rows == 1 && t.typ == typeQ8_0 {
			return nil, fmt.Errorf("gguf: tensor %q: got Q8_0, want F32 or F16", t.name)
		}
		present[t.name] = true
	}
	for name := range slots {
		if !present[name] && name != "output.weight" {
			return nil, fmt.Errorf("gguf: tensor %q: missing", name)
		}
	}
	for i, t := range h.tensors {
		m, err := readTensor(s, t)
		if err != nil {
			return nil, err
		}
		*slots[t.name].to = m
		if pad := alignUp(t.size, h.align) - t.size; i < len(h.tensors)-1 || s.size != s.pos {
			if err := s.skip(pad); err != nil {
				return nil, err
			}
		}
	}
	if w.output == nil {
		w.output = w.embed
	}
	w.norm = norm.f
	for i := range w.layers {
		w.layers[i].attnNorm, w.layers[i].ffnNorm = norms[i][0].f, norms[i][1].f
	}
	for i := 0; i < sh.rotary; i += 2 {
		w.inverse = append(w.inverse, float32(math.Pow(float64(sh.theta), -float64(i)/float64(sh.rotary))))
	}
	return w, nil
}
