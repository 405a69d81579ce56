// Package refusals attacks a whole network, made of the real parts in one
// process, and shows that each attack ends in its own error, moves no money,
// and leaves the network serving honest jobs.
//
// The chain is a devchain behind its liteserver, read by lite clients; the
// machines are software ones; workers and clients are the production packages,
// but for the hostile ones, which are built here from the same layers. Time is
// one injected clock.
package refusals

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"cocoon/attestation"
	"cocoon/attestation/softtee"
	"cocoon/contracts"
	"cocoon/contracts/devchain"
	"cocoon/contracts/lite"
	"cocoon/contracts/view"
)

const (
	globalID = -7001
	ton      = 1_000_000_000 // nano
	deposit  = contracts.MinDeposit
	model    = "toy"
)

var (
	start    = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	prices   = attestation.Prices{Prompt: 1e6, Cached: 5e5, Completion: 2e6, Reasoning: 2e6} // 1, 1/2 and 2 nano a token
	toyModel = attestation.Model{Name: model, WeightsRoot: weights(0x5e)}
	floor    = []byte("release_floor = 2\n") // a policy floor that the registry lists

	sharedTEE = sync.OnceValues(func() (*softtee.World, error) { return softtee.New(start) })
)

func weights(b byte) string {
	const digits = "0123456789abcdef"
	return "gguf-sha256:" + strings.Repeat(string([]byte{digits[b>>4], digits[b&15]}), 32)
}

// network is a TON chain with a registry, and a wallet for each side.
type network struct {
	t     testing.TB
	clock *clock
	tee   *softtee.World
	chain *devchain.Chain

	hostTON, clientTON *lite.Client // each side's own view of the chain
	host, client       *lite.Wallet // the workers' owner, who is paid, and a client
	registry           attestation.Address
	release            attestation.Release

	mu      sync.Mutex
	workers byte
}

// newNetwork founds one whose registry lists the release and the models from the start.
func newNetwork(t testing.TB, models ...attestation.Model) *network {
	t.Helper()
	tee, err := sharedTEE()
	must(t, err)
	n := &network{t: t, clock: newClock(start), tee: tee}
	n.release = attestation.Release{
		Version: attestation.ReleaseVersion, Number: 2, Name: "r2",
		Launches:   []attestation.Launch{tee.Launch(attestation.TDX), tee.Launch(attestation.SNP)},
		Allowances: attestation.Allowances{Message: 16, Tool: 64, Medium: 1024},
	}
	hostKey, clientKey := newKey(t), newKey(t)
	var funded []devchain.GenesisAccount
	for _, key := range []ed25519.PrivateKey{hostKey, clientKey} {
		a, err := lite.WalletAddress(public(key), globalID)
		must(t, err)
		funded = append(funded, devchain.GenesisAccount{Address: a, Balance: 10_000 * ton})
	}
	init := n.registryInit(funded[0].Address, append(models, toyModel))
	n.registry, err = init.Address()
	must(t, err)
	state, err := init.StateInit()
	must(t, err)
	n.serve(append(funded, devchain.GenesisAccount{Address: n.registry, Balance: 10 * ton, StateInit: state}))
	n.host, err = lite.NewWallet(t.Context(), n.hostTON, hostKey)
	must(t, err)
	n.client, err = lite.NewWallet(t.Context(), n.clientTON, clientKey)
	must(t, err)
	return n
}

// registryInit is owned by the host, so that a test can revoke.
func (n *network) registryInit(owner attestation.Address, models []attestation.Model) contracts.RegistryInit {
	since := uint32(start.Add(-time.Minute).Unix())
	r := contracts.RegistryInit{Owner: owner, Delay: contracts.MinRegistryDelay, ReleaseFloor: 1, Entries: map[[32]byte]contracts.Entry{
		n.release.Digest():   {Kind: attestation.EntryRelease, NotBefore: since, Meta: attestation.ReleaseMeta(n.release.Number)},
		sha256.Sum256(floor): {Kind: attestation.EntryPolicyFloor, NotBefore: since},
	}}
	for _, m := range models {
		r.Entries[attestation.ModelKey(m)] = contracts.Entry{Kind: attestation.EntryModel, NotBefore: since, Meta: contracts.ModelNameHash(m.Name)}
	}
	return r
}

// serve runs the chain behind a liteserver until the test's end, and connects both sides.
func (n *network) serve(genesis []devchain.GenesisAccount) {
	n.t.Helper()
	var err error
	n.chain, err = devchain.Open(devchain.Config{
		Dir: n.t.TempDir(), GlobalID: globalID, Genesis: genesis, Now: n.clock.Now, BlockInterval: time.Millisecond, IdleInterval: time.Hour,
	})
	must(n.t, err)
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	must(n.t, err)
	srv := n.chain.Serve(ln)
	config, err := n.chain.GlobalConfig(srv.Addr())
	must(n.t, err)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.chain.Run(ctx) }()
	for _, c := range []**lite.Client{&n.hostTON, &n.clientTON} {
		*c, err = lite.Dial(n.t.Context(), lite.Config{GlobalConfigJSON: config, Now: n.clock.Now})
		must(n.t, err)
	}
	n.t.Cleanup(func() {
		for _, close := range []func() error{n.hostTON.Close, n.clientTON.Close, srv.Close} {
			if err := close(); err != nil {
				n.t.Error(err)
			}
		}
		stop()
		if err := <-done; err != nil {
			n.t.Error(err)
		}
		if err := n.chain.Close(); err != nil {
			n.t.Error(err)
		}
	})
}

// advance moves time, on the chain before anywhere else.
func (n *network) advance(d time.Duration) {
	n.t.Helper()
	n.clock.set(n.clock.Now().Add(d))
	must(n.t, n.chain.Mine())
	n.clock.fire()
}

// onChain is what a channel has paid out, and what lies in it, in nano.
func (n *network) onChain(t testing.TB, channel attestation.Address) (paid, balance uint64) {
	t.Helper()
	s, balance, _, err := view.Channel(t.Context(), n.clientTON, channel)
	must(t, err)
	return s.Paid, balance
}

func newKey(t testing.TB) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	return key
}

func public(key ed25519.PrivateKey) ed25519.PublicKey { return key.Public().(ed25519.PublicKey) }

func random[T ~[16]byte | ~[32]byte](t testing.TB) (out T) {
	t.Helper()
	b := make([]byte, len(out))
	_, err := io.ReadFull(rand.Reader, b)
	must(t, err)
	return T(b)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
