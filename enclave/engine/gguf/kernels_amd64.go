package gguf

import "golang.org/x/sys/cpu"

// The assembly reads whole 8- and 32-element groups; the wrappers below send
// it only what their lengths prove to be there.

//go:noescape
func q8Rows4VNNI(out *float32, w *int8, ws *float32, x *int8, xs *float32, blocks, groups int)

//go:noescape
func q8Rows4AVX2(out *float32, w *int8, ws *float32, x *int8, xs *float32, blocks, groups int)

//go:noescape
func q8Cols4VNNI(out *float32, stride int, w *int8, ws *float32, x *int8, xs *float32, blocks, rows int)

//go:noescape
func q8Cols4AVX2(out *float32, stride int, w *int8, ws *float32, x *int8, xs *float32, blocks, rows int)

//go:noescape
func dotsAVX2(out, m, x *float32, n, rows int)

//go:noescape
func mixAVX2(out, m, p *float32, n, rows int)

//go:noescape
func quantizeAVX2(q *int8, s, x *float32, blocks int)

//go:noescape
func expAVX2(x *float32, groups int)

// availableKernels lists what this processor can run, best last.
func availableKernels() []kernels {
	ks := []kernels{portableKernels()}
	if cpu.X86.HasAVX2 && cpu.X86.HasFMA {
		ks = append(ks, kernels{"avx2", q8RowsWith(q8Rows4AVX2), q8Cols4With(q8Cols4AVX2), dotsSIMD, mixSIMD, quantizeSIMD, expSIMD})
		if cpu.X86.HasAVX512VNNI && cpu.X86.HasAVX512VL {
			ks = append(ks, kernels{"avx512-vnni", q8RowsWith(q8Rows4VNNI), q8Cols4With(q8Cols4VNNI), dotsSIMD, mixSIMD, quantizeSIMD, expSIMD})
		}
	}
	return ks
}

func q8RowsWith(f func(out *float32, w *int8, ws *float32, x *int8, xs *float32, blocks, groups int)) func([]float32, []int8, []float32, []int8, []float32, int) {
	return func(out []float32, w []int8, ws []float32, x []int8, xs []float32, n int) {
		rows, blocks := len(out), n/32
		if rows < 4 {
			q8RowsGo(out, w, ws, x, xs, n)
			return
		}
		_, _, _, _ = w[rows*n-1], ws[rows*blocks-1], x[n-1], xs[blocks-1]
		f(&out[0], &w[0], &ws[0], &x[0], &xs[0], blocks, rows/4)
		if rows%4 != 0 { // the last four rows, some of them again
			r := rows - 4
			f(&out[r], &w[r*n], &ws[r*blocks], &x[0], &xs[0], blocks, 1)
		}
	}
}

func q8Cols4With(f func(out *float32, stride int, w *int8, ws *float32, x *int8, xs *float32, blocks, rows int)) func([]float32, int, int, []int8, []float32, []int8, []float32, int) {
	return func(out []float32, stride, rows int, w []int8, ws []float32, x []int8, xs []float32, n int) {
		if rows < 4 { // as q8Rows, so that a batch changes nothing
			q8Cols4Go(out, stride, rows, w, ws, x, xs, n)
			return
		}
		blocks := n / 32
		_, _, _, _, _ = out[3*stride+rows-1], w[rows*n-1], ws[rows*blocks-1], x[4*n-1], xs[4*blocks-1]
		f(&out[0], stride, &w[0], &ws[0], &x[0], &xs[0], blocks, rows)
	}
}

func dotsSIMD(out, m, x []float32) {
	n, rows := len(x), len(out)
	if rows == 0 || n == 0 || n%8 != 0 {
		dotsGo(out, m, x)
		return
	}
	_ = m[rows*n-1]
	dotsAVX2(&out[0], &m[0], &x[0], n, rows)
}

func mixSIMD(out, m, p []float32) {
	n, rows := len(out), len(p)
	if rows == 0 || n == 0 || n%8 != 0 {
		mixGo(out, m, p)
		return
	}
	_ = m[rows*n-1]
	mixAVX2(&out[0], &m[0], &p[0], n, rows)
}

func quantizeSIMD(q []int8, s, x []float32) {
	blocks := len(x) / 32
	if blocks == 0 {
		return
	}
	_, _ = q[blocks*32-1], s[blocks-1]
	quantizeAVX2(&q[0], &s[0], &x[0], blocks)
}

func expSIMD(x []float32) {
	n := len(x) &^ 7
	if n > 0 {
		expAVX2(&x[0], n/8)
	}
	expGo(x[n:])
}
