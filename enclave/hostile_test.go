package enclave_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"cocoon/attestation/auditlog"
	"cocoon/enclave"
	"cocoon/enclave/api"
	"cocoon/enclave/engine"
)

// stallAfter is how long a worker waits for a client that takes nothing.
const stallAfter = 10 * time.Second

// stall moves time until the worker must have seen that a client takes nothing.
func (w *world) stall(until <-chan struct{}) {
	w.t.Helper()
	for range 20 {
		select {
		case <-until:
			return
		case <-time.After(50 * time.Millisecond): // the answer fills the connection's windows
		}
		w.clock.advance(stallAfter)
	}
	w.t.Fatal("a client that takes nothing holds its job")
}

func TestClientThatTakesNoAnswerIsSettledWithout(t *testing.T) {
	w := newWorld(t).run()
	c := w.connect(t)
	ended := make(chan struct{})
	w.engine.script(func(ctx context.Context, req engine.Request, s engine.Sink) (engine.Result, error) {
		defer close(ended)
		return say(strings.Split(strings.Repeat(strings.Repeat("w", 64<<10)+" ", 200), " ")[:200]...)(ctx, req, s)
	})
	c.begin(c.params(chat("x")))
	w.stall(ended)
	w.engine.script(nil)
	other := w.connect(t)
	if got := other.begin(other.params(chat("x"))).finish(); got.Status != auditlog.StatusOK {
		t.Errorf("another client: got %+v", got)
	}
	again := w.connectAs(t, c.key, c.channel)
	for {
		st, err := again.receipts(0)
		if err != nil {
			t.Fatal(err)
		}
		if st.Count == 0 {
			continue
		}
		got, err := auditlog.VerifyReceipt(st.Receipts[0], again.verified.Keyset().SigningPublicKey)
		if err != nil {
			t.Fatal(err)
		}
		if got.Status != auditlog.StatusAborted || got.FinishReason != "client_stalled" || got.Usage.Completion == 0 || got.Cost == 0 {
			t.Errorf("receipt: got %+v", got)
		}
		return
	}
}

// The windows are full just when the receipt should leave.
func TestClientThatTakesNoReceiptHoldsNoSlot(t *testing.T) {
	w := newWorld(t)
	w.edit = func(c *enclave.Config) { c.MaxJobs = 1 }
	w.run()
	c := w.connect(t)
	w.engine.script(say(strings.Repeat("w", 262100), strings.Repeat("w", 100<<10)))
	c.begin(c.params(chat("x")))
	free := make(chan struct{})
	other := w.connect(t)
	w.engine.script(nil)
	go func() {
		defer close(free)
		for {
			_, err := other.begin(other.params(chat("x"))).stream.Recv()
			var r *api.RefusalError
			if !errors.As(err, &r) || r.Name != "worker.full" {
				return
			}
			time.Sleep(time.Millisecond)
		}
	}()
	w.stall(free)
}
