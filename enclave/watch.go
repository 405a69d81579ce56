package enclave

import (
	"context"
	"time"

	"google.golang.org/grpc/codes"

	"cocoon/attestation/channel"
	"cocoon/enclave/api"
)

// What a client can make a worker wait for, beyond vouchers (meter.CreditWait).
const (
	bodyWait   = 45 * time.Second // for the whole body
	stallAfter = 10 * time.Second // for taking anything of an answer that fills its windows; at most twice that
)

// watch ends the job when its time is up, when its body does not come, and when
// its client takes nothing of its answer. Then stalled is closed, too.
func (j *job) watch() (stop func()) {
	ceiling, stopCeiling := j.s.cfg.Timer(j.s.cfg.JobCeiling)
	done := make(chan struct{})
	go func() {
		defer stopCeiling()
		body, stopBody := j.s.cfg.Timer(bodyWait)
		defer func() { stopBody() }()
		bodyDone := j.bodyDone
		look, stopLook := j.s.cfg.Timer(stallAfter)
		defer func() { stopLook() }()
		var before uint64 // frames sent when it last looked
		for {
			select {
			case <-ceiling:
				j.cancel(endCeiling)
			case <-bodyDone:
				stopBody()
				body, bodyDone = nil, nil
			case <-body:
				select {
				case <-j.bodyDone:
				default:
					j.cancel(newFault(408, "timeout_error", "body.timeout", "", "the body did not come in time"))
				}
			case <-look:
				sent := j.sent.Load()
				if sent == before && j.begun.Load() != sent {
					j.cancel(endStalled)
					close(j.stalled)
					return
				}
				before = sent
				look, stopLook = j.s.cfg.Timer(stallAfter)
			case <-done:
				return
			}
		}
	}()
	return func() { close(done) }
}

// send passes a sealed frame on. More frames were begun than sent while one
// waits for the client.
func (j *job) send(wire []byte) error {
	j.begun.Add(1)
	err := j.stream.Send(wire)
	j.sent.Add(1)
	return err
}

// deliver sends the fault, if any, and the receipt, unless the client takes
// nothing. Then the receipt waits for GetReceipts.
func (j *job) deliver(ctx context.Context, fault *channel.JobError, cose []byte) error {
	out := make(chan error, 1)
	go func() {
		if fault != nil {
			_ = j.pacer.Put(ctx, channel.Frame{Type: channel.FrameError, Data: fault.Encode()})
		}
		err := j.pacer.Put(ctx, channel.Frame{Type: channel.FrameReceipt, Last: true, Data: cose})
		if err == nil {
			err = <-j.paced
		}
		out <- err
	}()
	select {
	case err := <-out:
		return err
	case <-j.stalled:
		return api.Refuse(codes.DeadlineExceeded, "client.stalled", "the client took nothing of the answer")
	}
}
