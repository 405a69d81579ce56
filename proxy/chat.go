package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"cocoon/attestation"
	"cocoon/contracts/payout"
	"cocoon/proxy/route"
	"cocoon/proxy/session"
)

// maxAnswerBytes bounds an answer that must be held until its receipt.
const maxAnswerBytes = 64 << 20

// Pauses before a job is tried again at a worker whose credit lags.
const (
	firstPause = 10 * time.Millisecond
	lastPause  = 1280 * time.Millisecond
)

// chat serves POST /v1/chat/completions.
func (q *exchange) chat() {
	if !isJSON(q.r.Header) {
		q.fail(&apiError{Status: 415, Type: "invalid_request_error", Code: "unsupported_media_type", Message: "want Content-Type: application/json"})
		return
	}
	body, err := q.body()
	if err != nil {
		q.fail(err)
		return
	}
	req, err := readRequest(body)
	if err != nil {
		q.fail(err)
		return
	}
	a := &attempts{q: q, req: req, body: body, tried: map[attestation.Address]bool{}}
	run, err := a.run()
	switch {
	case err == nil:
		run.deliver()
	case q.r.Context().Err() != nil:
		q.status = 499 // nobody is there to read it
	default:
		e := *asAPIError(err)
		e.final = e.final || a.spent > 0 || a.open > 0
		if a.spent > 0 {
			q.w.Header().Set("X-Cocoon-Cost", strconv.FormatUint(a.spent, 10))
		}
		q.fail(&e)
	}
}

// body reads the whole body, up to its limit.
func (q *exchange) body() ([]byte, error) {
	limit := q.s.cfg.MaxBodyBytes
	if q.r.ContentLength > limit {
		return nil, &http.MaxBytesError{Limit: limit}
	}
	var buf bytes.Buffer
	buf.Grow(int(max(q.r.ContentLength, 512)))
	_, err := buf.ReadFrom(http.MaxBytesReader(q.w, q.r.Body, limit))
	var tooLarge *http.MaxBytesError
	if err != nil && !errors.As(err, &tooLarge) {
		err = badRequest("", "body_unreadable", "the body could not be read to its end")
	}
	return buf.Bytes(), err
}

// attempts are the tries of one request, each under another job id.
type attempts struct {
	q     *exchange
	req   request
	body  []byte
	tried map[attestation.Address]bool
	spent uint64 // nano, by receipts of failed attempts
	open  uint64 // nano that failed attempts without a receipt may still cost
}

// run tries until an answer begins, or trying again is over.
func (a *attempts) run() (*run, error) {
	var last error
	pause := firstPause
	for made := 1; ; made++ {
		before := a.spent + a.open
		r, err := a.next()
		if err == nil {
			return r, nil
		}
		var none *route.NoWorkerError
		if errors.As(err, &none) && last != nil {
			return nil, last // there is no other worker: the one that tried says why
		}
		if session.CreditLags(err) && pause <= lastPause && a.spent+a.open == before {
			made--
			a.rest(pause)
			pause *= 2
			continue
		}
		last = err
		if made >= a.q.s.cfg.Attempts || !session.Retryable(err) || a.q.r.Context().Err() != nil {
			return nil, err
		}
	}
}

// run is a job that has begun to answer.
type run struct {
	q        *exchange
	req      request
	lease    *route.Lease
	job      *session.Job
	attempts *attempts
	unwatch  func()
	first    []byte // the answer's first part; empty if it has ended
	ended    error  // what Next said after first
}

// next makes one attempt, and returns once the answer has begun or the job has
// succeeded without one.
func (a *attempts) next() (*run, error) {
	ctx := a.q.r.Context()
	lease, err := a.q.s.cfg.Router.Pick(ctx, a.req.Model, a.tried)
	if err != nil {
		return nil, err
	}
	job, err := a.start(ctx, lease)
	if err != nil {
		a.judge(lease, err, true)
		return nil, err
	}
	r := &run{q: a.q, req: a.req, lease: lease, job: job, attempts: a, unwatch: watch(ctx, job)}
	part, err := job.Next()
	if len(part) > 0 || errors.Is(err, io.EOF) {
		r.first, r.ended = bytes.Clone(part), err
		return r, nil
	}
	r.unwatch()
	before := a.spent + a.open
	if rc := job.Receipt(); rc != nil {
		a.spent += rc.Cost
	} else {
		a.open += job.Terms().TotalCeiling
	}
	job.Close()
	a.judge(lease, err, a.spent+a.open == before)
	return nil, err
}

// rest waits, unless the client leaves.
func (a *attempts) rest(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-a.q.r.Context().Done():
	}
}

// judge gives a worker back that failed. One whose connection, evidence,
// channel or credit ended may do the next attempt, with new ones; for want of
// credit only if the attempt was free.
func (a *attempts) judge(lease *route.Lease, err error, free bool) {
	if !session.ConnectAgain(err) && !(session.CreditLags(err) && free) && !session.ChannelRefused(err) {
		a.tried[lease.WorkerID()] = true
	}
	lease.Release(err)
}

// watch has the engine stop when the client leaves. The receipt is awaited, but
// not for ever.
func watch(ctx context.Context, job *session.Job) (unwatch func()) {
	stop := context.AfterFunc(ctx, func() {
		time.AfterFunc(receiptTimeout, func() { job.Abort(errGone) })
		job.Cancel()
	})
	return func() { stop() }
}

var (
	errGone    = errors.New("the client is gone")
	errTooLong = &apiError{Status: 502, Type: "server_error", Code: "answer_too_large", Message: fmt.Sprintf("the answer is longer than %d bytes", maxAnswerBytes)}
)

// start prices the request at this worker and, within the caps, opens a job.
func (a *attempts) start(ctx context.Context, lease *route.Lease) (*session.Job, error) {
	prices, _ := lease.Price(a.req.Model)
	prompt := a.req.promptCeiling(lease.Verified().Release().Allowances)
	completion, err := a.completion(lease, prompt, prices)
	if err != nil {
		return nil, err
	}
	return lease.Start(ctx, &session.Request{
		Endpoint: "chat/completions", Model: a.req.Model, Body: a.body,
		PromptCeiling: prompt, CompletionCeiling: completion, CacheSalt: a.q.s.salt,
	})
}

// completion is the completion ceiling: what was asked for, else the default,
// lowered to what cap and channel allow. It refuses, with the numbers and
// before anything is sent, what the cap does not allow.
func (a *attempts) completion(lease *route.Lease, prompt uint64, p attestation.Prices) (uint64, error) {
	limit := a.q.s.cfg.MaxSpendPerRequest
	left := limit - min(a.spent, limit)
	left -= min(a.open, left)
	if a.req.Max > 0 {
		total, err := payout.Ceiling(prompt, a.req.Max, p)
		if err != nil || limit > 0 && total > left {
			return 0, overCap(prompt, a.req.Max, total, left, p)
		}
		return a.req.Max, nil
	}
	n := a.q.s.cfg.MaxTokens * a.req.Choices
	if _, can, used, ok := lease.Channel(); ok {
		// Below one window the channel cannot pay, and says so itself.
		n = max(affordable(prompt, n, can-min(used, can), p), min(n, session.Window))
	}
	if limit > 0 {
		if n = affordable(prompt, n, left, p); n == 0 {
			total, _ := payout.Ceiling(prompt, 1, p)
			return 0, overCap(prompt, 1, total, left, p)
		}
	}
	return n, nil
}

// affordable is the most completion tokens, up to n, whose ceiling is within
// nano.
func affordable(prompt, n, nano uint64, p attestation.Prices) uint64 {
	low, high := uint64(0), n
	for low < high {
		mid := low + (high-low+1)/2
		if total, err := payout.Ceiling(prompt, mid, p); err == nil && total <= nano {
			low = mid
		} else {
			high = mid - 1
		}
	}
	return low
}

func overCap(prompt, completion, total, left uint64, p attestation.Prices) error {
	return &apiError{Status: 402, Type: "insufficient_quota", Code: "max_spend_exceeded", final: true, Message: fmt.Sprintf(
		"nothing was sent: %d prompt and %d completion tokens may cost %d nano at %d and %d nano per million, and %d nano are allowed",
		prompt, completion, total, max(p.Prompt, p.Cached), max(p.Completion, p.Reasoning), left)}
}

// deliver passes the answer on, and ends the job.
func (r *run) deliver() {
	defer r.unwatch()
	r.q.w.Header().Set("X-Cocoon-Worker", r.lease.WorkerID().String())
	var err error
	if r.req.Stream {
		err = r.stream()
	} else {
		err = r.whole()
	}
	r.job.Close()
	r.lease.Release(err)
	t := r.job.Terms()
	r.q.note = append(r.q.note, "model", t.Model, "worker", r.lease.WorkerID().String(), "job", fmt.Sprintf("%x", r.job.ID()))
	if rc := r.job.Receipt(); rc != nil {
		r.q.note = append(r.q.note, "cost", rc.Cost, "prompt", rc.Usage.Prompt, "completion", rc.Usage.Completion)
	}
	if err != nil {
		r.q.note = append(r.q.note, "error", asAPIError(err).name())
	}
}

// parts calls write with each part of the answer until the job ends. Once
// write has failed, nobody reads: the job is cancelled, and the rest dropped.
func (r *run) parts(write func([]byte) error) error {
	part, err := r.first, r.ended
	for err == nil {
		if write != nil {
			if write(part) != nil {
				write = nil
				r.job.Cancel()
				time.AfterFunc(receiptTimeout, func() { r.job.Abort(errGone) })
			}
		}
		part, err = r.job.Next()
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// bill sets what the job cost, and under which id its receipt is kept.
func (r *run) bill(h http.Header) {
	if rc := r.job.Receipt(); rc != nil {
		h.Set("X-Cocoon-Cost", strconv.FormatUint(rc.Cost+r.attempts.spent, 10))
		h.Set("X-Cocoon-Receipt", fmt.Sprintf("%x", r.job.ID()))
	}
}

// whole answers with one JSON document.
func (r *run) whole() error {
	var doc bytes.Buffer
	tooLong := false
	err := r.parts(func(part []byte) error {
		if tooLong = doc.Len()+len(part) > maxAnswerBytes; tooLong {
			return errTooLong
		}
		doc.Write(part)
		return nil
	})
	h := r.q.w.Header()
	r.bill(h)
	if tooLong && err == nil {
		err = errTooLong
	}
	if err != nil {
		e := *asAPIError(err)
		e.final = true // tokens may have been billed
		r.q.fail(&e)
		return err
	}
	r.q.status = http.StatusOK
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(doc.Len()))
	r.q.w.WriteHeader(http.StatusOK)
	_, _ = r.q.w.Write(doc.Bytes())
	return nil
}

// stream passes server-sent events on as they come. Cost and receipt follow as
// trailers; an error after the first token is an event, and no [DONE].
func (r *run) stream() error {
	h := r.q.w.Header()
	h.Set("Content-Type", "text/event-stream; charset=utf-8")
	h.Set("Trailer", "X-Cocoon-Cost, X-Cocoon-Receipt")
	h.Set("X-Should-Retry", "false")
	r.q.status = http.StatusOK
	r.q.w.WriteHeader(http.StatusOK)
	rc := http.NewResponseController(r.q.w)
	whole := true // what was written ends with an event
	write := func(part []byte) error {
		whole = bytes.HasSuffix(part, []byte("\n\n")) || bytes.HasSuffix(part, []byte("\n\r\n"))
		if err := rc.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
			return err
		}
		if _, err := r.q.w.Write(part); err != nil {
			return err
		}
		return rc.Flush()
	}
	err := r.parts(write)
	if err != nil {
		event := append(append([]byte("data: "), asAPIError(err).body()...), "\n\n"...)
		if !whole { // else the error would be the rest of a line that broke off
			event = append([]byte("\n\n"), event...)
		}
		_ = write(event)
	}
	r.bill(h)
	_ = rc.SetWriteDeadline(time.Time{})
	return err
}
