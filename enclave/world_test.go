package enclave_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"cocoon/attestation"
	"cocoon/attestation/softtee"
	"cocoon/contracts"
	"cocoon/enclave"
	"cocoon/enclave/engine"
	"cocoon/enclave/host"
)

const (
	network = -239
	model   = "toy"
)

var (
	start    = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	workerID = attestation.NewAddress(0, [32]byte{1})
	payoutTo = attestation.NewAddress(0, [32]byte{2})
	redeemer = attestation.NewAddress(0, [32]byte{3})
	prices   = attestation.Prices{Prompt: 1e6, Cached: 5e5, Completion: 2e6, Reasoning: 2e6} // 1, 1/2 and 2 nano a token
	toyModel = attestation.Model{Name: model, WeightsRoot: "gguf-sha256:" + strings.Repeat("5e", 32)}
)

// clock stands still until a test moves it.
type clock struct {
	mu     sync.Mutex
	cond   *sync.Cond
	now    time.Time
	timers map[*timer]bool
}

type timer struct {
	d    time.Duration
	at   time.Time
	ch   chan time.Time
	tick bool
}

func newClock() *clock {
	c := &clock{now: start, timers: map[*timer]bool{}}
	c.cond = sync.NewCond(&c.mu)
	return c
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Timer(d time.Duration) (<-chan time.Time, func() bool) { return c.add(d, false) }
func (c *clock) Tick(d time.Duration) (<-chan time.Time, func() bool)  { return c.add(d, true) }

func (c *clock) add(d time.Duration, tick bool) (<-chan time.Time, func() bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := &timer{d: d, at: c.now.Add(d), ch: make(chan time.Time, 1), tick: tick}
	if d <= 0 {
		t.ch <- c.now
	} else {
		c.timers[t] = true
	}
	c.cond.Broadcast()
	return t.ch, func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		_, ok := c.timers[t]
		delete(c.timers, t)
		return ok
	}
}

// advance moves time, and fires what is due.
func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
	for t := range c.timers {
		if t.at.After(c.now) {
			continue
		}
		select {
		case t.ch <- c.now:
		default:
		}
		if t.tick {
			t.at = c.now.Add(t.d)
		} else {
			delete(c.timers, t)
		}
	}
}

// await waits until somebody waits for d.
func (c *clock) await(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		for t := range c.timers {
			if t.d == d {
				return
			}
		}
		c.cond.Wait()
	}
}

// fakeChain is TON as it was proven to the worker.
type fakeChain struct {
	mu       sync.Mutex
	clock    *clock
	channels map[attestation.Address]enclave.ChannelView
	stale    time.Duration // how far proofs lag behind
	lookups  int
}

func (c *fakeChain) GlobalID(context.Context) (int32, error) { return network, nil }

func (c *fakeChain) Beacon(context.Context) (attestation.Beacon, []byte, error) {
	return attestation.Beacon{Seqno: 7, RootHash: [32]byte{7}}, []byte("proof"), nil
}

func (c *fakeChain) Channel(_ context.Context, a attestation.Address) (enclave.ChannelView, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lookups++
	v, ok := c.channels[a]
	if !ok {
		return v, errors.New("no active contract")
	}
	v.ProvenAt = c.clock.Now().Add(-c.stale)
	return v, nil
}

// change edits a channel's state.
func (c *fakeChain) change(a attestation.Address, f func(*enclave.ChannelView)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v := c.channels[a]
	f(&v)
	c.channels[a] = v
}

// VerifyBeacon makes fakeChain the client's view of it, too.
func (c *fakeChain) VerifyBeacon(attestation.Beacon, []byte) (time.Time, error) {
	return c.clock.Now(), nil
}

// toy is an engine whose runs a test scripts. By default a run says "one two
// three " in three tokens, for a prompt of 10.
type toy struct {
	mu   sync.Mutex
	play play
}

func (e *toy) Models() []engine.Model {
	return []engine.Model{{Name: model, WeightsRoot: toyModel.WeightsRoot, ContextTokens: 4096}}
}

func (e *toy) script(f play) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.play = f
}

func (e *toy) Run(ctx context.Context, req engine.Request, s engine.Sink) (engine.Result, error) {
	e.mu.Lock()
	p := e.play
	e.mu.Unlock()
	if p == nil {
		p = say("one ", "two ", "three ")
	}
	return p(ctx, req, s)
}

type play = func(context.Context, engine.Request, engine.Sink) (engine.Result, error)

// say is a run that writes words, one token each, after a prompt of 10.
func say(words ...string) play { return sayAfter(10, words...) }

// long is a run of n tokens after a prompt as long as the ceiling, so that its
// credit ends with the windows that were paid for.
func long(n int) play {
	return sayAfter(promptCeiling, strings.Split(strings.Repeat("w ", n), " ")[:n]...)
}

func sayAfter(prompt int, words ...string) play {
	return func(ctx context.Context, _ engine.Request, s engine.Sink) (engine.Result, error) {
		u := engine.Usage{Prompt: prompt}
		if err := s.Start(prompt, 0); err != nil {
			return engine.Result{}, err
		}
		for i, w := range words {
			if err := s.Grant(ctx, i+1); err != nil {
				return stopped(ctx, u, err)
			}
			u.Completion++
			if err := s.Write([]byte(w), u); err != nil {
				return stopped(ctx, u, err)
			}
		}
		return engine.Result{Usage: u, FinishReason: "stop"}, nil
	}
}

func stopped(ctx context.Context, u engine.Usage, err error) (engine.Result, error) {
	if ctx.Err() != nil {
		return engine.Result{Usage: u, FinishReason: "cancelled"}, ctx.Err()
	}
	return engine.Result{Usage: u}, err
}

var sharedTEE = sync.OnceValues(func() (*softtee.World, error) { return softtee.New(start) })

// world is one worker and all it stands on.
type world struct {
	t       testing.TB
	tee     *softtee.World
	machine *softtee.Machine
	clock   *clock
	chain   *fakeChain
	engine  *toy
	dir     string
	release attestation.Release
	edit    func(*enclave.Config) // before the worker starts

	addr  string
	boot  enclave.Boot
	store *host.Store
	quit  context.CancelFunc
	done  chan error
}

func newWorld(t testing.TB) *world {
	tee, err := sharedTEE()
	if err != nil {
		t.Fatal(err)
	}
	c := newClock()
	w := &world{
		t: t, tee: tee, machine: tee.Machine(attestation.TDX), clock: c, engine: &toy{}, dir: t.TempDir(),
		chain: &fakeChain{clock: c, channels: map[attestation.Address]enclave.ChannelView{}},
	}
	w.machine.Clock = c.Now
	w.release = attestation.Release{
		Version: attestation.ReleaseVersion, Number: 1, Name: "r1", Launches: []attestation.Launch{w.machine.Launch()},
		Allowances: attestation.Allowances{Message: 16, Tool: 64, Medium: 1024},
	}
	return w
}

// run starts the worker; the test's end stops it and wants no error.
func (w *world) run() *world {
	w.t.Helper()
	w.launch()
	w.t.Cleanup(func() {
		if err := w.shutdown(); err != nil {
			w.t.Errorf("serve: %v", err)
		}
	})
	return w
}

// config is a worker's as it should be, after edit.
func (w *world) config() enclave.Config {
	w.t.Helper()
	var err error
	if w.store, err = host.Open(w.dir); err != nil {
		w.t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	cfg := enclave.Config{
		Listener: l, Evidence: w.machine, Chain: w.chain, Store: w.store, Engine: w.engine, LogInterval: 100 * time.Millisecond,
		Worker: attestation.WorkerConfig{
			Version: attestation.ConfigVersion, WorkerID: workerID, PayoutAddress: payoutTo, Redeemer: redeemer,
			Models: []attestation.Model{toyModel}, Prices: []attestation.ModelPrice{{Model: model, Min: prices}}, Engine: attestation.EngineGGUF,
		},
		Release: enclave.Release{Manifest: w.release.Encode(), Signatures: []attestation.ReleaseSignature{attestation.SignRelease(w.tee.RebuilderKey(), w.release.Encode())}},
		Now:     w.clock.Now, Timer: w.clock.Timer, Tick: w.clock.Tick,
	}
	if w.edit != nil {
		w.edit(&cfg)
	}
	return cfg
}

// launch starts the worker and waits until it serves.
func (w *world) launch() {
	w.t.Helper()
	cfg := w.config()
	ready := make(chan enclave.Boot, 1)
	cfg.Ready = func(b enclave.Boot) { ready <- b }
	ctx, quit := context.WithCancel(context.Background())
	w.quit, w.done = quit, make(chan error, 1)
	store := w.store
	go func() {
		err := enclave.Serve(ctx, cfg)
		w.done <- errors.Join(err, store.Close())
	}()
	select {
	case w.boot = <-ready:
		w.addr = w.boot.Addr.String()
	case err := <-w.done:
		w.t.Fatalf("serve: %v", err)
	}
}

// serveOnce runs a worker that is expected to fail by itself.
func (w *world) serveOnce() error {
	w.t.Helper()
	cfg := w.config()
	defer w.store.Close()
	return enclave.Serve(w.t.Context(), cfg)
}

// shutdown stops the worker and returns what Serve did.
func (w *world) shutdown() error {
	w.quit()
	return <-w.done
}

// fund opens a channel of the worker's with a deposit in nano, for a new client key.
func (w *world) fund(deposit uint64) (ed25519.PrivateKey, attestation.Address) {
	w.t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		w.t.Fatal(err)
	}
	init := contracts.ChannelInit{
		ClientKey: [32]byte(key.Public().(ed25519.PublicKey)), WorkerID: workerID, Client: attestation.NewAddress(0, [32]byte{0xc1}),
		Payout: payoutTo, Redeemer: redeemer, CloseDelay: contracts.CloseDelay,
	}
	if _, err := io.ReadFull(rand.Reader, init.Nonce[:]); err != nil {
		w.t.Fatal(err)
	}
	addr, err := init.Address()
	if err != nil {
		w.t.Fatal(err)
	}
	w.chain.change(addr, func(v *enclave.ChannelView) {
		*v = enclave.ChannelView{State: contracts.ChannelState{Init: init}, Balance: deposit + contracts.Reserve}
	})
	return key, addr
}

// verifier is the client's, which accepts this software world.
func (w *world) verifier() (*attestation.Verifier, attestation.Expect) {
	w.t.Helper()
	rebuilder := attestation.Digest(w.tee.RebuilderKey().Public().(ed25519.PublicKey))
	v, err := w.tee.Roots().Verifier(&attestation.Policy{Rebuilders: []attestation.Digest{rebuilder}}, w.chain)
	if err != nil {
		w.t.Fatal(err)
	}
	now := w.clock.Now()
	return v, attestation.Expect{
		Now: now, WorkerID: workerID,
		Registry: &attestation.RegistryView{Address: attestation.NewAddress(0, [32]byte{9}), ProvenAt: now, Entries: map[[32]byte]attestation.RegistryEntry{
			w.release.Digest():             {Kind: attestation.EntryRelease, Meta: attestation.ReleaseMeta(w.release.Number)},
			attestation.ModelKey(toyModel): {Kind: attestation.EntryModel, Meta: sha256.Sum256([]byte(toyModel.Name))},
		}},
		Record: &attestation.RecordView{WorkerID: workerID, Payout: payoutTo, PlatformID: w.machine.PlatformID(), Expiry: now.Add(time.Hour), ProvenAt: now},
	}
}

// chat is a body with one message.
func chat(content string) []byte {
	b, err := json.Marshal(map[string]any{"model": model, "stream": true, "messages": []map[string]string{{"role": "user", "content": content}}})
	if err != nil {
		panic(fmt.Sprint(err))
	}
	return b
}
