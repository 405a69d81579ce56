package gguf

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// near allows for a different order of summation over n terms of size one.
func near(got, want float32, n int) bool {
	return math.Abs(float64(got-want)) <= 1e-6*float64(n)+1e-5*math.Abs(float64(want))
}

func TestKernelsAgree(t *testing.T) {
	ref := portableKernels()
	all := availableKernels()
	t.Logf("%d kernels, best %s", len(all), all[len(all)-1].name)
	rng := rand.New(rand.NewPCG(1, 2))
	for _, k := range all {
		for _, n := range []int{32, 64, 192, 512, 1056} {
			for _, rows := range []int{1, 3, 4, 5, 7, 8, 33} {
				t.Run(fmt.Sprintf("%s/%dx%d", k.name, rows, n), func(t *testing.T) {
					w, ws := make([]int8, rows*n), make([]float32, rows*n/32)
					for i := range w {
						w[i] = int8(rng.IntN(256) - 128) // -128 included
					}
					for i := range ws {
						ws[i] = rng.Float32() / 128
					}
					f := make([]float32, 4*n)
					for i := range f {
						f[i] = rng.Float32()*2 - 1
					}
					copy(f[:32], make([]float32, 32))
					q, qs := make([]int8, 4*n), make([]float32, 4*n/32)
					k.quantize(q, qs, f)
					wantQ, wantS := slices.Clone(q), slices.Clone(qs)
					ref.quantize(wantQ, wantS, f)
					if !slices.Equal(q, wantQ) || !slices.Equal(qs, wantS) {
						t.Fatal("quantize differs from the portable kernel")
					}
					const stride = 64
					cols := make([]float32, 4*stride)
					k.q8Cols4(cols, stride, rows, w, ws, q, qs, n)
					for c := range 4 {
						got, want := make([]float32, rows), make([]float32, rows)
						k.q8Rows(got, w, ws, q[c*n:(c+1)*n], qs[c*n/32:(c+1)*n/32], n)
						ref.q8Rows(want, w, ws, q[c*n:(c+1)*n], qs[c*n/32:(c+1)*n/32], n)
						for r := range rows {
							if !near(got[r], want[r], n) {
								t.Fatalf("q8Rows row %d: got %v, want %v", r, got[r], want[r])
							}
							if cols[c*stride+r] != got[r] {
								t.Fatalf("q8Cols4 vector %d row %d: got %v, want exactly %v", c, r, cols[c*stride+r], got[r])
							}
						}
						for r := rows; r < stride; r++ {
							if cols[c*stride+r] != 0 {
								t.Fatal("q8Cols4 wrote past its rows")
							}
						}
					}
				})
			}
		}
	}
}

func TestIntegerKernelsAreIdentical(t *testing.T) {
	all := availableKernels()[1:]
	rng := rand.New(rand.NewPCG(3, 4))
	const rows, n = 9, 192
	w, ws, q, qs := make([]int8, rows*n), make([]float32, rows*n/32), make([]int8, n), make([]float32, n/32)
	for i := range w {
		w[i] = int8(rng.IntN(256) - 128)
	}
	for i := range ws {
		ws[i] = rng.Float32()
	}
	for i := range q {
		q[i] = int8(rng.IntN(255) - 127)
	}
	for i := range qs {
		qs[i] = rng.Float32()
	}
	if len(all) < 2 {
		t.Skip("fewer than two vector kernels on this processor")
	}
	first := make([]float32, rows)
	all[0].q8Rows(first, w, ws, q, qs, n)
	for _, k := range all[1:] {
		got := make([]float32, rows)
		k.q8Rows(got, w, ws, q, qs, n)
		if !slices.Equal(got, first) {
			t.Errorf("%s: got %v, %s gives %v", k.name, got, all[0].name, first)
		}
	}
}

func TestFloatKernelsAgree(t *testing.T) {
	ref := portableKernels()
	rng := rand.New(rand.NewPCG(5, 6))
	for _, k := range availableKernels() {
		for _, n := range []int{4, 8, 24, 32, 40, 64, 128, 136} {
			for _, rows := range []int{1, 3, 4, 6, 64} {
				m, x, p := make([]float32, rows*n), make([]float32, n), make([]float32, rows)
				for _, v := range [][]float32{m, x, p} {
					for i := range v {
						v[i] = rng.Float32()*2 - 1
					}
				}
				got, want := make([]float32, rows), make([]float32, rows)
				k.dots(got, m, x)
				ref.dots(want, m, x)
				for i := range got {
					if !near(got[i], want[i], n) {
						t.Fatalf("%s: dots %dx%d row %d: got %v, want %v", k.name, rows, n, i, got[i], want[i])
					}
					one := make([]float32, 1)
					k.dots(one, m[i*n:], x)
					if one[0] != got[i] {
						t.Fatalf("%s: dots %dx%d row %d alone: got %v, want exactly %v", k.name, rows, n, i, one[0], got[i])
					}
				}
				got, want = slices.Clone(x), slices.Clone(x)
				k.mix(got, m, p)
				ref.mix(want, m, p)
				for i := range got {
					if !near(got[i], want[i], rows) {
						t.Fatalf("%s: mix %dx%d column %d: got %v, want %v", k.name, rows, n, i, got[i], want[i])
					}
				}
			}
		}
	}
}

func TestExp(t *testing.T) {
	worst := 0.0
	xs := []float32{-200, -87, 0, 88, 200, float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1)), 1e-30}
	for x := float32(-86.9); x < 88; x += 0.0137 {
		want := math.Exp(float64(x))
		worst = max(worst, math.Abs(float64(exp32(x))-want)/want)
		xs = append(xs, x)
	}
	if worst > 5e-7 {
		t.Errorf("relative error up to %g", worst)
	}
	if exp32(-200) != 0 || exp32(0) != 1 || exp32(200) != exp32(88) {
		t.Errorf("got %v, %v, %v at -200, 0, 200", exp32(-200), exp32(0), exp32(200))
	}
	want := slices.Clone(xs)
	expGo(want)
	for _, k := range availableKernels() {
		got := slices.Clone(xs)
		k.exp(got)
		for i := range got {
			if got[i] != want[i] {
				t.Fatalf("%s: exp(%v): got %v, want exactly %v", k.name, xs[i], got[i], want[i])
			}
		}
	}
}
