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
	"b5ee9c7241020901000185000946036c74b034f0500134b80e70ecf9c2e382b90609714cc929f002a45c72cb95be6e000501241011ef55aafffffcf702030405" +
	"01869bc7a987000000000000000000020000000000ffffffff80000000000000006b49d20000000000001e848000000000001e8481bf2e85a600000001000000" +
	"00000000010600000a8a0436023e08d05441266a8fa21f6ecfc3607ae1e39aac686f7341a2b8d6b34ab61f6f8741f161d29fe807a1a94df45697869231c130be" +
	"ca6e1b49e35637b7162acf0014001407082848010169a96d744266909ed89a5c64ac6416d5db2c32cde7730a08eee01f8320e5bf030004009800000000000f42" +
	"4100000001a0c24541d71d0dc7d00c4b2cedde9648803caaa7ff72fa7ebe591184bd8e3697e26ffd173ba56ff9aa3f0dac633e95d2e60fb9e4eb2b2b82153e70" +
	"54e1d10e222848010136023e08d05441266a8fa21f6ecfc3607ae1e39aac686f7341a2b8d6b34ab61f0014284801016f8741f161d29fe807a1a94df456978692" +
	"31c130beca6e1b49e35637b7162acf00145f3a36c1"
