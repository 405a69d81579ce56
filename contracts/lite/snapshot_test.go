package lite_test

import (
	"context"
	"errors"
	"testing"

	"cocoon/attestation"
	"cocoon/attestation/canonical"
	"cocoon/contracts/devchain"
	"cocoon/contracts/lite"

	"github.com/google/go-cmp/cmp"
	"github.com/xssnick/tonutils-go/tvm/cell"
)

// reader is what an audit needs, online or offline.
type reader interface {
	Head(context.Context) (lite.Block, error)
	GlobalID(context.Context) (int32, error)
	Account(context.Context, attestation.Address) (lite.Account, error)
	Transactions(context.Context, attestation.Address, uint64) ([]lite.Tx, error)
	KeyBlocks() lite.KeyBlocks
}

var (
	_ reader = (*lite.Client)(nil)
	_ reader = (*lite.Snapshot)(nil)
)

var sameCells = cmp.Options{
	cmp.Comparer(func(a, b *cell.Cell) bool {
		return (a == nil) == (b == nil) && (a == nil || a.HashKey() == b.HashKey())
	}),
	cmp.AllowUnexported(lite.Tx{}),
}

// paid is a network on which a wallet paid somebody, with a few key blocks.
func paid(t testing.TB) (*network, *lite.Client, []attestation.Address) {
	t.Helper()
	key, funds := rich(t, 1, 10*coin)
	n := start(t, devchain.Config{Genesis: []devchain.GenesisAccount{funds}, KeyBlockEvery: 5})
	stop := make(chan struct{})
	done := make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	go func() { done <- n.chain.Run(ctx); close(stop) }()
	c, cctx := n.dial(t, "")
	w, err := lite.NewWallet(cctx, c, key)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := w.Send(cctx, []lite.Message{{To: somebody(7), Amount: coin}}); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	<-stop
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	n.mine(t, 7)
	return n, c, []attestation.Address{w.Address(), somebody(7), somebody(99)}
}

func TestSnapshotReadsAsTheClientDoes(t *testing.T) {
	n, c, addrs := paid(t)
	ctx := t.Context()
	raw, err := c.Snapshot(ctx, append(addrs, addrs[0]))
	if err != nil {
		t.Fatal(err)
	}
	s, err := lite.OpenSnapshot(raw, n.trust(t))
	if err != nil {
		t.Fatal(err)
	}
	online, err := c.Head(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := s.Head(ctx); err != nil || got != online {
		t.Errorf("head: got %v and %v, want %v", got, err, online)
	}
	if got, err := s.GlobalID(ctx); err != nil || got != globalID {
		t.Errorf("global id: got %d and %v, want %d", got, err, globalID)
	}
	if diff := cmp.Diff(c.KeyBlocks().List(), s.KeyBlocks().List()); diff != "" {
		t.Errorf("key blocks (-client +snapshot):\n%s", diff)
	}
	histories := 0
	for _, addr := range addrs {
		want, err := c.Account(ctx, addr)
		if err != nil {
			t.Fatal(err)
		}
		got, err := s.Account(ctx, addr)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, sameCells); diff != "" {
			t.Errorf("account %s (-client +snapshot):\n%s", addr, diff)
		}
		wantTxs, err := c.Transactions(ctx, addr, 0)
		if err != nil {
			t.Fatal(err)
		}
		gotTxs, err := s.Transactions(ctx, addr, 0)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(wantTxs, gotTxs, sameCells, cmp.Transformer("empty", func(x []lite.Tx) []lite.Tx { return append([]lite.Tx{}, x...) })); diff != "" {
			t.Errorf("transactions of %s (-client +snapshot):\n%s", addr, diff)
		}
		histories += len(gotTxs)
	}
	if histories < 4 {
		t.Errorf("transactions: got %d, want two payments on both sides", histories)
	}
	if a, _ := s.Account(ctx, addrs[2]); a.Exists {
		t.Error("an account nobody used: got one that exists")
	}
	if _, err := s.Account(ctx, somebody(50)); !errors.Is(err, lite.ErrNotInSnapshot) {
		t.Errorf("an account not asked for: got %v, want %v", err, lite.ErrNotInSnapshot)
	}
}

// A later key block alone is enough to open a chain file, and links from the
// init block extend what an auditor can prove.
func TestSnapshotUnderLaterTrust(t *testing.T) {
	n, c, addrs := paid(t)
	raw, err := c.Snapshot(t.Context(), addrs)
	if err != nil {
		t.Fatal(err)
	}
	all := c.KeyBlocks().List()
	late, err := lite.TrustKeyBlocks(all[len(all)-1])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lite.OpenSnapshot(raw, late); err != nil {
		t.Error("from the last key block:", err)
	}
	both, err := lite.TrustKeyBlocks(all[0], all[len(all)-1])
	if err != nil {
		t.Fatal(err)
	}
	s, err := lite.OpenSnapshot(raw, both)
	if err != nil {
		t.Fatal(err)
	}
	if got := len(s.KeyBlocks().List()); got != len(all) {
		t.Errorf("key blocks: got %d, want %d", got, len(all))
	}
	if _, err := lite.OpenSnapshot(raw, lite.KeyBlocks{}); !errors.Is(err, lite.ErrNoTrust) {
		t.Errorf("trusting nothing: got %v, want %v", err, lite.ErrNoTrust)
	}
	other := start(t, devchain.Config{})
	if _, err := lite.OpenSnapshot(raw, other.trust(t)); err == nil {
		t.Error("trusting another network: got no error")
	}
	fork := all[1]
	fork.RootHash[0] ^= 1
	forked, err := lite.TrustKeyBlocks(all[0], fork)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lite.OpenSnapshot(raw, forked); err == nil {
		t.Error("trusting a fork: got no error")
	}
	_ = n
}

func TestSnapshotTampered(t *testing.T) {
	n, c, addrs := paid(t)
	raw, err := c.Snapshot(t.Context(), addrs)
	if err != nil {
		t.Fatal(err)
	}
	n.mine(t, 1)
	n.chain.Mint(addrs[0], 5)
	n.mine(t, 1)
	rawLater, err := c.Snapshot(t.Context(), addrs)
	if err != nil {
		t.Fatal(err)
	}
	parse := func(raw []byte) (s wireSnapshot) {
		if err := canonical.Unmarshal("snapshot", raw, lite.MaxSnapshotBytes, &s); err != nil {
			t.Fatal(err)
		}
		return s
	}
	later := parse(rawLater)
	for name, change := range map[string]func(s *wireSnapshot){
		"version":                func(s *wireSnapshot) { s.Version++ },
		"no links":               func(s *wireSnapshot) { s.Links = s.Links[:0] },
		"no first link":          func(s *wireSnapshot) { s.Links = s.Links[1:] },
		"no last link":           func(s *wireSnapshot) { s.Links = s.Links[:len(s.Links)-1] },
		"signature":              func(s *wireSnapshot) { s.Links[0].Signatures.List[0].Signature[0] ^= 1 },
		"head":                   func(s *wireSnapshot) { s.Links[len(s.Links)-1] = later.Links[len(later.Links)-1] },
		"another's address":      func(s *wireSnapshot) { s.Accounts[0].Proof.Address = somebody(1) },
		"address in masterchain": func(s *wireSnapshot) { s.Accounts[0].Proof.Address[3] = 0xff },
		"twice":                  func(s *wireSnapshot) { s.Accounts = append(s.Accounts, s.Accounts[0]) },
		"shard":                  func(s *wireSnapshot) { s.Accounts[0].Proof.Shard.RootHash[0] ^= 1 },
		"shard seqno":            func(s *wireSnapshot) { s.Accounts[0].Proof.Shard.Seqno++ },
		"shard proof":            func(s *wireSnapshot) { s.Accounts[0].Proof.ShardProof = s.Accounts[0].Proof.Proof },
		"later account":          func(s *wireSnapshot) { s.Accounts[0] = later.Accounts[0] },
		"later state":            func(s *wireSnapshot) { s.Accounts[0].Proof.State = later.Accounts[0].Proof.State },
		"hidden":                 func(s *wireSnapshot) { s.Accounts[0].Proof.State, s.Accounts[0].Transactions = []byte{}, [][]byte{} },
		"invented":               func(s *wireSnapshot) { s.Accounts[2].Proof.State = s.Accounts[0].Proof.State },
		"history cut":            func(s *wireSnapshot) { s.Accounts[0].Transactions = s.Accounts[0].Transactions[:1] },
		"history hidden":         func(s *wireSnapshot) { s.Accounts[0].Transactions = [][]byte{} },
		"history without head":   func(s *wireSnapshot) { s.Accounts[0].Transactions = s.Accounts[0].Transactions[1:] },
		"history longer": func(s *wireSnapshot) {
			s.Accounts[0].Transactions = append(s.Accounts[0].Transactions, s.Accounts[0].Transactions[0])
		},
		"history of another": func(s *wireSnapshot) { s.Accounts[0].Transactions = s.Accounts[1].Transactions },
		"history invented":   func(s *wireSnapshot) { s.Accounts[2].Transactions = s.Accounts[1].Transactions },
	} {
		t.Run(name, func(t *testing.T) {
			s := parse(raw)
			change(&s)
			if _, err := lite.OpenSnapshot(canonical.MustMarshal(s), n.trust(t)); err == nil {
				t.Error("got no error")
			}
		})
	}
	if _, err := lite.OpenSnapshot(raw, n.trust(t)); err != nil {
		t.Error("untouched:", err)
	}
	if _, err := lite.OpenSnapshot(append(raw[:len(raw):len(raw)], 0), n.trust(t)); err == nil {
		t.Error("trailing byte: got no error")
	}
}

func FuzzOpenSnapshot(f *testing.F) {
	n := start(f, fixed(f, devchain.Config{KeyBlockEvery: 2}))
	n.chain.Mint(somebody(7), coin)
	n.mine(f, 4)
	c, ctx := n.dial(f, "")
	raw, err := c.Snapshot(ctx, []attestation.Address{somebody(7), somebody(9)})
	if err != nil {
		f.Fatal(err)
	}
	trust := n.trust(f)
	if _, err := lite.OpenSnapshot(raw, trust); err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		s, err := lite.OpenSnapshot(raw, trust)
		if err != nil {
			return
		}
		// Whatever was changed, only blocks and accounts of the network pass.
		if got, _ := s.Head(context.Background()); got.Seqno > 5 {
			t.Errorf("head: got %d, want at most 5", got.Seqno)
		}
		if a, err := s.Account(context.Background(), somebody(9)); err == nil && a.Exists {
			t.Error("an account that never was: got one that exists")
		}
	})
}
