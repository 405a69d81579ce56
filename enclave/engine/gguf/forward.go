package gguf

import "math"

// blockTokens is how many positions one block of key-value cache holds.
const blockTokens = 64

// cache is one sequence's keys and values, in blocks allocated as it grows.
// In a block each (layer, key-value head) has its keys and then its values,
// blockTokens rows each.
type cache struct {
	blocks [][]float32
	tokens []int32 // what each filled position holds
}

// row is one token of a batch.
type row struct {
	c      *cache
	pos    int
	token  int32
	logits []float32 // receives the next token's, if not nil
}

// activations is a batch of vectors, and their Q8_0 form.
type activations struct {
	n, cols int
	f       []float32
	q       []int8
	s       []float32
}

func newActivations(n, cols int) activations {
	return activations{cols: cols, f: make([]float32, n*cols), q: make([]int8, n*cols), s: make([]float32, n*cols/32)}
}

func (a *activations) at(t int) []float32 { return a.f[t*a.cols : (t+1)*a.cols] }

// runner computes batches. It owns its buffers: one batch at a time.
type runner struct {
	*weights
	kernels
	*pool
	maxRows             int
	x, o                []float32
	normed, attn, gate  activations
	queries, keys, vals []float32
	up, tmp             []float32
	sin, cos            []float32
	scores              [][]float32 // per thread
	last                activations
	logits              []float32
}

func newRunner(w *weights, k kernels, p *pool, maxRows, maxLogits int) *runner {
	kv, qd := w.kvHeads*w.headDim, w.heads*w.headDim
	r := &runner{
		weights: w, kernels: k, pool: p, maxRows: maxRows,
		x: make([]float32, maxRows*w.dim), o: make([]float32, maxRows*w.dim),
		normed: newActivations(maxRows, w.dim), attn: newActivations(maxRows, qd), gate: newActivations(maxRows, w.ffn),
		queries: make([]float32, maxRows*qd), keys: make([]float32, maxRows*kv), vals: make([]float32, maxRows*kv),
		up: make([]float32, maxRows*w.ffn), tmp: make([]float32, maxRows*w.ffn),
		sin: make([]float32, maxRows*w.rotary/2), cos: make([]float32, maxRows*w.rotary/2),
		scores: make([][]float32, p.threads),
		last:   newActivations(maxLogits, w.dim), logits: make([]float32, maxLogits*w.vocab),
	}
	for i := range r.scores {
		r.scores[i] = make([]float32, w.context+blockTokens)
	}
	return r
}

// blockFloats is the size of one cache block in floats.
func (w *weights) blockFloats() int {
	return len(w.layers) * w.kvHeads * 2 * blockTokens * w.headDim
}

// rows runs body over the first n rows, cost multiply-adds each.
func (r *runner) rows(n, cost int, body func(t int)) {
	r.run(n, cost, func(_, lo, hi int) {
		for t := lo; t < hi; t++ {
			body(t)
		}
	})
}

// forward computes rows, at most maxRows; rows of one cache are in order of
// position, and their blocks exist. It asks stop between layers, and returns
// false if it stopped there, leaving logits unset.
func (r *runner) forward(batch []row, stop func() bool) bool {
	n := len(batch)
	half := r.rotary / 2
	for t, b := range batch {
		r.embed.row(r.x[t*r.dim:(t+1)*r.dim], int(b.token))
		for i, f := range r.inverse {
			s, c := math.Sincos(float64(b.pos) * float64(f))
			r.sin[t*half+i], r.cos[t*half+i] = float32(s), float32(c)
		}
	}
	r.normed.n, r.attn.n, r.gate.n = n, n, n
	for i := range r.layers {
		if stop() {
			return false
		}
		l := &r.layers[i]
		r.rows(n, 8*r.dim, func(t int) { r.norm1(&r.normed, t, r.x[t*r.dim:(t+1)*r.dim], l.attnNorm) })
		r.multiply(&r.normed, product{l.q, r.queries}, product{l.k, r.keys}, product{l.v, r.vals})
		r.attend(batch, i)
		r.rows(n, 4*r.attn.cols, func(t int) { r.requantize(&r.attn, t) })
		r.multiply(&r.attn, product{l.o, r.o})
		r.rows(n, 10*r.dim, func(t int) {
			x := r.x[t*r.dim : (t+1)*r.dim]
			add(x, r.o[t*r.dim:])
			r.norm1(&r.normed, t, x, l.ffnNorm)
		})
		r.multiply(&r.normed, product{l.gate, r.gate.f}, product{l.up, r.up})
		r.rows(n, 40*r.ffn, func(t int) {
			r.swiglu(r.gate.at(t), r.up[t*r.ffn:], r.tmp[t*r.ffn:])
			r.requantize(&r.gate, t)
		})
		r.multiply(&r.gate, product{l.down, r.o})
		r.rows(n, 2*r.dim, func(t int) { add(r.x[t*r.dim:(t+1)*r.dim], r.o[t*r.dim:]) })
	}
	r.last.n = 0
	for t, b := range batch {
		if b.logits != nil {
			r.norm1(&r.last, r.last.n, r.x[t*r.dim:(t+1)*r.dim], r.norm)
			r.last.n++
		}
	}
	if r.last.n > 0 {
		r.multiply(&r.last, product{r.output, r.logits})
	}
	at := 0
	for _, b := range batch {
		if b.logits != nil {
			copy(b.logits, r.logits[at*r.vocab:(at+1)*r.vocab])
			at++
		}
	}
	return true
}

// norm1 sets vector t of a to the root-mean-square norm of x times w.
func (r *runner) norm1(a *activations, t int, x, w []float32) {
	var ss [1]float32
	r.dots(ss[:], x, x)
	scale := 1 / float32(math.Sqrt(float64(ss[0]/float32(len(x))+r.eps)))
	out := a.at(t)
	for i, v := range x {
		out[i] = v * scale * w[i]
	}
	r.requantize(a, t)
}

func (r *runner) requantize(a *activations, t int) {
	if a.cols%32 == 0 {
		r.quantize(a.q[t*a.cols:(t+1)*a.cols], a.s[t*a.cols/32:], a.at(t))
	}
}

// add sets x to x + y.
func add(x, y []float32) {
	y = y[:len(x)]
	for i := range x {
		x[i] += y[i]
	}
}

// swiglu sets g to silu(g) * u; tmp is as long as g.
func (r *runner) swiglu(g, u, tmp []float32) {
	u, tmp = u[:len(g)], tmp[:len(g)]
	for i, v := range g {
		tmp[i] = -v
	}
	r.exp(tmp)
	for i, v := range g {
		g[i] = v / (1 + tmp[i]) * u[i]
	}
}

// rotate turns pairs of neighbours by the row's angles (GGUF's llama order).
func (r *runner) rotate(v []float32, t int) {
	half := r.rotary / 2
	sin, cos := r.sin[t*half:(t+1)*half], r.cos[t*half:(t+1)*half]
	for h := 0; h < len(v); h += r.headDim {
		p := v[h : h+2*half]
		for i, s := range sin {
			c := cos[i]
			a, b := p[2*i], p[2*i+1]
			p[2*i], p[2*i+1] = a*c-b*s, a*s+b*c
		}
	}
}

// attend stores the batch's keys and values and mixes values by attention.
func (r *runner) attend(batch []row, layer int) {
	hd, group := r.headDim, r.heads/r.kvHeads
	kv, qd := r.kvHeads*hd, r.heads*hd
	span := 2 * blockTokens * hd // one (layer, head) of a block
	reach := 0
	for t, b := range batch {
		r.rotate(r.queries[t*qd:(t+1)*qd], t)
		r.rotate(r.keys[t*kv:(t+1)*kv], t)
		block, at := b.c.blocks[b.pos/blockTokens], b.pos%blockTokens*hd
		for g := range r.kvHeads {
			m := block[(layer*r.kvHeads+g)*span:]
			copy(m[at:at+hd], r.keys[t*kv+g*hd:])
			copy(m[blockTokens*hd+at:blockTokens*hd+at+hd], r.vals[t*kv+g*hd:])
		}
		reach += b.pos + 1
	}
	scale := float32(1 / math.Sqrt(float64(hd)))
	r.run(len(batch)*r.heads, reach/len(batch)*(2*hd+20), func(worker, lo, hi int) {
		for i := lo; i < hi; i++ {
			t, h := i/r.heads, i%r.heads
			b := &batch[t]
			q := r.queries[i*hd : (i+1)*hd]
			base := (layer*r.kvHeads + h/group) * span
			scores := r.scores[worker][:b.pos+1]
			for p := 0; p < len(scores); p += blockTokens {
				r.dots(scores[p:min(p+blockTokens, len(scores))], b.c.blocks[p/blockTokens][base:], q)
			}
			r.softmax(scores, scale)
			out := r.attn.f[i*hd : (i+1)*hd]
			clear(out)
			for p := 0; p < len(scores); p += blockTokens {
				r.mix(out, b.c.blocks[p/blockTokens][base+blockTokens*hd:], scores[p:min(p+blockTokens, len(scores))])
			}
		}
	})
}

// softmax replaces s by the softmax of s*scale.
func (r *runner) softmax(s []float32, scale float32) {
	top := s[0]
	for _, v := range s {
		top = max(top, v)
	}
	for i, v := range s {
		s[i] = (v - top) * scale
	}
	r.exp(s)
	var sum float32
	for _, v := range s {
		sum += v
	}
	inv := 1 / sum
	for i := range s {
		s[i] *= inv
	}
}

// product is one matrix to multiply a batch by, into out[t*rows+r].
type product struct {
	m   *matrix
	out []float32
}

// tileRows is how many weight rows pass over the whole batch at a time, so
// that they stay in the first-level cache.
const tileRows = 32

// multiply applies each matrix to all of a.
func (r *runner) multiply(a *activations, ps ...product) {
	tiles := 0
	for _, p := range ps {
		tiles += (p.m.rows + tileRows - 1) / tileRows
	}
	r.run(tiles, tileRows*a.cols*a.n, func(_, lo, hi int) {
		for i := lo; i < hi; i++ {
			tile := i
			for _, p := range ps {
				if n := (p.m.rows + tileRows - 1) / tileRows; tile >= n {
					tile -= n
					continue
				}
				r.tile(a, p, tile*tileRows, min((tile+1)*tileRows, p.m.rows))
				break
			}
		}
	})
}

func (r *runner) tile(a *activations, p product, lo, hi int) {
	m := p.m
	if m.q == nil {
		for t := range a.n {
			r.dots(p.out[t*m.rows+lo:t*m.rows+hi], m.f[lo*m.cols:], a.at(t))
		}
		return
	}
	w, ws := m.q[lo*m.cols:hi*m.cols], m.s[lo*m.cols/32:hi*m.cols/32]
	t := 0
	for ; t+4 <= a.n; t += 4 {
		r.q8Cols4(p.out[t*m.rows+lo:], m.rows, hi-lo, w, ws, a.q[t*a.cols:], a.s[t*a.cols/32:], m.cols)
	}
	for ; t < a.n; t++ {
		r.q8Rows(p.out[t*m.rows+lo:t*m.rows+hi], w, ws, a.q[t*a.cols:(t+1)*a.cols], a.s[t*a.cols/32:(t+1)*a.cols/32], m.cols)
	}
}
