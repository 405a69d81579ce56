package gguf

import (
	"encoding/binary"
	"fmt"
	"math"
)

// matrix holds rows of weights either as Q8_0 (32 signed bytes and one scale
// per block) or as float32. F16 files are widened when they are read.
type matrix struct {
	rows, cols int
	q          []int8    // Q8_0: rows*cols
	s          []float32 // Q8_0: rows*cols/32
	f          []float32 // otherwise: rows*cols
}

// row writes weight row r to out.
func (m *matrix) row(out []float32, r int) {
	if m.q == nil {
		copy(out, m.f[r*m.cols:(r+1)*m.cols])
		return
	}
	q, s := m.q[r*m.cols:(r+1)*m.cols], m.s[r*m.cols/32:]
	for i := range out {
		out[i] = float32(q[i]) * s[i/32]
	}
}

// readTensor reads t's data, at which the stream must stand.
func readTensor(s *stream, t tensorInfo) (*matrix, error) {
	n := t.elements()
	m := &matrix{cols: t.dims[0], rows: n / t.dims[0]}
	per := 1 // elements in a unit of the encoding
	var decode func(unit []byte, at int)
	switch t.typ {
	case typeF32:
		m.f = make([]float32, n)
		decode = func(u []byte, at int) { m.f[at] = math.Float32frombits(binary.LittleEndian.Uint32(u)) }
	case typeF16:
		m.f = make([]float32, n)
		decode = func(u []byte, at int) { m.f[at] = halfToFloat(binary.LittleEndian.Uint16(u)) }
	default:
		per = 32
		m.q, m.s = make([]int8, n), make([]float32, n/32)
		decode = func(u []byte, at int) {
			m.s[at/32] = halfToFloat(binary.LittleEndian.Uint16(u))
			for i, v := range u[2:] {
				m.q[at+i] = int8(v)
			}
		}
	}
	unit := int(t.size) / (n / per)
	buf := make([]byte, 4096*unit)
	for at := 0; at < n; {
		p := buf[:unit*min(4096, (n-at)/per)]
		if err := s.read(p); err != nil {
			return nil, err
		}
		for ; len(p) > 0; p = p[unit:] {
			decode(p[:unit], at)
			at += per
		}
	}
	for _, vs := range [][]float32{m.s, m.f} {
		for _, v := range vs {
			if v-v != 0 {
				return nil, fmt.Errorf("gguf: tensor %q: holds a value that is not finite", t.name)
			}
		}
	}
	return m, nil
}

// halfToFloat widens an IEEE 754 binary16 number.
func halfToFloat(h uint16) float32 {
	sign, exp, frac := uint32(h>>15)<<31, uint32(h>>10&31), uint32(h&1023)
	switch exp {
	case 0: // zero or subnormal: frac * 2^-24
		v := float32(frac) * (1.0 / (1 << 24))
		return math.Float32frombits(math.Float32bits(v) | sign)
	case 31: // infinity or NaN
		return math.Float32frombits(sign | 0xff<<23 | frac<<13)
	}
	return math.Float32frombits(sign | (exp+112)<<23 | frac<<13)
}
