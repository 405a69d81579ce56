package bench

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// pace is the time between tokens of a stream that is not at full speed.
const pace = 10 * time.Millisecond

// paths starts an engine and the two paths in front of it.
func paths(tb testing.TB, interval time.Duration) (engine *process, ours, plainShape *path) {
	tb.Helper()
	engine = start(tb, "engine", nil)
	engine.ask(fmt.Sprintf("interval %d", interval))
	return engine, cocoon(tb, engine), plain(tb, engine)
}

// Every scenario answers, byte for byte, on both paths.
func TestScenarios(t *testing.T) {
	for _, c := range []struct {
		name          string
		interval      time.Duration
		streams, each int
		tokens        int
	}{
		{"full speed", 0, 4, 2, 600}, // more than two windows
		{"paced", time.Millisecond, 4, 1, 20},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, ours, plainShape := paths(t, c.interval)
			for _, p := range []*path{ours, plainShape} {
				o := newLoad(t, p, c.tokens, c.interval).run(c.streams, c.each, true)
				if want := c.streams * c.each * c.tokens; o.tokens != want || len(o.latencies) != want {
					t.Errorf("%s: got %d tokens and %d latencies, want %d", p.name, o.tokens, len(o.latencies), want)
				}
				if o.cpu <= 0 || o.rss <= 0 || o.firsts[0] <= 0 {
					t.Errorf("%s: got CPU %s, memory %d, first token after %s, want all above zero", p.name, o.cpu, o.rss, o.firsts[0])
				}
			}
		})
	}
}

// pairs are what the rounds of one benchmark gave.
type pairs struct {
	ours, plain []outcome
}

// measure runs the rounds, in turns, after one that warms up.
func measure(b *testing.B, ours, plainShape *load, streams, each, warm int, timed bool) pairs {
	b.Helper()
	for _, l := range []*load{ours, plainShape} {
		l.run(streams, warm, timed)
	}
	var p pairs
	for range b.N { // the time of a round is far above -benchtime's default
		for i := range *rounds {
			first, second := ours, plainShape
			if i%2 == 1 {
				first, second = second, first
			}
			for _, l := range []*load{first, second} {
				o := l.run(streams, each, timed)
				if l == ours {
					p.ours = append(p.ours, o)
				} else {
					p.plain = append(p.plain, o)
				}
			}
		}
	}
	b.ReportMetric(0, "ns/op")
	return p
}

// report gives the median of the paired ratios under name, and the medians of
// both sides.
func (p *pairs) report(b *testing.B, name, unit string, of func(*outcome) float64) {
	var ratios, ours, theirs []float64
	for i := range p.ours {
		x, y := of(&p.ours[i]), of(&p.plain[i])
		ratios, ours, theirs = append(ratios, x/y), append(ours, x), append(theirs, y)
	}
	b.ReportMetric(median(ratios), name+"-x(c)")
	b.ReportMetric(median(ours), name+"-"+unit)
	b.ReportMetric(median(theirs), name+"-c-"+unit)
}

func median(v []float64) float64 {
	v = slices.Clone(v)
	slices.Sort(v)
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

func microseconds(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }

// BenchmarkFullSpeed is A1 and A64: 256 tokens as fast as they are read.
func BenchmarkFullSpeed(b *testing.B) {
	for _, c := range []struct{ streams, each, warm int }{{1, 300, 50}, {64, 24, 4}} {
		b.Run(fmt.Sprint(c.streams), func(b *testing.B) {
			_, ours, plainShape := paths(b, 0)
			o, p := newLoad(b, ours, 256, 0), newLoad(b, plainShape, 256, 0)
			var r pairs
			profiled(b, func() { r = measure(b, o, p, c.streams, c.each, c.warm, false) }, append(ours.hops, plainShape.hops...)...)
			r.report(b, "rate", "tok/s", (*outcome).rate)
			r.report(b, "cpu", "ns/tok", (*outcome).cpuPerToken)
			r.report(b, "rss", "MB", func(o *outcome) float64 { return float64(o.rss) / 1e6 })
		})
	}
}

// BenchmarkPaced is B64: a token per 10 ms on each of 64 streams.
func BenchmarkPaced(b *testing.B) {
	_, ours, plainShape := paths(b, pace)
	o, p := newLoad(b, ours, 75, pace), newLoad(b, plainShape, 75, pace)
	var r pairs
	profiled(b, func() { r = measure(b, o, p, 64, 3, 1, true) }, append(ours.hops, plainShape.hops...)...)
	r.report(b, "cpu", "us/tok", func(o *outcome) float64 { return o.cpuPerToken() / 1e3 })
	r.report(b, "p50", "us", func(o *outcome) float64 { return microseconds(quantile(o.latencies, 0.5)) })
	r.report(b, "p99", "us", func(o *outcome) float64 { return microseconds(quantile(o.latencies, 0.99)) })
	r.report(b, "rss", "MB", func(o *outcome) float64 { return float64(o.rss) / 1e6 })
	for name, list := range map[string][]outcome{"held": r.ours, "held-c": r.plain} {
		n, all := 0, 0
		for _, o := range list {
			n, all = n+held(o.latencies, pace), all+len(o.latencies)
		}
		b.ReportMetric(float64(n)/float64(all)*1e6, name+"-ppm")
	}
}

// BenchmarkFirstToken is the time to the first token on an idle machine, with
// connections and session warm.
func BenchmarkFirstToken(b *testing.B) {
	_, ours, plainShape := paths(b, time.Millisecond)
	o, p := newLoad(b, ours, 4, time.Millisecond), newLoad(b, plainShape, 4, time.Millisecond)
	var r pairs
	profiled(b, func() { r = measure(b, o, p, 1, 60, 30, true) }, append(ours.hops, plainShape.hops...)...)
	r.report(b, "p50", "us", func(o *outcome) float64 { return microseconds(quantile(o.firsts, 0.5)) })
	r.report(b, "p90", "us", func(o *outcome) float64 { return microseconds(quantile(o.firsts, 0.9)) })
	r.report(b, "rss", "MB", func(o *outcome) float64 { return float64(o.rss) / 1e6 })
}
