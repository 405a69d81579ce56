package lite

import (
	"encoding/hex"
	"testing"

	"github.com/xssnick/tonutils-go/tvm/cell"
)

// claimed is the root hash that a Merkle proof says it is about.
func claimed(root *cell.Cell) ([32]byte, bool) {
	s, err := root.BeginParse()
	if err != nil || s.BitsLeft() < 8+256 {
		return [32]byte{}, false
	}
	b, err := s.LoadSlice(8 + 256)
	if err != nil {
		return [32]byte{}, false
	}
	return [32]byte(b[1:]), true
}

// FuzzHeader parses headers under the very hash that they claim, as a stranger
// who names his own block can have it.
func FuzzHeader(f *testing.F) {
	seed, err := hex.DecodeString(headerProof)
	if err != nil {
		f.Fatal(err)
	}
	root, err := parseBOC("header", seed)
	if err != nil {
		f.Fatal(err)
	}
	hash, ok := claimed(root)
	if h, err := parseHeader(BlockID{Seqno: 2, RootHash: hash}, seed); !ok || err != nil || h.Time.Unix() != 1_800_000_000 {
		f.Fatalf("seed: got %+v and %v, want block 2", h, err)
	}
	empty, err := cell.CreateMerkleProof(cell.BeginCell().MustStoreUInt(0x11ef55aa, 32).MustStoreUInt(0, 32).EndCell())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add(empty.ToBOC())
	f.Fuzz(func(t *testing.T, boc []byte) {
		root, err := parseBOC("header", boc)
		if err != nil {
			return
		}
		hash, ok := claimed(root)
		if !ok {
			return
		}
		id := BlockID{Seqno: 2, RootHash: hash}
		l := link{Key: id, To: id, Header: boc, Config: []byte{}}
		if _, err := l.verify(KeyBlocks{}); err == nil {
			t.Error("a block that nobody trusts was proven")
		}
	})
}

// headerProof is the header of block 2 of a devchain.
const headerProof = "" +
	
