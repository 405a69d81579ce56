package auditlog

import (
	"context"
	"encoding/binary"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"
)

// readLeaves streams the leaves under a verified checkpoint, in order, and
// recomputes the tree: it fails unless the root comes out as signed. What
// yield saw before such a failure is void. A leaf is only valid during yield.
func readLeaves(ctx context.Context, src Source, c Checkpoint, yield func(index uint64, leaf []byte) error) error {
	var tree frontier
	var scratch []byte
	for n := uint64(0); n < c.Size; n += 1 << tileHeight {
		if err := ctx.Err(); err != nil {
			return err
		}
		width := min(c.Size-n, 1<<tileHeight)
		tile := tlog.Tile{H: tileHeight, L: -1, N: int64(n >> tileHeight), W: int(width)}
		raw, err := readPartial(ctx, src, c.LogID, tile)
		if err != nil {
			return fmt.Errorf("%s: %w", tilePath(tile), err)
		}
		for i := range width {
			leaf, rest, err := cutLeaf(raw)
			if err != nil {
				return fmt.Errorf("%s: leaf %d: %w", tilePath(tile), n+i, err)
			}
			raw = rest
			var h Hash
			h, scratch = hashLeaf(scratch, leaf)
			tree.append(h)
			if err := yield(n+i, leaf); err != nil {
				return err
			}
		}
	}
	if root := tree.root(); root != c.Root {
		return fmt.Errorf("%w: got %x at size %d, want %x", errRoot, root, c.Size, c.Root)
	}
	return nil
}

var errRoot = fmt.Errorf("root of the leaves differs from the checkpoint's")

// cutLeaf takes one length-prefixed leaf off an entry bundle (C2SP tlog-tiles).
func cutLeaf(b []byte) (leaf, rest []byte, err error) {
	if len(b) < 2 {
		return nil, nil, fmt.Errorf("got %d bytes left, want a length", len(b))
	}
	n := int(binary.BigEndian.Uint16(b))
	if n > MaxEntryBytes || len(b)-2 < n {
		return nil, nil, fmt.Errorf("length: got %d with %d bytes left, want at most %d", n, len(b)-2, MaxEntryBytes)
	}
	return b[2 : 2+n], b[2+n:], nil
}
