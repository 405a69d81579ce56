package openaihttp

import (
	"context"
	"strings"
	"testing"

	"cocoon/enclave/engine"
)

// BenchmarkStream passes on 256 events that came in one piece.
func BenchmarkStream(b *testing.B) {
	stream := roleEvent + strings.Repeat(textEvent(" token"), 256) + finishEvent + usageEvent + doneEvent
	b.SetBytes(int64(len(stream)))
	b.ReportAllocs()
	for b.Loop() {
		a := &answer{sink: discard{}, stream: true, limit: 256}
		if err := a.read(b.Context(), strings.NewReader(stream)); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/256, "ns/event")
}

type discard struct{}

func (discard) Start(int, int) error             { return nil }
func (discard) Grant(context.Context, int) error { return nil }
func (discard) Write([]byte, engine.Usage) error { return nil }
