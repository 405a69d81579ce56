package channel

import (
	"crypto/ed25519"
	"fmt"
	"sync"
	"sync/atomic"

	"cocoon/attestation/canonical"
)

// Job is the client's end of one job. Sealing and opening may go on at once;
// each is done by one goroutine at a time, because frames must travel in the
// order they were sealed in. Its zero value refuses.
type Job struct {
	id    [16]byte
	shape Shape
	state state
	encapsulation

	sealing  sync.Mutex
	aad      []byte
	bodyDone bool
	plain    []byte

	opening sync.Mutex
	keys    *answerKeys // from answer frame 0 on
	done    atomic.Bool
}

// state is whether a job's stream is still good.
type state struct{ dead atomic.Pointer[BrokenError] }

// kill makes the job refuse from now on, and returns the error it died of.
func (s *state) kill(name string, err error) error {
	s.dead.CompareAndSwap(nil, &BrokenError{name, err})
	return s.dead.Load()
}

func (s *state) err() error {
	if e := s.dead.Load(); e != nil {
		return e
	}
	return nil
}

// open makes the job's first message.
func (j *Job) open(p JobParams, first Frame, keyset, ekm [32]byte) ([]byte, error) {
	terms := canonical.MustMarshal(p.Terms)
	if len(terms) > MaxTermsBytes {
		return nil, refuse("job.terms", "size: got %d bytes, want at most %d", len(terms), MaxTermsBytes)
	}
	j.aad = canonical.LP(terms)
	ct, err := j.seal(nil, first)
	if err != nil {
		return nil, &RefusedError{"job.seal", err}
	}
	o := jobOpen{JobID: p.JobID, KeysetDigest: keyset, Channel: p.Channel, Enc: j.enc, Terms: terms, Ciphertext: ct}
	sig, err := p.Signer.Sign(openMessage(keyset, p.JobID, p.Channel, j.enc, ct, j.aad, ekm))
	if err != nil {
		return nil, &RefusedError{"job.signer", err}
	}
	if len(sig) != ed25519.SignatureSize {
		return nil, refuse("job.signer", "signature: got %d bytes, want %d", len(sig), ed25519.SignatureSize)
	}
	copy(o.Signature[:], sig)
	return canonical.Marshal(o)
}

// ID is the job's id.
func (j *Job) ID() [16]byte { return j.id }

// Shape is the job's shape.
func (j *Job) Shape() Shape { return j.shape }

// Seal returns the next client frame. An error kills the job.
func (j *Job) Seal(f Frame) ([]byte, error) { return j.AppendSeal(nil, f) }

// AppendSeal appends the next client frame to dst.
func (j *Job) AppendSeal(dst []byte, f Frame) ([]byte, error) {
	j.sealing.Lock()
	defer j.sealing.Unlock()
	if j.sender == nil {
		return nil, &BrokenError{"frames.job", errNoJob}
	}
	if err := j.state.err(); err != nil {
		return nil, err
	}
	if f.Type == FrameOpen {
		return nil, j.state.kill("frames.type", fmt.Errorf("%s is the first frame only", f.Type))
	}
	if name, err := clientRules(f, j.bodyDone); err != nil {
		return nil, j.state.kill(name, err)
	}
	return j.seal(dst, f)
}

func (j *Job) seal(dst []byte, f Frame) ([]byte, error) {
	if len(f.Data) > MaxFrameData {
		return nil, j.state.kill("frames.size", fmt.Errorf("data: got %d bytes, want at most %d", len(f.Data), MaxFrameData))
	}
	size := j.shape.wire(ClientTickBytes, headerBytes+len(f.Data)+tagBytes)
	j.plain = appendPlain(j.plain[:0], f, size-tagBytes)
	ct, err := j.sender.Seal(j.aad, j.plain)
	clear(j.plain)
	if cap(j.plain) > keptBytes {
		j.plain = nil
	}
	if err != nil {
		return nil, j.state.kill("frames.seal", err)
	}
	j.bodyDone = j.bodyDone || f.Last
	if dst == nil {
		return ct, nil
	}
	return append(dst, ct...), nil
}

// clientRules are what a client may send after FrameOpen. bodyDone is whether
// the body's last part went before.
func clientRules(f Frame, bodyDone bool) (string, error) {
	switch f.Type {
	case FrameBody:
		if bodyDone {
			return "frames.after-last", fmt.Errorf("%s after the body's last part", f.Type)
		}
	case FrameVoucher, FrameCancel, FrameFiller:
		if f.Last {
			return "frames.last", fmt.Errorf("last is set on %s, want it on %s only", f.Type, FrameBody)
		}
	default:
		return "frames.type", fmt.Errorf("%s is not a client's frame", f.Type)
	}
	if (f.Type == FrameCancel || f.Type == FrameFiller) && len(f.Data) > 0 {
		return "frames.type", fmt.Errorf("%s has %d bytes of data, want none", f.Type, len(f.Data))
	}
	return "", nil
}

// OpenAnswer opens the next answer frame. Its Data is the caller's. An error is
// a *BrokenError, and the job is dead: what came before it must not pass for a
// whole answer.
func (j *Job) OpenAnswer(ct []byte) (Frame, error) {
	_, f, err := j.AppendOpenAnswer(nil, ct)
	return f, err
}

// AppendOpenAnswer opens the next answer frame onto dst, whose spare capacity
// must not overlap ct. The frame's Data is a part of the returned slice.
func (j *Job) AppendOpenAnswer(dst, ct []byte) ([]byte, Frame, error) {
	j.opening.Lock()
	defer j.opening.Unlock()
	if j.enc == nil {
		return nil, Frame{}, &BrokenError{"answer.job", errNoJob}
	}
	if err := j.state.err(); err != nil {
		return nil, Frame{}, err
	}
	out, f, name, err := j.openAnswer(dst, ct)
	if err != nil {
		return nil, Frame{}, j.state.kill(name, err)
	}
	if f.Last {
		j.done.Store(true)
	}
	return out, f, nil
}

func (j *Job) openAnswer(dst, ct []byte) ([]byte, Frame, string, error) {
	if j.done.Load() {
		return nil, Frame{}, "answer.after-last", fmt.Errorf("%d bytes after the last frame", len(ct))
	}
	if !j.shape.fits(WorkerTickBytes, len(ct)) {
		return nil, Frame{}, "answer.size", fmt.Errorf("size: got %d bytes, want one of the shape's up to %d", len(ct), MaxWireBytes)
	}
	first := j.keys == nil
	if first {
		if len(ct) < nonceBytes {
			return nil, Frame{}, "answer.size", fmt.Errorf("frame 0: got %d bytes, want at least %d", len(ct), nonceBytes)
		}
		keys, err := newAnswerKeys(j.secret, j.enc, ct[:nonceBytes])
		if err != nil {
			return nil, Frame{}, "answer.keys", err
		}
		clear(j.secret)
		j.keys, ct = keys, ct[nonceBytes:]
	}
	n := len(dst)
	out, final, err := j.keys.open(dst, ct)
	if err != nil {
		return nil, Frame{}, "answer.sequence", err
	}
	f, err := parsePlain(out[n:])
	if err != nil {
		return nil, Frame{}, "answer.frame", err
	}
	if f.Last != final {
		return nil, Frame{}, "answer.last", fmt.Errorf("the frame says last %t, its seal %t", f.Last, final)
	}
	name, err := workerRules(f, first)
	return out, f, name, err
}

// workerRules are what a worker may send.
func workerRules(f Frame, first bool) (string, error) {
	switch f.Type {
	case FrameHello, FrameData, FrameError, FrameReceipt, FrameFiller:
	default:
		return "answer.type", fmt.Errorf("%s is not a worker's frame", f.Type)
	}
	if first != (f.Type == FrameHello) {
		return "answer.type", fmt.Errorf("frame 0 and no other is %s, got %s", FrameHello, f.Type)
	}
	if f.Last != (f.Type == FrameReceipt) {
		return "answer.last", fmt.Errorf("last is set on %s and on no other frame, got %t on %s", FrameReceipt, f.Last, f.Type)
	}
	if f.Type == FrameFiller && len(f.Data) > 0 {
		return "answer.type", fmt.Errorf("%s has %d bytes of data, want none", f.Type, len(f.Data))
	}
	return "", nil
}

// Done reports whether the answer's last frame, the receipt, was opened.
func (j *Job) Done() bool { return j.done.Load() }

// End is called when the answer's stream has ended. It is nil if the answer was
// whole; else the job is dead of answer.truncated.
func (j *Job) End() error {
	if j.enc == nil {
		return &BrokenError{"answer.job", errNoJob}
	}
	if err := j.state.err(); err != nil {
		return err
	}
	if !j.done.Load() {
		return j.state.kill("answer.truncated", fmt.Errorf("the stream ended before the receipt"))
	}
	return nil
}
