package gguf

import "math"

// kernels are the inner loops, in one instruction set. Each result depends on
// its own row and vector alone, in one fixed order, so a token's numbers do
// not change with the batch it is computed in.
type kernels struct {
	name string
	// q8Rows sets out[r] = weight row r . x, for len(out) rows of n columns.
	q8Rows func(out []float32, w []int8, ws []float32, x []int8, xs []float32, n int)
	// q8Cols4 does so for four vectors: out[t*stride+r], rows of them each.
	q8Cols4 func(out []float32, stride, rows int, w []int8, ws []float32, x []int8, xs []float32, n int)
	// dots sets out[r] = m[r*len(x):] . x.
	dots func(out, m, x []float32)
	// mix adds sum(p[r] * m[r*len(out):]) to out, in order of r.
	mix func(out, m, p []float32)
	// quantize rounds x to blocks of 32 bytes and one scale.
	quantize func(q []int8, s, x []float32)
	// exp sets each x to exp32(x).
	exp func(x []float32)
}

// portableKernels is the reference that all others are tested against.
func portableKernels() kernels {
	return kernels{"portable", q8RowsGo, q8Cols4Go, dotsGo, mixGo, quantizeGo, expGo}
}

func q8RowsGo(out []float32, w []int8, ws []float32, x []int8, xs []float32, n int) {
	blocks := n / 32
	for r := range out {
		out[r] = q8Dot(w[r*n:(r+1)*n], ws[r*blocks:(r+1)*blocks], x, xs)
	}
}

func q8Cols4Go(out []float32, stride, rows int, w []int8, ws []float32, x []int8, xs []float32, n int) {
	for t := range 4 {
		q8RowsGo(out[t*stride:t*stride+rows], w, ws, x[t*n:(t+1)*n], xs[t*n/32:], n)
	}
}

func q8Dot(w []int8, ws []float32, x []int8, xs []float32) float32 {
	var sum float32
	for b := range ws {
		var acc int32
		wb, xb := w[b*32:b*32+32:b*32+32], x[b*32:b*32+32:b*32+32]
		for i := range wb {
			acc += int32(wb[i]) * int32(xb[i])
		}
		sum += float32(acc) * (ws[b] * xs[b])
	}
	return sum
}

func dotsGo(out, m, x []float32) {
	n := len(x)
	for r := range out {
		row := m[r*n : (r+1)*n]
		var sum float32
		for i, v := range x {
			sum += v * row[i]
		}
		out[r] = sum
	}
}

func mixGo(out, m, p []float32) {
	n := len(out)
	for r, f := range p {
		row := m[r*n : (r+1)*n]
		for i := range out {
			out[i] += f * row[i]
		}
	}
}

func quantizeGo(q []int8, s, x []float32) {
	for b := range len(x) / 32 {
		v := x[b*32 : b*32+32]
		var top float32
		for _, e := range v {
			top = max(top, float32(math.Abs(float64(e))))
		}
		s[b] = top / 127
		inv := float32(0)
		if top > 0 {
			inv = 127 / top
		}
		for i, e := range v {
			q[b*32+i] = int8(math.RoundToEven(float64(e * inv)))
		}
	}
}

func expGo(x []float32) {
	for i, v := range x {
		x[i] = exp32(v)
	}
}

// exp32 is e**x to about two units in the last place: e**x = 2**k * e**r with
// |r| <= ln(2)/2, by the Cephes polynomial. It is 0 below -87 and for what is
// not a number, and stays at e**88 above 88.
func exp32(x float32) float32 {
	if !(x > -87) {
		return 0
	}
	x = min(x, 88)
	k := float32(x*1.44269504) + 12582912 // adding 1.5 * 2**23 rounds to an integer
	k -= 12582912
	r := x - float32(k*0.693359375) + float32(k*2.12194440e-4)
	p := float32(1.9875691500e-4)
	p = float32(p*r) + 1.3981999507e-3
	p = float32(p*r) + 8.3334519073e-3
	p = float32(p*r) + 4.1665795894e-2
	p = float32(p*r) + 1.6666665459e-1
	p = float32(p*r) + 5.0000001201e-1
	return (float32(p*r*r) + r + 1) * math.Float32frombits(uint32(int32(k)+127)<<23)
}
