package channel

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

// tape records what a Pacer sends, opened at the other end.
type tape struct {
	mu     sync.Mutex
	job    *Job
	sizes  []int
	frames []Frame
	sent   chan struct{} // one per frame
	err    error         // what Send returns
}

func (p *tape) send(wire []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return p.err
	}
	f, err := p.job.OpenAnswer(wire)
	if err != nil {
		return err
	}
	p.sizes, p.frames = append(p.sizes, len(wire)), append(p.frames, f)
	p.sent <- struct{}{}
	return nil
}

// text is the answer so far, and the last token count.
func (p *tape) text(t *testing.T) (string, uint32) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	var b strings.Builder
	var last uint32
	for _, f := range p.frames {
		if f.Type == FrameData {
			n, part, err := ParseData(f.Data)
			if err != nil {
				t.Fatal(err)
			}
			b.Write(part)
			last = n
		}
	}
	return b.String(), last
}

func newTape(t *testing.T, shape Shape) (*tape, *Pacer, chan time.Time) {
	j, s := newRig(t).pair(shape)
	tp := &tape{job: j, sent: make(chan struct{}, 1000)}
	tick := make(chan time.Time)
	return tp, NewPacer(PacerConfig{Shape: shape, Seal: s.AppendSeal, Send: tp.send, Tick: tick}), tick
}

func put(t *testing.T, p *Pacer, f Frame) {
	t.Helper()
	if err := p.Put(t.Context(), f); err != nil {
		t.Fatal(err)
	}
}

func TestShapedAnswerShowsNothingButTicks(t *testing.T) {
	tp, p, tick := newTape(t, ShapeOn)
	put(t, p, Frame{Type: FrameHello})
	<-tp.sent
	ran := make(chan error, 1)
	go func() { ran <- p.Run(t.Context()) }()
	step := func(n int) {
		for range n {
			tick <- time.Time{}
			<-tp.sent
		}
	}
	step(2) // nothing to say yet
	want := ""
	for i := range 100 { // a burst, longer than one tick carries
		s := fmt.Sprintf("data: token %d %s\n\n", i, strings.Repeat("x", 60))
		want += s
		if err := p.PutData(t.Context(), uint32(i+1), []byte(s)); err != nil {
			t.Fatal(err)
		}
	}
	step(1)
	if got, _ := tp.text(t); len(got) == 0 || len(got) >= WorkerTickBytes || !strings.HasPrefix(want, got) {
		t.Errorf("one tick carried %d bytes of the burst's %d", len(got), len(want))
	}
	put(t, p, Frame{Type: FrameError, Data: JobError{Status: 500}.Encode()})
	put(t, p, Frame{Type: FrameReceipt, Last: true, Data: []byte("receipt")})
	if err := p.Put(t.Context(), Frame{Type: FrameError}); !errors.Is(err, ErrPacerStopped) {
		t.Errorf("Put after the last frame: got %v, want ErrPacerStopped", err)
	}
	step(EndTicks - 3)
	if err := <-ran; err != nil {
		t.Fatal(err)
	}
	if got, tokens := tp.text(t); got != want || tokens != 100 {
		t.Errorf("got %d bytes and %d tokens, want %d and 100", len(got), tokens, len(want))
	}
	if n := len(tp.sizes); n != 1+EndTicks {
		t.Errorf("got %d frames, want the hello and %d ticks", n, EndTicks)
	}
	for i, n := range tp.sizes {
		if n != WorkerTickBytes {
			t.Errorf("frame %d (%s): got %d bytes on the wire, want %d", i, tp.frames[i].Type, n, WorkerTickBytes)
		}
	}
	if !tp.job.Done() {
		t.Error("the receipt did not arrive")
	}
}

func TestNothingLeavesBeforeTheHello(t *testing.T) {
	tp, p, tick := newTape(t, ShapeOn)
	ran := make(chan error, 1)
	go func() { ran <- p.Run(t.Context()) }()
	tick <- time.Time{}
	tick <- time.Time{}
	p.Stop()
	if err := <-ran; err != nil {
		t.Fatal(err)
	}
	if len(tp.frames) != 0 {
		t.Errorf("got %d frames, want none", len(tp.frames))
	}
	wire, err := p.c.Seal(nil, Frame{Type: FrameHello})
	if err != nil {
		t.Fatalf("the hello after a refused filler: %v", err)
	}
	if _, err := tp.job.OpenAnswer(wire); err != nil {
		t.Error(err)
	}
}

func TestUnshapedFramesLeaveAtOnce(t *testing.T) {
	tp, p, _ := newTape(t, ShapeOffUnpadded)
	put(t, p, Frame{Type: FrameHello})
	big := strings.Repeat("b", MaxFrameData+100)
	for i, s := range []string{"one", big} {
		if err := p.PutData(t.Context(), uint32(i+1), []byte(s)); err != nil {
			t.Fatal(err)
		}
		if got, tokens := tp.text(t); !strings.HasSuffix(got, s) || tokens != uint32(i+1) {
			t.Fatalf("after Put: got %d bytes, %d tokens", len(got), tokens)
		}
	}
	put(t, p, Frame{Type: FrameReceipt, Last: true})
	if err := p.Run(t.Context()); err != nil {
		t.Errorf("Run: %v", err)
	}
	if err := p.PutData(t.Context(), 3, []byte("more")); !errors.Is(err, ErrPacerStopped) {
		t.Errorf("Put after the last frame: got %v, want ErrPacerStopped", err)
	}
	if !tp.job.Done() {
		t.Error("the receipt did not arrive")
	}
}

func TestPacerBoundsItsQueue(t *testing.T) {
	tp, p, tick := newTape(t, ShapeOn)
	put(t, p, Frame{Type: FrameHello})
	<-tp.sent
	part := make([]byte, MaxQueueBytes/4)
	for range 4 {
		if err := p.PutData(t.Context(), 1, part); err != nil {
			t.Fatal(err)
		}
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if err := p.PutData(ended, 1, part); !errors.Is(err, context.Canceled) {
		t.Errorf("Put on a full queue: got %v, want context.Canceled", err)
	}
	waited := make(chan error, 1)
	go func() { waited <- p.PutData(t.Context(), 2, part) }()
	ran := make(chan error, 1)
	go func() { ran <- p.Run(t.Context()) }()
	for done := false; !done; {
		select {
		case err := <-waited:
			if err != nil {
				t.Fatal(err)
			}
			done = true
		case tick <- time.Time{}:
			<-tp.sent
		}
	}
	p.Stop()
	if err := <-ran; err != nil {
		t.Errorf("Run after Stop: %v", err)
	}
	if err := p.PutData(t.Context(), 3, part); !errors.Is(err, ErrPacerStopped) {
		t.Errorf("Put after Stop: got %v, want ErrPacerStopped", err)
	}
}

func TestPacerFailsItsCallers(t *testing.T) {
	gone := errors.New("connection gone")
	tp, p, tick := newTape(t, ShapeOn)
	put(t, p, Frame{Type: FrameHello})
	tp.mu.Lock()
	tp.err = gone
	tp.mu.Unlock()
	ran := make(chan error, 1)
	go func() { ran <- p.Run(t.Context()) }()
	tick <- time.Time{}
	if err := <-ran; !errors.Is(err, gone) {
		t.Errorf("Run: got %v, want %v", err, gone)
	}
	if err := p.PutData(t.Context(), 1, []byte("x")); !errors.Is(err, gone) {
		t.Errorf("Put: got %v, want %v", err, gone)
	}

	_, p, _ = newTape(t, ShapeOn)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.Run(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Run of an ended context: got %v", err)
	}
}

func TestShapedClientTicksOneSize(t *testing.T) {
	j, s := newRig(t).pair(ShapeOn)
	tick, sent := make(chan time.Time), make(chan struct{})
	var got []FrameType
	p := NewPacer(PacerConfig{Seal: j.AppendSeal, Tick: tick, Send: func(wire []byte) error {
		if len(wire) != ClientTickBytes {
			t.Errorf("got %d bytes on the wire, want %d", len(wire), ClientTickBytes)
		}
		f, err := s.Open(wire)
		got = append(got, f.Type)
		sent <- struct{}{}
		return err
	}})
	ran := make(chan error, 1)
	go func() { ran <- p.Run(t.Context()) }()
	tick <- time.Time{}
	<-sent
	put(t, p, Frame{Type: FrameVoucher, Data: VoucherUpdate{Voucher: make([]byte, 200), Count: 1 << 40}.Encode()})
	tick <- time.Time{}
	<-sent
	p.Stop()
	if err := <-ran; err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || got[0] != FrameFiller || got[1] != FrameVoucher {
		t.Errorf("got %v, want filler, voucher", got)
	}
}
