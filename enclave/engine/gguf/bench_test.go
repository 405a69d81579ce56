//go:build unix

package gguf

import (
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// cpuSeconds is the processor time this process has used.
func cpuSeconds() float64 {
	var r syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &r) != nil {
		return 0
	}
	return float64(r.Utime.Sec+r.Stime.Sec) + float64(r.Utime.Usec+r.Stime.Usec)/1e6
}

// BenchmarkDecode makes 64 tokens in each of B answers, through Run.
func BenchmarkDecode(b *testing.B) {
	for _, n := range []int{1, 4, 16} {
		b.Run(fmt.Sprintf("B=%d", n), func(b *testing.B) {
			e := openSeed(b, Config{MaxSequences: n})
			// No end of turn, so that each answer has its full length.
			req := request(`"temperature":0,"max_tokens":64,"logit_bias":{"4":-100,"2":-100}`, "Tell me a story.")
			b.ReportAllocs()
			start, tokens := cpuSeconds(), 0
			for b.Loop() {
				var wg sync.WaitGroup
				for range n {
					wg.Go(func() {
						if _, err := e.Run(b.Context(), req, &record{}); err != nil {
							b.Error(err)
						}
					})
				}
				wg.Wait()
				tokens += 64 * n
			}
			b.ReportMetric(float64(tokens)/b.Elapsed().Seconds(), "tok/s")
			b.ReportMetric(float64(tokens)/(cpuSeconds()-start), "tok/cpu-s")
		})
	}
}

// BenchmarkPrefill computes a prompt of about 256 tokens and one more.
func BenchmarkPrefill(b *testing.B) {
	e := openSeed(b, Config{})
	req := request(`"temperature":0,"max_tokens":1`, strings.Repeat("Tell me a story about a dog. ", 30))
	n, err := e.CountChatTokens(req.Body)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	start, tokens := cpuSeconds(), 0
	for b.Loop() {
		if _, err := e.Run(b.Context(), req, &record{}); err != nil {
			b.Fatal(err)
		}
		tokens += n
	}
	b.ReportMetric(float64(tokens)/b.Elapsed().Seconds(), "tok/s")
	b.ReportMetric(float64(tokens)/(cpuSeconds()-start), "tok/cpu-s")
}
