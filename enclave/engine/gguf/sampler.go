package gguf

import (
	"math"
	"math/rand/v2"
	"slices"
)

// sampling says how the next token is drawn. Its zero value is greedy.
type sampling struct {
	temperature, topP, minP         float32
	topK                            int
	repetition, frequency, presence float32
	bias                            map[int32]float32
	seed                            uint64
}

// sampler draws one sequence's tokens. The draw depends on the seed and the
// logits alone, so a seed reproduces an answer whatever else is running.
type sampler struct {
	sampling
	rng    *rand.Rand
	prompt map[int32]bool
	counts map[int32]int
	list   []candidate
}

type candidate struct {
	id   int32
	prob float32
}

func newSampler(s sampling, prompt []int32) *sampler {
	p := &sampler{sampling: s, rng: rand.New(rand.NewPCG(s.seed, 0x636f636f6f6e)), counts: make(map[int32]int)}
	if s.repetition > 0 && s.repetition != 1 {
		p.prompt = make(map[int32]bool)
		for _, t := range prompt {
			p.prompt[t] = true
		}
	}
	return p
}

// next picks a token from logits, which it may change.
func (s *sampler) next(logits []float32) int32 {
	s.penalize(logits)
	id := s.pick(logits)
	s.counts[id]++
	return id
}

func (s *sampler) penalize(logits []float32) {
	if s.prompt != nil {
		repeat := func(t int32) {
			if logits[t] > 0 {
				logits[t] /= s.repetition
			} else {
				logits[t] *= s.repetition
			}
		}
		for t := range s.prompt {
			repeat(t)
		}
		for t := range s.counts {
			if !s.prompt[t] {
				repeat(t)
			}
		}
	}
	if s.frequency != 0 || s.presence != 0 {
		for t, n := range s.counts {
			logits[t] -= s.frequency*float32(n) + s.presence
		}
	}
	for t, b := range s.bias {
		logits[t] += b
	}
}

func (s *sampler) pick(logits []float32) int32 {
	best := int32(0)
	for i, v := range logits {
		if v > logits[best] {
			best = int32(i)
		}
	}
	if s.temperature <= 0 {
		return best
	}
	// A token below the cut cannot reach the nucleus: all such tokens
	// together weigh less than the 1-topP that it leaves out.
	top := logits[best]
	cut := float32(math.Inf(-1))
	if s.topP < 1 {
		cut = -float32(math.Log(2 * float64(len(logits)) / (1 - float64(s.topP))))
	}
	if s.minP > 0 {
		cut = max(cut, float32(math.Log(float64(s.minP))))
	}
	s.list = s.list[:0]
	var sum float32
	for i, v := range logits {
		if d := (v - top) / s.temperature; d >= cut {
			p := exp32(d)
			s.list = append(s.list, candidate{int32(i), p})
			sum += p
		}
	}
	if s.topP < 1 || s.topK > 0 {
		slices.SortFunc(s.list, func(a, b candidate) int {
			switch {
			case a.prob > b.prob:
				return -1
			case a.prob < b.prob:
				return 1
			}
			return int(a.id - b.id)
		})
		if s.topK > 0 && s.topK < len(s.list) {
			s.list = s.list[:s.topK]
			sum = 0
			for _, c := range s.list {
				sum += c.prob
			}
		}
		if s.topP < 1 {
			want := sum * s.topP
			sum = 0
			for i, c := range s.list {
				sum += c.prob
				if sum >= want {
					s.list = s.list[:i+1]
					break
				}
			}
		}
	}
	at := s.rng.Float32() * sum
	for _, c := range s.list {
		if at -= c.prob; at < 0 {
			return c.id
		}
	}
	if len(s.list) == 0 { // no logit was a number
		return best
	}
	return s.list[0].id
}
