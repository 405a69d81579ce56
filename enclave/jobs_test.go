package enclave_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"cocoon/attestation"
	"cocoon/attestation/auditlog"
	"cocoon/attestation/channel"
	"cocoon/enclave/engine"
)

func TestStreamsAndBills(t *testing.T) {
	w := newWorld(t).run()
	c := w.connect(t)
	for i := range 2 {
		r := c.begin(c.params(chat("hello")))
		got := r.finish()
		if string(r.answer) != "one two three " || r.fault != nil {
			t.Errorf("run %d: answer: got %q and %v", i, r.answer, r.fault)
		}
		want := attestation.Usage{Prompt: 10, Completion: 3}
		if got.Status != auditlog.StatusOK || got.Usage != want || got.Cost != 16 || got.FinishReason != "stop" || got.Model != toyModel {
			t.Errorf("run %d: receipt: got %+v", i, got)
		}
		if want := auditlog.Commit(r.p.request.BlindKey, r.p.request.Body); got.RequestCommitment != want {
			t.Errorf("run %d: request commitment is not to the body", i)
		}
		if _, err := auditlog.ParseCheckpoint(got.Checkpoint, w.boot.LogPublicKey); err != nil {
			t.Errorf("run %d: %v", i, err)
		}
		if r.hello.Count != uint64(i) || r.hello.Settled != uint64(i)*16 || len(r.hello.Base) != 0 || r.hello.BasePaid != 0 {
			t.Errorf("run %d: hello: got %+v", i, r.hello)
		}
		if !cmp.Equal(r.hello.Highest, r.p.request.Voucher) {
			t.Errorf("run %d: hello: highest is not the voucher of the job", i)
		}
	}
	st, err := c.receipts(1)
	if err != nil {
		t.Fatal(err)
	}
	if st.Count != 2 || st.Settled != 32 || len(st.Receipts) != 1 || st.LogID != w.boot.LogID {
		t.Errorf("receipts: got %d of %d nano, %d shown", st.Count, st.Settled, len(st.Receipts))
	}
}

func TestShapedJobSendsOneFramePerTick(t *testing.T) {
	w := newWorld(t).run()
	c := w.connect(t)
	c.shape = channel.ShapeOn
	r := c.begin(c.params(chat("hello")))
	done := make(chan auditlog.Receipt, 1)
	sizes := map[int]int{}
	came := make(chan struct{}, 1)
	go func() {
		for {
			wire, err := r.stream.Recv()
			select {
			case came <- struct{}{}:
			default:
			}
			if err != nil {
				t.Error(err)
				close(done)
				return
			}
			sizes[len(wire)]++
			f, err := r.job.OpenAnswer(wire)
			if err != nil {
				t.Error(err)
				close(done)
				return
			}
			if f.Type == channel.FrameReceipt {
				got, err := auditlog.ParseReceipt(f.Data)
				if err != nil {
					t.Error(err)
				}
				done <- got
				return
			}
		}
	}()
	w.clock.await(channel.TickInterval)
	for {
		w.clock.advance(channel.TickInterval)
		select {
		case got := <-done:
			if got.Status != auditlog.StatusOK || got.Cost != 16 {
				t.Errorf("receipt: got %+v", got)
			}
			if len(sizes) != 1 || sizes[channel.WorkerTickBytes] < channel.EndTicks {
				t.Errorf("frames by size: got %v, want at least %d of %d bytes and no others", sizes, channel.EndTicks, channel.WorkerTickBytes)
			}
			return
		case <-came:
		case <-time.After(5 * time.Millisecond): // a tick that came too early for the worker
		}
	}
}

func TestBodyInParts(t *testing.T) {
	w := newWorld(t).run()
	c := w.connect(t)
	var got []byte
	w.engine.script(func(ctx context.Context, req engine.Request, s engine.Sink) (engine.Result, error) {
		got = append([]byte(nil), req.Body...)
		return say("ok")(ctx, req, s)
	})
	body := chat(strings.Repeat("x", 500))
	p := c.params(body[:100])
	p.request.BodyDone = false
	p.more = [][]byte{body[100:200], body[200:]}
	r := c.begin(p).finish()
	if !cmp.Equal(got, body) || r.Status != auditlog.StatusOK {
		t.Errorf("got %d of %d bytes, status %s", len(got), len(body), r.Status)
	}
	if want := auditlog.Commit(p.request.BlindKey, body); r.RequestCommitment != want {
		t.Errorf("request commitment is not to the whole body")
	}
}

func TestClientPaysWindowByWindow(t *testing.T) {
	w := newWorld(t).run()
	c := w.connect(t)
	w.engine.script(long(600))
	r := c.begin(c.params(chat("long")))
	r.until(256)
	r.pay(c.voucher(windowCost(2)))
	r.until(512)
	r.pay(c.voucher(windowCost(3)))
	if got := r.finish(); got.Usage.Completion != 600 || got.Cost != windowCost(3) {
		t.Errorf("receipt: got %+v", got)
	}
}

// An engine behind HTTP learns its counts in bursts, and the last at the end.
func TestBurstsAreBilledAsPaid(t *testing.T) {
	w := newWorld(t).run()
	w.engine.script(func(ctx context.Context, _ engine.Request, s engine.Sink) (engine.Result, error) {
		if err := s.Grant(ctx, 100); err != nil {
			return engine.Result{}, err
		}
		u := engine.Usage{Prompt: 10, Completion: 300}
		return engine.Result{Usage: u, FinishReason: "length"}, s.Write([]byte("much"), u)
	})
	t.Run("paid", func(t *testing.T) {
		c := w.connect(t)
		r := c.begin(c.params(chat("x")))
		r.until(300)
		r.pay(c.voucher(windowCost(2)))
		if got := r.finish(); got.Status != auditlog.StatusOK || got.Cost != 10+600 {
			t.Errorf("receipt: got %+v", got)
		}
	})
	t.Run("not paid", func(t *testing.T) {
		c := w.connect(t)
		r := c.begin(c.params(chat("x")))
		r.until(300)
		w.clock.await(5 * time.Second)
		w.clock.advance(5 * time.Second)
		if got := r.finish(); got.Status != auditlog.StatusOK || got.Usage.Completion != 256 || got.Cost != 10+512 {
			t.Errorf("receipt: got %+v", got)
		}
	})
}

// A client that stops paying gets no token beyond what it paid for, and is
// billed for those.
func TestClientStopsPaying(t *testing.T) {
	w := newWorld(t).run()
	c := w.connect(t)
	w.engine.script(long(600))
	r := c.begin(c.params(chat("long")))
	r.until(256)
	w.clock.await(5 * time.Second)
	w.clock.advance(5 * time.Second)
	got := r.finish()
	if got.Status != auditlog.StatusAborted || got.Usage.Completion != 256 || got.Cost != windowCost(1) || got.FinishReason != "credit.timeout" {
		t.Errorf("receipt: got %+v", got)
	}
	if r.fault == nil || r.fault.Code != "credit.timeout" || r.fault.Status != 402 {
		t.Errorf("fault: got %v", r.fault)
	}
}

// endless is a run that goes on until it is stopped, and says when it is.
func endless(ended chan<- engine.Usage) play {
	return func(ctx context.Context, _ engine.Request, s engine.Sink) (engine.Result, error) {
		u := engine.Usage{Prompt: 10}
		if err := s.Start(10, 4); err != nil {
			return engine.Result{}, err
		}
		u.Cached = 4
		for u.Completion < 5 {
			if err := s.Grant(ctx, u.Completion+1); err != nil {
				return stopped(ctx, u, err)
			}
			u.Completion++
			if err := s.Write([]byte("w "), u); err != nil {
				return stopped(ctx, u, err)
			}
		}
		<-ctx.Done()
		ended <- u
		return stopped(ctx, u, ctx.Err())
	}
}

func TestCancelBillsWhatWasProduced(t *testing.T) {
	w := newWorld(t).run()
	ended := make(chan engine.Usage, 1)
	w.engine.script(endless(ended))
	t.Run("frame", func(t *testing.T) {
		c := w.connect(t)
		r := c.begin(c.params(chat("x")))
		r.until(5)
		r.frame(channel.Frame{Type: channel.FrameCancel})
		got := r.finish()
		<-ended
		if got.Status != auditlog.StatusCancelled || got.Usage != (attestation.Usage{Prompt: 10, Cached: 4, Completion: 5}) || got.Cost != 6+2+10 || r.fault != nil {
			t.Errorf("receipt: got %+v, fault %v", got, r.fault)
		}
	})
	t.Run("stream", func(t *testing.T) {
		c := w.connect(t)
		r := c.begin(c.params(chat("x")))
		r.until(5)
		r.cancel()
		<-ended
		for { // its receipt comes by GetReceipts, once it is durable
			st, err := c.receipts(0)
			if err != nil {
				t.Fatal(err)
			}
			if st.Count == 0 {
				continue
			}
			got, err := auditlog.VerifyReceipt(st.Receipts[0], c.verified.Keyset().SigningPublicKey)
			if err != nil {
				t.Fatal(err)
			}
			if got.Status != auditlog.StatusCancelled || got.Usage.Completion != 5 || got.Cost != 18 || st.Settled != 18 {
				t.Errorf("receipt: got %+v", got)
			}
			return
		}
	})
	t.Run("connection", func(t *testing.T) {
		c := w.connect(t)
		r := c.begin(c.params(chat("x")))
		r.until(5)
		c.conn.Close()
		<-ended
		again := w.connectAs(t, c.key, c.channel)
		for {
			st, err := again.receipts(0)
			if err != nil {
				t.Fatal(err)
			}
			if st.Count == 1 {
				if st.Settled != 18 {
					t.Errorf("settled: got %d, want 18", st.Settled)
				}
				return
			}
		}
	})
}

func TestEngineDies(t *testing.T) {
	w := newWorld(t).run()
	c := w.connect(t)
	secret := "the prompt itself"
	broken := errors.New("engine: " + secret)
	after := func(n int, die func() error) play {
		return func(ctx context.Context, req engine.Request, s engine.Sink) (engine.Result, error) {
			if _, err := say(strings.Split(strings.Repeat("w ", n), " ")[:n]...)(ctx, req, s); err != nil {
				return engine.Result{}, err
			}
			return engine.Result{}, die()
		}
	}
	for _, tt := range []struct {
		name   string
		play   play
		tokens uint64
		cost   uint64
	}{
		{"error in mid-answer", after(7, func() error { return broken }), 7, 24},
		{"panic in mid-answer", after(7, func() error { panic(secret) }), 7, 24},
		{"error before the first token", after(0, func() error { return broken }), 0, 0},
		{"panic at once", func(context.Context, engine.Request, engine.Sink) (engine.Result, error) { panic(secret) }, 0, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w.engine.script(tt.play)
			r := c.begin(c.params(chat("x")))
			got := r.finish()
			if got.Status != auditlog.StatusError || got.Usage.Completion != tt.tokens || got.Cost != tt.cost {
				t.Errorf("receipt: got %+v", got)
			}
			if r.fault == nil || r.fault.Code != "engine.failed" || strings.Contains(r.fault.Message, secret) {
				t.Errorf("fault: got %v", r.fault)
			}
		})
	}
	// The worker lives on.
	w.engine.script(nil)
	if got := c.begin(c.params(chat("x"))).finish(); got.Status != auditlog.StatusOK {
		t.Errorf("after the engine's faults: got %+v", got)
	}
}

func TestEngineThatDoesNotStopIsSettledWithout(t *testing.T) {
	w := newWorld(t).run()
	c := w.connect(t)
	free := make(chan struct{})
	w.engine.script(func(ctx context.Context, req engine.Request, s engine.Sink) (engine.Result, error) {
		if _, err := say("one ", "two ")(ctx, req, s); err != nil {
			return engine.Result{}, err
		}
		<-free // deaf
		return engine.Result{}, s.Write([]byte("late"), engine.Usage{Prompt: 10, Completion: 3})
	})
	r := c.begin(c.params(chat("x")))
	r.until(2)
	r.frame(channel.Frame{Type: channel.FrameCancel})
	w.clock.await(time.Second)
	w.clock.advance(time.Second)
	if _, err := r.next(); err == nil {
		t.Errorf("an answer frame came after the job was settled")
	}
	st, err := c.receipts(0)
	if err != nil {
		t.Fatal(err)
	}
	close(free)
	if st.Count != 1 || st.Settled != 14 {
		t.Errorf("receipts: got %d of %d nano, want 1 of 14", st.Count, st.Settled)
	}
}

func TestJobCeiling(t *testing.T) {
	w := newWorld(t).run()
	c := w.connect(t)
	ended := make(chan engine.Usage, 1)
	w.engine.script(endless(ended))
	r := c.begin(c.params(chat("x")))
	r.until(5)
	w.clock.advance(10 * time.Minute)
	<-ended
	got := r.finish()
	if got.Status != auditlog.StatusAborted || got.FinishReason != "job_ceiling" || got.Usage.Completion != 5 || r.fault == nil || r.fault.Code != "job.ceiling" {
		t.Errorf("receipt: got %+v, fault %v", got, r.fault)
	}
}

func TestParallelJobsShareCredit(t *testing.T) {
	w := newWorld(t).run()
	c := w.connect(t)
	ended := make(chan engine.Usage, 2)
	w.engine.script(endless(ended))
	p := c.params(chat("x"))
	first := c.begin(p)
	first.until(5)
	second := c.params(chat("y"))
	second.request.Voucher = c.voucher(windowCost(1) + 100) // the first holds 6+2 and a window: this reaches no second prompt and window
	r := c.begin(second)
	if got := r.finish(); got.Status != auditlog.StatusRefused || r.fault.Code != "credit.short" {
		t.Errorf("receipt: got %+v, fault %v", got, r.fault)
	}
	third := c.params(chat("y"))
	third.request.Voucher = c.voucher(2 * windowCost(1))
	r = c.begin(third)
	r.until(5)
	for _, r := range []*run{first, r} {
		r.frame(channel.Frame{Type: channel.FrameCancel})
		<-ended
		if got := r.finish(); got.Cost != 18 {
			t.Errorf("receipt: got %+v", got)
		}
	}
}
