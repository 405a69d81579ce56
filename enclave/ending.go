package enclave

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"cocoon/attestation"
	"cocoon/attestation/auditlog"
	"cocoon/attestation/channel"
	"cocoon/enclave/engine"
	"cocoon/enclave/meter"
)

// ending is how a job ended: what its receipt says, what is billed, and what
// the client is told. Some are causes of the job's context.
type ending struct {
	status auditlog.Status
	reason string            // the receipt's finish reason
	fault  *channel.JobError // nil: nothing went wrong
	usage  attestation.Usage // to bill
	stuck  bool              // the engine has not returned: nothing more can be sent
}

func (e ending) Error() string { return "job ended: " + e.reason }

// The causes that end a job from outside.
var (
	endGone      = ending{status: auditlog.StatusCancelled, reason: "cancelled"}
	endCancelled = ending{status: auditlog.StatusCancelled, reason: "cancelled"}
	endCeiling   = ending{status: auditlog.StatusAborted, reason: "job_ceiling", fault: newFault(504, "timeout_error", "job.ceiling", "", "the job took longer than this worker's ceiling")}
	endStalled   = ending{status: auditlog.StatusAborted, reason: "client_stalled", fault: newFault(408, "timeout_error", "client.stalled", "", "the client took nothing of the answer")}
	endStopped   = ending{status: auditlog.StatusAborted, reason: "worker_stopped", fault: newFault(503, "server_error", "worker.stopped", "", "the worker is shutting down")}
)

func newFault(status int, kind, code, param, message string) *channel.JobError {
	return &channel.JobError{Status: status, Type: kind, Code: code, Param: param, Message: message}
}

// refused is a job that was not begun, or whose prompt was over its ceiling: free.
func refused(f *channel.JobError) ending {
	return ending{status: auditlog.StatusRefused, reason: "refused", fault: f}
}

// asFault tells a client what was refused, by name.
func asFault(err error) *channel.JobError {
	var m *meter.Refusal
	var r *engine.RequestError
	var f *channel.JobError
	var broken *channel.BrokenError
	switch {
	case errors.As(err, &f):
		return f
	case errors.As(err, &m):
		status, kind := 402, "insufficient_credit"
		switch m.Name {
		case meter.CeilingPrompt, meter.CeilingComplete, meter.CeilingTotal, meter.VoucherParse:
			status, kind = 400, "invalid_request_error"
		case meter.LimitJobs, meter.LimitChannels:
			status, kind = 429, "rate_limit_error"
		}
		return newFault(status, kind, m.Name, "", fmt.Sprintf("got %.200s, want %.200s", m.Got, m.Want))
	case errors.As(err, &r):
		return newFault(min(max(r.Status, 400), 499), clip(r.Type, 64), clip(r.Code, 64), clip(r.Param, 256), clip(r.Message, 1<<10))
	case errors.As(err, &broken):
		return newFault(400, "invalid_request_error", broken.Name, "", "the job's frames were not what the client sent, in order")
	}
	return newFault(502, "server_error", "engine.failed", "", "the engine failed")
}

// clip bounds an engine's text and makes it UTF-8.
func clip(s string, most int) string {
	return strings.ToValidUTF8(s[:min(len(s), most)], "")
}

// interrupted says how a job ended whose context did, and bills what was
// produced until then.
func (j *job) interrupted(u engine.Usage) ending {
	var end ending
	var known ending
	switch cause := context.Cause(j.ctx); {
	case errors.As(cause, &known):
		end = known
	case errors.Is(cause, context.Canceled), errors.Is(cause, context.DeadlineExceeded):
		end = endGone
	default: // the client's own fault, told by name
		end = ending{status: auditlog.StatusAborted, reason: "aborted", fault: asFault(cause)}
	}
	if end.reason != endStopped.reason || u.Completion > 0 { // a shutdown before the first token is the worker's own affair
		end.usage = billed(u)
	}
	return end
}

// reason is a finish reason as it may stand in a receipt: an engine's
// string is foreign, and a receipt is shown to others.
func reason(s string) string {
	switch s {
	case "stop", "length", "tool_calls", "function_call", "content_filter":
		return s
	}
	return "other"
}

func billed(u engine.Usage) attestation.Usage {
	return attestation.Usage{
		Prompt: count(u.Prompt), Cached: count(u.Cached), Completion: count(u.Completion), Reasoning: count(u.Reasoning),
	}
}

func count(n int) uint64 { return uint64(max(n, 0)) }
