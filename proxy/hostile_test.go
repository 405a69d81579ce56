package proxy_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"cocoon/attestation"
	"cocoon/attestation/auditlog"
	"cocoon/attestation/channel"
	"cocoon/contracts"
	"cocoon/contracts/payout"
	"cocoon/enclave"
	"cocoon/enclave/api"
	"cocoon/enclave/engine"
	"cocoon/proxy/route"
	"cocoon/proxy/session"
)

// TestWorkerBillsWindowsThatNobodyBought: within the signed terms, and beyond
// what was granted of them.
func TestWorkerBillsWindowsThatNobodyBought(t *testing.T) {
	w := newWorld(t)
	l := w.liar()
	l.receipt = billedAs(attestation.Usage{Prompt: 10, Completion: 2000})
	g := w.proxy(settings{}, l.addr)
	r := g.post(chat(true, map[string]any{"max_tokens": 2000}))
	if body := text(t, r); !strings.Contains(body, "worker_misbehaved") {
		t.Errorf("got %q", body)
	}
	if s := g.router.Workers()[0]; s.State != route.Benched || !strings.Contains(s.Reason, "granted") {
		t.Errorf("got %s for %q, want it benched for what was not granted", s.State, s.Reason)
	}
	if list := g.receipts(); len(list) != 0 {
		t.Errorf("the receipt was recorded: %+v", list)
	}
}

// TestRestoreDoesNotOpenThePurse: a client that lost its ledger takes receipts
// that it cannot check, but only up to what it once signed.
func TestRestoreDoesNotOpenThePurse(t *testing.T) {
	w := newWorld(t)
	l := w.liar()
	l.accounts = func(r *api.ReceiptsResponse) {
		fake := auditlog.Receipt{
			Version: auditlog.ReceiptVersion, JobID: [16]byte{1}, Channel: l.anyChannel(), WorkerID: l.id, LogID: l.logID, KeysetDigest: [32]byte{1}, Model: toyModel,
			Usage: attestation.Usage{Prompt: 9e8}, Prices: prices, Started: 1, Finished: 2, Status: auditlog.StatusOK,
		}
		fake.Cost, _ = payout.Cost(fake.Usage, fake.Prices)
		cose, err := auditlog.SignReceipt(l.keys, fake)
		if err != nil {
			panic(err)
		}
		r.Receipts, r.Count, r.Settled = [][]byte{cose}, 1, fake.Cost
	}
	g := w.proxy(settings{session: func(c *session.Config) { c.Restore = true }}, l.addr)
	text(t, g.post(chat(true, nil)))
	if s := g.router.Workers()[0]; s.State != route.Benched || !strings.Contains(s.Reason, "ever signed") {
		t.Errorf("got %s for %q, want it benched", s.State, s.Reason)
	}
}

// TestPaidBeyondTheLedgerStopsUntilRestore: the chain has paid a voucher that
// this ledger never signed, so another copy of it signs, or it is old.
func TestPaidBeyondTheLedgerStopsUntilRestore(t *testing.T) {
	w := newWorld(t)
	l := w.liar()
	l.accounts = func(r *api.ReceiptsResponse) {
		w.chain.edit(func(_ attestation.Address, v *enclave.ChannelView) { v.State.Paid = 5 })
		r.BasePaid = 5
	}
	g := w.proxy(settings{}, l.addr)
	if message := wantFailure(t, g.post(chat(true, nil)), 402, "insufficient_quota"); !strings.Contains(message, "--restore") {
		t.Errorf("got %q, want it to name --restore", message)
	}
}

// TestErrorIsAnEventOfItsOwn: a worker's last words, cut off in a comment,
// must not swallow the error that follows.
func TestErrorIsAnEventOfItsOwn(t *testing.T) {
	w := newWorld(t)
	k := w.worker(0)
	k.engine.script(func(ctx context.Context, _ engine.Request, s engine.Sink) (engine.Result, error) {
		u := engine.Usage{Prompt: 10, Completion: 1}
		err := errors.Join(s.Start(10, 0), s.Grant(ctx, 1), s.Write([]byte(event("w0 ")+": a comm"), u))
		return engine.Result{Usage: u}, errors.Join(err, errors.New("the engine died"))
	})
	g := w.proxy(settings{}, k.addr)
	body := text(t, g.post(chat(true, nil)))
	if !strings.Contains(body, "\n\ndata: {\"error\":") || strings.Contains(body, "[DONE]") {
		t.Errorf("got %q, want an error event after a blank line", body)
	}
}

// TestCheapInNameOnly: a worker whose cached tokens cost a fortune is not the
// cheapest, whatever it asks for others.
func TestCheapInNameOnly(t *testing.T) {
	w := newWorld(t)
	honest, sly := w.worker(0), w.worker(1)
	w.price(sly, func(p *attestation.Prices) { p.Cached = 1e12 })
	g := w.proxy(settings{}, honest.addr, sly.addr)
	g.router.Settle(t.Context())
	for range 8 {
		r := g.post(chat(true, nil))
		if text(t, r); r.Header.Get("X-Cocoon-Worker") != honest.id.String() {
			t.Fatalf("it was chosen: %d %s", r.StatusCode, r.Header.Get("X-Cocoon-Worker"))
		}
	}
}

// price changes what a worker's record asks for.
func (w *world) price(k *worker, edit func(*attestation.Prices)) {
	w.chain.mu.Lock()
	defer w.chain.mu.Unlock()
	edit(&w.chain.records[k.id].Prices[0].Prices)
}

func TestHighestPrice(t *testing.T) {
	w := newWorld(t)
	k := w.worker(0)
	w.price(k, func(p *attestation.Prices) { p.Reasoning = 3e6 })
	g := w.proxy(settings{session: func(c *session.Config) { c.MaxPrice = 3e6 - 1 }}, k.addr)
	message := wantFailure(t, g.post(chat(true, nil)), 503, "no_verified_worker")
	if !strings.Contains(message, "highest price") || w.chain.opened != 0 {
		t.Errorf("got %q and %d channels", message, w.chain.opened)
	}
	if body := text(t, g.get("/v1/models")); strings.Contains(body, model) {
		t.Errorf("it is offered: %s", body)
	}
}

// TestRevokedReleaseGetsNoMoreJobs: the next verification finds it revoked, and
// the session that was made before gets no more jobs, though it has time left.
func TestRevokedReleaseGetsNoMoreJobs(t *testing.T) {
	w := newWorld(t)
	k := w.workerWith(0, func(c *enclave.Config) { c.EpochLength = 4 * time.Second })
	g := w.proxy(settings{}, k.addr)
	if got := text(t, g.post(chat(true, nil))); got != answer(3, true) {
		t.Fatalf("got %q", got)
	}
	expires := g.router.Workers()[0].Result.Expires
	w.chain.mu.Lock()
	w.chain.entries[w.release.Digest()] = attestation.RegistryEntry{Kind: attestation.EntryRelease, Meta: attestation.ReleaseMeta(1), RevokedAt: time.Now().Unix() - 1}
	w.chain.mu.Unlock()
	eventually(t, "the worker to be refused", func() bool { return g.router.Workers()[0].State == route.Refused })
	if !time.Now().Before(expires) {
		t.Errorf("only at %s, when the old evidence ran out", expires)
	}
	if message := wantFailure(t, g.post(chat(true, nil)), 503, "no_verified_worker"); !strings.Contains(message, "image.allowed") {
		t.Errorf("got %q", message)
	}
}

// releaseChannels closes every channel, as a worker's owner may at any time.
func (w *world) releaseChannels() {
	w.chain.edit(func(_ attestation.Address, v *enclave.ChannelView) { v.State.Closed = true })
}

// TestChannelsThatTheWorkerReleases: the proxy goes on with a new one at once,
// and not for ever.
func TestChannelsThatTheWorkerReleases(t *testing.T) {
	w := newWorld(t)
	k := w.worker(0)
	g := w.proxy(settings{session: func(c *session.Config) { c.MaxOpenings = 3 }}, k.addr)
	for n := range 3 {
		if got := text(t, g.post(chat(true, nil))); got != answer(3, true) || w.chain.opened != n+1 {
			t.Fatalf("channel %d: got %q, opened %d", n, got, w.chain.opened)
		}
		w.releaseChannels()
		k.stop() // a worker that restarts looks at the channel anew
		k.start()
	}
	message := wantFailure(t, g.post(chat(true, nil)), 402, "insufficient_quota")
	if !strings.Contains(message, "opened 3 channels") || w.chain.opened != 3 {
		t.Errorf("got %q, opened %d", message, w.chain.opened)
	}
}

// TestChannelReleasedInMidSession: the same connection goes on with another channel.
func TestChannelReleasedInMidSession(t *testing.T) {
	w := newWorld(t)
	l := w.liar()
	g := w.proxy(settings{}, l.addr)
	if got := text(t, g.post(chat(true, map[string]any{"max_tokens": 50}))); got != answer(3, true) {
		t.Fatalf("got %q", got)
	}
	old := l.anyChannel()
	w.releaseChannels()
	l.refuses = old
	l.forget()
	if r := g.post(chat(true, map[string]any{"max_tokens": 50})); text(t, r) != answer(3, true) || w.chain.opened != 2 {
		t.Errorf("got %d, opened %d", r.StatusCode, w.chain.opened)
	}
}

func TestDepositThatNoWorkerServes(t *testing.T) {
	w := newWorld(t)
	k := w.worker(0)
	g := w.proxy(settings{session: func(c *session.Config) { c.Deposit = 2e8 - 1 }}, k.addr)
	message := wantFailure(t, g.post(chat(true, nil)), 402, "insufficient_quota")
	if !strings.Contains(message, "at least 200000000") || w.chain.opened != 0 {
		t.Errorf("got %q, opened %d", message, w.chain.opened)
	}
}

// TestSlowClock: a session under a clock that is behind ends when its evidence
// does, and is replaced before.
func TestSlowClock(t *testing.T) {
	w := newWorld(t)
	k := w.workerWith(0, func(c *enclave.Config) { c.EpochLength = 3 * time.Second })
	g := w.proxy(settings{session: func(c *session.Config) { c.Now = func() time.Time { return time.Now().Add(-4 * time.Minute) } }}, k.addr)
	epochs := map[attestation.Digest]bool{}
	for len(epochs) < 3 {
		r := g.post(chat(true, nil))
		if got := text(t, r); got != answer(3, true) {
			t.Fatalf("in epoch %d: got %d %q", len(epochs), r.StatusCode, got)
		}
		epochs[g.router.Workers()[0].Result.Bundle] = true
	}
}

// TestFreeTriesAreFree: a worker that bills for "credit lags" is not asked again
// and again.
func TestFreeTriesAreFree(t *testing.T) {
	w := newWorld(t)
	l := w.liar()
	l.failure = &channel.JobError{Status: 402, Type: "insufficient_credit", Code: "credit.short", Message: "again"}
	l.receipt = func(r *auditlog.Receipt) { r.Status = auditlog.StatusAborted }
	g := w.proxy(settings{}, l.addr)
	r := g.post(chat(true, map[string]any{"max_tokens": 50}))
	text(t, r)
	if n := len(g.receipts()); n != 1 || r.StatusCode != http.StatusPaymentRequired {
		t.Errorf("got %d after %d billed tries, want 402 after one", r.StatusCode, n)
	}
}

// TestWorkersCodeIsNotLogged: what a worker calls its error may be the prompt.
func TestWorkersCodeIsNotLogged(t *testing.T) {
	w := newWorld(t)
	l := w.liar()
	l.failure = &channel.JobError{Status: 400, Type: "x", Code: "a secret prompt", Message: "no"}
	l.receipt = func(r *auditlog.Receipt) {
		r.Status, r.Cost, r.Usage = auditlog.StatusRefused, 0, attestation.Usage{}
	}
	g := w.proxy(settings{}, l.addr)
	if body := text(t, g.post(chat(true, map[string]any{"max_tokens": 50}))); !strings.Contains(body, "a secret prompt") {
		t.Errorf("got %q", body)
	}
	eventually(t, "the request's log line", func() bool { return strings.Contains(w.log.String(), `"error":"unnamed"`) })
	if strings.Contains(w.log.String(), "a secret prompt") {
		t.Error("it was logged")
	}
}

// TestRedeemThatTheWorkerSawFirst: its liteservers are a block ahead of ours.
func TestRedeemThatTheWorkerSawFirst(t *testing.T) {
	w := newWorld(t)
	l := w.liar()
	l.accounts = func(r *api.ReceiptsResponse) { r.BasePaid = 16 }
	l.hello = func(h *channel.Hello) { h.BasePaid = 16 }
	asked := 0
	g := w.proxy(settings{session: func(c *session.Config) {
		c.Restore = true // nothing of ours says that it was paid
		c.Chain = laterChain{c.Chain, func(s *contracts.ChannelState) {
			if asked++; asked > 3 {
				s.Paid = 16
			}
		}}
	}}, l.addr)
	if r := g.post(chat(true, map[string]any{"max_tokens": 50})); text(t, r) != answer(3, true) {
		t.Errorf("got %d, %s", r.StatusCode, g.router.Workers()[0].Reason)
	}
}

// laterChain shows channels as edit has them.
type laterChain struct {
	session.Chain
	edit func(*contracts.ChannelState)
}

func (c laterChain) Channel(ctx context.Context, a attestation.Address) (contracts.ChannelState, uint64, time.Time, error) {
	s, balance, at, err := c.Chain.Channel(ctx, a)
	c.edit(&s)
	return s, balance, at, err
}
