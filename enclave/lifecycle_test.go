package enclave_test

import (
	"context"
	"crypto/ed25519"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"cocoon/attestation"
	"cocoon/attestation/auditlog"
	"cocoon/attestation/auditlog/writer"
	"cocoon/attestation/channel"
	"cocoon/attestation/softtee"
	"cocoon/contracts"
	"cocoon/enclave"
	"cocoon/enclave/api"
	"cocoon/enclave/engine"
)

// events hears what the worker logs.
type events struct {
	slog.Handler
	mu   sync.Mutex
	cond *sync.Cond
	seen map[string]int
}

func (w *world) listen() *events {
	e := &events{Handler: slog.DiscardHandler, seen: map[string]int{}}
	e.cond = sync.NewCond(&e.mu)
	before := w.edit
	w.edit = func(c *enclave.Config) {
		if before != nil {
			before(c)
		}
		c.Logger = slog.New(e)
	}
	return e
}

func (e *events) Enabled(context.Context, slog.Level) bool { return true }

func (e *events) Handle(_ context.Context, r slog.Record) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.seen[r.Message]++
	e.cond.Broadcast()
	return nil
}

// await waits until code was logged n times in all.
func (e *events) await(code string, n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for e.seen[code] < n {
		e.cond.Wait()
	}
}

// record keeps the entries of the worker's log beside the real one.
type record struct {
	enclave.Log
	mu      sync.Mutex
	entries []auditlog.Entry
	fail    error
}

func (r *record) Append(ctx context.Context, e auditlog.Entry) (uint64, error) {
	r.mu.Lock()
	fail := r.fail
	r.mu.Unlock()
	if fail != nil {
		return 0, fail
	}
	i, err := r.Log.Append(ctx, e)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.entries = append(r.entries, e)
	return i, err
}

func (r *record) all() []auditlog.Entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.entries)
}

func (w *world) record() *record {
	r := &record{}
	before := w.edit
	w.edit = func(c *enclave.Config) {
		if before != nil {
			before(c)
		}
		store, interval := c.Store, c.LogInterval
		c.OpenLog = func(ctx context.Context, key ed25519.PrivateKey) (enclave.Log, error) {
			id := attestation.LogID([32]byte(key.Public().(ed25519.PublicKey)))
			l, err := writer.Open(ctx, writer.Config{Dir: store.LogDir(id), Key: key, Interval: interval})
			r.Log = l
			return r, err
		}
	}
	return r
}

var cancelFrame = channel.Frame{Type: channel.FrameCancel}

// flaky is a machine that gives no quotes while its error is set.
type flaky struct {
	*softtee.Machine
	mu  sync.Mutex
	err error
}

func (f *flaky) set(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

func (f *flaky) Quote(ctx context.Context, data [64]byte) (attestation.CPUEvidence, error) {
	f.mu.Lock()
	err := f.err
	f.mu.Unlock()
	if err != nil {
		return attestation.CPUEvidence{}, err
	}
	return f.Machine.Quote(ctx, data)
}

// lossy is a host that keeps no receipts.
type lossy struct {
	enclave.HostStore
	err error
}

func (l lossy) PutReceipts(context.Context, [32]byte, attestation.Address, uint64, [][]byte) error {
	return l.err
}

// nextEpoch is when a second epoch is due: a minute before the first, which is
// dated back by half a minute, ends.
const nextEpoch = 8*time.Minute + 30*time.Second

func TestRollover(t *testing.T) {
	w := newWorld(t)
	log, heard := w.record(), w.listen()
	w.run()
	c := w.connect(t)
	ended := make(chan engine.Usage, 1)
	w.engine.script(endless(ended))
	r := c.begin(c.params(chat("x")))
	r.until(5)

	w.clock.await(nextEpoch)
	w.clock.advance(nextEpoch)
	heard.await("epoch.begun", 2)
	next := w.connectAs(t, c.key, c.channel)
	if a, b := c.verified.Keyset(), next.verified.Keyset(); b.Epoch != a.Epoch+1 || b.SigningPublicKey == a.SigningPublicKey || b.TLSSPKISHA256 == a.TLSSPKISHA256 || b.LogPublicKey != a.LogPublicKey {
		t.Errorf("second keyset: got epoch %d after %d", b.Epoch, a.Epoch)
	}
	// The job ends under the keyset that it pinned.
	r.frame(cancelFrame)
	<-ended
	if got := r.finish(); got.KeysetDigest != c.verified.KeysetDigest() || got.Cost != 18 {
		t.Errorf("receipt: got %+v", got)
	}
	next.tree, next.spent = c.tree, c.spent
	w.engine.script(nil)
	next.begin(next.params(chat("x"))).finish()
	c.tree, c.spent = next.tree, next.spent

	// Until 60 s after not_after, jobs under the old keyset still open.
	late := c.params(chat("x"))
	if got := c.begin(late).finish(); got.Status != auditlog.StatusOK {
		t.Errorf("receipt: got %+v", got)
	}
	p := c.params(chat("x"))
	job, open := c.seal(p)
	w.clock.advance(2 * time.Minute)              // 9:30 + 60 s have passed
	w.clock.await(10*time.Minute + 2*time.Second) // the HPKE key is gone
	_, err := c.send(p, job, open).stream.Recv()
	wantRefusal(t, err, "open.key-gone")

	w.clock.advance(10*time.Minute + 2*time.Second)
	heard.await("epoch.closed", 1)
	_, err = c.conn.Client.Attest(t.Context(), &api.AttestRequest{Nonce: [32]byte{1}})
	wantRefusal(t, err, "attest.epoch")
	entries := log.all()
	closed := slices.Index(entries, auditlog.Entry(auditlog.EpochClosedEntry{Epoch: 1}))
	if closed < 0 {
		t.Fatalf("the log has no leaf that closes epoch 1: %v", entries)
	}
	if _, ok := entries[0].(auditlog.PredecessorEntry); !ok {
		t.Errorf("first leaf: got %T, want the predecessor", entries[0])
	}
	want := auditlog.KeysetEntry{Epoch: 1, Keyset: c.verified.KeysetDigest(), Bundle: c.verified.BundleDigest()}
	if entries[1] != auditlog.Entry(want) {
		t.Errorf("second leaf: got %+v, want %+v", entries[1], want)
	}
}

func TestEpochIsTriedAgain(t *testing.T) {
	w := newWorld(t)
	broken := &flaky{Machine: w.machine}
	w.edit = func(c *enclave.Config) { c.Evidence = broken }
	heard := w.listen()
	w.run()
	broken.set(errors.New("no quote now"))
	w.clock.await(nextEpoch)
	w.clock.advance(nextEpoch)
	heard.await("epoch.failed", 1)
	w.connect(t) // the old epoch serves on
	broken.set(nil)
	w.clock.await(2 * time.Second)
	w.clock.advance(2 * time.Second)
	heard.await("epoch.begun", 2)
	if c := w.connect(t); c.verified.Keyset().Epoch != 2 {
		t.Errorf("epoch: got %d, want 2", c.verified.Keyset().Epoch)
	}
}

func TestRestartKeepsWhatWasSpent(t *testing.T) {
	w := newWorld(t)
	log := w.record()
	w.launch()
	c := w.connect(t)
	first := c.begin(c.params(chat("x")))
	first.finish()
	before := w.boot
	if err := w.shutdown(); err != nil {
		t.Fatal(err)
	}
	entries := uint64(len(log.all()))
	log = w.record()
	w.run()
	if w.boot.Number != before.Number+1 || w.boot.LogID == before.LogID {
		t.Errorf("second boot: got %+v after %+v", w.boot, before)
	}
	pred, ok := log.all()[0].(auditlog.PredecessorEntry)
	if !ok || pred.LogID != before.LogID || pred.Size != entries { // its last leaf closed the epoch
		t.Errorf("first leaf: got %+v, want log %x of %d", pred, before.LogID[:4], entries)
	}
	again := w.connectAs(t, c.key, c.channel)
	st, err := again.receipts(0)
	if err != nil {
		t.Fatal(err)
	}
	if !cmp.Equal(st.Base, first.p.request.Voucher) || !cmp.Equal(st.Highest, st.Base) || st.BasePaid != 0 || st.Settled != 0 || st.Count != 0 {
		t.Errorf("receipts: got %+v, want the voucher of the boot before as its base", st)
	}
	// The old voucher buys nothing a second time, unused though most of it was.
	var base contracts.SignedVoucher
	if err := base.UnmarshalBinary(st.Base); err != nil {
		t.Fatal(err)
	}
	again.base = base.Voucher.ReceiptsHead
	r := again.begin(again.params(chat("x")))
	if got := r.finish(); got.Status != auditlog.StatusRefused || r.fault.Code != "credit.short" {
		t.Errorf("receipt: got %+v, fault %v", got, r.fault)
	}
	again.spent = base.Voucher.Cumulative
	if got := again.begin(again.params(chat("x"))).finish(); got.Status != auditlog.StatusOK || got.Index != 1 {
		t.Errorf("receipt: got %+v", got)
	}
}

func TestChainPaidBeyondTheStore(t *testing.T) {
	w := newWorld(t).run()
	key, addr := w.fund(1e9)
	w.chain.change(addr, func(v *enclave.ChannelView) { v.State.Paid = 5000 })
	c := w.connectAs(t, key, addr)
	c.spent = 5000
	r := c.begin(c.params(chat("x")))
	if got := r.finish(); got.Status != auditlog.StatusOK || r.hello.BasePaid != 5000 || len(r.hello.Base) != 0 {
		t.Errorf("hello: got %+v, receipt %+v", r.hello, got)
	}
}

// stored is the cumulative amount of the channel's voucher at the host.
func (w *world) stored(t *testing.T, a attestation.Address) uint64 {
	t.Helper()
	all, err := w.store.Vouchers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if all[a] == nil {
		return 0
	}
	var v contracts.SignedVoucher
	if err := v.UnmarshalBinary(all[a]); err != nil {
		t.Fatal(err)
	}
	return v.Voucher.Cumulative
}

func TestVouchersReachTheHost(t *testing.T) {
	paid := func(t *testing.T, w *world) *client {
		c := w.connect(t)
		c.begin(c.params(chat("x"))).finish()
		if got := w.stored(t, c.channel); got != 0 {
			t.Fatalf("the host holds %d before any flush", got)
		}
		return c
	}
	t.Run("on the timer", func(t *testing.T) {
		w := newWorld(t)
		w.edit = func(c *enclave.Config) { c.VoucherFlush = 30 * time.Second }
		w.run()
		c := paid(t, w)
		w.clock.await(30 * time.Second)
		w.clock.advance(30 * time.Second)
		for w.stored(t, c.channel) != windowCost(1) {
			w.clock.await(30 * time.Second) // the next round's timer is set after this round's flush
		}
	})
	t.Run("when the client starts a close", func(t *testing.T) {
		w := newWorld(t)
		w.edit = func(c *enclave.Config) { c.VoucherFlush = time.Hour }
		heard := w.listen()
		w.run()
		c := paid(t, w)
		w.chain.change(c.channel, func(v *enclave.ChannelView) { v.State.CloseAt = 99 })
		w.clock.await(time.Minute)
		w.clock.advance(time.Minute)
		heard.await("channel.closing", 1)
		for w.stored(t, c.channel) != windowCost(1) {
			w.clock.await(time.Minute)
		}
		_, err := c.begin(c.params(chat("x"))).stream.Recv()
		wantRefusal(t, err, "channel.refused")
		if st, err := c.receipts(0); err != nil || st.Count != 1 {
			t.Errorf("receipts of a closing channel: got %+v, %v", st, err)
		}
	})
}

func TestTopUpIsSeenWhenAVoucherNeedsIt(t *testing.T) {
	w := newWorld(t).run()
	key, addr := w.fund(contracts.MinDeposit)
	c := w.connectAs(t, key, addr)
	c.begin(c.params(chat("x"))).finish()
	w.chain.change(addr, func(v *enclave.ChannelView) { v.Balance += 1000 })
	p := c.params(chat("x"))
	p.request.Voucher = c.voucher(contracts.MinDeposit + 1000)
	if got := c.begin(p).finish(); got.Status != auditlog.StatusOK {
		t.Errorf("receipt: got %+v", got)
	}
}

// A boot whose receipts can no longer be made durable ends.
func TestDurabilityFails(t *testing.T) {
	broken := errors.New("disk is gone")
	t.Run("log", func(t *testing.T) {
		w := newWorld(t)
		log := w.record()
		w.launch()
		c := w.connect(t)
		log.mu.Lock()
		log.fail = broken
		log.mu.Unlock()
		r := c.begin(c.params(chat("x")))
		for err := error(nil); err == nil; {
			_, err = r.next()
		}
		if err := <-w.done; !errors.Is(err, broken) {
			t.Errorf("serve: got %v, want %v", err, broken)
		}
	})
	t.Run("store", func(t *testing.T) {
		w := newWorld(t)
		w.edit = func(c *enclave.Config) { c.Store = lossy{c.Store, broken} }
		w.launch()
		c := w.connect(t)
		r := c.begin(c.params(chat("x")))
		for err := error(nil); err == nil; {
			_, err = r.next()
		}
		if err := <-w.done; !errors.Is(err, broken) {
			t.Errorf("serve: got %v, want %v", err, broken)
		}
	})
}

func TestShutdown(t *testing.T) {
	t.Run("lets jobs finish", func(t *testing.T) {
		w := newWorld(t)
		heard := w.listen()
		w.launch()
		c := w.connect(t)
		free := make(chan struct{})
		w.engine.script(func(ctx context.Context, req engine.Request, s engine.Sink) (engine.Result, error) {
			<-free
			return say("one ")(ctx, req, s)
		})
		r := c.begin(c.params(chat("x")))
		if _, err := r.next(); err != nil {
			t.Fatal(err)
		}
		w.quit()
		heard.await("worker.draining", 1)
		_, err := c.begin(c.params(chat("y"))).stream.Recv()
		wantRefusal(t, err, "worker.draining")
		close(free)
		if got := r.finish(); got.Status != auditlog.StatusOK {
			t.Errorf("receipt: got %+v", got)
		}
		if err := <-w.done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	t.Run("ends those that do not", func(t *testing.T) {
		w := newWorld(t)
		log := w.record()
		w.launch()
		c := w.connect(t)
		ended := make(chan engine.Usage, 1)
		w.engine.script(endless(ended))
		r := c.begin(c.params(chat("x")))
		r.until(5)
		w.quit()
		w.clock.await(30 * time.Second)
		w.clock.advance(30 * time.Second)
		<-ended
		if got := r.finish(); got.Status != auditlog.StatusAborted || got.Cost != 18 || r.fault.Code != "worker.stopped" {
			t.Errorf("receipt: got %+v, fault %v", got, r.fault)
		}
		if err := <-w.done; err != nil {
			t.Errorf("serve: %v", err)
		}
		entries := log.all()
		if last := entries[len(entries)-1]; last != auditlog.Entry(auditlog.EpochClosedEntry{Epoch: 1}) {
			t.Errorf("last leaf: got %+v, want the epoch's end", last)
		}
	})
}

func TestWorkerHasSlots(t *testing.T) {
	w := newWorld(t)
	w.edit = func(c *enclave.Config) { c.MaxJobs = 1 }
	w.run()
	c := w.connect(t)
	ended := make(chan engine.Usage, 1)
	w.engine.script(endless(ended))
	r := c.begin(c.params(chat("x")))
	r.until(5)
	_, err := c.begin(c.params(chat("y"))).stream.Recv()
	wantRefusal(t, err, "worker.full")
	r.frame(cancelFrame)
	<-ended
	r.finish()
}

func TestCacheSaltSeparatesClients(t *testing.T) {
	w := newWorld(t).run()
	salts := make(chan string, 1)
	w.engine.script(func(ctx context.Context, req engine.Request, s engine.Sink) (engine.Result, error) {
		salts <- req.CacheSalt
		return say("x")(ctx, req, s)
	})
	ask := func(c *client, salt [32]byte) string {
		p := c.params(chat("x"))
		p.request.CacheSalt = salt
		c.begin(p).finish()
		return <-salts
	}
	a, b := w.connect(t), w.connect(t)
	first := ask(a, [32]byte{1})
	if again := ask(a, [32]byte{1}); again != first || len(first) != 64 {
		t.Errorf("one client's salt: got %s, then %s", first, again)
	}
	if other := ask(a, [32]byte{2}); other == first {
		t.Errorf("two API keys share a salt")
	}
	if other := ask(b, [32]byte{1}); other == first {
		t.Errorf("two channels share a salt")
	}
}
