package proxy_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"cocoon/attestation"
	"cocoon/attestation/channel"
	"cocoon/attestation/softtee"
	"cocoon/contracts"
	"cocoon/contracts/view"
	"cocoon/enclave"
	"cocoon/enclave/engine"
	"cocoon/enclave/host"
	"cocoon/proxy"
	"cocoon/proxy/ledger"
	"cocoon/proxy/route"
	"cocoon/proxy/session"
)

const (
	network = -239
	model   = "toy"
	token   = "a token of this installation"
)

var (
	prices   = attestation.Prices{Prompt: 1e6, Cached: 5e5, Completion: 2e6, Reasoning: 2e6} // 1, 1/2 and 2 nano a token
	toyModel = attestation.Model{Name: model, WeightsRoot: "gguf-sha256:" + strings.Repeat("5e", 32)}
	client   = attestation.NewAddress(0, [32]byte{0xc1})
)

// network of tests: what is proven of it, to workers and to clients.
type chain struct {
	mu       sync.Mutex
	entries  map[[32]byte]attestation.RegistryEntry
	records  map[attestation.Address]contracts.WorkerRecord
	channels map[attestation.Address]enclave.ChannelView
	opened   int
	closed   bool // nothing can be read
}

var errOffline = errors.New("no liteserver answers")

func (c *chain) GlobalID(context.Context) (int32, error) { return network, nil }

func (c *chain) Beacon(context.Context) (attestation.Beacon, []byte, error) {
	return attestation.Beacon{Seqno: 7, RootHash: [32]byte{7}}, []byte("proof"), nil
}

func (c *chain) VerifyBeacon(attestation.Beacon, []byte) (time.Time, error) { return time.Now(), nil }

func (c *chain) Registry(context.Context) (*attestation.RegistryView, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v := &attestation.RegistryView{Address: attestation.NewAddress(0, [32]byte{9}), ProvenAt: time.Now(), Entries: map[[32]byte]attestation.RegistryEntry{}}
	for k, e := range c.entries {
		v.Entries[k] = e
	}
	return v, nil
}

func (c *chain) Record(_ context.Context, id attestation.Address) (contracts.WorkerRecord, time.Time, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r, ok := c.records[id]
	if !ok {
		return r, time.Time{}, view.ErrAbsent
	}
	return r, time.Now(), nil
}

// channel is the account at a, for either side.
func (c *chain) channel(a attestation.Address) (enclave.ChannelView, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v, ok := c.channels[a]
	if c.closed {
		return v, errOffline
	}
	if !ok {
		return v, view.ErrAbsent
	}
	v.ProvenAt = time.Now()
	return v, nil
}

func (c *chain) Client() attestation.Address { return client }

func (c *chain) OpenChannel(_ context.Context, init contracts.ChannelInit, deposit uint64) error {
	a, err := init.Address()
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.opened++
	c.channels[a] = enclave.ChannelView{State: contracts.ChannelState{Init: init}, Balance: deposit + contracts.Reserve}
	return nil
}

func (c *chain) edit(f func(a attestation.Address, v *enclave.ChannelView)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for a, v := range c.channels {
		f(a, &v)
		c.channels[a] = v
	}
}

// The two sides' interfaces name one method alike.
type workerChain struct{ *chain }

func (c workerChain) Channel(_ context.Context, a attestation.Address) (enclave.ChannelView, error) {
	return c.channel(a)
}

type clientChain struct{ *chain }

func (c clientChain) Channel(_ context.Context, a attestation.Address) (contracts.ChannelState, uint64, time.Time, error) {
	v, err := c.channel(a)
	return v.State, v.Balance, v.ProvenAt, err
}

type play = func(context.Context, engine.Request, engine.Sink) (engine.Result, error)

// toy is an engine whose runs a test scripts.
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
	return p(ctx, req, s)
}

func word(i int) string { return fmt.Sprintf("w%d ", i) }

// event is one token of a streamed answer; an unstreamed one stands between docHead and docTail.
func event(word string) string {
	return fmt.Sprintf("data: {\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":{\"content\":%q}}]}\n\n", word)
}

const done = "data: [DONE]\n\n"

const (
	docHead = `{"object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"`
	docTail = `"}}]}`
)

// say answers with n words, one token each, for a prompt of 10 tokens; between,
// if it is not nil, is called before each word.
func say(n int, between func(ctx context.Context, i int) error) play {
	return func(ctx context.Context, req engine.Request, s engine.Sink) (engine.Result, error) {
		u := engine.Usage{Prompt: 10}
		stopped := func(err error) (engine.Result, error) {
			if ctx.Err() != nil {
				return engine.Result{Usage: u, FinishReason: "cancelled"}, ctx.Err()
			}
			return engine.Result{Usage: u}, err
		}
		if err := s.Start(10, 0); err != nil {
			return stopped(err)
		}
		streams := bytes.Contains(req.Body, []byte(`"stream":true`))
		for i := range n {
			if between != nil {
				if err := between(ctx, i); err != nil {
					return stopped(err)
				}
			}
			if err := s.Grant(ctx, i+1); err != nil {
				return stopped(err)
			}
			u.Completion++
			part := word(i)
			if streams {
				part = event(part)
			} else if i == 0 {
				part = docHead + part
			}
			if err := s.Write([]byte(part), u); err != nil {
				return stopped(err)
			}
		}
		end := done
		if !streams {
			end = docTail
		}
		if err := s.Write([]byte(end), u); err != nil {
			return stopped(err)
		}
		return engine.Result{Usage: u, FinishReason: "stop"}, nil
	}
}

// answer is what say(n, nil) says.
func answer(n int, streamed bool) string {
	b := ""
	for i := range n {
		if streamed {
			b += event(word(i))
		} else {
			b += word(i)
		}
	}
	if streamed {
		return b + done
	}
	return docHead + b + docTail
}

var sharedTEE = sync.OnceValues(func() (*softtee.World, error) { return softtee.New(time.Now()) })

// world is a network, and what a client knows of it.
type world struct {
	t       testing.TB
	tee     *softtee.World
	chain   *chain
	release attestation.Release
	log     *logs
	dir     string // of the ledger
}

// worker is one that runs.
type worker struct {
	w       *world
	id      attestation.Address
	machine *softtee.Machine
	engine  *toy
	dir     string
	addr    string // kept over restarts
	edit    func(*enclave.Config)
	quit    context.CancelFunc
	done    chan error
}

// newWorld makes one, beside those of other tests.
func newWorld(t testing.TB) *world {
	if t, ok := t.(*testing.T); ok {
		t.Parallel()
	}
	return soloWorld(t)
}

// soloWorld makes one for a test that looks at the whole process.
func soloWorld(t testing.TB) *world {
	tee, err := sharedTEE()
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, tee: tee, log: &logs{}, dir: filepath.Join(t.TempDir(), "ledger"), chain: &chain{
		entries: map[[32]byte]attestation.RegistryEntry{}, records: map[attestation.Address]contracts.WorkerRecord{}, channels: map[attestation.Address]enclave.ChannelView{},
	}}
	w.release = attestation.Release{
		Version: attestation.ReleaseVersion, Number: 1, Name: "r1", Launches: []attestation.Launch{tee.Launch(attestation.TDX)},
		Allowances: attestation.Allowances{Message: 16, Tool: 64, Medium: 1024},
	}
	w.chain.entries[w.release.Digest()] = attestation.RegistryEntry{Kind: attestation.EntryRelease, Meta: attestation.ReleaseMeta(1)}
	w.chain.entries[attestation.ModelKey(toyModel)] = attestation.RegistryEntry{Kind: attestation.EntryModel, Meta: sha256.Sum256([]byte(model))}
	return w
}

// worker starts the n-th worker. The test's end stops it.
func (w *world) worker(n byte) *worker { return w.workerWith(n, nil) }

func (w *world) workerWith(n byte, edit func(*enclave.Config)) *worker {
	w.t.Helper()
	k := &worker{w: w, id: attestation.NewAddress(0, [32]byte{1, n}), machine: w.tee.MachineAt(attestation.TDX, uint(n)), engine: &toy{play: say(3, nil)}, dir: w.t.TempDir(), addr: "127.0.0.1:0", edit: edit}
	w.chain.mu.Lock()
	w.chain.records[k.id] = contracts.WorkerRecord{
		Endpoint: "unused:1", Payout: k.payout(), PlatformID: k.machine.PlatformID(), Expiry: uint32(time.Now().Add(time.Hour).Unix()),
		Prices: []contracts.ModelPrice{{Model: contracts.ModelNameHash(model), Prices: prices}},
	}
	w.chain.mu.Unlock()
	k.start()
	w.t.Cleanup(func() {
		if err := k.stop(); err != nil {
			w.t.Errorf("worker: %v", err)
		}
	})
	return k
}

func (k *worker) payout() attestation.Address {
	return attestation.NewAddress(0, [32]byte{2, k.id.ID()[1]})
}

func (k *worker) start() {
	k.w.t.Helper()
	store, err := host.Open(k.dir)
	if err != nil {
		k.w.t.Fatal(err)
	}
	l, err := net.Listen("tcp", k.addr)
	if err != nil {
		k.w.t.Fatal(err)
	}
	k.addr = l.Addr().String()
	ready := make(chan struct{})
	ctx, quit := context.WithCancel(context.Background())
	k.quit, k.done = quit, make(chan error, 1)
	cfg := enclave.Config{
		Listener: l, Evidence: k.machine, Chain: workerChain{k.w.chain}, Store: store, Engine: k.engine, LogInterval: 100 * time.Millisecond,
		Worker: attestation.WorkerConfig{
			Version: attestation.ConfigVersion, WorkerID: k.id, PayoutAddress: k.payout(), Redeemer: k.payout(),
			Models: []attestation.Model{toyModel}, Prices: []attestation.ModelPrice{{Model: model, Min: prices}}, Engine: attestation.EngineGGUF,
		},
		Release: enclave.Release{Manifest: k.w.release.Encode(), Signatures: []attestation.ReleaseSignature{attestation.SignRelease(k.w.tee.RebuilderKey(), k.w.release.Encode())}},
		Drain:   time.Second,
		Ready:   func(enclave.Boot) { close(ready) },
		Logger:  slog.New(slog.NewJSONHandler(k.w.log, nil)),
	}
	if k.edit != nil {
		k.edit(&cfg)
	}
	go func() { k.done <- errors.Join(enclave.Serve(ctx, cfg), store.Close()) }()
	select {
	case <-ready:
	case err := <-k.done:
		k.w.t.Fatalf("worker: %v", err)
	}
}

func (k *worker) stop() error {
	k.quit()
	err := <-k.done
	k.done <- err
	return err
}

// logs is everything that was logged.
type logs struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// gateway is one proxy that runs.
type gateway struct {
	w      *world
	ledger *ledger.Ledger
	router *route.Router
	url    string
	http   *http.Client
	quit   context.CancelFunc
	done   chan error
	once   sync.Once
	err    error
}

// settings are what a test changes of a proxy.
type settings struct {
	proxy   func(*proxy.Config)
	session func(*session.Config)
	route   func(*route.Config)
}

// proxy starts one in front of the workers. The test's end stops it.
func (w *world) proxy(set settings, workers ...string) *gateway {
	w.t.Helper()
	l, err := ledger.Open(ledger.Config{Dir: w.dir, Now: time.Now, Rand: rand.Reader})
	if err != nil {
		w.t.Fatal(err)
	}
	rebuilder := attestation.Digest(w.tee.RebuilderKey().Public().(ed25519.PublicKey))
	v, err := w.tee.Roots().Verifier(&attestation.Policy{Rebuilders: []attestation.Digest{rebuilder}}, w.chain)
	if err != nil {
		w.t.Fatal(err)
	}
	logger := slog.New(slog.NewJSONHandler(w.log, nil))
	rc := route.Config{Logger: logger, Session: session.Config{
		Verifier: v, Ledger: l, Chain: clientChain{w.chain}, Opener: w.chain, Deposit: 1e9, Shape: channel.ShapeOffUnpadded, Now: time.Now, Rand: rand.Reader,
	}}
	for _, addr := range workers {
		rc.Workers = append(rc.Workers, route.Endpoint{Address: addr})
	}
	if set.session != nil {
		set.session(&rc.Session)
	}
	if set.route != nil {
		set.route(&rc)
	}
	r, err := route.New(rc)
	if err != nil {
		w.t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	pc := proxy.Config{Listener: ln, Router: r, Ledger: l, Token: token, Now: time.Now, Rand: rand.Reader, Logger: logger}
	if set.proxy != nil {
		set.proxy(&pc)
	}
	ctx, quit := context.WithCancel(context.Background())
	g := &gateway{w: w, ledger: l, router: r, url: "http://" + ln.Addr().String(), http: &http.Client{Transport: &http.Transport{}}, quit: quit, done: make(chan error, 1)}
	go func() { g.done <- proxy.Serve(ctx, pc) }()
	w.t.Cleanup(func() {
		if err := g.stop(); err != nil {
			w.t.Errorf("proxy: %v", err)
		}
	})
	return g
}

// stop ends the proxy as its command would.
func (g *gateway) stop() error {
	g.once.Do(func() {
		g.quit()
		g.err = <-g.done
		g.router.Close()
		g.err = errors.Join(g.err, g.ledger.Close())
		g.http.CloseIdleConnections()
	})
	return g.err
}

// chat is a request's body.
func chat(streamed bool, extra map[string]any) []byte {
	m := map[string]any{"model": model, "messages": []map[string]string{{"role": "user", "content": "a secret prompt"}}}
	if streamed {
		m["stream"] = true
	}
	for k, v := range extra {
		m[k] = v
	}
	b, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	return b
}

// request makes a call as an SDK would; edit may spoil it.
func (g *gateway) request(ctx context.Context, method, path string, body []byte, edit func(*http.Request)) *http.Response {
	g.w.t.Helper()
	req, err := http.NewRequestWithContext(ctx, method, g.url+path, bytes.NewReader(body))
	if err != nil {
		g.w.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/json")
	}
	if edit != nil {
		edit(req)
	}
	resp, err := g.http.Do(req)
	if err != nil {
		g.w.t.Fatal(err)
	}
	g.w.t.Cleanup(func() { resp.Body.Close() })
	return resp
}

func (g *gateway) post(body []byte) *http.Response {
	g.w.t.Helper()
	return g.request(context.Background(), http.MethodPost, "/v1/chat/completions", body, nil)
}

func (g *gateway) get(path string) *http.Response {
	g.w.t.Helper()
	return g.request(context.Background(), http.MethodGet, path, nil, nil)
}

func text(t testing.TB, r *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// failure is an error object, which must be whole.
func failure(t testing.TB, body string) (kind, code, param, message string) {
	t.Helper()
	var doc struct {
		Error map[string]*string `json:"error"`
	}
	if err := json.Unmarshal([]byte(body), &doc); err != nil {
		t.Fatalf("not an error object: %v: %s", err, body)
	}
	get := func(k string) string {
		v, ok := doc.Error[k]
		if !ok {
			t.Errorf("error object without %q: %s", k, body)
		}
		if v == nil {
			return ""
		}
		return *v
	}
	return get("type"), get("code"), get("param"), get("message")
}

// wantFailure checks status and code, and that the request has an id.
func wantFailure(t testing.TB, r *http.Response, status int, code string) (message string) {
	t.Helper()
	body := text(t, r)
	_, got, _, message := failure(t, body)
	if r.StatusCode != status || got != code {
		t.Errorf("got %d %s, want %d %s: %s", r.StatusCode, got, status, code, body)
	}
	if r.Header.Get("X-Request-Id") == "" {
		t.Error("no x-request-id")
	}
	for k := range r.Header {
		if strings.HasPrefix(k, "Access-Control-") {
			t.Errorf("a CORS header: %s", k)
		}
	}
	return message
}

// eventually waits until ok, which something else brings about.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	late := time.After(10 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("%s: not within 10 s", what)
		}
	}
}

// running lists goroutines that have a function of one of the packages.
func running(packages ...string) string {
	buf := make([]byte, 4<<20)
	buf = buf[:runtime.Stack(buf, true)]
	var out []string
	for _, g := range strings.Split(string(buf), "\n\n") {
		if strings.Contains(g, "proxy_test.running") {
			continue
		}
		for _, p := range packages {
			if strings.Contains(g, p) {
				out = append(out, g)
				break
			}
		}
	}
	return strings.Join(out, "\n\n")
}
