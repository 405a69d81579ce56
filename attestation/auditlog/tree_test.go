package auditlog_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/rfc6962"

	"cocoon/attestation"
	"cocoon/attestation/auditlog"
)

// HeadTree against another implementation of RFC 6962, at every size and every earlier count.
func TestHeadTree(t *testing.T) {
	var tree auditlog.HeadTree
	other := (&compact.RangeFactory{Hash: rfc6962.DefaultHasher.HashChildren}).NewEmptyRange(0)
	roots := [][32]byte{[32]byte(rfc6962.DefaultHasher.EmptyRoot())}
	if tree.Root() != roots[0] || tree.Count() != 0 {
		t.Errorf("empty: got root %x of %d", tree.Root(), tree.Count())
	}
	for n := range 300 {
		leaf := fmt.Appendf(nil, "receipt %d", n)
		if i := tree.Append(leaf); i != uint64(n) {
			t.Fatalf("index: got %d, want %d", i, n)
		}
		if err := other.Append(rfc6962.DefaultHasher.HashLeaf(leaf), nil); err != nil {
			t.Fatal(err)
		}
		root, err := other.GetRootHash(nil)
		if err != nil {
			t.Fatal(err)
		}
		roots = append(roots, [32]byte(root))
		if tree.Root() != roots[n+1] {
			t.Fatalf("root of %d: got %x, want %x", n+1, tree.Root(), root)
		}
	}
	for n, want := range roots {
		if got, err := tree.RootAt(uint64(n)); err != nil || got != want {
			t.Errorf("root at %d: got %x, %v, want %x", n, got, err, want)
		}
	}
	if _, err := tree.RootAt(301); err == nil {
		t.Error("root at a count to come: got no error")
	}
}

func TestHeadBindsEverything(t *testing.T) {
	heads := map[[32]byte]string{}
	for name, h := range map[string][32]byte{
		"plain": auditlog.Head([32]byte{1}, [32]byte{2}, 3, [32]byte{4}),
		"log":   auditlog.Head([32]byte{9}, [32]byte{2}, 3, [32]byte{4}),
		"base":  auditlog.Head([32]byte{1}, [32]byte{9}, 3, [32]byte{4}),
		"count": auditlog.Head([32]byte{1}, [32]byte{2}, 9, [32]byte{4}),
		"root":  auditlog.Head([32]byte{1}, [32]byte{2}, 3, [32]byte{9}),
	} {
		if other, ok := heads[h]; ok {
			t.Errorf("%s and %s have one head", name, other)
		}
		heads[h] = name
	}
	// SHA-256 over the 14 bytes of the name, two ids, a big-endian count and the root: computed with sha256sum.
	if got := fmt.Sprintf("%x", auditlog.Head([32]byte{1}, [32]byte{2}, 3, [32]byte{4})); got != headVector {
		t.Errorf("got %s, want %s", got, headVector)
	}
}

func TestEntries(t *testing.T) {
	for _, e := range []auditlog.Entry{
		auditlog.ReceiptEntry{Digest: [32]byte{1}},
		auditlog.KeysetEntry{Epoch: 7, Keyset: [32]byte{1}, Bundle: [32]byte{2}},
		auditlog.EpochClosedEntry{Epoch: 7},
		auditlog.PredecessorEntry{LogID: [32]byte{1}, Size: 5, Root: [32]byte{2}},
		auditlog.PredecessorEntry{},
	} {
		raw, err := auditlog.EncodeEntry(e)
		if err != nil {
			t.Fatal(err)
		}
		got, err := auditlog.ParseEntry(raw)
		if d := cmp.Diff(e, got); err != nil || d != "" {
			t.Errorf("%T: %v (-want +got):\n%s", e, err, d)
		}
		for _, bad := range [][]byte{append(bytes.Clone(raw), 0), raw[:len(raw)-1], bytes.Replace(raw, []byte("type"), []byte("tipe"), 1)} {
			if _, err := auditlog.ParseEntry(bad); err == nil {
				t.Errorf("%T: %x: got no error", e, bad)
			}
		}
	}
	if _, err := auditlog.EncodeEntry(nil); err == nil {
		t.Error("no entry: got no error")
	}
}

func FuzzParseEntry(f *testing.F) {
	for _, e := range []auditlog.Entry{auditlog.ReceiptEntry{}, auditlog.KeysetEntry{}, auditlog.EpochClosedEntry{}, auditlog.PredecessorEntry{}} {
		raw, err := auditlog.EncodeEntry(e)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := auditlog.ParseEntry(b)
		if err != nil {
			return
		}
		if again, err := auditlog.EncodeEntry(e); err != nil || !bytes.Equal(again, b) {
			t.Errorf("read %x, wrote %x, %v", b, again, err)
		}
	})
}

func checkpoint(t testing.TB) ([]byte, [32]byte, auditlog.Checkpoint) {
	t.Helper()
	key := testKey("checkpoints")
	c := auditlog.Checkpoint{LogID: attestation.LogID(public(key)), Size: 12, Root: [32]byte{7}}
	raw, err := auditlog.SignCheckpoint(key, c)
	if err != nil {
		t.Fatal(err)
	}
	return raw, public(key), c
}

func TestCheckpoint(t *testing.T) {
	raw, key, want := checkpoint(t)
	got, err := auditlog.ParseCheckpoint(raw, key)
	if err != nil || got != want {
		t.Fatalf("got %+v, %v, want %+v", got, err, want)
	}
	if !strings.HasPrefix(string(raw), auditlog.Origin(want.LogID)+"\n12\n") {
		t.Errorf("text: got %q", raw)
	}
	for i := range raw {
		bad := bytes.Clone(raw)
		bad[i] ^= 1
		if _, err := auditlog.ParseCheckpoint(bad, key); err == nil {
			t.Errorf("byte %d changed: got no error", i)
		}
	}
	text, sig, _ := strings.Cut(string(raw), "\n\n")
	for name, bad := range map[string]string{
		"an extension line":  text + "\nmore\n\n" + sig,
		"a sign":             strings.Replace(string(raw), "\n12\n", "\n+12\n", 1),
		"a leading zero":     strings.Replace(string(raw), "\n12\n", "\n012\n", 1),
		"upper case":         strings.ToUpper(text) + "\n\n" + sig,
		"no signature":       text + "\n\n",
		"two signatures":     string(raw) + sig,
		"a second signature": string(raw) + "— other wXlMnQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n",
		"trailing bytes":     string(raw) + "x",
		"a huge size":        strings.Replace(string(raw), "\n12\n", "\n99999999999999999999\n", 1),
		"nothing":            "",
		"a megabyte":         strings.Repeat("x", 1<<20),
	} {
		if _, err := auditlog.ParseCheckpoint([]byte(bad), key); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
	if _, err := auditlog.ParseCheckpoint(raw, public(testKey("other"))); err == nil {
		t.Error("another key: got no error")
	}
	if _, err := auditlog.SignCheckpoint(testKey("other"), want); err == nil {
		t.Error("signing for another log: got no error")
	}
}

func FuzzParseCheckpoint(f *testing.F) {
	raw, key, _ := checkpoint(f)
	f.Add(raw)
	f.Add([]byte("cocoon/log/\n0\n\n\n— x y\n"))
	signer := testKey("checkpoints")
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := auditlog.ParseCheckpoint(b, key)
		if err != nil {
			return
		}
		if again, err := auditlog.SignCheckpoint(signer, c); err != nil || !bytes.Equal(again, b) {
			t.Errorf("read %q, wrote %q, %v", b, again, err)
		}
	})
}

func TestProofs(t *testing.T) {
	w := manyReceipts(t, 700, 2)
	f := w.folder()
	key := public(testKey("log 1"))
	raw, err := f.Checkpoint(t.Context(), attestation.LogID(key))
	if err != nil {
		t.Fatal(err)
	}
	c, err := auditlog.ParseCheckpoint(raw, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := auditlog.EncodeEntry(auditlog.PredecessorEntry{})
	if err != nil {
		t.Fatal(err)
	}
	path, err := auditlog.InclusionProof(t.Context(), f, c, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := auditlog.VerifyInclusion(c, 0, leaf, path); err != nil {
		t.Error(err)
	}
	if err := auditlog.VerifyInclusion(c, 1, leaf, path); err == nil {
		t.Error("another index: got no error")
	}
	if err := auditlog.VerifyInclusion(c, 0, leaf[1:], path); err == nil {
		t.Error("another leaf: got no error")
	}
	if _, err := auditlog.InclusionProof(t.Context(), f, c, c.Size); err == nil {
		t.Error("a leaf to come: got no error")
	}
	// A receipt names an earlier checkpoint, which the last one extends.
	sections, err := f.Sections(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	early := earlier(t, f, sections[0], key)
	if early.Size == 0 || early.Size == c.Size {
		t.Fatalf("earlier checkpoint: size %d", early.Size)
	}
	path, err = auditlog.ConsistencyProof(t.Context(), f, c, early.Size)
	if err != nil {
		t.Fatal(err)
	}
	if err := auditlog.VerifyConsistency(early, c, path); err != nil {
		t.Error(err)
	}
	early.Root[0] ^= 1
	if err := auditlog.VerifyConsistency(early, c, path); err == nil {
		t.Error("another root: got no error")
	}
}

func earlier(t *testing.T, f *auditlog.Folder, s auditlog.Section, key [32]byte) auditlog.Checkpoint {
	t.Helper()
	for d, err := range f.Receipts(t.Context(), s) {
		if err != nil {
			t.Fatal(err)
		}
		r, err := auditlog.ParseReceipt(d.COSE)
		if err != nil {
			t.Fatal(err)
		}
		c, err := auditlog.ParseCheckpoint(r.Checkpoint, key)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	t.Fatal("no receipts")
	return auditlog.Checkpoint{}
}

func TestForkProof(t *testing.T) {
	w := manyReceipts(t, 300, 1)
	f := w.folder()
	key := testKey("log 1")
	id := attestation.LogID(public(key))
	last, err := f.Checkpoint(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	sign := func(size uint64, root [32]byte) []byte {
		raw, err := auditlog.SignCheckpoint(key, auditlog.Checkpoint{LogID: id, Size: size, Root: root})
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	for _, other := range [][]byte{sign(5, [32]byte{1}), sign(302, [32]byte{1})} {
		for _, pair := range [][2][]byte{{other, last}, {last, other}} {
			p, err := auditlog.ProveFork(t.Context(), f, public(key), pair[0], pair[1])
			if err != nil || p == nil {
				t.Fatalf("got %v, %v, want a proof", p, err)
			}
			raw := p.Encode()
			if _, err := auditlog.ParseForkProof(raw); err != nil {
				t.Error(err)
			}
			if _, err := auditlog.ParseForkProof(append(raw, 0)); err == nil {
				t.Error("trailing byte: got no error")
			}
			bad := *p
			bad.Root[0] ^= 1
			if err := bad.Verify(); err == nil {
				t.Error("another root: got no error")
			}
			bad = *p
			bad.LogPublicKey = public(testKey("innocent"))
			if err := bad.Verify(); err == nil {
				t.Error("another log: got no error")
			}
		}
	}
	if p, err := auditlog.ProveFork(t.Context(), f, public(key), last, last); p != nil || err != nil {
		t.Errorf("one checkpoint twice: got %v, %v", p, err)
	}
}

func FuzzParseForkProof(f *testing.F) {
	p := auditlog.ForkProof{Version: 1, Smaller: []byte("x"), Proof: [][32]byte{{1}}}
	f.Add(p.Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := auditlog.ParseForkProof(b); err == nil {
			t.Error("made a proof without the key")
		}
	})
}

func FuzzParseBoot(f *testing.F) {
	f.Add(auditlog.Boot{Version: 1, Number: 1, LogPublicKey: [32]byte{1}}.Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		boot, err := auditlog.ParseBoot(b)
		if err == nil && !bytes.Equal(boot.Encode(), b) {
			t.Errorf("read %x, wrote %x", b, boot.Encode())
		}
	})
}

const headVector = "f39e587d98479a7816f10863c85497f17155e0a6a6a76fc323299a2f9cd605a9"
