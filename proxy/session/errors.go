package session

import (
	"errors"
	"fmt"
	"strings"

	"cocoon/attestation"
	"cocoon/attestation/channel"
	"cocoon/enclave/api"
	"cocoon/proxy/ledger"
)

// NotVerifiedError is a worker whose evidence was refused. Nothing was sent to it.
type NotVerifiedError struct {
	WorkerID attestation.Address
	Result   *attestation.Result
	Bundle   []byte
	Err      error
}

func (e *NotVerifiedError) Error() string { return fmt.Sprintf("worker %s: %v", e.WorkerID, e.Err) }
func (e *NotVerifiedError) Unwrap() error { return e.Err }

// MisbehaviourError is a verified worker that broke the rules of a job or of
// its accounts. It should get no more work.
type MisbehaviourError struct {
	Name      string // what was broken: "receipt.cost", "receipts.withheld", ...
	Got, Want string
}

func (e *MisbehaviourError) Error() string {
	return fmt.Sprintf("worker misbehaves: %s: got %s, want %s", e.Name, e.Got, e.Want)
}

func misbehaves(name string, got, want any) error {
	return &MisbehaviourError{name, fmt.Sprint(got), fmt.Sprint(want)}
}

// ChannelError is a channel that cannot pay for jobs.
type ChannelError struct {
	Channel attestation.Address // zero: there is none
	Err     error
}

func (e *ChannelError) Error() string {
	if e.Channel.IsZero() {
		return fmt.Sprintf("payment channel: %v", e.Err)
	}
	return fmt.Sprintf("payment channel %s: %v", e.Channel, e.Err)
}

func (e *ChannelError) Unwrap() error { return e.Err }

// Misbehaves reports whether err is the worker's breach of the protocol, rather
// than bad luck or this client's own fault.
func Misbehaves(err error) bool {
	var m *MisbehaviourError
	var b *ledger.BooksError
	var k *channel.BrokenError
	if errors.As(err, &k) {
		return k.Name != "answer.truncated" // a connection may break
	}
	return errors.As(err, &m) || errors.As(err, &b) || errors.Is(err, ledger.ErrForeignVoucher)
}

// Retryable reports whether a job that failed with err before its first token
// may do better elsewhere or on a new connection.
func Retryable(err error) bool {
	var j *channel.JobError
	var r *api.RefusalError
	var c *channel.RefusedError
	switch {
	case errors.As(err, &j):
		return j.Status == 402 || j.Status == 429 || j.Status >= 500
	case errors.As(err, &r):
		return r.Retryable() || r.AttestAgain() || ChannelRefused(err) || Unreached(err)
	case errors.As(err, &c):
		return c.Name == "job.verified"
	}
	return Misbehaves(err) || Unreached(err) || errors.Is(err, ledger.ErrLogEnded)
}

// ConnectAgain reports whether the same worker may take the job on a new
// connection: the old one broke, or its evidence has run out.
func ConnectAgain(err error) bool {
	var r *api.RefusalError
	var c *channel.RefusedError
	switch {
	case errors.As(err, &r):
		return r.AttestAgain() || Unreached(err)
	case errors.As(err, &c):
		return c.Name == "job.verified"
	}
	return Unreached(err) || errors.Is(err, ledger.ErrLogEnded) || errors.Is(err, attestation.ErrNotVerified)
}

// ChannelRefused reports whether the worker no longer serves the channel: it
// was closed, or is closing. Fund then finds or opens another.
func ChannelRefused(err error) bool {
	var r *api.RefusalError
	return errors.As(err, &r) && strings.HasPrefix(r.Name, "channel.") && !r.Retryable()
}

// CreditLags reports whether the worker had, in this instant, served other jobs
// on the channel from what was paid for this one. The vouchers that those need
// are on their way; soon the job may be tried again there, as another job.
func CreditLags(err error) bool {
	var j *channel.JobError
	return errors.As(err, &j) && j.Code == "credit.short"
}

// errUnreached marks a stream that broke or never began.
var errUnreached = errors.New("worker not reached")

// Unreached reports whether the connection failed, rather than the job.
func Unreached(err error) bool {
	var k *channel.BrokenError
	return errors.Is(err, errUnreached) || errors.As(err, &k) && k.Name == "answer.truncated"
}
