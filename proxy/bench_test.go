package proxy_test

import (
	"context"
	"io"
	"sync"
	"testing"
)

// BenchmarkStream is a token's way from an engine through worker and proxy, at
// full speed and over 64 streams, everything in one process.
func BenchmarkStream(b *testing.B) {
	for name, streams := range map[string]int{"1": 1, "32": 32} {
		b.Run(name, func(b *testing.B) {
			w := newWorld(b)
			k := w.worker(0)
			k.engine.script(say(200, nil))
			g := w.proxy(settings{}, k.addr)
			io.Copy(io.Discard, g.post(chat(true, nil)).Body)
			b.ResetTimer()
			var wg sync.WaitGroup
			next := make(chan struct{}, b.N)
			for range b.N {
				next <- struct{}{}
			}
			close(next)
			for range streams {
				wg.Go(func() {
					for range next {
						r := g.request(context.Background(), "POST", "/v1/chat/completions", chat(true, nil), nil)
						if n, err := io.Copy(io.Discard, r.Body); err != nil || n != int64(len(answer(200, true))) {
							b.Errorf("got %d bytes, %v", n, err)
						}
						r.Body.Close()
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N*200)/b.Elapsed().Seconds(), "tokens/s")
		})
	}
}
