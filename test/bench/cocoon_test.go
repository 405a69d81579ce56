package bench

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cocoon/attestation"
	"cocoon/attestation/channel"
	"cocoon/attestation/softtee"
	"cocoon/contracts"
	"cocoon/contracts/view"
	"cocoon/enclave"
	"cocoon/enclave/engine/openaihttp"
	"cocoon/enclave/host"
	"cocoon/proxy"
	"cocoon/proxy/ledger"
	"cocoon/proxy/route"
	"cocoon/proxy/session"
)

const (
	token       = "a token of this installation"
	weightsRoot = "verity-sha256:5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e"
)

var (
	prices   = attestation.Prices{Prompt: 1e8, Cached: 5e7, Completion: 4e8, Reasoning: 4e8}
	workerID = attestation.NewAddress(0, [32]byte{1})
	payout   = attestation.NewAddress(0, [32]byte{2})
	client   = attestation.NewAddress(0, [32]byte{3})
	models   = []attestation.Model{{Name: model, WeightsRoot: weightsRoot}}
)

// network is what worker and proxy are told of their world. The chain between
// them is a folder of channels' initial data: nothing of a chain is on the path
// of a token or of a job.
type network struct {
	Dir      string
	Engine   string // host:port
	Worker   string // host:port, for the proxy
	Manifest []byte
}

func (n *network) path(name string) string { return filepath.Join(n.Dir, name) }

// cocoon starts a worker and a proxy that trusts it, with everything on but
// shaping.
func cocoon(tb testing.TB, engine *process) *path {
	tb.Helper()
	n := &network{Dir: tb.TempDir(), Engine: engine.addr}
	world, err := softtee.New(time.Now())
	if err != nil {
		tb.Fatal(err)
	}
	private, err := world.Save()
	if err != nil {
		tb.Fatal(err)
	}
	for name, b := range map[string][]byte{"world": private, "roots": world.Public()} {
		if err := os.WriteFile(n.path(name), b, 0o600); err != nil {
			tb.Fatal(err)
		}
	}
	rel := attestation.Release{
		Version: attestation.ReleaseVersion, Number: 1, Name: "r1", Launches: []attestation.Launch{world.Launch(attestation.TDX)},
		Allowances: attestation.Allowances{Message: 16, Tool: 64, Medium: 1024},
	}
	n.Manifest = rel.Encode()
	w := start(tb, "worker", n)
	n.Worker = w.addr
	p := start(tb, "proxy", n)
	return &path{name: "cocoon", url: "http://" + p.addr + "/v1/chat/completions", token: token, hops: []*process{p, w}}
}

func (n *network) world() (*softtee.World, error) {
	b, err := os.ReadFile(n.path("world"))
	if err != nil {
		return nil, err
	}
	return softtee.Load(b)
}

func (n *network) logger(name string) (*slog.Logger, error) {
	f, err := os.OpenFile(n.path(name+".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	return slog.New(slog.NewJSONHandler(f, nil)), nil
}

func workerRole(c *child) error {
	var n network
	if err := c.args(&n); err != nil {
		return err
	}
	world, err := n.world()
	if err != nil {
		return err
	}
	engine, err := openaihttp.New(c.ctx, openaihttp.Config{BaseURL: "http://" + n.Engine, WeightsRoot: weightsRoot})
	if err != nil {
		return err
	}
	store, err := host.Open(n.path("host"))
	if err != nil {
		return err
	}
	defer store.Close()
	log, err := n.logger("worker")
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	return enclave.Serve(c.ctx, enclave.Config{
		Listener: l, Evidence: world.Machine(attestation.TDX), Chain: workerChain{chain{&n}}, Store: store, Engine: engine,
		Worker: attestation.WorkerConfig{
			Version: attestation.ConfigVersion, WorkerID: workerID, PayoutAddress: payout, Redeemer: payout,
			Models: models, Prices: []attestation.ModelPrice{{Model: model, Min: prices}}, Engine: attestation.EngineHTTP,
		},
		Release: enclave.Release{Manifest: n.Manifest, Signatures: []attestation.ReleaseSignature{attestation.SignRelease(world.RebuilderKey(), n.Manifest)}},
		Drain:   time.Second,
		Logger:  log,
		Ready:   func(b enclave.Boot) { c.ready(b.Addr.String()) },
	})
}

func proxyRole(c *child) error {
	var n network
	if err := c.args(&n); err != nil {
		return err
	}
	pub, err := os.ReadFile(n.path("roots"))
	if err != nil {
		return err
	}
	roots, err := softtee.LoadPublic(pub)
	if err != nil {
		return err
	}
	rebuilder, platform, err := n.known()
	if err != nil {
		return err
	}
	v, err := roots.Verifier(&attestation.Policy{Rebuilders: []attestation.Digest{rebuilder}}, chain{&n})
	if err != nil {
		return err
	}
	led, err := ledger.Open(ledger.Config{Dir: n.path("ledger"), Now: time.Now, Rand: rand.Reader})
	if err != nil {
		return err
	}
	defer led.Close()
	log, err := n.logger("proxy")
	if err != nil {
		return err
	}
	r, err := route.New(route.Config{
		Workers: []route.Endpoint{{Address: n.Worker, WorkerID: workerID}}, Logger: log,
		Session: session.Config{
			Verifier: v, Ledger: led, Chain: clientChain{chain{&n}, platform}, Opener: chain{&n}, Deposit: 1e15,
			Shape: channel.ShapeOffUnpadded, Now: time.Now, Rand: rand.Reader,
		},
	})
	if err != nil {
		return err
	}
	defer r.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	for _, s := range r.Settle(c.ctx) {
		if s.State != route.Ready {
			return fmt.Errorf("worker %s is %s: %s", s.Endpoint, s.State, s.Reason)
		}
	}
	c.ready(l.Addr().String())
	return proxy.Serve(c.ctx, proxy.Config{Listener: l, Router: r, Ledger: led, Token: token, Now: time.Now, Rand: rand.Reader, Logger: log})
}

// known is what the developer knows out of band: whose rebuild counts, and the
// platform that the worker's record names.
func (n *network) known() (rebuilder attestation.Digest, platform [32]byte, err error) {
	w, err := n.world()
	if err != nil {
		return rebuilder, platform, err
	}
	copy(rebuilder[:], w.RebuilderKey().Public().(ed25519.PublicKey))
	return rebuilder, w.Machine(attestation.TDX).PlatformID(), nil
}

// chain is what is proven of TON, to either side.
type chain struct{ n *network }

const globalID = -239

func (chain) GlobalID(context.Context) (int32, error) { return globalID, nil }

func (chain) Beacon(context.Context) (attestation.Beacon, []byte, error) {
	return attestation.Beacon{Seqno: 7, RootHash: [32]byte{7}}, []byte("proof"), nil
}

func (chain) VerifyBeacon(attestation.Beacon, []byte) (time.Time, error) { return time.Now(), nil }

func (chain) Client() attestation.Address { return client }

func (c chain) file(a attestation.Address) string {
	return c.n.path(hex.EncodeToString(a[:]) + ".channel")
}

func (c chain) OpenChannel(_ context.Context, init contracts.ChannelInit, deposit uint64) error {
	a, err := init.Address()
	if err != nil {
		return err
	}
	b, err := json.Marshal(enclave.ChannelView{State: contracts.ChannelState{Init: init}, Balance: deposit + contracts.Reserve})
	if err != nil {
		return err
	}
	return os.WriteFile(c.file(a), b, 0o600)
}

func (c chain) channel(a attestation.Address) (v enclave.ChannelView, err error) {
	b, err := os.ReadFile(c.file(a))
	if errors.Is(err, fs.ErrNotExist) {
		return v, view.ErrAbsent
	}
	if err == nil {
		err = json.Unmarshal(b, &v)
	}
	v.ProvenAt = time.Now()
	return v, err
}

type workerChain struct{ chain }

func (c workerChain) Channel(_ context.Context, a attestation.Address) (enclave.ChannelView, error) {
	return c.channel(a)
}

type clientChain struct {
	chain
	platform [32]byte
}

func (c clientChain) Channel(_ context.Context, a attestation.Address) (contracts.ChannelState, uint64, time.Time, error) {
	v, err := c.channel(a)
	return v.State, v.Balance, v.ProvenAt, err
}

func (c clientChain) Registry(context.Context) (*attestation.RegistryView, error) {
	return &attestation.RegistryView{Address: attestation.NewAddress(0, [32]byte{9}), ProvenAt: time.Now(), Entries: map[[32]byte]attestation.RegistryEntry{
		sha256.Sum256(c.n.Manifest):     {Kind: attestation.EntryRelease, Meta: attestation.ReleaseMeta(1)},
		attestation.ModelKey(models[0]): {Kind: attestation.EntryModel, Meta: sha256.Sum256([]byte(model))},
	}}, nil
}

func (c clientChain) Record(context.Context, attestation.Address) (contracts.WorkerRecord, time.Time, error) {
	return contracts.WorkerRecord{
		Endpoint: strings.TrimSpace(c.n.Worker), Payout: payout, PlatformID: c.platform, Expiry: uint32(time.Now().Add(time.Hour).Unix()),
		Prices: []contracts.ModelPrice{{Model: contracts.ModelNameHash(model), Prices: prices}},
	}, time.Now(), nil
}
