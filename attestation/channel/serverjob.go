package channel

import (
	"crypto/hpke"
	"fmt"
	"io"
	"sync"

	"cocoon/attestation"
	"cocoon/attestation/canonical"
)

// ServerJob is the worker's end of one job. Sealing and opening may go on at
// once, each by one goroutine at a time. Its zero value refuses.
type ServerJob struct {
	id      [16]byte
	channel attestation.Address
	terms   Terms
	request OpenRequest
	state   state

	opening  sync.Mutex
	r        *hpke.Recipient
	aad      []byte
	bodyDone bool

	sealing     sync.Mutex
	keys        *answerKeys
	workerNonce [nonceBytes]byte
	started     bool
	done        bool
}

func newServerJob(rand io.Reader, o *jobOpen, terms Terms, r *hpke.Recipient) (*ServerJob, error) {
	j := &ServerJob{id: o.JobID, channel: o.Channel, terms: terms, r: r, aad: canonical.LP(o.Terms)}
	plain, err := r.Open(j.aad, o.Ciphertext)
	if err != nil {
		return nil, refuse("open.sealed", "does not decrypt under these terms")
	}
	if err := j.begin(plain, len(o.Ciphertext)); err != nil {
		return nil, &RefusedError{"open.request", err}
	}
	if _, err := io.ReadFull(rand, j.workerNonce[:]); err != nil {
		return nil, refuse("open.sealed", "randomness: %w", err)
	}
	secret, err := r.Export(answerLabel, answerSecret)
	if err != nil {
		return nil, &RefusedError{"open.sealed", err}
	}
	defer clear(secret)
	if j.keys, err = newAnswerKeys(secret, o.Enc, j.workerNonce[:]); err != nil {
		return nil, &RefusedError{"open.sealed", err}
	}
	return j, nil
}

// begin reads the opening frame, which took wire bytes.
func (j *ServerJob) begin(plain []byte, wire int) error {
	f, err := parsePlain(plain)
	if err != nil {
		return err
	}
	if f.Type != FrameOpen {
		return fmt.Errorf("type: got %s, want %s", f.Type, FrameOpen)
	}
	if j.request, err = ParseOpenRequest(f.Data); err != nil {
		return err
	}
	if f.Last != j.request.BodyDone {
		return fmt.Errorf("last is %t, body_done %t", f.Last, j.request.BodyDone)
	}
	if !j.request.Shape.fits(ClientTickBytes, wire) {
		return fmt.Errorf("size: got %d bytes, want one of shape %s", wire, j.request.Shape)
	}
	j.bodyDone = f.Last
	return nil
}

// JobID is the job's id.
func (j *ServerJob) JobID() [16]byte { return j.id }

// Terms are the signed terms.
func (j *ServerJob) Terms() Terms { return j.terms }

// Channel is who pays.
func (j *ServerJob) Channel() attestation.Address { return j.channel }

// Request is the opening frame's request. The caller must not change it.
func (j *ServerJob) Request() OpenRequest { return j.request }

// Shape is the shape that the client asked for.
func (j *ServerJob) Shape() Shape { return j.request.Shape }

// Open opens the next client frame. Its Data is the caller's. An error is a
// *BrokenError, and the job is dead.
func (j *ServerJob) Open(ct []byte) (Frame, error) {
	j.opening.Lock()
	defer j.opening.Unlock()
	if j.r == nil {
		return Frame{}, &BrokenError{"frames.job", errNoJob}
	}
	if err := j.state.err(); err != nil {
		return Frame{}, err
	}
	f, name, err := j.open(ct)
	if err != nil {
		return Frame{}, j.state.kill(name, err)
	}
	j.bodyDone = j.bodyDone || f.Last
	return f, nil
}

func (j *ServerJob) open(ct []byte) (Frame, string, error) {
	if !j.Shape().fits(ClientTickBytes, len(ct)) {
		return Frame{}, "frames.size", fmt.Errorf("size: got %d bytes, want one of the shape's up to %d", len(ct), MaxWireBytes)
	}
	plain, err := j.r.Open(j.aad, ct)
	if err != nil {
		return Frame{}, "frames.sequence", errNotInOrder
	}
	f, err := parsePlain(plain)
	if err != nil {
		return Frame{}, "frames.frame", err
	}
	name, err := clientRules(f, j.bodyDone)
	return f, name, err
}

// Seal returns the next answer frame. The first is FrameHello, the last, with
// Last set, FrameReceipt. An error kills the job, but for a filler before
// FrameHello, which is refused alone.
func (j *ServerJob) Seal(f Frame) ([]byte, error) { return j.AppendSeal(nil, f) }

// AppendSeal appends the next answer frame to dst. It allocates nothing if dst
// has room for the frame.
func (j *ServerJob) AppendSeal(dst []byte, f Frame) ([]byte, error) {
	j.sealing.Lock()
	defer j.sealing.Unlock()
	if j.keys == nil {
		return nil, &BrokenError{"answer.job", errNoJob}
	}
	if err := j.state.err(); err != nil {
		return nil, err
	}
	if j.done {
		return nil, j.state.kill("answer.after-last", fmt.Errorf("%s after the last frame", f.Type))
	}
	if f.Type == FrameFiller && !j.started {
		return nil, errNoHello
	}
	if name, err := workerRules(f, !j.started); err != nil {
		return nil, j.state.kill(name, err)
	}
	if len(f.Data) > MaxFrameData {
		return nil, j.state.kill("answer.size", fmt.Errorf("data: got %d bytes, want at most %d", len(f.Data), MaxFrameData))
	}
	return j.seal(dst, f), nil
}

func (j *ServerJob) seal(dst []byte, f Frame) []byte {
	over := tagBytes
	if !j.started {
		over += nonceBytes
		dst = append(dst, j.workerNonce[:]...)
	}
	size := j.Shape().wire(WorkerTickBytes, headerBytes+len(f.Data)+over)
	start := len(dst)
	dst = appendPlain(dst, f, size-over)
	j.started, j.done = true, f.Last
	return j.keys.sealTail(dst, start, f.Last)
}
