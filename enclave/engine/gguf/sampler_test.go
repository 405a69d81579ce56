package gguf

import (
	"math"
	"slices"
	"testing"
)

// frequencies draws many times from fixed logits.
func frequencies(s sampling, logits []float32) map[int32]float64 {
	const draws = 20000
	out := make(map[int32]float64)
	for i := range draws {
		s.seed = uint64(i)
		p := newSampler(s, nil)
		out[p.next(slices.Clone(logits))] += 1.0 / draws
	}
	return out
}

func TestSampling(t *testing.T) {
	// Probabilities 0.5, 0.25, 0.125, 0.125 at temperature 1.
	logits := []float32{float32(math.Log(4)), float32(math.Log(8)), float32(math.Log(2)), float32(math.Log(2))}
	for name, c := range map[string]struct {
		s    sampling
		want map[int32]float64
	}{
		"greedy":           {sampling{topP: 1}, map[int32]float64{1: 1}},
		"temperature 1":    {sampling{temperature: 1, topP: 1}, map[int32]float64{0: .25, 1: .5, 2: .125, 3: .125}},
		"temperature 0.5":  {sampling{temperature: 0.5, topP: 1}, map[int32]float64{0: 4. / 22, 1: 16. / 22, 2: 1. / 22, 3: 1. / 22}},
		"top_p one":        {sampling{temperature: 1, topP: 0.5}, map[int32]float64{1: 1}},
		"top_p two":        {sampling{temperature: 1, topP: 0.6}, map[int32]float64{1: 2. / 3, 0: 1. / 3}},
		"top_p zero":       {sampling{temperature: 1}, map[int32]float64{1: 1}},
		"top_k":            {sampling{temperature: 1, topP: 1, topK: 2}, map[int32]float64{1: 2. / 3, 0: 1. / 3}},
		"min_p":            {sampling{temperature: 1, topP: 1, minP: 0.3}, map[int32]float64{1: 2. / 3, 0: 1. / 3}},
		"bias":             {sampling{temperature: 1, topP: 1, bias: map[int32]float32{3: 100}}, map[int32]float64{3: 1}},
		"top_k and top_p":  {sampling{temperature: 1, topP: 0.9, topK: 3}, map[int32]float64{1: 4. / 7, 0: 2. / 7, 2: 1. / 7}},
		"bias with greedy": {sampling{topP: 1, bias: map[int32]float32{1: -100}}, map[int32]float64{0: 1}},
	} {
		got := frequencies(c.s, logits)
		for id := range int32(len(logits)) {
			if math.Abs(got[id]-c.want[id]) > 0.015 {
				t.Errorf("%s: token %d: got %.3f, want %.3f", name, id, got[id], c.want[id])
			}
		}
	}
}

func TestPenalties(t *testing.T) {
	logits := []float32{3, 2, 1}
	s := newSampler(sampling{presence: 1.5}, nil)
	if a, b := s.next(slices.Clone(logits)), s.next(slices.Clone(logits)); a != 0 || b != 1 {
		t.Errorf("presence: got %d, %d; want 0, 1", a, b)
	}
	s = newSampler(sampling{frequency: 0.6}, nil)
	var got []int32
	for range 4 {
		got = append(got, s.next(slices.Clone(logits)))
	}
	if !slices.Equal(got, []int32{0, 0, 1, 0}) {
		t.Errorf("frequency: got %v, want [0 0 1 0]", got)
	}
	s = newSampler(sampling{repetition: 2}, []int32{0})
	if a := s.next(slices.Clone(logits)); a != 1 {
		t.Errorf("repetition, of the prompt: got %d, want 1", a)
	}
}
