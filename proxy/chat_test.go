package proxy_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cocoon/attestation"
	"cocoon/attestation/auditlog"
	"cocoon/attestation/channel"
	"cocoon/enclave"
	"cocoon/enclave/engine"
	"cocoon/proxy"
	"cocoon/proxy/ledger"
	"cocoon/proxy/session"
)

func TestAnswers(t *testing.T) {
	w := newWorld(t)
	k := w.worker(0)
	g := w.proxy(settings{}, k.addr)
	for _, streamed := range []bool{true, false} {
		r := g.post(chat(streamed, nil))
		body := text(t, r)
		if r.StatusCode != http.StatusOK || body != answer(3, streamed) {
			t.Fatalf("streamed %t: got %d %q", streamed, r.StatusCode, body)
		}
		told, kind := r.Header, "application/json"
		if streamed {
			told, kind = r.Trailer, "text/event-stream"
		}
		if got := r.Header.Get("Content-Type"); !strings.HasPrefix(got, kind) {
			t.Errorf("content type: got %q, want %s", got, kind)
		}
		if got := r.Header.Get("X-Cocoon-Worker"); got != k.id.String() {
			t.Errorf("worker: got %q, want %s", got, k.id)
		}
		if got := told.Get("X-Cocoon-Cost"); got != "16" { // 10 prompt tokens at 1 nano, 3 others at 2
			t.Errorf("streamed %t: cost: got %q, want 16", streamed, got)
		}
		var rc struct {
			Cost    uint64              `json:"cost_nano"`
			Usage   attestation.Usage   `json:"usage"`
			Model   attestation.Model   `json:"model"`
			Prices  attestation.Prices  `json:"nano_per_million_tokens"`
			Status  string              `json:"status"`
			COSE    []byte              `json:"cose"`
			Channel attestation.Address `json:"channel"`
		}
		if err := json.Unmarshal([]byte(text(t, g.get("/v1/receipts/"+told.Get("X-Cocoon-Receipt")))), &rc); err != nil {
			t.Fatal(err)
		}
		signed, err := auditlog.ParseReceipt(rc.COSE)
		if err != nil {
			t.Fatal(err)
		}
		if rc.Cost != 16 || rc.Usage != (attestation.Usage{Prompt: 10, Completion: 3}) || rc.Model != toyModel || rc.Prices != prices || rc.Status != "ok" || signed.Cost != 16 || signed.Channel != rc.Channel {
			t.Errorf("receipt: got %+v", rc)
		}
	}
}

func TestModelsAndEvidence(t *testing.T) {
	w := newWorld(t)
	k := w.worker(0)
	g := w.proxy(settings{}, k.addr)
	g.post(chat(false, nil)) // a job waits until the worker is verified
	var list struct {
		Object string
		Data   []struct {
			ID, Object string
			Workers    []struct {
				Prices attestation.Prices `json:"nano_per_million_tokens"`
			} `json:"cocoon_workers"`
		}
	}
	if err := json.Unmarshal([]byte(text(t, g.get("/v1/models"))), &list); err != nil {
		t.Fatal(err)
	}
	if list.Object != "list" || len(list.Data) != 1 || list.Data[0].ID != model || list.Data[0].Object != "model" || len(list.Data[0].Workers) != 1 || list.Data[0].Workers[0].Prices != prices {
		t.Errorf("models: got %+v", list)
	}
	if r := g.get("/v1/models/" + model); r.StatusCode != http.StatusOK {
		t.Errorf("model: got %d", r.StatusCode)
	}
	wantFailure(t, g.get("/v1/models/other"), 404, "model_not_found")
	wantFailure(t, g.get("/v1/receipts/"+strings.Repeat("0", 32)), 404, "receipt_not_found")

	var evidence struct {
		Data []struct {
			State     string
			WorkerID  string `json:"worker_id"`
			Verdict   string
			Assurance string
			Complete  bool
			Checks    []struct{ Name, Outcome string }
			Bundle    []byte
			Channel   struct {
				Address string
				Limit   uint64 `json:"limit_nano"`
			}
		}
	}
	if err := json.Unmarshal([]byte(text(t, g.get("/v1/attestation"))), &evidence); err != nil {
		t.Fatal(err)
	}
	if len(evidence.Data) != 1 {
		t.Fatalf("attestation: got %+v", evidence)
	}
	e := evidence.Data[0]
	if e.State != "ready" || e.Verdict != "accepted" || e.Assurance != "test" || !e.Complete || e.WorkerID != k.id.String() || e.Channel.Limit != 1e9 {
		t.Errorf("attestation: got %+v", e)
	}
	passed := map[string]bool{}
	for _, c := range e.Checks {
		passed[c.Name] = c.Outcome == "PASS"
	}
	for _, name := range []string{"tdx.signature", "binding.report-data", "binding.platform", "image.allowed", "model.weights"} {
		if !passed[name] {
			t.Errorf("attestation: check %s did not pass", name)
		}
	}
	if _, err := attestation.ParseBundle(e.Bundle); err != nil {
		t.Errorf("attestation: bundle: %v", err)
	}
	if got := text(t, g.get("/healthz")); !strings.Contains(got, "ok") {
		t.Errorf("healthz: got %q", got)
	}
}

func TestManyRequestsAddUp(t *testing.T) {
	w := newWorld(t)
	k := w.worker(0)
	k.engine.script(say(700, nil)) // three windows
	g := w.proxy(settings{}, k.addr)
	const n = 48 // more than may be open at once
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			r := g.post(chat(i%2 == 0, nil))
			if got := text(t, r); got != answer(700, i%2 == 0) {
				t.Errorf("request %d: got %d and %d bytes: %.300s", i, r.StatusCode, len(got), got)
			}
		})
	}
	wg.Wait()
	list := g.receipts()
	var sum, served uint64
	for i, r := range list {
		sum += r.Cost
		if r.Status != string(auditlog.StatusRefused) { // a job whose credit another took is tried again, as another job
			served++
		}
		if r.Index != uint64(i) {
			t.Errorf("receipt %d has index %d", i, r.Index)
		}
	}
	if want := uint64(n * (10 + 2*700)); served != n || sum != want {
		t.Errorf("got %d receipts over %d nano, want %d over %d", served, sum, n, want)
	}
	if w.chain.opened != 1 {
		t.Errorf("opened %d channels, want 1", w.chain.opened)
	}
	s := g.router.Workers()[0]
	if s.Used != sum {
		t.Errorf("used: got %d nano, want %d: allocations were left", s.Used, sum)
	}
}

// receipts are all that the ledger holds.
func (g *gateway) receipts() []ledger.StoredReceipt {
	g.w.t.Helper()
	if err := g.ledger.Flush(context.Background()); err != nil {
		g.w.t.Fatal(err)
	}
	list, err := g.ledger.Receipts(context.Background(), ledger.Query{})
	if err != nil {
		g.w.t.Fatal(err)
	}
	return list
}

func TestLeavingStopsTheEngineAndBillsWhatWasProduced(t *testing.T) {
	for _, streamed := range []bool{true, false} {
		t.Run(fmt.Sprintf("streamed %t", streamed), func(t *testing.T) {
			w := newWorld(t)
			k := w.worker(0)
			stopped := make(chan error, 1)
			reached := make(chan struct{})
			k.engine.script(say(100, func(ctx context.Context, i int) error {
				if i < 5 {
					return nil
				}
				if i == 5 {
					close(reached)
				}
				<-ctx.Done()
				stopped <- ctx.Err()
				return ctx.Err()
			}))
			g := w.proxy(settings{}, k.addr)
			ctx, leave := context.WithCancel(context.Background())
			if streamed {
				r := g.request(ctx, http.MethodPost, "/v1/chat/completions", chat(true, nil), nil)
				lines := bufio.NewScanner(r.Body)
				if !lines.Scan() {
					t.Fatal("no answer")
				}
				<-reached
				leave()
			} else {
				go func() {
					<-reached
					leave()
				}()
				req, err := http.NewRequestWithContext(ctx, http.MethodPost, g.url+"/v1/chat/completions", strings.NewReader(string(chat(false, nil))))
				if err != nil {
					t.Fatal(err)
				}
				req.Header.Set("Authorization", "Bearer "+token)
				req.Header.Set("Content-Type", "application/json")
				if r, err := g.http.Do(req); err == nil {
					t.Fatalf("got an answer: %d", r.StatusCode)
				}
			}
			<-stopped
			eventually(t, "the receipt", func() bool { return len(g.receipts()) == 1 })
			if r := g.receipts()[0]; r.Status != string(auditlog.StatusCancelled) || r.Cost != 10+2*5 {
				t.Errorf("receipt: got %s over %d nano, want cancelled over 20", r.Status, r.Cost)
			}
			k.engine.script(say(1, nil))
			if r := g.post(chat(true, nil)); text(t, r) != answer(1, true) {
				t.Error("the next request fails")
			}
		})
	}
}

func TestFailureBeforeTheFirstTokenGoesElsewhere(t *testing.T) {
	w := newWorld(t)
	bad, good := w.worker(0), w.worker(1)
	calls := 0
	bad.engine.script(func(context.Context, engine.Request, engine.Sink) (engine.Result, error) {
		calls++
		return engine.Result{}, errors.New("out of memory")
	})
	g := w.proxy(settings{}, bad.addr, good.addr)
	eventually(t, "two workers", func() bool { m := g.router.Models(); return len(m) == 1 && len(m[0].Workers) == 2 })
	for calls == 0 {
		r := g.post(chat(true, nil))
		if got := text(t, r); got != answer(3, true) || r.Header.Get("X-Cocoon-Worker") != good.id.String() {
			t.Fatalf("got %d %q from %s", r.StatusCode, got, r.Header.Get("X-Cocoon-Worker"))
		}
	}
	// With nowhere to go, the one that tried says why.
	good.engine.script(func(context.Context, engine.Request, engine.Sink) (engine.Result, error) {
		return engine.Result{}, errors.New("out of memory")
	})
	for _, streamed := range []bool{true, false} {
		wantFailure(t, g.post(chat(streamed, nil)), 502, "engine.failed")
	}
}

func TestAfterTheFirstTokenNothingIsRetried(t *testing.T) {
	w := newWorld(t)
	k, other := w.worker(0), w.worker(1)
	dies := func(ctx context.Context, req engine.Request, s engine.Sink) (engine.Result, error) {
		_, err := say(4, func(_ context.Context, i int) error {
			if i == 3 {
				return errors.New("the engine died")
			}
			return nil
		})(ctx, req, s)
		return engine.Result{}, err
	}
	k.engine.script(dies)
	other.engine.script(dies)
	g := w.proxy(settings{}, k.addr, other.addr)
	r := g.post(chat(true, nil))
	body := text(t, r)
	parts := strings.Split(strings.TrimSuffix(body, "\n\n"), "\n\n")
	if len(parts) != 4 || strings.Contains(body, "[DONE]") {
		t.Fatalf("got %q, want three tokens and an error", body)
	}
	if _, code, _, _ := failure(t, strings.TrimPrefix(parts[3], "data: ")); code != "engine.failed" {
		t.Errorf("got code %s, want engine.failed", code)
	}
	if got := r.Trailer.Get("X-Cocoon-Cost"); got != "16" {
		t.Errorf("cost: got %q, want 16", got)
	}
	if n := len(g.receipts()); n != 1 {
		t.Errorf("got %d receipts, want 1", n)
	}

	// Held until its end, the same answer is an error that must not be retried.
	k.engine.script(dies)
	r = g.post(chat(false, nil))
	if r.Header.Get("X-Should-Retry") != "false" || r.Header.Get("X-Cocoon-Cost") != "16" {
		t.Errorf("got headers %v, want a cost of 16 and no retry", r.Header)
	}
	wantFailure(t, r, 502, "engine.failed")
}

func TestWorkerDiesAndComesBack(t *testing.T) {
	w := newWorld(t)
	k := w.worker(0)
	g := w.proxy(settings{}, k.addr)
	if got := text(t, g.post(chat(true, nil))); got != answer(3, true) {
		t.Fatalf("got %q", got)
	}
	before := g.receipts()[0]
	k.engine.script(say(100, func(ctx context.Context, i int) error {
		if i == 2 {
			k.quit()
			<-ctx.Done()
			return ctx.Err()
		}
		return nil
	}))
	body := text(t, g.post(chat(true, nil)))
	if !strings.Contains(body, `data: {"error":`) || strings.Contains(body, "[DONE]") {
		t.Errorf("cut off: got %q, want an error event at the end", body)
	}
	if err := k.stop(); err != nil {
		t.Fatal(err)
	}
	k.engine.script(say(3, nil))
	k.start()
	if got := text(t, g.post(chat(true, nil))); got != answer(3, true) {
		t.Fatalf("after the restart: got %q", got)
	}
	list := g.receipts()
	last := list[len(list)-1]
	if len(list) < 2 || list[0].Channel != last.Channel {
		t.Errorf("receipts: got %d, want them on one channel", len(list))
	}
	if w.chain.opened != 1 {
		t.Errorf("opened %d channels, want 1", w.chain.opened)
	}
	if before.LogID == last.LogID && len(list) == 2 {
		t.Error("the restarted worker went on with its old log")
	}
}

func TestProxyRestartGoesOn(t *testing.T) {
	w := newWorld(t)
	k := w.worker(0)
	for i := range 3 {
		g := w.proxy(settings{}, k.addr)
		if got := text(t, g.post(chat(false, nil))); got != answer(3, false) {
			t.Fatalf("start %d: got %q", i, got)
		}
		if n := len(g.receipts()); n != i+1 {
			t.Errorf("start %d: got %d receipts", i, n)
		}
		if err := g.stop(); err != nil {
			t.Fatal(err)
		}
	}
	if w.chain.opened != 1 {
		t.Errorf("opened %d channels, want 1", w.chain.opened)
	}
}

func TestShapedAnswer(t *testing.T) {
	w := newWorld(t)
	k := w.worker(0)
	k.engine.script(say(300, nil)) // past the first window
	g := w.proxy(settings{session: func(c *session.Config) { c.Shape = channel.ShapeOn }}, k.addr)
	if got := text(t, g.post(chat(true, map[string]any{"user": strings.Repeat("u", 3000)}))); got != answer(300, true) {
		t.Errorf("got %d bytes, want %d", len(got), len(answer(300, true)))
	}
}

func TestLongBody(t *testing.T) {
	w := newWorld(t)
	k := w.worker(0)
	size := 0
	k.engine.script(func(ctx context.Context, req engine.Request, s engine.Sink) (engine.Result, error) {
		size = len(req.Body)
		return say(1, nil)(ctx, req, s)
	})
	g := w.proxy(settings{}, k.addr)
	body := chat(true, map[string]any{"messages": []map[string]string{{"role": "user", "content": strings.Repeat("x", 1<<20)}}})
	if got := text(t, g.post(body)); got != answer(1, true) || size != len(body) {
		t.Errorf("got %q and a body of %d bytes, want %d", got, size, len(body))
	}
}

func TestNothingIsSpentBeyondTheCap(t *testing.T) {
	w := newWorld(t)
	k := w.worker(0)
	ran := false
	k.engine.script(func(ctx context.Context, req engine.Request, s engine.Sink) (engine.Result, error) {
		ran = true
		return say(3, nil)(ctx, req, s)
	})
	g := w.proxy(settings{proxy: func(c *proxy.Config) { c.MaxSpendPerRequest = 1000 }}, k.addr)
	r := g.post(chat(true, map[string]any{"max_tokens": 400})) // 256 prompt tokens at 1 nano, 400 at 2
	if got := r.Header.Get("X-Should-Retry"); got != "false" {
		t.Errorf("x-should-retry: got %q, want false", got)
	}
	message := wantFailure(t, r, 402, "max_spend_exceeded")
	for _, number := range []string{"256 prompt", "400 completion", "1056 nano", "1000 nano are allowed"} {
		if !strings.Contains(message, number) {
			t.Errorf("message %q does not say %q", message, number)
		}
	}
	if ran || len(g.receipts()) != 0 {
		t.Error("something was sent")
	}
	if got := text(t, g.post(chat(true, map[string]any{"max_tokens": 372}))); got != answer(3, true) {
		t.Errorf("within the cap: got %q", got)
	}
	if got := text(t, g.post(chat(true, nil))); got != answer(3, true) { // the default ceiling is lowered to the cap
		t.Errorf("without a ceiling: got %q", got)
	}
}

func TestChannelThatCannotPay(t *testing.T) {
	w := newWorld(t)
	k := w.worker(0)
	g := w.proxy(settings{session: func(c *session.Config) { c.Deposit = 2e8 }}, k.addr)
	if got := text(t, g.post(chat(true, nil))); got != answer(3, true) {
		t.Fatalf("got %q", got)
	}
	ask := map[string]any{"messages": []map[string]string{{"role": "user", "content": strings.Repeat("x", 1000)}}}
	w.chain.edit(func(_ attestation.Address, v *enclave.ChannelView) { v.Balance = 2e8 + 2e7 })
	// Prices rise until the deposit does not cover a prompt.
	w.chain.mu.Lock()
	rec := w.chain.records[k.id]
	rec.Prices[0].Prices.Prompt = 1e12
	w.chain.mu.Unlock()
	if err := g.stop(); err != nil {
		t.Fatal(err)
	}
	var later atomic.Int64
	g = w.proxy(settings{session: func(c *session.Config) {
		c.Now = func() time.Time { return time.Now().Add(time.Duration(later.Load())) }
	}}, k.addr)
	message := wantFailure(t, g.post(chat(true, ask)), 402, "insufficient_quota")
	if !strings.Contains(message, "top it up") {
		t.Errorf("got %q, want it to say what to do", message)
	}
	w.chain.edit(func(_ attestation.Address, v *enclave.ChannelView) { v.Balance = 1e12 })
	later.Store(int64(10 * time.Second)) // the chain is not asked each time
	if got := text(t, g.post(chat(true, nil))); got != answer(3, true) {
		t.Errorf("after a deposit: got %q", got)
	}
}

func TestUnverifiedWorkerGetsNothing(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(w *world, k *worker)
		check string
	}{
		"a release that is not in the registry": {func(w *world, k *worker) { delete(w.chain.entries, w.release.Digest()) }, "image.allowed"},
		"another machine":                       {func(w *world, k *worker) { r := w.chain.records[k.id]; r.PlatformID[0] ^= 1; w.chain.records[k.id] = r }, "binding.platform"},
		"another payout":                        {func(w *world, k *worker) { r := w.chain.records[k.id]; r.Payout = client; w.chain.records[k.id] = r }, "binding.payout"},
		"no record":                             {func(w *world, k *worker) { delete(w.chain.records, k.id) }, "binding.p"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			k := w.worker(0)
			ran := false
			k.engine.script(func(context.Context, engine.Request, engine.Sink) (engine.Result, error) {
				ran = true
				return engine.Result{}, errors.New("no")
			})
			c.spoil(w, k)
			g := w.proxy(settings{}, k.addr)
			r := g.post(chat(true, nil))
			if r.Header.Get("Retry-After") == "" {
				t.Error("no retry-after")
			}
			if message := wantFailure(t, r, 503, "no_verified_worker"); !strings.Contains(message, c.check) {
				t.Errorf("message %q does not name %s", message, c.check)
			}
			var evidence struct {
				Data []struct {
					State, Verdict string
					Complete       bool
				}
			}
			if err := json.Unmarshal([]byte(text(t, g.get("/v1/attestation"))), &evidence); err != nil {
				t.Fatal(err)
			}
			if len(evidence.Data) != 1 || evidence.Data[0].State != "refused" || evidence.Data[0].Verdict == "accepted" && evidence.Data[0].Complete {
				t.Errorf("attestation: got %+v", evidence)
			}
			if ran || w.chain.opened != 0 {
				t.Error("it got a job, or a channel")
			}
		})
	}
}

func TestWorkersRefusalsPassThrough(t *testing.T) {
	w := newWorld(t)
	k := w.worker(0)
	g := w.proxy(settings{}, k.addr)
	r := g.post(chat(true, map[string]any{"frobnicate": 1}))
	body := text(t, r)
	if _, code, param, _ := failure(t, body); r.StatusCode != 400 || code != "unknown_parameter" || param != "frobnicate" {
		t.Errorf("got %d %s", r.StatusCode, body)
	}
	if list := g.receipts(); len(list) != 1 || list[0].Cost != 0 || list[0].Status != string(auditlog.StatusRefused) {
		t.Errorf("receipts: got %+v, want one refusal, free", list)
	}
}

func TestNewEpochsAreVerifiedWithoutAPause(t *testing.T) {
	w := newWorld(t)
	k := w.workerWith(0, func(c *enclave.Config) { c.EpochLength = 2 * time.Second })
	hold, held := make(chan struct{}), make(chan struct{})
	k.engine.script(say(3, func(_ context.Context, i int) error {
		if i == 1 {
			close(held)
			<-hold
		}
		return nil
	}))
	g := w.proxy(settings{}, k.addr)
	long := make(chan string, 1)
	go func() { long <- text(t, g.post(chat(true, nil))) }()
	<-held
	k.engine.script(say(3, nil))
	epochs := map[attestation.Digest]bool{}
	n := 1
	for len(epochs) < 3 {
		r := g.post(chat(true, nil))
		if got := text(t, r); got != answer(3, true) {
			t.Fatalf("in epoch %d: got %d %q", len(epochs), r.StatusCode, got)
		}
		n++
		epochs[g.router.Workers()[0].Result.Bundle] = true
	}
	close(hold) // opened under the first epoch's keys, which it pins
	if got := <-long; got != answer(3, true) {
		t.Errorf("across epochs: got %q", got)
	}
	list := g.receipts()
	if len(list) != n {
		t.Errorf("got %d receipts, want %d", len(list), n)
	}
	if w.chain.opened != 1 {
		t.Errorf("opened %d channels, want 1", w.chain.opened)
	}
}

func TestNothingSaysWhatWasSaid(t *testing.T) {
	w := newWorld(t)
	k := w.worker(0)
	secret := "xyzzy-prompt-words"
	k.engine.script(func(ctx context.Context, req engine.Request, s engine.Sink) (engine.Result, error) {
		if err := s.Start(10, 0); err != nil {
			return engine.Result{}, err
		}
		if err := s.Write([]byte(event("plugh-answer-words")), engine.Usage{Prompt: 10}); err != nil {
			return engine.Result{}, err
		}
		if strings.Contains(string(req.Body), "panic") {
			panic("at " + string(req.Body))
		}
		return engine.Result{}, errors.New("failed at " + string(req.Body))
	})
	g := w.proxy(settings{}, k.addr)
	for _, more := range []string{"", " panic"} {
		body := text(t, g.post(chat(true, map[string]any{"messages": []map[string]string{{"role": "user", "content": secret + more}}})))
		if !strings.Contains(body, "plugh-answer-words") || strings.Contains(body, secret) {
			t.Errorf("answer: got %q", body)
		}
	}
	g.post([]byte(`{"model":"` + secret + `"`))
	if err := g.stop(); err != nil {
		t.Fatal(err)
	}
	seen := 0
	err := filepath.WalkDir(w.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		seen += len(b)
		for _, s := range []string{secret, "plugh-answer-words", token} {
			if strings.Contains(string(b), s) {
				t.Errorf("%s holds %q", path, s)
			}
		}
		return err
	})
	if err != nil || seen == 0 {
		t.Fatalf("ledger: read %d bytes, %v", seen, err)
	}
	all := w.log.String()
	if !strings.Contains(all, `"request"`) {
		t.Error("no request was logged")
	}
	for _, s := range []string{secret, "plugh-answer-words", token, "secret prompt"} {
		if strings.Contains(all, s) {
			t.Errorf("the log holds %q", s)
		}
	}
}

func TestNothingIsLeftRunning(t *testing.T) {
	w := soloWorld(t)
	k := w.worker(0)
	k.engine.script(say(50, func(ctx context.Context, i int) error {
		if i == 10 {
			<-ctx.Done()
			return ctx.Err()
		}
		return nil
	}))
	g := w.proxy(settings{proxy: func(c *proxy.Config) { c.Grace = time.Millisecond }}, k.addr)
	r := g.post(chat(true, nil))
	lines := bufio.NewScanner(r.Body)
	if !lines.Scan() {
		t.Fatal("no answer")
	}
	if err := g.stop(); err != nil { // in mid-stream
		t.Fatal(err)
	}
	r.Body.Close()
	l, err := ledger.Open(ledger.Config{Dir: w.dir, Now: time.Now, Rand: zeros{}})
	if err != nil {
		t.Fatal(err)
	}
	list, err := l.Receipts(context.Background(), ledger.Query{})
	if err != nil || len(list) != 1 || list[0].Status != string(auditlog.StatusCancelled) {
		t.Errorf("receipts: got %+v, %v, want the cancelled job's", list, err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all goroutines to end", func() bool {
		return running("cocoon/proxy.", "cocoon/proxy/", "net/http.(*conn)", "enclave/api.(*Client)", "attestation/channel.(*Pacer)") == ""
	})
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }
