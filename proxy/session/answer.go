package session

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"cocoon/attestation/auditlog"
	"cocoon/attestation/channel"
	"cocoon/contracts/payout"
)

// Next returns the next bytes of the answer, valid until the next call. After
// the last it returns io.EOF, once the receipt was verified and recorded. A
// *channel.JobError is what the worker reported, with a receipt, too. With any
// other error the answer is not whole.
func (j *Job) Next() ([]byte, error) {
	if j.ended != nil {
		return nil, j.ended
	}
	for {
		part, err := j.next()
		if err != nil {
			j.ended = err
			return nil, err
		}
		if len(part) > 0 {
			return part, nil
		}
	}
}

func (j *Job) next() ([]byte, error) {
	wire, err := j.stream.Recv()
	if err != nil {
		return nil, j.broken(err)
	}
	var f channel.Frame
	if j.buf, f, err = j.sealed.AppendOpenAnswer(j.buf[:0], wire); err != nil {
		return nil, err
	}
	switch f.Type {
	case channel.FrameHello:
		j.hello.Stop()
		return nil, j.greet(f.Data)
	case channel.FrameData:
		tokens, part, err := channel.ParseData(f.Data)
		if err != nil {
			return nil, misbehaves("answer.data", err, "tokens and answer")
		}
		return part, j.advance(tokens, part)
	case channel.FrameError:
		e, err := channel.ParseJobError(f.Data)
		if err != nil {
			return nil, misbehaves("answer.error", err, "an error object")
		}
		j.failure = &e
		return nil, nil
	case channel.FrameReceipt:
		return nil, j.finish(f.Data)
	}
	return nil, nil // filler
}

// broken names why the stream ended before the receipt.
func (j *Job) broken(err error) error {
	if cause := context.Cause(j.ctx); cause != nil {
		return fmt.Errorf("%w: %w", errUnreached, cause)
	}
	if errors.Is(err, io.EOF) {
		if end := j.sealed.End(); end != nil {
			return end
		}
	}
	// A stream whose connection is closed on this side ends as cancelled, though
	// nobody cancelled the job.
	if status.Code(err) == codes.Canceled || gone(j.s.Done()) {
		return fmt.Errorf("%w: %w", errUnreached, err)
	}
	return err
}

func gone(done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	default:
		return false
	}
}

// greet compares the worker's accounts with this client's.
func (j *Job) greet(data []byte) error {
	h, err := channel.ParseHello(data)
	if err != nil {
		return misbehaves("answer.hello", err, "a hello")
	}
	j.s.mu.Lock()
	base := j.s.base
	j.s.mu.Unlock()
	if !bytes.Equal(h.Base, base) {
		return misbehaves("hello.base", fmt.Sprintf("%d bytes of another voucher", len(h.Base)), "the one it stated before")
	}
	if len(h.Highest) > 0 {
		if _, err := j.signer.Recognise(h.Highest); err != nil {
			return err
		}
	}
	return j.signer.Expect(j.s.logID, h.Count, h.Settled)
}

// advance takes part of the answer, and buys the next window in time.
func (j *Job) advance(tokens uint32, part []byte) error {
	if tokens < j.tokens || uint64(tokens) > j.terms.CompletionCeiling {
		return misbehaves("answer.tokens", tokens, fmt.Sprintf("%d to %d", j.tokens, j.terms.CompletionCeiling))
	}
	j.tokens = tokens
	j.answer.Write(part)
	if j.windows.want(uint64(tokens)) {
		j.background.Go(j.buyWindows)
	}
	return nil
}

// finish verifies and records the receipt.
func (j *Job) finish(cose []byte) error {
	r, err := j.check(cose)
	if err != nil {
		return err
	}
	if err := j.signer.Record(cose, r); err != nil {
		return err
	}
	j.receipt = &r
	if j.failure != nil {
		if err := j.windows.failed(); err != nil && r.Status == auditlog.StatusAborted {
			return err // the worker stopped for want of what could not be bought
		}
		return j.failure
	}
	return io.EOF
}

// check holds a receipt against what was signed, sent and received.
func (j *Job) check(cose []byte) (auditlog.Receipt, error) {
	v := j.s.verified
	k := v.Keyset()
	r, err := auditlog.VerifyReceipt(cose, k.SigningPublicKey)
	if err != nil {
		return r, misbehaves("receipt.signature", err, "one by the attested key")
	}
	model, _ := j.s.model(j.terms.Model)
	u, t := r.Usage, j.terms
	cost, costErr := payout.Cost(u, r.Prices)
	// A job that ended early may have lost the end of its body or of its answer
	// on the way; only a whole one must match to the last byte.
	whole := r.Status == auditlog.StatusOK
	for _, c := range []struct {
		name      string
		ok        bool
		got, want any
	}{
		{"receipt.job", r.JobID == j.id, fmt.Sprintf("%x", r.JobID), fmt.Sprintf("%x", j.id)},
		{"receipt.channel", r.Channel == j.signer.Channel().Address, r.Channel, j.signer.Channel().Address},
		{"receipt.status", j.failure != nil || r.Status == auditlog.StatusOK || r.Status == auditlog.StatusCancelled, r.Status, "an error before it"},
		{"receipt.worker", r.WorkerID == k.WorkerID, r.WorkerID, k.WorkerID},
		{"receipt.log", r.LogID == j.s.logID, fmt.Sprintf("%x", r.LogID), fmt.Sprintf("%x", j.s.logID)},
		{"receipt.keyset", r.KeysetDigest == v.KeysetDigest(), fmt.Sprintf("%x", r.KeysetDigest), fmt.Sprintf("%x", v.KeysetDigest())},
		{"receipt.model", r.Model == model, r.Model, model},
		{"receipt.prices", r.Prices == t.Prices || r.Cost == 0, r.Prices, t.Prices},
		{"receipt.prompt", u.Prompt <= t.PromptCeiling, u.Prompt, fmt.Sprintf("at most %d tokens", t.PromptCeiling)},
		{"receipt.completion", u.Completion <= t.CompletionCeiling, u.Completion, fmt.Sprintf("at most %d tokens", t.CompletionCeiling)},
		{"receipt.cost", costErr == nil && r.Cost == cost, r.Cost, fmt.Sprintf("%d, counts times prices", cost)},
		{"receipt.total", r.Cost <= t.TotalCeiling, r.Cost, fmt.Sprintf("at most %d nano", t.TotalCeiling)},
		{"receipt.request", !whole || r.RequestCommitment == auditlog.Commit(j.blind, j.body), fmt.Sprintf("%x", r.RequestCommitment), "the commitment to what was sent"},
		{"receipt.response", !whole || r.ResponseCommitment == [32]byte(j.answer.Sum(nil)), fmt.Sprintf("%x", r.ResponseCommitment), "the commitment to what was received"},
	} {
		if !c.ok {
			return r, misbehaves(c.name, c.got, c.want)
		}
	}
	if err := j.s.checkpoint(r.Checkpoint); err != nil {
		return r, misbehaves("receipt.checkpoint", err, "one by the worker's log key")
	}
	return r, nil
}

// checkpoint verifies one that a receipt names. Receipts of the same second
// name the same.
func (s *Session) checkpoint(raw []byte) error {
	s.mu.Lock()
	known := bytes.Equal(raw, s.named)
	s.mu.Unlock()
	if known || len(raw) == 0 {
		return nil
	}
	if _, err := auditlog.ParseCheckpoint(raw, s.verified.Keyset().LogPublicKey); err != nil {
		return err
	}
	s.mu.Lock()
	s.named = bytes.Clone(raw)
	s.mu.Unlock()
	return nil
}
