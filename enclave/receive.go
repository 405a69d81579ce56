package enclave

import (
	"errors"
	"io"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"cocoon/attestation/channel"
	"cocoon/enclave/meter"
)

// maxFrames bounds a client's frames beyond two for each tick that a job may
// last: bodies of small parts, vouchers, and what only costs the worker time.
const maxFrames = 4096

// receive takes the client's frames until the stream ends. What is wrong with
// one ends the job.
func (j *job) receive() {
	done := j.sealed.Request().BodyDone
	left := maxFrames + 2*int(j.s.cfg.JobCeiling/channel.TickInterval)
	for ; ; left-- {
		wire, err := j.stream.Recv()
		if errors.Is(err, io.EOF) {
			if !done {
				j.cancel(newFault(400, "invalid_request_error", "frames.truncated", "", "the client's stream ended within the body"))
			}
			return // no more vouchers: the job ends with its credit
		}
		if err != nil {
			if status.Code(err) == codes.ResourceExhausted {
				j.cancel(newFault(400, "invalid_request_error", "frames.size", "", "a frame is too long"))
			}
			j.cancel(endGone)
			return
		}
		if left == 0 {
			j.cancel(newFault(429, "rate_limit_error", "frames.many", "", "more frames came than a job has use for"))
			return
		}
		f, err := j.sealed.Open(wire)
		if err == nil {
			done, err = j.take(f, done)
		}
		if err != nil {
			j.cancel(err)
			return
		}
	}
}

// take acts on one frame, and reports whether the body is whole.
func (j *job) take(f channel.Frame, done bool) (bool, error) {
	switch f.Type {
	case channel.FrameBody:
		if fault := j.more(f.Data); fault != nil {
			return done, fault
		}
		if f.Last {
			close(j.bodyDone)
		}
		return f.Last, nil
	case channel.FrameVoucher:
		u, err := channel.ParseVoucherUpdate(f.Data)
		if err != nil {
			return done, newFault(400, "invalid_request_error", meter.VoucherParse, "", "not a voucher update")
		}
		if fault := j.credit(u.Voucher, u.LogID, u.Count); fault != nil {
			return done, fault
		}
		j.meter.Buy()
	case channel.FrameCancel:
		return done, endCancelled
	}
	return done, nil
}

// credit takes a voucher. One beyond the known deposit has the chain looked at
// once more: the client may have topped up since.
func (j *job) credit(raw []byte, logID [32]byte, count uint64) *channel.JobError {
	err := j.account.Credit(raw, logID, count)
	var r *meter.Refusal
	if errors.As(err, &r) && r.Name == meter.VoucherBalance && j.s.lookAgain(j.ctx, j.account) {
		err = j.account.Credit(raw, logID, count)
	}
	if err != nil {
		return asFault(err)
	}
	return nil
}
