package auditlog

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/bits"

	"github.com/transparency-dev/merkle/rfc6962"
)

// HeadTree is the RFC 6962 tree over the receipts of one (channel, log id), in
// the order of their indices. Both the client and the worker keep one. The
// zero value is the empty tree. It keeps about 64 bytes per receipt, so that
// the root at any earlier count, which a lagging voucher names, costs O(log
// n). It is not safe for concurrent use.
type HeadTree struct {
	levels [][][32]byte // levels[l][i] is the root of the perfect subtree of 2^l leaves that begins at i<<l
}

// Append adds the next receipt's COSE bytes and returns its index.
func (t *HeadTree) Append(raw []byte) uint64 {
	h := [32]byte(rfc6962.DefaultHasher.HashLeaf(raw))
	index := t.Count()
	for l := 0; ; l++ {
		if l == len(t.levels) {
			t.levels = append(t.levels, nil)
		}
		t.levels[l] = append(t.levels[l], h)
		n := len(t.levels[l])
		if n%2 == 1 {
			return index
		}
		h = hashChildren(t.levels[l][n-2], h)
	}
}

// Count is the number of receipts.
func (t *HeadTree) Count() uint64 {
	if len(t.levels) == 0 {
		return 0
	}
	return uint64(len(t.levels[0]))
}

// Root is the tree's root; of no receipts, SHA-256 of nothing (RFC 6962 section 2.1).
func (t *HeadTree) Root() [32]byte {
	r, _ := t.RootAt(t.Count()) // cannot fail at its own count
	return r
}

// RootAt is the root when there were count receipts.
func (t *HeadTree) RootAt(count uint64) ([32]byte, error) {
	if count > t.Count() {
		return [32]byte{}, fmt.Errorf("head tree: count: got %d, want at most %d", count, t.Count())
	}
	if count == 0 {
		return [32]byte(rfc6962.DefaultHasher.EmptyRoot()), nil
	}
	var root [32]byte
	begin, have := count, false
	for begin > 0 { // the perfect subtrees of [0, count), from the right
		l := bits.TrailingZeros64(begin)
		begin -= 1 << l
		node := t.levels[l][begin>>l]
		if have {
			root = hashChildren(node, root)
		} else {
			root, have = node, true
		}
	}
	return root, nil
}

// Head is receipts_head at count (DESIGN section 5).
func (t *HeadTree) Head(logID, base [32]byte, count uint64) ([32]byte, error) {
	root, err := t.RootAt(count)
	if err != nil {
		return [32]byte{}, err
	}
	return Head(logID, base, count, root), nil
}

// frontier is the right edge of an RFC 6962 tree: enough to append and to know
// the root, in 2 KiB. HeadTree is for those who ask about earlier counts.
type frontier struct {
	size  uint64
	nodes [64]Hash // nodes[l] is the perfect subtree of 2^l leaves at the edge, if size has that bit
}

func (f *frontier) append(leafHash Hash) {
	l := 0
	for ; f.size>>l&1 == 1; l++ {
		leafHash = hashChildren(f.nodes[l], leafHash)
	}
	f.nodes[l] = leafHash
	f.size++
}

func (f *frontier) root() Hash {
	if f.size == 0 {
		return sha256.Sum256(nil)
	}
	l := bits.TrailingZeros64(f.size)
	root := f.nodes[l]
	for l++; f.size>>l != 0; l++ {
		if f.size>>l&1 == 1 {
			root = hashChildren(f.nodes[l], root)
		}
	}
	return root
}

// hashLeaf is RFC 6962's hash of a leaf. It uses and returns scratch.
func hashLeaf(scratch, leaf []byte) (Hash, []byte) {
	scratch = append(append(scratch[:0], rfc6962.RFC6962LeafHashPrefix), leaf...)
	return sha256.Sum256(scratch), scratch
}

func hashChildren(l, r [32]byte) [32]byte {
	var b [65]byte
	b[0] = rfc6962.RFC6962NodeHashPrefix
	copy(b[1:], l[:])
	copy(b[33:], r[:])
	return sha256.Sum256(b[:])
}

// Head is receipts_head: SHA-256("cocoon/head/v1" ‖ log id ‖ base ‖ u64 count ‖ root).
// base is the head of the voucher counted as spent at boot, else zeros.
func Head(logID, base [32]byte, count uint64, root [32]byte) [32]byte {
	b := append(make([]byte, 0, 128), "cocoon/head/v1"...)
	b = append(b, logID[:]...)
	b = append(b, base[:]...)
	b = binary.BigEndian.AppendUint64(b, count)
	return sha256.Sum256(append(b, root[:]...))
}
