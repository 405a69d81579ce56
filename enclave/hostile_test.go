package enclave_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"cocoon/attestation"
	"cocoon/attestation/auditlog"
	"cocoon/attestation/channel"
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
				return // each try is a round trip to the worker
			}
		}
	}()
	w.stall(free)
}

// Refusals are free, but not without end, and not at another channel's cost.
func TestFreeRefusalsAreRationed(t *testing.T) {
	w := newWorld(t).run()
	c := w.connect(t)
	refuse := func() error {
		p := c.params(chat("x"))
		p.request.Endpoint = "embeddings"
		r := c.begin(p)
		for {
			f, err := r.next()
			if err != nil {
				return err
			}
			if f.Last {
				return nil
			}
		}
	}
	var err error
	n := 0
	for ; err == nil && n < 1000; n++ {
		err = refuse()
	}
	wantRefusal(t, err, "channel.refusals")
	if n < 50 || n > 200 {
		t.Errorf("got %d refusals, want about 128", n)
	}
	c.tree, c.spent = auditlog.HeadTree{}, 0
	_, err = c.begin(c.params(chat("x"))).next()
	wantRefusal(t, err, "channel.refusals")
	other := w.connect(t)
	if got := other.begin(other.params(chat("x"))).finish(); got.Status != auditlog.StatusOK {
		t.Errorf("another channel: got %+v", got)
	}
	w.clock.advance(time.Second)
	if err := refuse(); err != nil {
		t.Errorf("a second later: %v", err)
	}
	for range 300 { // paid jobs are not counted
		if got := other.begin(other.params(chat("x"))).finish(); got.Status != auditlog.StatusOK {
			t.Fatalf("a paid job: got %+v", got)
		}
	}
}

// slowChain holds lookups of channels that it does not have.
type slowChain struct {
	*fakeChain
	held chan struct{}
	free chan struct{}
}

func (c *slowChain) Channel(ctx context.Context, a attestation.Address) (enclave.ChannelView, error) {
	c.mu.Lock()
	_, ok := c.channels[a]
	c.mu.Unlock()
	if !ok {
		c.held <- struct{}{}
		select {
		case <-c.free:
		case <-ctx.Done():
		}
	}
	return c.fakeChain.Channel(ctx, a)
}

func TestStrangersLookupsHoldUpNoClient(t *testing.T) {
	w := newWorld(t)
	slow := &slowChain{fakeChain: w.chain, held: make(chan struct{}, 64), free: make(chan struct{})}
	w.edit = func(c *enclave.Config) { c.Chain, c.MaxJobs = slow, 1 }
	w.run()
	c := w.connect(t)
	if _, err := c.receipts(0); err != nil { // served from here on
		t.Fatal(err)
	}
	key, _ := w.fund(1)
	ask := func(conn *client, n byte) error {
		stranger := *conn
		stranger.channel = attestation.NewAddress(0, [32]byte{n, 0xbb})
		_, err := stranger.receipts(0)
		return err
	}
	var done sync.WaitGroup
	for n := range 4 {
		stranger := w.connectAs(t, key, c.channel)
		done.Go(func() { _ = ask(stranger, byte(n)) })
		<-slow.held
		if n == 0 { // one connection, one lookup
			wantRefusal(t, ask(stranger, 0xff), "channel.busy")
		}
	}
	w.chain.change(c.channel, func(v *enclave.ChannelView) { v.Balance += 1e9 })
	p := c.params(chat("x"))
	p.request.Voucher = c.voucher(1e9 + 1) // beyond the deposit that is known
	if got := c.begin(p).finish(); got.Status != auditlog.StatusOK {
		t.Errorf("a client that topped up: got %+v", got)
	}
	close(slow.free)
	done.Wait()
}

func TestBodyThatDoesNotCome(t *testing.T) {
	w := newWorld(t).run()
	c := w.connect(t)
	p := c.params(nil)
	p.request.BodyDone = false
	r := c.begin(p)
	if _, err := r.next(); err != nil {
		t.Fatal(err)
	}
	w.clock.await(45 * time.Second)
	w.clock.advance(45 * time.Second)
	if got := r.finish(); got.Status != auditlog.StatusAborted || got.Cost != 0 || r.fault == nil || r.fault.Code != "body.timeout" {
		t.Errorf("receipt: got %+v, fault %v", got, r.fault)
	}
}

func TestBodiesAreBoundedTogether(t *testing.T) {
	w := newWorld(t).run()
	c := w.connect(t)
	part := make([]byte, 250<<10)
	fill := func() *run {
		p := c.params(part)
		p.request.BodyDone = false
		p.request.Voucher = c.voucher(3 * windowCost(1))
		r := c.begin(p)
		for range 129 {
			r.frame(channel.Frame{Type: channel.FrameBody, Data: part})
		}
		return r
	}
	// Which of the three goes over the bound depends on whose frames arrive last.
	ended := make(chan *run)
	runs := map[*run]bool{}
	for range 3 {
		r := fill()
		runs[r] = true
		go func() {
			for {
				if f, err := r.next(); err != nil {
					t.Error(err)
					break
				} else if f.Last {
					break
				}
			}
			ended <- r
		}()
	}
	third := <-ended
	delete(runs, third)
	third.check()
	if got := third.r; got.Status != auditlog.StatusAborted && got.Status != auditlog.StatusRefused || third.fault == nil || third.fault.Code != "worker.memory" {
		t.Errorf("receipt: got %+v, fault %v", got, third.fault)
	}
	for r := range runs {
		r.frame(cancelFrame)
		if got := <-ended; got != r || got.fault != nil && got.fault.Code == "worker.memory" {
			t.Errorf("more than one of three bodies was refused: %v", got.fault)
		}
		r.check()
	}
	if got := c.begin(c.params(chat("x"))).finish(); got.Status != auditlog.StatusOK {
		t.Errorf("after the bodies are gone: got %+v", got)
	}
}

func TestFramesWithoutEnd(t *testing.T) {
	w := newWorld(t)
	w.edit = func(c *enclave.Config) { c.JobCeiling = time.Second }
	w.run()
	c := w.connect(t)
	ended := make(chan engine.Usage, 1)
	w.engine.script(endless(ended))
	r := c.begin(c.params(chat("x")))
	for range 5000 {
		r.frame(channel.Frame{Type: channel.FrameFiller})
	}
	<-ended
	if got := r.finish(); got.Status != auditlog.StatusAborted || r.fault == nil || r.fault.Code != "frames.many" {
		t.Errorf("receipt: got %+v, fault %v", got, r.fault)
	}
}

// The host sets the VM's clock, but not how fast its timers run.
func TestClockThatIsSetBackKeepsNoKey(t *testing.T) {
	w := newWorld(t)
	heard := w.listen()
	w.run()
	const hpkeEnd = 10*time.Minute + 30*time.Second // 9:30 and 60 s
	w.clock.await(hpkeEnd)
	w.clock.mu.Lock()
	w.clock.now = w.clock.now.Add(-24 * time.Hour)
	for x := range w.clock.timers {
		x.at = x.at.Add(-24 * time.Hour)
	}
	w.clock.mu.Unlock()
	w.clock.advance(hpkeEnd)
	w.clock.await(10*time.Minute + 2*time.Second)
	w.clock.advance(10*time.Minute + 2*time.Second)
	heard.await("epoch.closed", 1)
}

// An epoch that cannot be logged is not tried again for ever beside a dead log.
func TestLogThatDiesAtRolloverEndsTheBoot(t *testing.T) {
	w := newWorld(t)
	log := w.record()
	w.launch()
	log.mu.Lock()
	log.fail = errors.New("no space left on device")
	log.mu.Unlock()
	w.clock.await(nextEpoch)
	w.clock.advance(nextEpoch)
	if err := <-w.done; err == nil || !strings.Contains(err.Error(), "no space left on device") {
		t.Errorf("serve: got %v, want the log's error", err)
	}
}
