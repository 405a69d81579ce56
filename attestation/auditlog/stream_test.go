package auditlog_test

import (
	"context"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"cocoon/attestation"
	"cocoon/attestation/auditlog"
)

// The log holds receipts in another order than their indices, by far more
// than what is in memory at a time, and one is not there at all.
func TestReplayFindsReceiptsInAnyOrder(t *testing.T) {
	t.Parallel()
	const n, channels = 450, 3
	for name, order := range map[string]func(i int) int{
		"reversed": func(i int) int { return n - 1 - i },
		"shuffled": func(i int) int { return i * 367 % n },
		"in order": func(i int) int { return i },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, b, cs := oneBoot(t, channels)
			digests := make([][32]byte, n)
			for i := range n {
				digests[i] = auditlog.ReceiptDigest(b.unlogged(cs[i%channels], nil))
			}
			for i := range n {
				if d := order(i); d != 302 {
					b.append(auditlog.ReceiptEntry{Digest: digests[d]})
				}
			}
			b.append(auditlog.EpochClosedEntry{Epoch: 1})
			b.stop()
			f := w.folder()
			r, err := auditlog.ReplayWithLookahead(t.Context(), f, w.config(f), 96)
			if err != nil {
				t.Fatal(err)
			}
			if len(r.Findings) != 1 || r.Findings[0].Name != "receipt.leaf" || r.Findings[0].Subject != "receipt 100" || r.Findings[0].Channel != cs[2].String() {
				t.Errorf("findings: %v, want the one leaf that is missing", r.Findings)
			}
			if r.Logs[0].Found != n-1 {
				t.Errorf("found: got %d, want %d", r.Logs[0].Found, n-1)
			}
			all, err := auditlog.Replay(t.Context(), f, w.config(f))
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(all.Findings, r.Findings); d != "" {
				t.Errorf("with more memory (-more +less):\n%s", d)
			}
		})
	}
}

// A worker that dies takes the leaves after its last checkpoint with it; that
// is no lie of its. It is one if the log shows that the worker lived on.
func TestReceiptThatWasCutOff(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		end  func(b *boot, channel attestation.Address)
		lies bool
	}{
		"the log ends":          {end: func(*boot, attestation.Address) {}},
		"the epoch was closed":  {lies: true, end: func(b *boot, _ attestation.Address) { b.append(auditlog.EpochClosedEntry{Epoch: 1}) }},
		"another epoch began":   {lies: true, end: func(b *boot, _ attestation.Address) { b.rekey() }},
		"one more is logged":    {end: func(b *boot, c attestation.Address) { b.job(c, nil) }}, // at the same checkpoint
		"a later one is logged": {lies: true, end: func(b *boot, c attestation.Address) { b.job(c, nil); b.job(c, nil) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, b, cs := oneBoot(t, 1)
			b.job(cs[0], nil)
			b.unlogged(cs[0], nil)
			c.end(b, cs[0])
			b.stop()
			r := w.replay(nil)
			if r.OK == c.lies || has(r.Findings, "receipt.leaf") != c.lies || has(r.Unchecked, "receipt.leaf") == c.lies {
				t.Errorf("findings %v, unchecked %v", r.Findings, r.Unchecked)
			}
		})
	}
}

// growing is a log that gets longer while it is read.
type growing struct {
	*auditlog.Folder
	first []byte
	reads int
}

func (g *growing) Checkpoint(ctx context.Context, id [32]byte) ([]byte, error) {
	if g.reads++; g.reads == 1 {
		return g.first, nil
	}
	return g.Folder.Checkpoint(ctx, id)
}

func TestReplayOfARunningLog(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.written = true
	b := w.start(nil)
	b.rekey()
	b.job(alice, nil)
	g := &growing{first: b.wait(2)}
	b.job(alice, nil)
	b.wait(3)
	b.job(alice, nil) // names a checkpoint above the one that is read first
	b.stop()
	g.Folder = w.folder()
	r, err := auditlog.Replay(t.Context(), g, w.config(g.Folder))
	if err != nil || !r.OK || !has(r.Unchecked, "receipt.leaf") {
		t.Errorf("findings %v, unchecked %v, %v", r.Findings, r.Unchecked, err)
	}
}

// Vouchers count against the worker only if their signer shows them.
func TestReplaySettledBeyondVouchers(t *testing.T) {
	t.Parallel()
	w, b, cs := oneBoot(t, 1)
	b.job(cs[0], nil)
	b.stop()
	w.voucher(cs[0], 10)
	if r := w.replay(nil); !r.OK || !has(r.Unchecked, "channel.vouchers") {
		t.Errorf("the store alone: findings %v, unchecked %v", r.Findings, r.Unchecked)
	}
	f := w.folder()
	sections, err := f.Sections(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r := w.replay(func(c *auditlog.ReplayConfig) {
		c.Disclosures = append(c.Disclosures, disclose(t, f, sections, cs[0], nil))
	})
	if r.OK || !has(r.Findings, "channel.vouchers") {
		t.Errorf("the client too: findings %v, unchecked %v", r.Findings, r.Unchecked)
	}
}

func has(list []auditlog.Finding, name string) bool {
	for _, f := range list {
		if f.Name == name {
			return true
		}
	}
	return false
}

// What is live in the middle of a replay does not grow with the log.
func TestReplayMemoryIsFlat(t *testing.T) {
	live := func(n int) int64 {
		w := manyReceipts(t, n, 2)
		f := w.folder()
		c := w.config(f)
		var calls atomic.Int64
		var most atomic.Int64
		var before runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		c.Cost = func(u attestation.Usage, p attestation.Prices) (uint64, error) {
			if calls.Add(1)%int64(n/4) == 0 {
				var now runtime.MemStats
				runtime.GC()
				runtime.ReadMemStats(&now)
				most.Store(max(most.Load(), int64(now.HeapAlloc)-int64(before.HeapAlloc)))
			}
			return cost(u, p)
		}
		c.Workers = 1
		r, err := auditlog.ReplayWithLookahead(t.Context(), f, c, 512)
		if err != nil || !r.OK {
			t.Fatal(err, r.Findings)
		}
		return most.Load()
	}
	short, long := live(600), live(3000)
	t.Logf("live: %d KiB with 600 receipts, %d KiB with 3000", short>>10, long>>10)
	if long-short > 512<<10 { // the receipts alone are three times that
		t.Errorf("live: got %d KiB with 3000 receipts and %d KiB with 600", long>>10, short>>10)
	}
}
