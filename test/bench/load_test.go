package bench

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// load asks one path for answers and checks every byte of them.
type load struct {
	tb   testing.TB
	path *path
	http *http.Client
	body []byte
	want int           // tokens
	pace time.Duration // between tokens; 0 at full speed
	tail []byte
}

func newLoad(tb testing.TB, p *path, tokens int, pace time.Duration) *load {
	tb.Helper()
	t := &http.Transport{MaxIdleConnsPerHost: 256, MaxIdleConns: 256, DisableCompression: true, ReadBufferSize: 64 << 10}
	tb.Cleanup(t.CloseIdleConnections)
	prompt := strings.Repeat("All work and no play makes Jack a dull boy. ", 47)[:2048]
	return &load{
		tb: tb, path: p, http: &http.Client{Transport: t}, want: tokens, pace: pace, tail: []byte(ending(tokens)),
		body: fmt.Appendf(nil, `{"model":%q,"max_tokens":%d,"stream":true,"stream_options":{"include_usage":true},"messages":[{"role":"user","content":%q}]}`, model, tokens, prompt),
	}
}

// answer is what one request met.
type answer struct {
	first     time.Duration // from the request to the first event
	latencies []time.Duration
}

var buffers = sync.Pool{New: func() any { b := make([]byte, 256<<10); return &b }}

// ask makes one request. Latencies are those of each token from the engine's
// write to this process's read; they are taken only if timed.
func (l *load) ask(ctx context.Context, timed bool) (answer, error) {
	var a answer
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, l.path.url, bytes.NewReader(l.body))
	if err != nil {
		return a, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+l.path.token)
	began := time.Now()
	resp, err := l.http.Do(req)
	if err != nil {
		return a, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
		return a, fmt.Errorf("status %d: %s", resp.StatusCode, b)
	}
	buf := *buffers.Get().(*[]byte)
	defer buffers.Put(&buf)
	used, seen := 0, 0
	for {
		if used == len(buf) {
			return a, fmt.Errorf("an answer longer than %d bytes", len(buf))
		}
		n, err := resp.Body.Read(buf[used:])
		now := time.Now()
		used += n
		if a.first == 0 && used >= eventBytes {
			a.first = now.Sub(began)
		}
		for ; timed && seen < l.want && (seen+1)*eventBytes <= used; seen++ {
			at := seen*eventBytes + stampAt
			stamp, err := strconv.ParseInt(string(buf[at:at+stampLen]), 10, 64)
			if err != nil {
				return a, fmt.Errorf("token %d: %w", seen, err)
			}
			a.latencies = append(a.latencies, time.Duration(now.UnixNano()-stamp))
		}
		if err == io.EOF {
			return a, l.check(buf[:used])
		}
		if err != nil {
			return a, err
		}
	}
}

// check compares an answer with what the engine says.
func (l *load) check(b []byte) error {
	if len(b) != l.want*eventBytes+len(l.tail) || !bytes.HasSuffix(b, l.tail) {
		return fmt.Errorf("got %d bytes that end in %.200q, want %d", len(b), b[max(0, len(b)-200):], l.want*eventBytes+len(l.tail))
	}
	for i := range l.want {
		ev := b[i*eventBytes : (i+1)*eventBytes]
		if got := string(ev[numberAt:stampAt]); got != fmt.Sprintf("%0*d", numberLen, i) {
			return fmt.Errorf("token %d: got number %s", i, got)
		}
		if !bytes.HasPrefix(ev, []byte(eventHead)) || !bytes.HasSuffix(ev, []byte(eventTail)) {
			return fmt.Errorf("token %d: got %q", i, ev)
		}
	}
	return nil
}

// outcome is one round of one path.
type outcome struct {
	tokens    int
	elapsed   time.Duration
	cpu       time.Duration // all hops
	rss       int64         // all hops, the most that was seen
	firsts    []time.Duration
	latencies []time.Duration // sorted
}

func (o *outcome) rate() float64        { return float64(o.tokens) / o.elapsed.Seconds() }
func (o *outcome) cpuPerToken() float64 { return float64(o.cpu.Nanoseconds()) / float64(o.tokens) }

// run makes requests on streams at once, per stream each.
func (l *load) run(streams, each int, timed bool) outcome {
	l.tb.Helper()
	before := l.used()
	var o outcome
	var mu sync.Mutex
	var failed atomic.Pointer[error]
	var all sync.WaitGroup
	stop := l.watch(&o)
	began := time.Now()
	for i := range streams {
		all.Go(func() {
			time.Sleep(l.pace * time.Duration(l.want*i) / time.Duration(streams)) // requests begin evenly, as users' do
			for range each {
				a, err := l.ask(context.Background(), timed)
				if err != nil {
					failed.CompareAndSwap(nil, &err)
					return
				}
				mu.Lock()
				o.tokens += l.want
				o.firsts = append(o.firsts, a.first)
				o.latencies = append(o.latencies, a.latencies...)
				mu.Unlock()
			}
		})
	}
	all.Wait()
	o.elapsed = time.Since(began)
	stop()
	if err := failed.Load(); err != nil {
		l.tb.Fatalf("%s: %v", l.path.name, *err)
	}
	after := l.used()
	o.cpu, o.rss = after.CPU-before.CPU, max(o.rss, after.RSS)
	slices.Sort(o.latencies)
	slices.Sort(o.firsts)
	return o
}

// used sums the hops.
func (l *load) used() usage {
	var sum usage
	for _, p := range l.path.hops {
		u := p.used()
		sum.CPU += u.CPU
		sum.RSS += u.RSS
	}
	return sum
}

// watch notes the hops' memory while they work.
func (l *load) watch(o *outcome) (stop func()) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		t := time.NewTicker(250 * time.Millisecond)
		defer t.Stop()
		for {
			select {
			case <-t.C:
				o.rss = max(o.rss, l.used().RSS)
			case <-done:
				return
			}
		}
	})
	return func() { close(done); wg.Wait() }
}

// quantile of a sorted list.
func quantile(d []time.Duration, q float64) time.Duration {
	if len(d) == 0 {
		return 0
	}
	return d[min(int(q*float64(len(d))), len(d)-1)]
}

// held counts tokens that were still on the way when the next one was made.
func held(d []time.Duration, interval time.Duration) int {
	i, _ := slices.BinarySearch(d, interval)
	return len(d) - i
}
