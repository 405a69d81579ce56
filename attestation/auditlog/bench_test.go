package auditlog_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"cocoon/attestation"
	"cocoon/attestation/auditlog"
)

// manyReceipts is one boot with n receipts over a few channels.
func manyReceipts(t testing.TB, n, channels int) *world {
	w, b, cs := oneBoot(t, channels)
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

func oneBoot(t testing.TB, channels int) (*world, *boot, []attestation.Address) {
	w := newWorld(t)
	b := w.start(nil)
	b.rekey()
	var cs []attestation.Address
	for i := range channels {
		cs = append(cs, address(string(rune('a'+i))))
	}
	return w, b, cs
}

// BenchmarkReplay reports replayed receipts a second over raw Ed25519
// verifications a second, both on all cores, in the same run; and the same of
// processor time, which a busy machine disturbs less.
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
	// Many different messages of a receipt's length: one alone would teach the branch predictor.
	const different = 2048
	var msgs, sigs [different][]byte
	for i := range msgs {
		msgs[i] = bytes.Repeat(binary.BigEndian.AppendUint64(nil, uint64(i)), 115)
		sigs[i] = ed25519.Sign(key, msgs[i])
	}
	pub := key.Public().(ed25519.PublicKey)
	var replay, raw, replayCPU, rawCPU time.Duration
	b.ReportAllocs()
	for b.Loop() {
		start, used := time.Now(), processorTime(b)
		c := w.config(f)
		c.Disclosures = shown
		r, err := auditlog.Replay(b.Context(), f, c)
		if err != nil || !r.OK {
			b.Fatal(err, r.Findings)
		}
		replay += time.Since(start)
		replayCPU += processorTime(b) - used

		start, used = time.Now(), processorTime(b)
		var wg sync.WaitGroup
		cores := runtime.GOMAXPROCS(0)
		for range cores {
			wg.Go(func() {
				for i := range n / cores {
					if !ed25519.Verify(pub, msgs[i%different], sigs[i%different]) {
						panic("a good signature did not verify")
					}
				}
			})
		}
		wg.Wait()
		raw += time.Since(start)
		rawCPU += processorTime(b) - used
	}
	b.ReportMetric(raw.Seconds()/replay.Seconds(), "of-raw-verify")
	b.ReportMetric(rawCPU.Seconds()/replayCPU.Seconds(), "of-raw-verify-cpu")
	b.ReportMetric(float64(b.N*n)/replay.Seconds(), "receipts/s")
}

func processorTime(t testing.TB) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
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
