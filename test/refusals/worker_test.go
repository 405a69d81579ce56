package refusals

import (
	"context"
	"errors"
	"log/slog"
	"net"
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

// worker is a real one that runs: enclave.Serve on a software machine, with its
// record on the chain.
type worker struct {
	n       *network
	id      attestation.Address
	machine *softtee.Machine
	engine  *toy
	store   *host.Store
	addr    string
	boot    enclave.Boot
	events  *events

	quit context.CancelFunc
	done chan error
}

// setup is what a test changes of a worker before it starts.
type setup struct {
	tee    attestation.TEE               // zero: TDX
	at     func(*softtee.Machine)        // spoils the machine
	config func(*enclave.Config)         // spoils the configuration
	record func(*contracts.WorkerRecord) // spoils the record
	models []attestation.Model           // zero: the toy alone
}

// worker starts one. The test's end stops it and wants no error.
func (n *network) worker(t testing.TB, set setup) *worker {
	t.Helper()
	w := &worker{n: n, engine: &toy{models: set.models}, events: newEvents()}
	if set.tee == "" {
		set.tee = attestation.TDX
	}
	if set.models == nil {
		w.engine.models = []attestation.Model{toyModel}
	}
	w.machine = n.publish(t, &w.id, set)
	if set.at != nil {
		set.at(w.machine)
	}
	w.start(t, set)
	t.Cleanup(func() {
		if err := w.stop(); err != nil {
			t.Errorf("worker: %v", err)
		}
	})
	return w
}

// publish puts the next worker's record on the chain.
func (n *network) publish(t testing.TB, id *attestation.Address, set setup) *softtee.Machine {
	t.Helper()
	n.mu.Lock()
	n.workers++
	number := n.workers
	n.mu.Unlock()
	m := n.tee.MachineAt(set.tee, uint(number))
	m.Clock = n.clock.Now
	models := set.models
	if models == nil {
		models = []attestation.Model{toyModel}
	}
	init := contracts.WorkerInit{Owner: n.host.Address(), Nonce: [32]byte{number}}
	rec := contracts.WorkerRecord{
		Endpoint: "unused:1", Payout: n.host.Address(), PlatformID: m.PlatformID(), Expiry: uint32(n.clock.Now().Add(30 * 24 * time.Hour).Unix()),
	}
	for _, m := range models {
		rec.Prices = append(rec.Prices, contracts.ModelPrice{Model: contracts.ModelNameHash(m.Name), Prices: prices})
	}
	if set.record != nil {
		set.record(&rec)
	}
	body, err := contracts.SetRecordBody(rec)
	must(t, err)
	state, err := init.StateInit()
	must(t, err)
	*id, err = n.host.Deploy(t.Context(), state, ton, body)
	must(t, err)
	return m
}

func (w *worker) start(t testing.TB, set setup) {
	t.Helper()
	var err error
	w.store, err = host.Open(t.TempDir())
	must(t, err)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	manifest := w.n.release.Encode()
	cfg := enclave.Config{
		Listener: ln, Evidence: w.machine, Chain: enclave.LiteChain(w.n.hostTON), Store: w.store, Engine: w.engine, LogInterval: 100 * time.Millisecond,
		Worker: attestation.WorkerConfig{
			Version: attestation.ConfigVersion, WorkerID: w.id, PayoutAddress: w.n.host.Address(), Redeemer: w.n.host.Address(),
			Models: w.engine.models, Engine: attestation.EngineGGUF,
		},
		Release: enclave.Release{
			Manifest: manifest, Signatures: []attestation.ReleaseSignature{attestation.SignRelease(w.n.tee.RebuilderKey(), manifest)}, PolicyFloors: [][]byte{floor},
		},
		Now: w.n.clock.Now, Timer: w.n.clock.Timer, Tick: w.n.clock.Tick, Logger: slog.New(w.events),
	}
	for _, m := range w.engine.models {
		cfg.Worker.Prices = append(cfg.Worker.Prices, attestation.ModelPrice{Model: m.Name, Min: prices})
	}
	if set.config != nil {
		set.config(&cfg)
	}
	ready := make(chan enclave.Boot, 1)
	cfg.Ready = func(b enclave.Boot) { ready <- b }
	ctx, quit := context.WithCancel(context.Background())
	w.quit, w.done = quit, make(chan error, 1)
	go func() { w.done <- errors.Join(enclave.Serve(ctx, cfg), w.store.Close()) }()
	select {
	case w.boot = <-ready:
		w.addr = w.boot.Addr.String()
	case err := <-w.done:
		t.Fatalf("worker: %v", err)
	}
}

func (w *worker) stop() error {
	w.quit()
	err := <-w.done
	w.done <- err
	return err
}

// held is the cumulative amount of the voucher that the host has on disk for a
// channel, 0 for none.
func (w *worker) held(t testing.TB, channel attestation.Address) uint64 {
	t.Helper()
	all, err := w.store.Vouchers(t.Context())
	must(t, err)
	raw := all[channel]
	if raw == nil {
		return 0
	}
	var v contracts.SignedVoucher
	must(t, v.UnmarshalBinary(raw))
	return v.Voucher.Cumulative
}

// toy is an engine whose runs a test scripts. By default a run says "one two
// three " in three tokens, for a prompt of 10.
type toy struct {
	models []attestation.Model

	mu   sync.Mutex
	play play
	runs int
}

type play = func(context.Context, engine.Request, engine.Sink) (engine.Result, error)

const (
	promptTokens = 10
	plainAnswer  = "one two three "
	plainCost    = promptTokens + 2*3 // nano
)

func (e *toy) Models() []engine.Model {
	var out []engine.Model
	for _, m := range e.models {
		out = append(out, engine.Model{Name: m.Name, WeightsRoot: m.WeightsRoot, ContextTokens: 4096})
	}
	return out
}

// script sets what the next run does. Those after it are plain again.
func (e *toy) script(p play) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.play = p
}

func (e *toy) count() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.runs
}

func (e *toy) Run(ctx context.Context, req engine.Request, s engine.Sink) (engine.Result, error) {
	e.mu.Lock()
	p := e.play
	e.play = nil
	e.runs++
	e.mu.Unlock()
	if p == nil {
		p = say("one ", "two ", "three ")
	}
	return p(ctx, req, s)
}

// say is a run that writes words, one token each.
func say(words ...string) play {
	return sayAfter(promptTokens, len(words), func(i int) string { return words[i] })
}

// many is a run of n tokens after a prompt as long as the ceiling, so that what
// was paid for ends with the windows.
func many(n int) play { return sayAfter(promptCeiling, n, func(int) string { return "w " }) }

func sayAfter(prompt, n int, word func(int) string) play {
	return func(ctx context.Context, _ engine.Request, s engine.Sink) (engine.Result, error) {
		u := engine.Usage{Prompt: prompt}
		stopped := func(err error) (engine.Result, error) {
			if ctx.Err() != nil {
				return engine.Result{Usage: u, FinishReason: "cancelled"}, ctx.Err()
			}
			return engine.Result{Usage: u}, err
		}
		if err := s.Start(prompt, 0); err != nil {
			return stopped(err)
		}
		for i := range n {
			if err := s.Grant(ctx, i+1); err != nil {
				return stopped(err)
			}
			u.Completion++
			if err := s.Write([]byte(word(i)), u); err != nil {
				return stopped(err)
			}
		}
		return engine.Result{Usage: u, FinishReason: "stop"}, nil
	}
}

// hold is a run that says words, and then waits for the job's end.
func hold(words ...string) play {
	return func(ctx context.Context, req engine.Request, s engine.Sink) (engine.Result, error) {
		r, err := say(words...)(ctx, req, s)
		if err != nil {
			return r, err
		}
		<-ctx.Done()
		return engine.Result{Usage: r.Usage, FinishReason: "cancelled"}, ctx.Err()
	}
}

// gated is a run that says words, waits for gate to be closed, says one more,
// and then waits for the job's end.
func gated(gate <-chan struct{}, words ...string) play {
	return func(ctx context.Context, req engine.Request, s engine.Sink) (engine.Result, error) {
		r, err := sayAfter(promptTokens, len(words)+1, func(i int) string {
			if i < len(words) {
				return words[i]
			}
			<-gate
			return "more "
		})(ctx, req, s)
		if err != nil {
			return r, err
		}
		<-ctx.Done()
		return engine.Result{Usage: r.Usage, FinishReason: "cancelled"}, ctx.Err()
	}
}

// events are the codes that a worker logged.
type events struct {
	mu   sync.Mutex
	cond *sync.Cond
	seen []string
}

func newEvents() *events {
	e := &events{}
	e.cond = sync.NewCond(&e.mu)
	return e
}

func (e *events) Enabled(context.Context, slog.Level) bool { return true }
func (e *events) WithAttrs([]slog.Attr) slog.Handler       { return e }
func (e *events) WithGroup(string) slog.Handler            { return e }

func (e *events) Handle(_ context.Context, r slog.Record) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.seen = append(e.seen, r.Message)
	e.cond.Broadcast()
	return nil
}

func (e *events) count(code string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.countLocked(code)
}

func (e *events) countLocked(code string) (n int) {
	for _, s := range e.seen {
		if s == code {
			n++
		}
	}
	return n
}

// await waits until the code was logged so many times.
func (e *events) await(t testing.TB, code string, times int) {
	t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	awaitOn(t, e.cond, code, func() bool { return e.countLocked(code) >= times })
}
