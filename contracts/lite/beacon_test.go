package lite_test

import (
	"errors"
	"testing"
	"time"

	"cocoon/attestation"
	"cocoon/attestation/canonical"
	"cocoon/contracts/devchain"
	"cocoon/contracts/lite"

	"github.com/xssnick/tonutils-go/tvm/cell"
)

// Both ways to trust a network prove beacons to a verifier of evidence.
var (
	_ attestation.ChainVerifier = lite.KeyBlocks{}
	_ attestation.ChainVerifier = (*lite.Client)(nil)
)

type beacon struct {
	seqno uint32
	root  [32]byte
	proof []byte
	time  time.Time
}

func readBeacon(t testing.TB, n *network) (beacon, *lite.Client) {
	t.Helper()
	c, ctx := n.dial(t, "")
	var b beacon
	var err error
	if b.seqno, b.root, b.proof, b.time, err = c.Beacon(ctx); err != nil {
		t.Fatal(err)
	}
	return b, c
}

func TestBeaconIsVerifiedOffline(t *testing.T) {
	made := time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)
	n := start(t, devchain.Config{Now: func() time.Time { return made }})
	n.mine(t, 5)
	b, _ := readBeacon(t, n)
	got, err := lite.VerifyBeacon(b.seqno, b.root, b.proof, n.trust(t))
	if err != nil {
		t.Fatal(err)
	}
	if !got.Equal(made) || !b.time.Equal(made) {
		t.Errorf("time: got %s and %s, want %s", got, b.time, made)
	}
	if b.seqno != 6 {
		t.Errorf("seqno: got %d, want 6", b.seqno)
	}
	if len(b.proof) > 16<<10 {
		t.Errorf("proof: got %d bytes for one validator, want few", len(b.proof))
	}
	if _, err := n.trust(t).VerifyBeacon(attestation.Beacon{Seqno: b.seqno, RootHash: b.root}, b.proof); err != nil {
		t.Error("as a chain verifier:", err)
	}
}

func TestBeaconOfTheInitBlock(t *testing.T) {
	n := start(t, devchain.Config{})
	b, _ := readBeacon(t, n)
	if _, err := lite.VerifyBeacon(b.seqno, b.root, b.proof, n.trust(t)); err != nil {
		t.Error(err)
	}
}

func TestBeaconTrustsNothingByDefault(t *testing.T) {
	n := start(t, devchain.Config{})
	n.mine(t, 2)
	b, _ := readBeacon(t, n)
	if _, err := lite.VerifyBeacon(b.seqno, b.root, b.proof, lite.KeyBlocks{}); !errors.Is(err, lite.ErrNoTrust) {
		t.Errorf("got %v, want %v", err, lite.ErrNoTrust)
	}
	other := start(t, devchain.Config{})
	if _, err := lite.VerifyBeacon(b.seqno, b.root, b.proof, other.trust(t)); err == nil {
		t.Error("another network's key block: got no error")
	}
}

// A key block's validators may sign only up to the next one, even if a
// verifier still trusts them for what is older.
func TestBeaconNeedsTheNewestKeyBlock(t *testing.T) {
	n := start(t, devchain.Config{KeyBlockEvery: 4})
	n.mine(t, 1)
	old, _ := readBeacon(t, n)
	n.mine(t, 8)
	b, c := readBeacon(t, n)
	if got := len(c.KeyBlocks().List()); got != 3 {
		t.Fatalf("key blocks: got %d, want 1, 4 and 8", got)
	}
	if _, err := c.KeyBlocks().VerifyBeacon(attestation.Beacon{Seqno: old.seqno, RootHash: old.root}, old.proof); err != nil {
		t.Error("a beacon before later key blocks:", err)
	}
	if _, err := lite.VerifyBeacon(b.seqno, b.root, b.proof, c.KeyBlocks()); err != nil {
		t.Error(err)
	}
	if _, err := lite.VerifyBeacon(b.seqno, b.root, b.proof, n.trust(t)); err == nil {
		t.Error("without the links to its key block: got no error")
	}
	fork := c.KeyBlocks().List()[2]
	fork.Seqno, fork.RootHash = b.seqno-1, [32]byte{1}
	trust, err := lite.TrustKeyBlocks(append(c.KeyBlocks().List(), fork)...)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lite.VerifyBeacon(b.seqno, b.root, b.proof, trust); err == nil {
		t.Error("signed by validators whose turn was over: got no error")
	}
}

func TestBeaconTampered(t *testing.T) {
	n := start(t, devchain.Config{KeyBlockEvery: 100})
	n.mine(t, 5)
	b, _ := readBeacon(t, n)
	trust := n.trust(t)
	var w wireBeacon
	if err := canonical.Unmarshal("beacon", b.proof, lite.MaxBeaconBytes, &w); err != nil {
		t.Fatal(err)
	}
	n.mine(t, 1)
	next, _ := readBeacon(t, n)
	var later wireBeacon
	if err := canonical.Unmarshal("beacon", next.proof, lite.MaxBeaconBytes, &later); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(w *wireBeacon, b *beacon){
		"version":            func(w *wireBeacon, b *beacon) { w.Version++ },
		"key seqno":          func(w *wireBeacon, b *beacon) { w.Link.Key.Seqno++ },
		"key root":           func(w *wireBeacon, b *beacon) { w.Link.Key.RootHash[0] ^= 1 },
		"key file":           func(w *wireBeacon, b *beacon) { w.Link.Key.FileHash[0] ^= 1 },
		"seqno in proof":     func(w *wireBeacon, b *beacon) { w.Link.To.Seqno++ },
		"seqno everywhere":   func(w *wireBeacon, b *beacon) { w.Link.To.Seqno++; b.seqno++ },
		"root in proof":      func(w *wireBeacon, b *beacon) { w.Link.To.RootHash[0] ^= 1 },
		"root everywhere":    func(w *wireBeacon, b *beacon) { w.Link.To.RootHash[0] ^= 1; b.root[0] ^= 1 },
		"file hash":          func(w *wireBeacon, b *beacon) { w.Link.To.FileHash[0] ^= 1 },
		"another's header":   func(w *wireBeacon, b *beacon) { w.Link.Header = later.Link.Header },
		"no header":          func(w *wireBeacon, b *beacon) { w.Link.Header = []byte{} },
		"header for config":  func(w *wireBeacon, b *beacon) { w.Link.Config = w.Link.Header },
		"no config":          func(w *wireBeacon, b *beacon) { w.Link.Config = []byte{} },
		"trailing config":    func(w *wireBeacon, b *beacon) { w.Link.Config = append(w.Link.Config, 0) },
		"validator set hash": func(w *wireBeacon, b *beacon) { w.Link.Signatures.ValidatorSetHash++ },
		"catchain seqno":     func(w *wireBeacon, b *beacon) { w.Link.Signatures.CatchainSeqno++ },
		"another's votes":    func(w *wireBeacon, b *beacon) { w.Link.Signatures = later.Link.Signatures },
		"no votes":           func(w *wireBeacon, b *beacon) { w.Link.Signatures.List = []wireSignature{} },
		"vote twice": func(w *wireBeacon, b *beacon) {
			w.Link.Signatures.List = append(w.Link.Signatures.List, w.Link.Signatures.List[0])
		},
		"voter":      func(w *wireBeacon, b *beacon) { w.Link.Signatures.List[0].Node[0] ^= 1 },
		"vote":       func(w *wireBeacon, b *beacon) { w.Link.Signatures.List[0].Signature[0] ^= 1 },
		"session id": func(w *wireBeacon, b *beacon) { w.Link.Signatures.SessionID[0] ^= 1 },
		"slot":       func(w *wireBeacon, b *beacon) { w.Link.Signatures.Slot++ },
		"candidate":  func(w *wireBeacon, b *beacon) { w.Link.Signatures.Candidate = []byte{1} },
		"simplex":    func(w *wireBeacon, b *beacon) { w.Link.Signatures.Simplex = true },
		"self proof": func(w *wireBeacon, b *beacon) { w.Link.Key, w.Link.Config = w.Link.To, []byte{} },
		"self proof, no votes": func(w *wireBeacon, b *beacon) {
			w.Link.Key, w.Link.Config, w.Link.Signatures = w.Link.To, []byte{}, wireSignatures{List: []wireSignature{}, Candidate: []byte{}}
		},
		"pruned header": func(w *wireBeacon, b *beacon) { w.Link.Header = pruned(t, w.Link.Header) },
		"pruned config": func(w *wireBeacon, b *beacon) { w.Link.Config = pruned(t, w.Link.Config) },
	} {
		t.Run(name, func(t *testing.T) {
			var mine wireBeacon
			if err := canonical.Unmarshal("beacon", b.proof, lite.MaxBeaconBytes, &mine); err != nil {
				t.Fatal(err)
			}
			claim := b
			change(&mine, &claim)
			if _, err := lite.VerifyBeacon(claim.seqno, claim.root, canonical.MustMarshal(mine), trust); err == nil {
				t.Error("got no error")
			}
		})
	}
	if _, err := lite.VerifyBeacon(b.seqno, b.root, append(b.proof[:len(b.proof):len(b.proof)], 0), trust); err == nil {
		t.Error("trailing byte: got no error")
	}
	if _, err := lite.VerifyBeacon(b.seqno, b.root, b.proof[:len(b.proof)-1], trust); err == nil {
		t.Error("truncated: got no error")
	}
}

// pruned keeps a proof's root cell and prunes all that is under it.
func pruned(t *testing.T, boc []byte) []byte {
	t.Helper()
	root, err := cell.FromBOC(boc)
	if err != nil {
		t.Fatal(err)
	}
	body, err := root.PeekRef(0)
	if err != nil {
		t.Fatal(err)
	}
	b := cell.BeginCell()
	s := body.MustBeginParse()
	b.MustStoreSlice(s.MustLoadSlice(s.BitsLeft()), body.BitsSize())
	for i := range int(body.RefsNum()) {
		ref, err := cell.CreatePrunedBranch(body.MustPeekRef(i).Virtualize(0), 1, 0)
		if err != nil {
			t.Fatal(err)
		}
		b.MustStoreRef(ref)
	}
	p, err := cell.CreateMerkleProof(b.EndCell())
	if err != nil {
		t.Fatal(err)
	}
	return p.ToBOC()
}

// Both forms of signatures that liteservers send are proofs.
func TestBeaconUnderSimplex(t *testing.T) {
	n := start(t, devchain.Config{Simplex: true, KeyBlockEvery: 3})
	n.mine(t, 7)
	b, c := readBeacon(t, n)
	if _, err := lite.VerifyBeacon(b.seqno, b.root, b.proof, c.KeyBlocks()); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(s *wireSignatures){
		"vote":         func(s *wireSignatures) { s.List[0].Signature[0] ^= 1 },
		"session id":   func(s *wireSignatures) { s.SessionID[0] ^= 1 },
		"slot":         func(s *wireSignatures) { s.Slot++ },
		"candidate":    func(s *wireSignatures) { s.Candidate[50] ^= 1 },
		"no candidate": func(s *wireSignatures) { s.Candidate = []byte{} },
		"said ordinary": func(s *wireSignatures) {
			*s = wireSignatures{ValidatorSetHash: s.ValidatorSetHash, CatchainSeqno: s.CatchainSeqno, List: s.List, Candidate: []byte{}}
		},
	} {
		var w wireBeacon
		if err := canonical.Unmarshal("beacon", b.proof, lite.MaxBeaconBytes, &w); err != nil {
			t.Fatal(err)
		}
		change(&w.Link.Signatures)
		if _, err := lite.VerifyBeacon(b.seqno, b.root, canonical.MustMarshal(w), c.KeyBlocks()); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
}

// A flipped bit either breaks the proof or lies where nothing is said.
func TestBeaconBitFlips(t *testing.T) {
	n := start(t, devchain.Config{})
	n.mine(t, 2)
	b, _ := readBeacon(t, n)
	trust := n.trust(t)
	refused := 0
	for i := range b.proof {
		p := append([]byte(nil), b.proof...)
		p[i] ^= 1 << (i % 8)
		got, err := lite.VerifyBeacon(b.seqno, b.root, p, trust)
		if err != nil {
			refused++
		} else if !got.Equal(b.time) {
			t.Fatalf("byte %d: got time %s, want %s or an error", i, got, b.time)
		}
	}
	if refused < len(b.proof)*9/10 {
		t.Errorf("got %d of %d flips refused, want nearly all", refused, len(b.proof))
	}
}

func FuzzVerifyBeacon(f *testing.F) {
	n := start(f, fixed(f, devchain.Config{}))
	n.mine(f, 2)
	b, _ := readBeacon(f, n)
	if _, err := lite.VerifyBeacon(b.seqno, b.root, b.proof, n.trust(f)); err != nil {
		f.Fatal(err)
	}
	trust := n.trust(f)
	f.Add(b.proof)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, proof []byte) {
		got, err := lite.VerifyBeacon(b.seqno, b.root, proof, trust)
		if err == nil && !got.Equal(b.time) {
			t.Errorf("got time %s, want %s", got, b.time)
		}
	})
}
