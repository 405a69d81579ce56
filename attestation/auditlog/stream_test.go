package auditlog_test

import (
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
			b.stop()
			for _, c := range cs {
				w.voucher(c, 1<<40)
			}
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

// A worker that dies takes the leaves after its last checkpoint with it; that is no lie of its.
func TestReceiptAfterTheLastCheckpoint(t *testing.T) {
	t.Parallel()
	w, b, cs := oneBoot(t, 1)
	b.job(cs[0], nil)
	b.unlogged(cs[0], nil)
	b.stop()
	w.voucher(cs[0], 1000)
	r := w.replay(nil)
	if !r.OK || !has(r.Unchecked, "receipt.leaf") {
		t.Errorf("findings %v, unchecked %v", r.Findings, r.Unchecked)
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
