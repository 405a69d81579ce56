package session

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"sync"
	"time"

	"cocoon/attestation/auditlog"
	"cocoon/attestation/channel"
	"cocoon/contracts/payout"
	"cocoon/enclave/api"
	"cocoon/proxy/ledger"
)

// Request is one job.
type Request struct {
	Endpoint          string // below /v1
	Model             string
	Body              []byte // as the SDK sent it; not changed, not kept after Close
	PromptCeiling     uint64 // tokens
	CompletionCeiling uint64 // tokens
	CacheSalt         [32]byte
}

// Terms is what the request may cost at most, at the prices of the worker's record.
func (s *Session) Terms(r *Request) (channel.Terms, error) {
	prices, ok := s.Price(r.Model)
	if !ok {
		return channel.Terms{}, fmt.Errorf("worker %s: it has no model %q, or no price for it", s.WorkerID(), r.Model)
	}
	total, err := payout.Ceiling(r.PromptCeiling, r.CompletionCeiling, prices)
	if err != nil {
		return channel.Terms{}, fmt.Errorf("total ceiling: %w", err)
	}
	return channel.Terms{Model: r.Model, Prices: prices, PromptCeiling: r.PromptCeiling, CompletionCeiling: r.CompletionCeiling, TotalCeiling: total}, nil
}

// Job is one job in progress. Next is called from one goroutine at a time;
// Cancel and Abort from any.
type Job struct {
	s      *Session
	signer *ledger.Signer
	id     [16]byte
	terms  channel.Terms
	body   []byte
	blind  [32]byte
	sealed *channel.Job
	stream api.RunClient
	pacer  *channel.Pacer
	ctx    context.Context
	abort  context.CancelCauseFunc

	background sync.WaitGroup // the pacer, and vouchers on their way
	stopTick   func()

	hello   *time.Timer // until the worker's first frame
	answer  hash.Hash   // commitment to what was received
	windows windows
	tokens  uint32
	buf     []byte
	failure *channel.JobError // what the worker said went wrong
	receipt *auditlog.Receipt
	ended   error
	closed  bool
}

// Start opens a job: it allocates the prompt ceiling and the first window,
// seals the request and sends it. Nothing is sent if it fails before that.
// The caller must call Close.
func (s *Session) Start(ctx context.Context, r *Request) (*Job, error) {
	terms, err := s.Terms(r)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	signer, idle := s.signer, s.live == 0
	s.mu.Unlock()
	if signer == nil {
		// Another job has just found that the channel is no longer served.
		return nil, fmt.Errorf("%w: the session is not funded", errUnreached)
	}
	if err := s.Usable(); err != nil {
		return nil, err
	}
	if err := s.enter(); err != nil {
		return nil, err
	}
	j := &Job{s: s, signer: signer, terms: terms, body: r.Body, windows: windows{ceiling: r.CompletionCeiling, wanted: min(Window, r.CompletionCeiling)}}
	j.ctx, j.abort = context.WithCancelCause(context.Background())
	if err := j.start(ctx, r, idle); err != nil {
		j.Close()
		return nil, err
	}
	return j, nil
}

func (j *Job) start(ctx context.Context, r *Request, idle bool) error {
	_, more, err := j.signer.Held(j.s.logID)
	if err == nil && more && idle {
		// Receipts are missing that no open job will bring.
		err = j.s.reconcile(ctx, j.signer)
	}
	if err != nil {
		return err
	}
	if j.id, err = j.s.takeID(); err != nil {
		return err
	}
	j.blind = j.s.cfg.Ledger.BlindingKey(j.id)
	j.answer = auditlog.NewCommitment(j.blind)
	nano, err := payout.Ceiling(j.terms.PromptCeiling, j.windows.wanted, j.terms.Prices)
	if err != nil {
		return err
	}
	credit, err := j.signer.Allocate(j.s.logID, j.id, nano, j.terms.TotalCeiling)
	var short *ledger.CreditError
	if errors.As(err, &short) && j.s.topUp(ctx, j.signer) {
		credit, err = j.signer.Allocate(j.s.logID, j.id, nano, j.terms.TotalCeiling)
	}
	if err != nil {
		return err
	}
	if err := j.open(r, credit); err != nil {
		j.signer.Forget(j.id)
		return err
	}
	return j.sendBody(r.Body)
}

// open seals the request's first part and sends it. An error means that
// nothing left.
func (j *Job) open(r *Request, credit ledger.Credit) error {
	first := min(len(r.Body), channel.MaxOpenBody)
	req := channel.OpenRequest{
		Endpoint: r.Endpoint, Voucher: credit.Voucher, LogID: credit.LogID, Count: credit.Count,
		BlindKey: j.blind, CacheSalt: r.CacheSalt, Shape: j.s.cfg.Shape,
		Body: r.Body[:first], BodyDone: first == len(r.Body),
	}
	sealed, opening, err := j.s.sealed.NewJob(j.s.cfg.Now(), channel.JobParams{
		JobID: j.id, Channel: j.signer.Channel().Address, Terms: j.terms, Signer: j.signer,
		First: channel.Frame{Type: channel.FrameOpen, Data: req.Encode()}, Shape: j.s.cfg.Shape,
	})
	if err != nil {
		return err
	}
	j.sealed = sealed
	if j.stream, err = j.s.conn.Client.Run(j.ctx); err != nil {
		return fmt.Errorf("%w: %w", errUnreached, err)
	}
	tick, stop := (<-chan time.Time)(nil), func() {}
	if j.s.cfg.Shape == channel.ShapeOn {
		t := time.NewTicker(channel.TickInterval)
		tick, stop = t.C, t.Stop
	}
	j.stopTick = stop
	j.pacer = channel.NewPacer(channel.PacerConfig{Shape: j.s.cfg.Shape, Seal: sealed.AppendSeal, Send: j.stream.Send, Tick: tick})
	j.hello = time.AfterFunc(helloTimeout, func() { j.abort(fmt.Errorf("no answer in %s", helloTimeout)) })
	// Once it is handed over, the worker may have it whatever Send says.
	j.stream.Send(opening)
	return nil
}

func (j *Job) sendBody(body []byte) error {
	for off := min(len(body), channel.MaxOpenBody); off < len(body); {
		n := min(len(body)-off, channel.MaxFrameData)
		f := channel.Frame{Type: channel.FrameBody, Last: off+n == len(body), Data: body[off : off+n]}
		if err := j.pacer.Put(j.ctx, f); err != nil {
			break // Next says why the stream broke
		}
		off += n
	}
	if j.s.cfg.Shape == channel.ShapeOn {
		j.background.Go(func() { j.pacer.Run(j.ctx) })
	}
	return nil
}

// ID is the job's id, by which its receipt is found.
func (j *Job) ID() [16]byte { return j.id }

// Terms are what was signed.
func (j *Job) Terms() channel.Terms { return j.terms }

// Receipt is the verified receipt; nil until Next has returned an error.
func (j *Job) Receipt() *auditlog.Receipt { return j.receipt }

// MayBeBilled reports whether the worker may claim money for the job: it has a
// receipt with a cost, or none at all.
func (j *Job) MayBeBilled() bool {
	return j.stream != nil && (j.receipt == nil || j.receipt.Cost > 0)
}

// Cancel asks the worker to stop. Next goes on to return what was produced,
// up to the receipt.
func (j *Job) Cancel() {
	if j.pacer != nil {
		j.pacer.Put(j.ctx, channel.Frame{Type: channel.FrameCancel})
	}
}

// Abort gives up on the job: Next returns an error. What was allocated to it
// stays allocated until the worker settles it.
func (j *Job) Abort(why error) { j.abort(why) }

// Close releases what the job holds. A job without a receipt is aborted.
func (j *Job) Close() {
	if j.closed {
		return
	}
	j.closed = true
	j.abort(errors.New("closed"))
	if j.hello != nil {
		j.hello.Stop()
	}
	if j.pacer != nil {
		j.pacer.Stop()
		j.stopTick()
	}
	j.background.Wait()
	j.signer.Release(j.id)
	j.s.prepare()
	j.s.leave()
}

// takeID is the id of a new job, prepared if there is one.
func (s *Session) takeID() (id [16]byte, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.spare); n > 0 {
		id, s.spare = s.spare[n-1], s.spare[:n-1]
		return id, nil
	}
	return s.newID()
}

func (s *Session) newID() (id [16]byte, err error) {
	if _, err := io.ReadFull(s.cfg.Rand, id[:]); err != nil {
		return id, fmt.Errorf("job id: %w", err)
	}
	return id, nil
}

// prepare does the costly part of a later job's opening while nobody waits.
func (s *Session) prepare() {
	s.mu.Lock()
	enough := len(s.spare) >= spareJobs || s.retire
	s.mu.Unlock()
	if enough {
		return
	}
	id, err := s.newID()
	if err != nil || s.sealed.Prepare(id) != nil {
		return
	}
	s.mu.Lock()
	s.spare = append(s.spare, id)
	s.mu.Unlock()
}
