package refusals

import (
	"context"
	"errors"
	"strings"
	"testing"

	"cocoon/attestation/auditlog"
	"cocoon/attestation/channel"
	"cocoon/enclave/engine"
)

// An engine that fails is paid for what it produced.
func TestEngineThatFails(t *testing.T) {
	n := newNetwork(t)
	w := n.worker(t, setup{})
	broke := errors.New("CUDA error: the prompt was: hello")
	after := func(words ...string) play {
		return func(ctx context.Context, req engine.Request, s engine.Sink) (engine.Result, error) {
			_, err := say(words...)(ctx, req, s)
			return engine.Result{}, errors.Join(broke, err)
		}
	}
	for _, row := range []struct {
		name, answer string
		play         play
		cost         uint64
		status       auditlog.Status
		code         string
	}{
		{"an engine that dies mid-answer", "one two ", after("one ", "two "), promptTokens + 2*2, auditlog.StatusError, "engine.failed"},
		{"an engine that dies before its first token", "", after(), 0, auditlog.StatusError, "engine.failed"},
		{"an engine that panics mid-answer", "one ", func(ctx context.Context, req engine.Request, s engine.Sink) (engine.Result, error) {
			if r, err := say("one ")(ctx, req, s); err != nil {
				return r, err
			}
			panic(broke)
		}, promptTokens + 2, auditlog.StatusError, "engine.failed"},
		{"an engine that finds the prompt above its ceiling", "", sayAfter(promptCeiling+1, 3, func(int) string { return "w " }), 0, auditlog.StatusRefused, "ceiling.prompt"},
		{"an engine that goes on past the completion ceiling", strings.Repeat("w ", completionCeiling), sayAfter(promptTokens, completionCeiling+1, func(int) string { return "w " }),
			promptTokens + 2*completionCeiling, auditlog.StatusAborted, "ceiling.completion"},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := n.newClient(t)
			s := c.funded(t, w.addr, w.id)
			w.engine.script(row.play)
			o := run(t.Context(), s)
			var fault *channel.JobError
			if !errors.As(o.err, &fault) || fault.Code != row.code || strings.Contains(o.err.Error(), "hello") {
				t.Errorf("error: got %v, want %s", o.err, row.code)
			}
			if o.answer != row.answer || o.receipt == nil || o.receipt.Status != row.status || o.receipt.Cost != row.cost {
				t.Errorf("got %d bytes and %+v, want %d bytes and %s costing %d", len(o.answer), o.receipt, len(row.answer), row.status, row.cost)
			}
			m := c.money(t, s)
			if m.booked != row.cost || m.paid != 0 {
				t.Errorf("money: got %+v, want %d booked", m, row.cost)
			}
			if st := c.statement(t, w.addr, c.channels(t)[0]); st.settled != row.cost || st.credited != m.signed {
				t.Errorf("the worker: got %+v, want %d settled", st, row.cost)
			}
			if o := run(t.Context(), s); o.err != nil || o.answer != plainAnswer {
				t.Errorf("an honest job afterwards: got %q, %v", o.answer, o.err)
			}
		})
	}
	w.serves(t)
}
