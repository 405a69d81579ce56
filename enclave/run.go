package enclave

import (
	"context"
	"crypto/ed25519"
	"hash"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"

	"cocoon/attestation"
	"cocoon/attestation/auditlog"
	"cocoon/attestation/channel"
	"cocoon/enclave/api"
	"cocoon/enclave/engine"
	"cocoon/enclave/meter"
	"cocoon/enclave/request"
)

// job is one run. One goroutine runs it from open to receipt; a second receives
// the client's frames, and a third runs the engine.
type job struct {
	s       *server
	e       *epoch
	sealed  *channel.ServerJob
	stream  api.RunServer
	account *meter.Account
	began   time.Time
	model   attestation.Model

	ctx    context.Context         // ends with the client, a cancel, the ceiling or a fault
	cancel context.CancelCauseFunc // its cause says which

	pacer *channel.Pacer
	paced chan error // the pacer's end

	begun, sent atomic.Uint64 // frames
	stalled     chan struct{} // closed when the client takes none of them

	body     []byte // FrameOpen's part; then the receiver's until bodyDone is closed
	bodyDone chan struct{}

	meter *meter.Job // nil until credit was reserved

	// Shared with the receiver and with the engine, which may outlive the job.
	mu        sync.Mutex
	ended     bool         // nothing more is sent or counted
	held      int          // bytes of body
	asked     hash.Hash    // over the body so far
	answer    hash.Hash    // over the answer so far
	usage     engine.Usage // as last reported
	sinkError error        // the first that the engine was given
}

// Run serves one job. What fails before the job is opened is an error of the
// call; from then on everything ends in a receipt.
func (s *server) Run(stream api.RunServer) error {
	e, ekm, err := connection(stream.Context())
	if err != nil {
		return err
	}
	open, err := stream.Recv()
	if err != nil {
		return err
	}
	began := s.cfg.Now()
	var account *meter.Account
	admitted := false
	defer func() {
		if admitted {
			s.release()
		}
	}()
	sealed, err := e.keys.Accept(open, ekm, e.digest, func(addr attestation.Address) (ed25519.PublicKey, error) {
		a, err := s.account(stream.Context(), addr)
		if err != nil {
			return nil, err
		}
		if err := s.free.check(addr, began); err != nil {
			return nil, err
		}
		if err := s.admit(); err != nil { // not before: a lookup takes a liteserver's time
			return nil, err
		}
		account, admitted = a, true
		key := a.ClientKey()
		return key[:], nil
	}, e.seen)
	if err != nil {
		return err
	}
	known(stream.Context())
	model, _, _ := s.cfg.price(sealed.Terms().Model)
	j := &job{
		s: s, e: e, sealed: sealed, stream: stream, account: account, began: began, model: model,
		bodyDone: make(chan struct{}), paced: make(chan error, 1), stalled: make(chan struct{}),
		asked: auditlog.NewCommitment(sealed.Request().BlindKey), answer: auditlog.NewCommitment(sealed.Request().BlindKey),
	}
	return j.serve()
}

// admit takes a slot for an open job.
func (s *server) admit() error {
	s.admission.Lock()
	defer s.admission.Unlock()
	if s.stopped {
		return api.Refuse(codes.Unavailable, "worker.draining", "this worker takes no new jobs")
	}
	select {
	case s.slots <- struct{}{}:
	default:
		return api.Refuse(codes.ResourceExhausted, "worker.full", "this worker has no free slot")
	}
	s.jobs.Add(1)
	return nil
}

func (s *server) release() {
	<-s.slots
	s.jobs.Done()
}

// serve runs the job to its receipt.
func (j *job) serve() error {
	j.ctx, j.cancel = context.WithCancelCause(j.stream.Context())
	defer j.cancel(nil)
	defer context.AfterFunc(j.s.abort, func() { j.cancel(endStopped) })()
	defer j.watch()()

	end := j.run()
	cose, err := j.settle(end)
	j.s.bodies.give(j.sealed.Channel(), j.held) // it grows no more
	if err != nil || end.stuck || j.stream.Context().Err() != nil {
		return err // where nothing reaches the client, its receipt waits for GetReceipts
	}
	return j.deliver(j.stream.Context(), end.fault, cose)
}

// run does everything but the receipt.
func (j *job) run() ending {
	j.pace()
	terms := j.sealed.Terms()
	fault := j.admissible(terms)
	if fault == nil {
		fault = j.credit(j.sealed.Request().Voucher, j.sealed.Request().LogID, j.sealed.Request().Count)
	}
	if err := j.hello(); err != nil {
		return endGone
	}
	if fault != nil {
		return refused(fault)
	}
	var err error
	j.meter, err = j.account.Begin(meter.Terms{
		Prices: terms.Prices, Prompt: terms.PromptCeiling, Completion: terms.CompletionCeiling, Total: terms.TotalCeiling,
	})
	if err != nil {
		return refused(asFault(err))
	}
	if fault := j.more(j.sealed.Request().Body); fault != nil {
		return refused(fault)
	}
	if j.sealed.Request().BodyDone {
		close(j.bodyDone)
	}
	go j.receive()
	select {
	case <-j.bodyDone:
	case <-j.ctx.Done():
		return j.interrupted(engine.Usage{})
	}
	req, fault := j.request(terms)
	if fault != nil {
		return refused(fault)
	}
	return j.generate(req)
}

// pace begins the answer's sending in the shape that the client asked for.
func (j *job) pace() {
	cfg := channel.PacerConfig{Shape: j.sealed.Shape(), Seal: j.sealed.AppendSeal, Send: j.send}
	stop := func() bool { return true }
	if cfg.Shape == channel.ShapeOn {
		cfg.Tick, stop = j.s.cfg.Tick(channel.TickInterval)
	}
	j.pacer = channel.NewPacer(cfg)
	go func() {
		defer stop()
		j.paced <- j.pacer.Run(j.stream.Context())
	}()
}

// more takes the body's next part, unless the body is too long, or there is no
// room for it.
func (j *job) more(part []byte) *channel.JobError {
	if len(j.body)+len(part) > request.MaxBytes {
		return newFault(400, "invalid_request_error", "too_large", "", "the body is too long")
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.ended {
		return nil
	}
	if !j.s.bodies.take(j.sealed.Channel(), len(part)) {
		return newFault(429, "rate_limit_error", "worker.memory", "", "this worker holds too much of bodies at once")
	}
	j.held += len(part)
	j.body = append(j.body, part...)
	j.asked.Write(part)
	return nil
}

// hello tells the client where this worker stands with its channel.
func (j *job) hello() error {
	st := j.account.Statement()
	h := channel.Hello{Highest: st.Highest, Base: st.Base, BasePaid: st.BasePaid, Settled: st.Settled, Count: st.Count}
	return j.pacer.Put(j.ctx, channel.Frame{Type: channel.FrameHello, Data: h.Encode()})
}

// settle bills the job, signs its receipt, hands it to the publisher and
// returns it.
func (j *job) settle(end ending) ([]byte, error) {
	j.mu.Lock()
	j.ended = true
	asked, answer := [32]byte(j.asked.Sum(nil)), [32]byte(j.answer.Sum(nil))
	j.mu.Unlock()
	var cose []byte
	var bill meter.Bill
	var err error
	sign := func(b meter.Bill) ([]byte, error) {
		return auditlog.SignReceipt(j.e.keys, auditlog.Receipt{
			Version: auditlog.ReceiptVersion, JobID: j.sealed.JobID(), Channel: j.sealed.Channel(), WorkerID: j.s.cfg.Worker.WorkerID,
			LogID: j.s.logID, Checkpoint: j.s.log.Checkpoint(), Index: b.Index, KeysetDigest: j.e.digest, Model: j.model,
			RequestCommitment: asked, ResponseCommitment: answer, Usage: b.Usage, Prices: j.sealed.Terms().Prices, Cost: b.Cost,
			Started: j.began.UnixMilli(), Finished: max(j.began.UnixMilli(), j.s.cfg.Now().UnixMilli()),
			FinishReason: end.reason, Status: end.status,
		})
	}
	if j.meter == nil {
		bill, cose, err = j.account.Refuse(sign)
	} else {
		bill, cose, err = j.meter.Settle(end.usage, sign)
	}
	if err != nil {
		j.s.event("receipt.failed", "error", err.Error())
		return nil, api.Refuse(codes.Internal, "receipt.failed", "the receipt could not be signed")
	}
	if bill.Usage == (attestation.Usage{}) {
		j.s.free.spend(j.sealed.Channel(), j.s.cfg.Now())
	}
	full := j.s.publisher.put(unpublished{j.account, bill.Index, cose})
	j.s.receipts.put(j.sealed.Channel(), bill.Index, auditlog.ReceiptDigest(cose))
	j.account.Published(bill.Index)
	if full {
		if err := j.s.published(); err != nil {
			return nil, err
		}
	}
	j.s.event("job.ended", "status", string(end.status))
	return cose, nil
}
