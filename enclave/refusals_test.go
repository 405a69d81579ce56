package enclave_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"cocoon/attestation"
	"cocoon/attestation/auditlog"
	"cocoon/attestation/channel"
	"cocoon/contracts"
	"cocoon/enclave"
	"cocoon/enclave/api"
	"cocoon/enclave/engine"
)

// Each row spoils one thing of a job that is otherwise served. It ends in an
// error under that code and in a receipt that costs nothing, and the engine
// never sees it.
func TestRefusedJobsMoveNoMoney(t *testing.T) {
	w := newWorld(t).run()
	var ran atomic.Int32
	w.engine.script(func(ctx context.Context, req engine.Request, s engine.Sink) (engine.Result, error) {
		ran.Add(1)
		return say("no")(ctx, req, s)
	})
	body := func(s string) func(*client, *params) {
		return func(_ *client, p *params) { p.request.Body = []byte(s) }
	}
	voucher := func(f func(*contracts.Voucher)) func(*client, *params) {
		return func(c *client, p *params) {
			head, err := c.tree.Head(c.logID, c.base, 0)
			if err != nil {
				t.Fatal(err)
			}
			v := contracts.Voucher{GlobalID: network, Channel: c.channel, Cumulative: windowCost(1), ReceiptsHead: head}
			f(&v)
			p.request.Voucher = c.sign(v)
		}
	}
	for _, tt := range []struct {
		name   string
		spoil  func(*client, *params)
		code   string
		status int
		param  string
	}{
		{"another model", func(_ *client, p *params) {
			p.request.Body = bytes.Replace(p.request.Body, []byte("toy"), []byte("big"), 1)
		}, "terms.model", 400, "model"},
		{"a price below the least", func(_ *client, p *params) { p.terms.Prices.Completion-- }, "terms.price", 402, ""},
		{"a cached price below the least", func(_ *client, p *params) { p.terms.Prices.Cached = 0 }, "terms.price", 402, ""},
		{"no completion", func(_ *client, p *params) { p.terms.CompletionCeiling = 0 }, "terms.completion-ceiling", 400, ""},
		{"a prompt ceiling below the body", func(_ *client, p *params) { p.terms.PromptCeiling = uint64(len(p.request.Body)) + 15 }, "terms.prompt-ceiling", 400, ""},
		{"a total below the ceilings", func(_ *client, p *params) { p.terms.TotalCeiling-- }, "ceiling.total", 400, ""},
		{"no voucher", func(_ *client, p *params) { p.request.Voucher = nil }, "voucher.parse", 400, ""},
		{"a voucher of another channel", voucher(func(v *contracts.Voucher) { v.Channel = attestation.NewAddress(0, [32]byte{8}) }), "voucher.channel", 402, ""},
		{"a voucher of another network", voucher(func(v *contracts.Voucher) { v.GlobalID = -3 }), "voucher.network", 402, ""},
		{"a voucher of another worker's log", func(_ *client, p *params) { p.request.LogID[0] ^= 1 }, "voucher.log", 402, ""},
		{"a voucher over other receipts", voucher(func(v *contracts.Voucher) { v.ReceiptsHead[0] ^= 1 }), "voucher.head", 402, ""},
		{"a voucher with a bit flipped", func(_ *client, p *params) { p.request.Voucher[contracts.SignedVoucherSize-1] ^= 1 }, "voucher.signature", 402, ""},
		{"a voucher one nano short", voucher(func(v *contracts.Voucher) { v.Cumulative-- }), "credit.short", 402, ""},
		{"a voucher beyond the deposit", voucher(func(v *contracts.Voucher) { v.Cumulative = 1e9 + 1 }), "voucher.balance", 402, ""},
		{"another endpoint", func(_ *client, p *params) { p.request.Endpoint = "embeddings" }, "unknown_endpoint", 404, ""},
		{"an unknown field", body(`{"model":"toy","messages":[{"role":"user","content":"x"}],"kv_transfer_params":{}}`), "unknown_parameter", 400, "kv_transfer_params"},
		{"a medium behind a URL", body(`{"model":"toy","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://x"}}]}]}`), "invalid_value", 400, "messages[0].content[0].image_url.url"},
		{"a body that is not JSON", body(`{`), "invalid_json", 400, ""},
		{"no body", body(``), "invalid_json", 400, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := w.connect(t)
			p := c.params(chat("hello"))
			tt.spoil(c, &p)
			r := c.begin(p)
			got := r.finish()
			if got.Status != auditlog.StatusRefused || got.Cost != 0 || got.Usage != (attestation.Usage{}) {
				t.Errorf("receipt: got %+v", got)
			}
			if r.fault == nil || r.fault.Code != tt.code || r.fault.Status != tt.status || r.fault.Param != tt.param {
				t.Errorf("fault: got %+v, want code %s, status %d, param %q", r.fault, tt.code, tt.status, tt.param)
			}
			st, err := c.receipts(0)
			if err != nil || st.Settled != 0 || st.Count != 1 {
				t.Errorf("receipts: got %+v, %v", st, err)
			}
		})
	}
	if n := ran.Load(); n != 0 {
		t.Errorf("the engine ran %d refused jobs", n)
	}
}

func TestPromptOverCeilingIsUnbilled(t *testing.T) {
	w := newWorld(t).run()
	w.engine.script(sayAfter(promptCeiling+1, "no"))
	c := w.connect(t)
	r := c.begin(c.params(chat("x")))
	if got := r.finish(); got.Status != auditlog.StatusRefused || got.Cost != 0 || r.fault == nil || r.fault.Code != "ceiling.prompt" || len(r.answer) != 0 {
		t.Errorf("receipt: got %+v, fault %v", got, r.fault)
	}
}

func TestEngineRefusesRequest(t *testing.T) {
	w := newWorld(t).run()
	w.engine.script(func(context.Context, engine.Request, engine.Sink) (engine.Result, error) {
		return engine.Result{}, &engine.RequestError{Status: 400, Type: "invalid_request_error", Code: "unsupported_parameter", Param: "tools", Message: "tools: not supported"}
	})
	c := w.connect(t)
	r := c.begin(c.params(chat("x")))
	got := r.finish()
	want := &channel.JobError{Status: 400, Type: "invalid_request_error", Code: "unsupported_parameter", Param: "tools", Message: "tools: not supported"}
	if got.Status != auditlog.StatusRefused || got.Cost != 0 || !cmp.Equal(r.fault, want) {
		t.Errorf("receipt: got %+v, fault %v", got, r.fault)
	}
}

// Calls that fail before a job is opened end in a named refusal of the call.
func TestCallsRefusedBeforeAnyJob(t *testing.T) {
	w := newWorld(t).run()
	edited := func(f func(*enclave.ChannelView)) func(c *client) {
		return func(c *client) { w.chain.change(c.channel, f) }
	}
	for _, tt := range []struct {
		name  string
		spoil func(c *client)
		want  string
	}{
		{"an unknown channel", func(c *client) { c.channel = attestation.NewAddress(0, [32]byte{0xee}) }, "channel.unproven"},
		{"an empty channel", edited(func(v *enclave.ChannelView) { v.Balance = contracts.Reserve }), "channel.refused"},
		{"another worker's channel", edited(func(v *enclave.ChannelView) { v.State.Init.WorkerID[5] ^= 1 }), "channel.refused"},
		{"a channel that pays another", edited(func(v *enclave.ChannelView) { v.State.Init.Payout[5] ^= 1 }), "channel.refused"},
		{"a channel with another redeemer", edited(func(v *enclave.ChannelView) { v.State.Init.Redeemer[5] ^= 1 }), "channel.refused"},
		{"a short close delay", edited(func(v *enclave.ChannelView) { v.State.Init.CloseDelay-- }), "channel.refused"},
		{"a closing channel", edited(func(v *enclave.ChannelView) { v.State.CloseAt = 1 }), "channel.refused"},
		{"a closed channel", edited(func(v *enclave.ChannelView) { v.State.Closed = true }), "channel.refused"},
		{"an unsound client key", edited(func(v *enclave.ChannelView) { v.State.Init.ClientKey = [32]byte{} }), "channel.refused"},
		{"another's key", func(c *client) { c.key, _ = w.fund(1e9) }, "open.signature"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := w.connect(t)
			tt.spoil(c)
			_, err := c.begin(c.params(chat("x"))).stream.Recv()
			wantRefusal(t, err, tt.want)
		})
	}
	t.Run("a proof that is too old", func(t *testing.T) {
		w.chain.mu.Lock()
		w.chain.stale = 10*time.Minute + time.Second
		w.chain.mu.Unlock()
		defer func() { w.chain.mu.Lock(); w.chain.stale = 0; w.chain.mu.Unlock() }()
		c := w.connect(t)
		_, err := c.begin(c.params(chat("x"))).stream.Recv()
		wantRefusal(t, err, "channel.stale")
	})
	t.Run("a replayed request", func(t *testing.T) {
		c := w.connect(t)
		first := c.begin(c.params(chat("x")))
		first.finish()
		_, err := c.send(first.p, first.job, first.opened).stream.Recv()
		wantRefusal(t, err, "open.replay")
		if st, err := c.receipts(0); err != nil || st.Count != 1 || st.Settled != 16 {
			t.Errorf("receipts: got %+v, %v", st, err)
		}
	})
	t.Run("a request replayed on another connection", func(t *testing.T) {
		c := w.connect(t)
		first := c.begin(c.params(chat("x")))
		first.finish()
		thief := w.connectAs(t, c.key, c.channel)
		_, err := thief.send(first.p, first.job, first.opened).stream.Recv()
		wantRefusal(t, err, "open.signature")
	})
	t.Run("garbage", func(t *testing.T) {
		c := w.connect(t)
		_, err := c.send(params{}, nil, []byte("garbage")).stream.Recv()
		wantRefusal(t, err, "open.parse")
	})
}

// A stream that is not what the client sent ends the job, and what was not
// produced is not billed.
func TestBrokenStreams(t *testing.T) {
	w := newWorld(t).run()
	ended := make(chan engine.Usage, 1)
	split := func(c *client) params {
		p := c.params(nil)
		p.request.BodyDone = false
		return p
	}
	check := func(t *testing.T, r *run, code string, cost uint64) {
		t.Helper()
		if got := r.finish(); got.Status != auditlog.StatusAborted || got.Cost != cost || r.fault == nil || r.fault.Code != code {
			t.Errorf("receipt: got %s costing %d, fault %v, want cost %d, fault %s", got.Status, got.Cost, r.fault, cost, code)
		}
	}
	// A stream that somebody meddled with is dead both ways: the call ends, and
	// the receipt is to be asked for.
	dead := func(t *testing.T, r *run, cost uint64) {
		t.Helper()
		var err error
		for err == nil {
			_, err = r.next()
		}
		wantRefusal(t, err, "frames.sequence")
		st, err := r.c.receipts(0)
		if err != nil || st.Count != 1 || st.Settled != cost {
			t.Fatalf("receipts: got %+v, %v, want one of %d nano", st, err, cost)
		}
		got, err := auditlog.VerifyReceipt(st.Receipts[0], r.c.verified.Keyset().SigningPublicKey)
		if err != nil || got.Status != auditlog.StatusAborted {
			t.Errorf("receipt: got %+v, %v", got, err)
		}
	}
	t.Run("truncated body", func(t *testing.T) {
		c := w.connect(t)
		r := c.begin(split(c))
		r.frame(channel.Frame{Type: channel.FrameBody, Data: []byte(`{"model":`)})
		if err := r.stream.CloseSend(); err != nil {
			t.Fatal(err)
		}
		check(t, r, "frames.truncated", 0)
	})
	t.Run("reordered body", func(t *testing.T) {
		c := w.connect(t)
		r := c.begin(split(c))
		one, _ := r.job.Seal(channel.Frame{Type: channel.FrameBody, Data: []byte("{")})
		two, _ := r.job.Seal(channel.Frame{Type: channel.FrameBody, Last: true, Data: []byte("}")})
		for _, wire := range [][]byte{two, one} {
			_ = r.stream.Send(wire)
		}
		dead(t, r, 0)
	})
	t.Run("repeated body", func(t *testing.T) {
		c := w.connect(t)
		r := c.begin(split(c))
		one, _ := r.job.Seal(channel.Frame{Type: channel.FrameBody, Data: []byte("{")})
		for range 2 {
			_ = r.stream.Send(one)
		}
		dead(t, r, 0)
	})
	t.Run("flipped bit in a voucher frame", func(t *testing.T) {
		w.engine.script(endless(ended))
		c := w.connect(t)
		r := c.begin(c.params(chat("x")))
		r.until(5)
		u := channel.VoucherUpdate{Voucher: c.voucher(windowCost(2)), LogID: c.logID}
		wire, err := r.job.Seal(channel.Frame{Type: channel.FrameVoucher, Data: u.Encode()})
		if err != nil {
			t.Fatal(err)
		}
		wire[9] ^= 1
		_ = r.stream.Send(wire)
		<-ended
		dead(t, r, 18)
	})
	t.Run("bad voucher in mid-stream", func(t *testing.T) {
		w.engine.script(endless(ended))
		c := w.connect(t)
		r := c.begin(c.params(chat("x")))
		r.until(5)
		r.pay(c.sign(contracts.Voucher{GlobalID: network, Channel: c.channel, Cumulative: windowCost(2)}))
		<-ended
		check(t, r, "voucher.head", 18)
	})
}

func TestNothingBeforeAttest(t *testing.T) {
	w := newWorld(t).run()
	c := w.connect(t)
	c.dial() // another connection, which has not attested
	_, err := c.receipts(0)
	wantRefusal(t, err, "attest.first")
	_, err = c.conn.Client.GetEvidence(t.Context(), &api.EvidenceRequest{Digest: c.verified.BundleDigest()})
	wantRefusal(t, err, "attest.first")
	_, err = c.begin(c.params(chat("x"))).stream.Recv()
	wantRefusal(t, err, "attest.first")
	_, err = c.conn.Client.Attest(t.Context(), &api.AttestRequest{})
	wantRefusal(t, err, "attest.nonce")
	_, err = c.receipts(0)
	wantRefusal(t, err, "attest.first")
}

func TestReceiptsAreTheirClientsAlone(t *testing.T) {
	w := newWorld(t).run()
	c := w.connect(t)
	c.begin(c.params(chat("x"))).finish()
	thief := w.connect(t)
	mine := thief.channel
	thief.channel = c.channel
	_, err := thief.receipts(0)
	wantRefusal(t, err, "receipts.signature")
	thief.channel = mine
	_, err = thief.receipts(1)
	wantRefusal(t, err, "receipts.from")
	thief.logID[0] ^= 1
	_, err = thief.receipts(0)
	wantRefusal(t, err, "receipts.log")
}

func TestFreshQuote(t *testing.T) {
	w := newWorld(t).run()
	c := w.connect(t)
	nonce := random[[32]byte](t)
	ask := func(nonce [32]byte, sign func([]byte) ([]byte, error)) (*api.AttestResponse, error) {
		sig, err := sign(channel.FreshMessage(c.conn.EKM, nonce, c.channel))
		if err != nil {
			t.Fatal(err)
		}
		return c.conn.Client.Attest(t.Context(), &api.AttestRequest{Nonce: nonce, Fresh: true, Channel: c.channel, Signature: [64]byte(sig)})
	}
	r, err := ask(nonce, c.Sign)
	if err != nil {
		t.Fatal(err)
	}
	b, err := attestation.ParseBundle(r.Bundle)
	if err != nil {
		t.Fatal(err)
	}
	v, expect := w.verifier()
	expect.Nonce, expect.Fresh = nonce, true
	if err := v.Verify(b, expect).Err(); err != nil {
		t.Errorf("fresh bundle: %v", err)
	}
	_, err = ask(random[[32]byte](t), c.Sign)
	wantRefusal(t, err, "fresh.rate")
	other := w.connect(t)
	_, err = ask(random[[32]byte](t), other.Sign)
	wantRefusal(t, err, "fresh.signature")
	w.clock.advance(5 * time.Second)
	if _, err = ask(random[[32]byte](t), c.Sign); err != nil {
		t.Error(err)
	}
}

func TestEvidenceByDigest(t *testing.T) {
	w := newWorld(t).run()
	c := w.connect(t)
	r, err := c.conn.Client.GetEvidence(t.Context(), &api.EvidenceRequest{Digest: c.verified.BundleDigest()})
	if err != nil || len(r.Bundle) == 0 {
		t.Fatalf("got %d bytes, %v", len(r.Bundle), err)
	}
	_, err = c.conn.Client.GetEvidence(t.Context(), &api.EvidenceRequest{Digest: [32]byte{1}})
	wantRefusal(t, err, "evidence.absent")
}

func TestConfigsThatCannotServe(t *testing.T) {
	for _, tt := range []struct {
		name string
		edit func(*enclave.Config)
		want string
	}{
		{"no engine", func(c *enclave.Config) { c.Engine = nil }, "engine"},
		{"no evidence", func(c *enclave.Config) { c.Evidence = nil }, "evidence"},
		{"a model the engine lacks", func(c *enclave.Config) { c.Worker.Models[0].Name = "big"; c.Worker.Prices[0].Model = "big" }, "has not loaded"},
		{"other weights than the engine's", func(c *enclave.Config) { c.Worker.Models[0].WeightsRoot = attestation.Unmeasured }, "weights root"},
		{"an epoch too long", func(c *enclave.Config) { c.EpochLength = 11 * time.Minute }, "epoch length"},
		{"GPUs without evidence", func(c *enclave.Config) { c.Worker.GPUCount = 1 }, "gpu_count"},
		{"no release", func(c *enclave.Config) { c.Release.Manifest = nil }, "release"},
		{"no payout", func(c *enclave.Config) { c.Worker.PayoutAddress = attestation.Address{} }, "payout_address"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			ready := false
			w.edit = func(c *enclave.Config) {
				tt.edit(c)
				c.Ready = func(enclave.Boot) { ready = true }
			}
			err := w.serveOnce()
			if err == nil || !strings.Contains(err.Error(), tt.want) || ready {
				t.Errorf("got %v, ready %t, want an error about %q", err, ready, tt.want)
			}
		})
	}
	t.Run("a machine without quotes", func(t *testing.T) {
		w := newWorld(t)
		broken := errors.New("no TEE")
		w.edit = func(c *enclave.Config) { c.Evidence = noTEE{broken} }
		if err := w.serveOnce(); !errors.Is(err, broken) {
			t.Errorf("got %v, want %v", err, broken)
		}
	})
}

type noTEE struct{ err error }

func (n noTEE) Quote(context.Context, [64]byte) (attestation.CPUEvidence, error) {
	return attestation.CPUEvidence{}, n.err
}
