package channel

import (
	"context"
	"errors"
	"sync"
	"time"
)

// MaxQueueBytes bounds what a Pacer holds for its ticks, in bytes. Beyond it,
// Put waits.
const MaxQueueBytes = 64 << 10

// keptBytes is the longest buffer that a job keeps between frames.
const keptBytes = 32 << 10

// ErrPacerStopped is the error of Put after Stop, after the last frame, or
// after Run ended.
var ErrPacerStopped = errors.New("pacer: stopped")

// PacerConfig makes a Pacer.
type PacerConfig struct {
	Shape Shape
	Seal  func(dst []byte, f Frame) ([]byte, error) // Job.AppendSeal or ServerJob.AppendSeal
	Send  func(wire []byte) error                   // passes a sealed frame on; must not keep it
	Tick  <-chan time.Time                          // one frame per receive, every TickInterval; unused with ShapeOffUnpadded
}

// Pacer sends one end's frames of one job in the job's shape. With
// ShapeOffUnpadded, Put seals and sends at once on its caller's goroutine:
// whatever one read returned is one frame, nothing waits for a timer, and no
// goroutine is woken. With ShapeOn, Run sends one constant-size frame per tick,
// filler if there is nothing to say, and Put queues for it; only FrameHello and
// FrameBody go at once. Before a worker's FrameHello nothing leaves on a tick.
//
// It is safe for concurrent use. What is still queued when Run fails, or at
// Stop, is dropped.
type Pacer struct {
	c PacerConfig

	sending sync.Mutex // held over Seal and Send, so that frames leave in the order they were sealed in
	wire    []byte
	data    []byte

	mu     sync.Mutex
	queue  []queued
	bytes  int           // in queue
	room   chan struct{} // closed when queue shrinks or err is set
	err    error         // why Put refuses
	closed bool          // Put refuses because the last frame is queued; Run goes on
	stop   chan struct{}
}

// queued is a frame that waits for its tick. For FrameData, Data is the answer
// from off on, and tokens its count.
type queued struct {
	Frame
	tokens uint32
	off    int
}

// NewPacer makes a Pacer. With ShapeOn its owner must Run it.
func NewPacer(c PacerConfig) *Pacer {
	return &Pacer{c: c, room: make(chan struct{}), stop: make(chan struct{})}
}

// Put sends f, or queues a copy of it. It waits while the queue is full.
func (p *Pacer) Put(ctx context.Context, f Frame) error {
	if p.c.Shape == ShapeOffUnpadded || f.Type == FrameBody || f.Type == FrameHello {
		p.sending.Lock()
		defer p.sending.Unlock()
		if err := p.refusal(); err != nil {
			return err
		}
		return p.send(f)
	}
	if f.Type == FrameData {
		tokens, answer, err := ParseData(f.Data)
		if err != nil {
			return err
		}
		return p.PutData(ctx, tokens, answer)
	}
	return p.enqueue(ctx, len(f.Data), func() {
		f.Data = append([]byte(nil), f.Data...)
		p.queue = append(p.queue, queued{Frame: f})
		p.closed = f.Last
	})
}

// PutData sends FrameData with the completion tokens generated so far and
// answer bytes, cut or joined as the shape asks.
func (p *Pacer) PutData(ctx context.Context, tokens uint32, answer []byte) error {
	if p.c.Shape == ShapeOffUnpadded {
		return p.sendData(tokens, answer)
	}
	return p.enqueue(ctx, len(answer), func() {
		n := len(p.queue)
		if n == 0 || p.queue[n-1].Type != FrameData {
			p.queue = append(p.queue, queued{Frame: Frame{Type: FrameData}})
			n++
		}
		q := &p.queue[n-1]
		if q.off > MaxQueueBytes {
			q.Data, q.off = append(q.Data[:0], q.Data[q.off:]...), 0
		}
		q.Data, q.tokens = append(q.Data, answer...), tokens
	})
}

// enqueue waits for room for n bytes, then lets add change the queue.
func (p *Pacer) enqueue(ctx context.Context, n int, add func()) error {
	for {
		p.mu.Lock()
		if err := p.refusalLocked(); err != nil {
			p.mu.Unlock()
			return err
		}
		if p.bytes == 0 || p.bytes+n <= MaxQueueBytes {
			add()
			p.bytes += n
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

func (p *Pacer) refusal() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.refusalLocked()
}

func (p *Pacer) refusalLocked() error {
	if p.err == nil && p.closed {
		return ErrPacerStopped
	}
	return p.err
}

func (p *Pacer) sendData(tokens uint32, answer []byte) error {
	p.sending.Lock()
	defer p.sending.Unlock()
	for {
		if err := p.refusal(); err != nil {
			return err
		}
		n := min(len(answer), MaxFrameData-4)
		p.data = AppendData(p.data[:0], tokens, answer[:n])
		if err := p.send(Frame{Type: FrameData, Data: p.data}); err != nil {
			return err
		}
		if answer = answer[n:]; len(answer) == 0 {
			return nil
		}
	}
}

// send is called with sending held.
func (p *Pacer) send(f Frame) error {
	wire, err := p.c.Seal(p.wire[:0], f)
	if err == nil {
		err = p.c.Send(wire)
	}
	if p.wire = wire; cap(wire) > keptBytes {
		p.wire = nil
	}
	switch {
	case errors.Is(err, errNoHello):
		return nil // ticks show only once the job was taken
	case err != nil:
		p.fail(err)
	case f.Type == FrameReceipt:
		p.fail(ErrPacerStopped)
	}
	return err
}

// fail makes Put refuse with err from now on, and wakes whoever waits.
func (p *Pacer) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil {
		p.err = err
	}
	p.wake()
}

// wake is called with mu held.
func (p *Pacer) wake() {
	close(p.room)
	p.room = make(chan struct{})
}

// Stop ends Run; Put refuses from now on.
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
	err := p.run(ctx)
	if err != nil {
		p.fail(err)
	}
	return err
}

func (p *Pacer) run(ctx context.Context) error {
	if p.c.Tick == nil {
		return errors.New("pacer: no ticks were given")
	}
	var data []byte
	for ticks := 1; ; ticks++ {
		select {
		case <-p.stop:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case _, ok := <-p.c.Tick:
			if !ok {
				return errors.New("pacer: the ticks ended")
			}
		}
		var f Frame
		f, data = p.next(ticks, data)
		p.sending.Lock()
		err := p.send(f)
		p.sending.Unlock()
		if err != nil || f.Last {
			return err
		}
	}
}

// next takes one tick's frame off the queue. buf holds a FrameData's data.
func (p *Pacer) next(ticks int, buf []byte) (Frame, []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.queue) == 0 || p.queue[0].Last && ticks%EndTicks != 0 {
		return Frame{Type: FrameFiller}, buf
	}
	q := &p.queue[0]
	f, size := q.Frame, len(q.Data)
	if q.Type == FrameData {
		size = min(len(q.Data)-q.off, WorkerTickBytes-headerBytes-tagBytes-4)
		buf = AppendData(buf[:0], q.tokens, q.Data[q.off:q.off+size])
		f.Data = buf
	}
	if q.off += size; q.off == len(q.Data) {
		p.queue = append(p.queue[:0], p.queue[1:]...)
	}
	p.bytes -= size
	p.wake()
	return f, buf
}
