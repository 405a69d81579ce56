package auditlog_test

import (
	"crypto/ed25519"
	"runtime"
	"sync"
	"testing"
	"time"

	"cocoon/attestation"
	"cocoon/attestation/auditlog"
)

// manyReceipts is one boot with n receipts over a few channels.
func manyReceipts(t testing.TB, n, channels int) *world {
	w := newWorld(t)
	b := w.start(nil)
	b.rekey()
	var cs []attestation.Address
	for i := range channels {
		cs = append(cs, address(string(rune('a'+i))))
	}
	checkpoint := b.log.Checkpoint()
	for i := range n {
		if i%500 == 0 { // a second's worth
			checkpoint = b.log.Checkpoint()
		}
		b.job(cs[i%channels], func(r *auditlog.Receipt) { r.Checkpoint = checkpoint })
	}
	for _, c := range cs {
		b.redeem(c, 1<<60, 5)
	}
	b.stop()
	return w
}

// BenchmarkReplay reports replayed receipts a second over raw Ed25519
// verifications a second, both on all cores, in the same run.
func BenchmarkReplay(b *testing.B) {
	const n = 20_000
	w := manyReceipts(b, n, 4)
	f := w.folder()
	b.Run("disclosure", func(b *testing.B) {
		sections, err := f.Sections(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		var all []auditlog.Discloser
		for _, s := range sections {
			all = append(all, disclose(b, f, sections, s.Channel, nil))
		}
		benchmarkReplay(b, w, f, all, n)
	})
	b.Run("store", func(b *testing.B) { benchmarkReplay(b, w, f, []auditlog.Discloser{f}, n) })
}

func benchmarkReplay(b *testing.B, w *world, f *auditlog.Folder, shown []auditlog.Discloser, n int) {
	key := testKey("raw")
	msg := make([]byte, 700)
	sig := ed25519.Sign(key, msg)
	pub := key.Public().(ed25519.PublicKey)
	var replay, raw time.Duration
	b.ReportAllocs()
	for b.Loop() {
		start := time.Now()
		c := w.config(f)
		c.Disclosures = shown
		r, err := auditlog.Replay(b.Context(), f, c)
		if err != nil || !r.OK {
			b.Fatal(err, r.Findings)
		}
		replay += time.Since(start)

		start = time.Now()
		var wg sync.WaitGroup
		cores := runtime.GOMAXPROCS(0)
		for range cores {
			wg.Go(func() {
				for range n / cores {
					if !ed25519.Verify(pub, msg, sig) {
						panic("a good signature did not verify")
					}
				}
			})
		}
		wg.Wait()
		raw += time.Since(start)
	}
	b.ReportMetric(raw.Seconds()/replay.Seconds(), "of-raw-verify")
	b.ReportMetric(float64(b.N*n)/replay.Seconds(), "receipts/s")
}

func BenchmarkParseReceipt(b *testing.B) {
	w := newWorld(b)
	boot := w.start(nil)
	boot.rekey()
	raw := boot.job(address("a"), nil)
	b.SetBytes(int64(len(raw)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := auditlog.ParseReceipt(raw); err != nil {
			b.Fatal(err)
		}
	}
}
