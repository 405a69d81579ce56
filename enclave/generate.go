package enclave

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math"

	"cocoon/attestation/auditlog"
	"cocoon/attestation/channel"
	"cocoon/enclave/engine"
	"cocoon/enclave/meter"
	"cocoon/enclave/request"
)

// admissible checks signed terms against what this worker offers.
func (j *job) admissible(t channel.Terms) *channel.JobError {
	_, least, ok := j.s.cfg.price(t.Model)
	if !ok {
		return newFault(404, "invalid_request_error", "model_not_found", "model", "this worker does not serve the model")
	}
	p := t.Prices
	if p.Prompt < least.Prompt || p.Cached < least.Cached || p.Completion < least.Completion || p.Reasoning < least.Reasoning {
		return newFault(402, "insufficient_credit", "terms.price", "", fmt.Sprintf("prices: got %+v, want at least %+v nano per million tokens", p, least))
	}
	if t.CompletionCeiling == 0 || t.CompletionCeiling > math.MaxInt32 {
		return newFault(400, "invalid_request_error", "terms.completion-ceiling", "", fmt.Sprintf("got %d, want 1 to %d tokens", t.CompletionCeiling, math.MaxInt32))
	}
	return nil
}

// request checks the body against the allow-list and the signed terms.
func (j *job) request(t channel.Terms) (engine.Request, *channel.JobError) {
	r := j.sealed.Request()
	e := engine.Endpoint(r.Endpoint)
	c, err := request.Check(e, j.body)
	if err != nil {
		return engine.Request{}, asFault(err)
	}
	if c.Model != t.Model {
		return engine.Request{}, newFault(400, "invalid_request_error", "terms.model", "model", "the body names another model than the signed terms")
	}
	bound, err := c.PromptBound(j.s.bound)
	if err != nil {
		return engine.Request{}, asFault(err)
	}
	if bound > t.PromptCeiling {
		return engine.Request{}, newFault(400, "invalid_request_error", "terms.prompt-ceiling", "", fmt.Sprintf("got %d, want at least %d tokens for this body", t.PromptCeiling, bound))
	}
	return engine.Request{Endpoint: e, Model: t.Model, Body: j.body, CacheSalt: j.salt(r.CacheSalt), MaxTokens: int(t.CompletionCeiling)}, nil
}

// salt keeps clients' prefix caches apart: HMAC(VM secret, channel ‖ the client's salt).
func (j *job) salt(client [32]byte) string {
	a := j.sealed.Channel()
	h := hmac.New(sha256.New, j.s.secret[:])
	h.Write(a[:])
	h.Write(client[:])
	return hex.EncodeToString(h.Sum(nil))
}

// outcome is what an engine's run returned.
type outcome struct {
	res engine.Result
	err error
}

// generate runs the engine, and waits for it no longer than stopGrace once the
// job's context has ended.
func (j *job) generate(req engine.Request) ending {
	done := make(chan outcome, 1)
	go func() {
		var o outcome
		defer func() {
			// What a panic says may quote the prompt: it is dropped.
			if recover() != nil {
				o.err = errPanic
			}
			done <- o
		}()
		o.res, o.err = j.s.cfg.Engine.Run(j.ctx, req, (*sink)(j))
	}()
	select {
	case o := <-done:
		return j.concluded(o)
	case <-j.ctx.Done():
	}
	fired, stop := j.s.cfg.Timer(stopGrace)
	defer stop()
	select {
	case o := <-done:
		return j.concluded(o)
	case <-fired:
		j.s.event("engine.stuck")
		end := j.interrupted(j.reported(engine.Usage{}))
		end.stuck = true
		return end
	}
}

var errPanic = errors.New("engine: panic")

// concluded says how the job ended once the engine returned.
func (j *job) concluded(o outcome) ending {
	u := j.reported(o.res.Usage)
	j.mu.Lock()
	sinkErr := j.sinkError
	j.mu.Unlock()
	var refusal *meter.Refusal
	var bad *engine.RequestError
	switch {
	case o.err == nil && sinkErr == nil:
		j.catchUp(u)
		return ending{status: auditlog.StatusOK, reason: reason(o.res.FinishReason), usage: billed(u)}
	case errors.As(sinkErr, &refusal) && refusal.Name == meter.CeilingPrompt:
		return refused(asFault(refusal))
	case j.ctx.Err() != nil:
		return j.interrupted(u)
	case errors.As(sinkErr, &refusal):
		return ending{status: auditlog.StatusAborted, reason: refusal.Name, fault: asFault(refusal), usage: billed(u)}
	case errors.Is(sinkErr, errSend):
		end := endGone
		end.usage = billed(u)
		return end
	case errors.As(o.err, &bad) && u.Completion == 0:
		return refused(asFault(bad))
	}
	end := ending{status: auditlog.StatusError, reason: "error", fault: asFault(errPanic)}
	if u.Completion > 0 { // an engine that died before its first token produced nothing
		end.usage = billed(u)
	}
	return end
}

// catchUp has the windows granted that an engine which counts in bursts reports
// at its end. The client has seen the count, and pays for it as for any other;
// what it does not pay is not billed.
func (j *job) catchUp(u engine.Usage) {
	_ = j.meter.Grant(j.ctx, min(count(u.Completion), j.sealed.Terms().CompletionCeiling))
}

// reported is the engine's count, or the last one it reported if it returned less.
func (j *job) reported(u engine.Usage) engine.Usage {
	j.mu.Lock()
	defer j.mu.Unlock()
	if u.Prompt == 0 {
		u.Prompt, u.Cached = j.usage.Prompt, j.usage.Cached
	}
	if u.Completion < j.usage.Completion {
		u.Completion, u.Reasoning = j.usage.Completion, j.usage.Reasoning
	}
	return u
}

// sink is the engine's side of a job. It refuses once the job has ended.
type sink job

var (
	errEnded = errors.New("job: ended")
	errSend  = errors.New("job: the client takes no answer")
)

func (k *sink) note(err error) error {
	if err == nil {
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.sinkError == nil {
		k.sinkError = err
	}
	return err
}

// Start counts the prompt.
func (k *sink) Start(prompt, cached int) error {
	if err := k.note(k.meter.Start(count(prompt), count(cached))); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.usage.Prompt, k.usage.Cached = prompt, cached
	return nil
}

// Grant blocks until token n is paid for.
func (k *sink) Grant(ctx context.Context, n int) error {
	return k.note(k.meter.Grant(ctx, count(n)))
}

// Write sends answer bytes and commits to them.
func (k *sink) Write(p []byte, u engine.Usage) error {
	k.mu.Lock()
	if k.ended {
		k.mu.Unlock()
		return errEnded
	}
	k.usage = u
	k.answer.Write(p)
	k.mu.Unlock()
	if err := k.pacer.PutData(k.ctx, uint32(min(count(u.Completion), math.MaxUint32)), p); err != nil {
		return k.note(fmt.Errorf("%w: %w", errSend, err))
	}
	return nil
}
