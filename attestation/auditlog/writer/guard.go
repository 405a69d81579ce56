package writer

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	f_log "github.com/transparency-dev/formats/log"
	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/tessera"
	"github.com/transparency-dev/tessera/api"
	"golang.org/x/mod/sumdb/note"

	"cocoon/attestation/auditlog"
)

// ErrRewritten is a folder whose tree is not the one that was appended to.
var ErrRewritten = errors.New("log writer: the folder does not hold what was appended")

// patience bounds how long a checkpoint waits for the entries it covers to be
// reported back to the guard. They are already on disk by then.
const patience = 5 * time.Second

// guard is the writer's own copy of the tree's edge. The storage keeps its
// state in the host's folder, so without it the host could have any tree signed.
type guard struct {
	mu     sync.Mutex
	moved  *sync.Cond
	loaded bool
	tree   *compact.Range
	early  map[uint64][]byte   // leaf hashes that came before their left neighbours
	roots  map[uint64][32]byte // by size, above what was signed last
	signed uint64              // size of the last checkpoint
	err    error               // why the log takes no more
}

func newGuard() *guard {
	g := &guard{
		tree:  (&compact.RangeFactory{Hash: rfc6962.DefaultHasher.HashChildren}).NewEmptyRange(0),
		early: make(map[uint64][]byte),
		roots: map[uint64][32]byte{0: [32]byte(rfc6962.DefaultHasher.EmptyRoot())},
	}
	g.moved = sync.NewCond(&g.mu)
	return g
}

func (g *guard) failed() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.err
}

// fail ends the log for good and returns the first reason it ended.
func (g *guard) fail(err error) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.err == nil {
		g.err = err
	}
	g.moved.Broadcast()
	return g.err
}

func (g *guard) size() uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.tree.End()
}

// appended records where an entry went.
func (g *guard) appended(index uint64, leafHash []byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.append(index, leafHash)
	g.moved.Broadcast()
}

func (g *guard) append(index uint64, leafHash []byte) {
	if _, twice := g.early[index]; twice || index < g.tree.End() {
		if g.err == nil {
			g.err = fmt.Errorf("%w: index %d was given twice", ErrRewritten, index)
		}
		return
	}
	g.early[index] = leafHash
	for {
		end := g.tree.End()
		h, ok := g.early[end]
		if !ok {
			return
		}
		delete(g.early, end)
		root, err := [32]byte{}, g.tree.Append(h, nil)
		if err == nil {
			root, err = rootOf(g.tree)
		}
		if err != nil { // a fault of the tree's own arithmetic
			g.err = err
			return
		}
		g.roots[end+1] = root
	}
}

func rootOf(t *compact.Range) ([32]byte, error) {
	b, err := t.GetRootHash(nil)
	if err != nil {
		return [32]byte{}, err
	}
	return [32]byte(b), nil
}

// sign allows the signature over a tree of that size and root, or says why not.
func (g *guard) sign(size uint64, root [32]byte) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if size == 0 && g.signed == 0 && root == [32]byte(rfc6962.DefaultHasher.EmptyRoot()) {
		return nil
	}
	late := false
	alarm := time.AfterFunc(patience, func() {
		g.mu.Lock()
		late = true
		g.mu.Unlock()
		g.moved.Broadcast()
	})
	defer alarm.Stop()
	for g.err == nil && !late && (!g.loaded || g.tree.End() < size) {
		g.moved.Wait()
	}
	switch want, ok := g.roots[size]; {
	case g.err != nil:
	case !g.loaded || g.tree.End() < size:
		g.err = fmt.Errorf("%w: tree size: got %d, appended %d", ErrRewritten, size, g.tree.End())
	case size < g.signed:
		g.err = fmt.Errorf("%w: tree size: got %d, signed before %d", ErrRewritten, size, g.signed)
	case !ok || want != root:
		g.err = fmt.Errorf("%w: root at size %d: got %x, want %x", ErrRewritten, size, root, want)
	default:
		g.forget(size)
	}
	return g.err
}

// forget drops the roots below a signed size.
func (g *guard) forget(size uint64) {
	for n := g.signed; n < size; n++ {
		delete(g.roots, n)
	}
	g.signed = size
}

// load reads back what an earlier Open of this log appended.
func (g *guard) load(ctx context.Context, r tessera.LogReader) error {
	size, err := r.IntegratedSize(ctx)
	if err != nil {
		return fmt.Errorf("tree state: %w", err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for n := uint64(0); n < size; n += 256 {
		width := min(size-n, 256)
		raw, err := r.ReadEntryBundle(ctx, n/256, uint8(width%256))
		if err != nil {
			return fmt.Errorf("entries from %d: %w", n, err)
		}
		var b api.EntryBundle
		if err := b.UnmarshalText(raw); err != nil {
			return fmt.Errorf("entries from %d: %w", n, err)
		}
		if uint64(len(b.Entries)) < width {
			return fmt.Errorf("entries from %d: got %d, want %d", n, len(b.Entries), width)
		}
		for i, e := range b.Entries[:width] {
			g.append(n+uint64(i), rfc6962.DefaultHasher.HashLeaf(e))
		}
	}
	g.loaded = true
	g.moved.Broadcast()
	return g.err
}

// resume takes up from the checkpoint that was signed last.
func (g *guard) resume(cp auditlog.Checkpoint) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.signed > cp.Size { // signed since load
		return g.err
	}
	if root, ok := g.roots[cp.Size]; !ok || root != cp.Root {
		g.err = fmt.Errorf("%w: checkpoint of size %d: got root %x, want %x", ErrRewritten, cp.Size, cp.Root, root)
		return g.err
	}
	g.forget(cp.Size)
	return nil
}

// guardedSigner signs what the guard allows.
type guardedSigner struct {
	note.Signer
	guard *guard
}

func (s guardedSigner) Sign(msg []byte) ([]byte, error) {
	var c f_log.Checkpoint
	if _, err := c.Unmarshal(msg); err != nil {
		return nil, fmt.Errorf("log writer: checkpoint: %w", err)
	}
	if len(c.Hash) != 32 {
		return nil, fmt.Errorf("log writer: checkpoint: root: got %d bytes, want 32", len(c.Hash))
	}
	if err := s.guard.sign(c.Size, [32]byte(c.Hash)); err != nil {
		return nil, err
	}
	return s.Signer.Sign(msg)
}
