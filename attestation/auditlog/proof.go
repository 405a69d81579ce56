package auditlog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/tlog"
)

// tileHeight is that of C2SP tlog-tiles: 256 hashes to a tile.
const tileHeight = 8

// Hash is a node of an RFC 6962 tree.
type Hash = [32]byte

// InclusionProof reads from the tiles the path from a leaf to the root of a
// verified checkpoint. Every tile is checked against that root.
func InclusionProof(ctx context.Context, src Source, c Checkpoint, index uint64) ([]Hash, error) {
	if index >= c.Size {
		return nil, fmt.Errorf("inclusion proof: index: got %d in a tree of size %d", index, c.Size)
	}
	p, err := tlog.ProveRecord(int64(c.Size), int64(index), hashReader(ctx, src, c))
	return fromTlog(p), err
}

// VerifyInclusion verifies that leaf is at index under a verified checkpoint.
func VerifyInclusion(c Checkpoint, index uint64, leaf []byte, path []Hash) error {
	h := rfc6962.DefaultHasher
	if err := proof.VerifyInclusion(h, index, c.Size, h.HashLeaf(leaf), slicesOf(path), c.Root[:]); err != nil {
		return fmt.Errorf("inclusion of leaf %d in size %d: %w", index, c.Size, err)
	}
	return nil
}

// ConsistencyProof reads from the tiles the proof that the tree of a verified
// checkpoint extends the one of size before.
func ConsistencyProof(ctx context.Context, src Source, c Checkpoint, before uint64) ([]Hash, error) {
	if before > c.Size {
		return nil, fmt.Errorf("consistency proof: size: got %d, above %d", before, c.Size)
	}
	if before == 0 || before == c.Size {
		return nil, nil
	}
	p, err := tlog.ProveTree(int64(c.Size), int64(before), hashReader(ctx, src, c))
	return fromTlog(tlog.RecordProof(p)), err
}

// VerifyConsistency verifies that the later of two checkpoints of one log extends the earlier.
func VerifyConsistency(earlier, later Checkpoint, path []Hash) error {
	if earlier.LogID != later.LogID {
		return fmt.Errorf("consistency: log id: got %x, want %x", later.LogID, earlier.LogID)
	}
	if err := consistent(earlier.Size, earlier.Root, later, path); err != nil {
		return fmt.Errorf("consistency of size %d with %d: %w", earlier.Size, later.Size, err)
	}
	return nil
}

func consistent(size uint64, root Hash, later Checkpoint, path []Hash) error {
	if size == 0 && root != Hash(rfc6962.DefaultHasher.EmptyRoot()) {
		return fmt.Errorf("root of the empty tree: got %x", root)
	}
	return proof.VerifyConsistency(rfc6962.DefaultHasher, size, later.Size, slicesOf(path), root[:], later.Root[:])
}

// rootAt is the root that a log had at a size, by the tiles under a verified checkpoint.
func rootAt(size uint64, r tlog.HashReader) (Hash, error) {
	h, err := tlog.TreeHash(int64(size), r)
	return Hash(h), err
}

// hashReader reads hashes out of tiles and checks them against c's root.
func hashReader(ctx context.Context, src Source, c Checkpoint) tlog.HashReader {
	return tlog.TileHashReader(tlog.Tree{N: int64(c.Size), Hash: tlog.Hash(c.Root)}, &tileReader{ctx: ctx, src: src, logID: c.LogID, seen: make(map[tlog.Tile][]byte)})
}

// tileReader fetches tiles for tlog and keeps the last few that it found sound.
type tileReader struct {
	ctx   context.Context
	src   Source
	logID Hash
	seen  map[tlog.Tile][]byte
}

const maxTilesKept = 64

func (t *tileReader) Height() int { return tileHeight }

func (t *tileReader) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	out := make([][]byte, len(tiles))
	for i, tile := range tiles {
		b, ok := t.seen[tile]
		if !ok {
			var err error
			if b, err = readTile(t.ctx, t.src, t.logID, tile, tile.W*32); err != nil {
				return nil, err
			}
		}
		out[i] = b
	}
	return out, nil
}

func (t *tileReader) SaveTiles(tiles []tlog.Tile, data [][]byte) {
	for i, tile := range tiles {
		if len(t.seen) >= maxTilesKept {
			clear(t.seen)
		}
		t.seen[tile] = data[i]
	}
}

// readTile reads a tile of hashes. A partial tile that was tidied away lies in the full one.
func readTile(ctx context.Context, src Source, logID Hash, tile tlog.Tile, want int) ([]byte, error) {
	b, err := readPartial(ctx, src, logID, tile)
	if err != nil {
		return nil, err
	}
	if len(b) < want || len(b) > maxTileBytes {
		return nil, fmt.Errorf("%s: got %d bytes, want %d", tilePath(tile), len(b), want)
	}
	return b[:want], nil
}

func readPartial(ctx context.Context, src Source, logID Hash, tile tlog.Tile) ([]byte, error) {
	b, err := src.ReadTile(ctx, logID, tilePath(tile))
	if errors.Is(err, fs.ErrNotExist) && tile.W < 1<<tileHeight {
		tile.W = 1 << tileHeight
		b, err = src.ReadTile(ctx, logID, tilePath(tile))
	}
	return b, err
}

// tilePath turns tlog's path into that of C2SP tlog-tiles, which names no
// height and calls level -1 "entries".
func tilePath(t tlog.Tile) string {
	p := strings.TrimPrefix(t.Path(), "tile/8/")
	if rest, ok := strings.CutPrefix(p, "data/"); ok {
		p = "entries/" + rest
	}
	return "tile/" + p
}

func fromTlog(p tlog.RecordProof) []Hash {
	out := make([]Hash, len(p))
	for i, h := range p {
		out[i] = Hash(h)
	}
	return out
}

func slicesOf(path []Hash) [][]byte {
	out := make([][]byte, len(path))
	for i := range path {
		out[i] = path[i][:]
	}
	return out
}
