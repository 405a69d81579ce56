package channel

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// MaxQueueBytes bounds what a Pacer holds for its ticks, in bytes. Beyond it,
// Put waits.
const MaxQueueBytes = 64 << 10

// ErrPacerStopped is the error of Put after Stop, after the last frame, or
// after Run ended.
var ErrPacerStopped = errors.New("pacer: stopped")

// PacerConfig makes a Pacer.
type PacerConfig struct {
	Shape Shape
	Seal  func(dst []byte, f Frame) ([]byte, error) // Job.AppendSeal or ServerJob.AppendSeal
	Send  func(wire []byte) error                   // passes a sealed frame on; must not keep it
	Tick  <-chan time.Time                          // one frame per receive (TickInterval); unused with ShapeOffUnpadded
}

// Pacer sends one end's frames of one job in the job's shape. With
// ShapeOffUnpadded, Put seals and sends at once on its caller's goroutine:
// whatever one read returned is one frame, nothing waits for a timer, and no
// goroutine is woken. With ShapeOn, Run sends one constant-size frame per tick,
// and Put queues for it; FrameBody alone goes at once. It is safe for
// concurrent use. What is still queued when Run fails is dropped.
type Pacer struct {
	c PacerConfig

	sending sync.Mutex // held over Seal and Send, so that frames leave in the order they were sealed in
	wire    []byte
	data    []byte

	mu     sync.Mutex
	queue  []Frame
	queued int           // bytes in queue
	room   chan struct{} // closed when queue shrinks
	err    error         // why Put refuses
	stop   chan struct{}
}

// NewPacer makes a Pacer. With ShapeOn its owner must Run it.
func NewPacer(c PacerConfig) *Pacer {
	return &Pacer{c: c, room: make(chan struct{}), stop: make(chan struct{})}
}

// Put sends f, or queues it and returns; then f.Data is copied. It waits while
// the queue is full.
func (p *Pacer) Put(ctx context.Context, f Frame) error {
	if p.c.Shape == ShapeOffUnpadded || f.Type == FrameBody {
		return p.sendNow(f)
	}
	f.Data = append([]byte(nil), f.Data...)
	return p.enqueue(ctx, f, func(q []Frame) []Frame { return append(q, f) })
}

// PutData sends FrameData with the completion tokens generated so far and
// answer bytes, cut or joined as the shape asks.
func (p *Pacer) PutData(ctx context.Context, tokens uint32, answer []byte) error {
	if p.c.Shape == ShapeOffUnpadded {
		return p.sendData(tokens, answer)
	}
	f := Frame{Type: FrameData, Data: answer}
	return p.enqueue(ctx, f, func(q []Frame) []Frame {
		if n := len(q); n > 0 && q[n-1].Type == FrameData {
			q[n-1].Data = AppendData(q[n-1].Data[:0], tokens, append(q[n-1].Data[4:], answer...))
			return q
		}
		return append(q, Frame{Type: FrameData, Data: AppendData(nil, tokens, answer)})
	})
}

// enqueue waits for room, then lets add change the queue.
func (p *Pacer) enqueue(ctx context.Context, f Frame, add func([]Frame) []Frame) error {
	for {
		p.mu.Lock()
		if p.err != nil {
			defer p.mu.Unlock()
			return p.err
		}
		if p.queued == 0 || p.queued+len(f.Data) <= MaxQueueBytes {
			p.queue = add(p.queue)
			p.queued += len(f.Data)
			if f.Last {
				p.err = ErrPacerStopped
			}
			p.mu.Unlock()
			return nil
		}
		room := p.room
		p.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (p *Pacer) sendData(tokens uint32, answer []byte) error {
	for {
		n := min(len(answer), MaxFrameData-4)
		p.sending.Lock()
		p.data = AppendData(p.data[:0], tokens, answer[:n])
		err := p.sealAndSend(Frame{Type: FrameData, Data: p.data})
		p.sending.Unlock()
		if answer = answer[n:]; err != nil || len(answer) == 0 {
			return err
		}
	}
}

func (p *Pacer) sendNow(f Frame) error {
	p.sending.Lock()
	defer p.sending.Unlock()
	return p.sealAndSend(f)
}

// sealAndSend is called with sending held.
func (p *Pacer) sealAndSend(f Frame) error {
	p.mu.Lock()
	err := p.err
	p.mu.Unlock()
	if err != nil && p.c.Shape == ShapeOffUnpadded {
		return err
	}
	if p.wire, err = p.c.Seal(p.wire[:0], f); err == nil {
		err = p.c.Send(p.wire)
	}
	if err != nil {
		p.fail(err)
	} else if f.Last && f.Type == FrameReceipt {
		p.fail(ErrPacerStopped)
	}
	return err
}

// fail makes Put refuse with err from now on.
func (p *Pacer) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil {
		p.err = err
	}
	close(p.room)
	p.room = make(chan struct{})
}

// Stop ends Run. What is queued is dropped; Put refuses.
func (p *Pacer) Stop() {
	p.fail(ErrPacerStopped)
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.stop:
	default:
		close(p.stop)
	}
}

// Run sends one frame per tick until the job's last frame has left or Stop is
// called, and then returns nil; or until ctx ends or a frame cannot be sent.
// With ShapeOffUnpadded it returns nil at once: there Put sends.
func (p *Pacer) Run(ctx context.Context) error {
	if p.c.Shape == ShapeOffUnpadded {
		return nil
	}
	for ticks := 1; ; ticks++ {
		select {
		case <-p.stop:
			return nil
		case <-ctx.Done():
			p.fail(ctx.Err())
			return ctx.Err()
		case _, ok := <-p.c.Tick:
			if !ok {
				p.fail(ErrPacerStopped)
				return fmt.Errorf("pacer: the ticks ended")
			}
		}
		f := p.next(ticks)
		if err := p.sendNow(f); err != nil {
			return err
		}
		if f.Last {
			return nil
		}
	}
}

// next takes the frame for one tick off the queue.
func (p *Pacer) next(ticks int) Frame {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.queue) == 0 || p.queue[0].Last && ticks%EndTicks != 0 {
		return Frame{Type: FrameFiller}
	}
	f := p.queue[0]
	const room = WorkerTickBytes - headerBytes - tagBytes
	if f.Type == FrameData && len(f.Data) > room {
		rest := AppendData(nil, 0, f.Data[room:])
		copy(rest, f.Data[:4])
		p.queue[0].Data, f.Data = rest, f.Data[:room]
		p.queued -= room - 4
	} else {
		p.queue = p.queue[1:]
		p.queued -= len(f.Data)
		if f.Type == FrameData {
			p.queued += 4
		}
	}
	close(p.room)
	p.room = make(chan struct{})
	return f
}
