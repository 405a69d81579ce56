package auditlog_test

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"cocoon/attestation"
	"cocoon/attestation/auditlog"
	"cocoon/attestation/canonical"
)

var alice, bob = address("alice"), address("bob")

// twoBoots is what an honest worker leaves behind: two boots, three epochs,
// two channels, redemptions in both boots. tamper says where one was not honest.
type tamper struct {
	receipt     func(n int, r *auditlog.Receipt) // counts the receipts of the world
	dropLeaf    int                              // this one is signed and not logged
	predecessor func(*auditlog.PredecessorEntry) // of the second boot
	afterClose  bool                             // a receipt of epoch 1 after its close
	reopen      bool                             // epoch 1 comes back after its close
	written     bool                             // by the real writer
}

func twoBoots(t testing.TB, bad tamper) *world {
	w := newWorld(t)
	w.written = bad.written
	n := 0
	job := func(b *boot, c attestation.Address) {
		n++
		change := func(r *auditlog.Receipt) {
			if bad.receipt != nil {
				bad.receipt(n, r)
			}
		}
		if bad.dropLeaf == n {
			b.unlogged(c, change)
			return
		}
		b.job(c, change)
	}
	b := w.start(nil)
	b.rekey()
	b.wait(1)
	job(b, alice) // 1
	job(b, alice) // 2
	job(b, bob)   // 3
	b.redeem(alice, 1000, 1000)
	old, oldKeys := b.sign, b.ks
	b.rekey()
	b.append(auditlog.EpochClosedEntry{Epoch: 1})
	if bad.afterClose {
		newSign, newKeys := b.sign, b.ks
		b.sign, b.ks = old, oldKeys
		job(b, bob)
		b.sign, b.ks = newSign, newKeys
	}
	if bad.reopen {
		digest := (&attestation.Bundle{Version: 1, Keyset: oldKeys.Encode(), CPU: attestation.CPUEvidence{TEE: attestation.TDX}}).Digest()
		b.append(auditlog.KeysetEntry{Epoch: 1, Keyset: oldKeys.Digest(), Bundle: digest})
	}
	job(b, alice) // 4
	spent := b.head(alice)
	b.append(auditlog.EpochClosedEntry{Epoch: 2})
	b.stop()

	b = w.start(bad.predecessor)
	b.rekey()
	b.wait(1)
	b.spent(alice, spent)
	job(b, alice) // 5
	job(b, bob)   // 6
	b.redeem(alice, 1500, 500)
	b.redeem(bob, 700, 600)
	b.append(auditlog.EpochClosedEntry{Epoch: 1})
	b.stop()
	w.voucher(alice, 1600)
	w.voucher(bob, 700)
	return w
}

func names(list []auditlog.Finding) []string {
	var out []string
	for _, f := range list {
		out = append(out, f.Name)
	}
	return out
}

func TestReplayHonest(t *testing.T) {
	t.Parallel()
	for _, written := range []bool{true, false} {
		t.Run(fmt.Sprint("written=", written), func(t *testing.T) {
			t.Parallel()
			testHonest(t, twoBoots(t, tamper{written: written}))
		})
	}
}

func testHonest(t *testing.T, w *world) {
	r := w.replay(nil)
	if !r.OK || len(r.Findings) != 0 {
		t.Errorf("findings: %v", r.Findings)
	}
	if got := names(r.Unchecked); len(got) != 0 {
		t.Errorf("unchecked: %v", r.Unchecked)
	}
	// Costs: (10+index-3)*2 + 3*1 + 15*5 + 5*7 with indices from 0 in each log.
	at := func(i uint64) uint64 { return (7+i)*2 + 3 + 75 + 35 }
	want := []auditlog.Sums{
		{Channel: alice, Receipts: 4, Settled: at(0) + at(1) + at(2) + at(0), Vouchers: 1600, Payouts: 1500, Anchors: 2, Matched: 2, Whole: true},
		{Channel: bob, Receipts: 2, Settled: 2 * at(0), Vouchers: 700, Payouts: 600, Anchors: 1, Matched: 1, Whole: true},
	}
	for i := range want {
		want[i].Unused = want[i].Vouchers - want[i].Settled
	}
	if strings.Compare(string(alice[:]), string(bob[:])) > 0 {
		want[0], want[1] = want[1], want[0]
	}
	if d := cmp.Diff(want, r.Channels); d != "" {
		t.Errorf("channels (-want +got):\n%s", d)
	}
	if len(r.Logs) != 2 || r.Logs[0].Receipts != 4 || r.Logs[0].Found != 4 || r.Logs[1].Receipts != 2 || r.Logs[0].Keysets != 2 {
		t.Errorf("logs: %+v", r.Logs)
	}
	if len(r.Bundles) != 3 {
		t.Fatalf("bundles: got %d, want 3", len(r.Bundles))
	}
	for _, b := range r.Bundles {
		if b.ProvenBy == 0 || b.Verdict != attestation.Accepted || b.Receipts == 0 {
			t.Errorf("bundle: %+v", b)
		}
	}
	// Epoch 2 of the first boot is proven by the second boot's anchor alone, through its predecessor entry.
	if b := r.Bundles[1]; b.ProvenBy < began+20_000 {
		t.Errorf("bundle of epoch 2: proven by %d, want the second boot's anchor", b.ProvenBy)
	}
}

func TestReplayIsDeterministic(t *testing.T) {
	t.Parallel()
	w := twoBoots(t, tamper{dropLeaf: 2, receipt: func(n int, r *auditlog.Receipt) { r.Cost++ }})
	var first string
	for workers := 1; workers <= 4; workers++ {
		b, err := w.replay(func(c *auditlog.ReplayConfig) { c.Workers = workers }).JSON()
		if err != nil {
			t.Fatal(err)
		}
		if first == "" {
			first = string(b)
		} else if d := cmp.Diff(first, string(b)); d != "" {
			t.Errorf("with %d goroutines (-first +got):\n%s", workers, d)
		}
	}
}

func TestReplayFindsTampering(t *testing.T) {
	t.Parallel()
	edit := func(n int, change func(*auditlog.Receipt)) tamper {
		return tamper{receipt: func(i int, r *auditlog.Receipt) {
			if i == n {
				change(r)
			}
		}}
	}
	for _, c := range []struct {
		name  string
		build tamper
		after func(t *testing.T, w *world)
		cfg   func(*auditlog.ReplayConfig)
		want  []string // every one must be found
		also  []string // these may be
	}{
		{name: "a receipt that was not logged", build: tamper{dropLeaf: 2}, want: []string{"receipt.leaf"}},
		{name: "a cost that is not counts x prices", build: edit(3, func(r *auditlog.Receipt) { r.Cost++ }), want: []string{"receipt.cost"}},
		{name: "an index that is skipped", build: edit(2, func(r *auditlog.Receipt) { r.Index = 7 }), want: []string{"receipt.index"}, also: []string{"anchor.head"}},
		{name: "an index that is given twice", build: edit(2, func(r *auditlog.Receipt) { r.Index = 0 }), want: []string{"receipt.index"}, also: []string{"anchor.head"}},
		{name: "another worker's receipt", build: edit(1, func(r *auditlog.Receipt) { r.WorkerID = bob }), want: []string{"receipt.worker"}},
		{name: "a model that is not in the keyset", build: edit(1, func(r *auditlog.Receipt) { r.Model.WeightsRoot = "gguf-sha256:" + strings.Repeat("0", 64) }), want: []string{"receipt.model"}},
		{name: "a job begun after its keyset", build: edit(1, func(r *auditlog.Receipt) { r.Started += 1e9; r.Finished += 1e9 }), want: []string{"receipt.time"}},
		{name: "a keyset that was never logged", build: edit(1, func(r *auditlog.Receipt) { r.KeysetDigest[0] ^= 1 }), want: []string{"receipt.keyset"}},
		{name: "another channel's receipt", build: edit(1, func(r *auditlog.Receipt) { r.Channel = address("carol") }), want: []string{"receipt.section"}},
		{name: "a checkpoint of another key", build: edit(1, func(r *auditlog.Receipt) {
			key := testKey("mallory")
			r.Checkpoint, _ = auditlog.SignCheckpoint(key, auditlog.Checkpoint{LogID: attestation.LogID(public(key)), Size: 1})
		}), want: []string{"receipt.checkpoint"}},
		{name: "a checkpoint the log contradicts", build: edit(1, func(r *auditlog.Receipt) {
			r.Checkpoint, _ = auditlog.SignCheckpoint(testKey("log 1"), auditlog.Checkpoint{LogID: r.LogID, Size: 2, Root: [32]byte{1}})
		}), want: []string{"log.fork"}},
		{name: "a checkpoint larger than the log", build: edit(1, func(r *auditlog.Receipt) {
			r.Checkpoint, _ = auditlog.SignCheckpoint(testKey("log 1"), auditlog.Checkpoint{LogID: r.LogID, Size: 100, Root: [32]byte{1}})
		}), want: []string{"log.truncated", "receipt.checkpoint"}},
		{name: "a receipt after its epoch closed", build: tamper{afterClose: true}, want: []string{"receipt.void"}},
		{name: "an epoch opened after its close", build: tamper{reopen: true}, want: []string{"bundle.epoch"}},
		{name: "a predecessor cut short", build: tamper{predecessor: func(p *auditlog.PredecessorEntry) { p.Size = 3 }}, want: []string{"log.truncated"}},
		{name: "a predecessor longer than what is there", build: tamper{predecessor: func(p *auditlog.PredecessorEntry) { p.Size++ }}, want: []string{"log.truncated"}},
		{name: "a predecessor with another root", build: tamper{predecessor: func(p *auditlog.PredecessorEntry) { p.Root[0] ^= 1 }}, want: []string{"log.predecessor"}},
		{name: "no predecessor", build: tamper{predecessor: func(p *auditlog.PredecessorEntry) { *p = auditlog.PredecessorEntry{} }}, want: []string{"log.predecessor"}},
		{name: "a changed receipt", after: func(t *testing.T, w *world) {
			rewriteReceipts(t, w, alice, func(r [][]byte) [][]byte { r[1][len(r[1])-1] ^= 1; return r })
		}, want: []string{"receipt.signature", "receipt.leaf", "anchor.head"}},
		{name: "a receipt in pieces", after: func(t *testing.T, w *world) {
			rewriteReceipts(t, w, alice, func(r [][]byte) [][]byte { r[1] = r[1][:40]; return r })
		}, want: []string{"receipt.parse", "receipt.leaf", "anchor.head"}},
		{name: "a receipt that is withheld", after: func(t *testing.T, w *world) {
			rewriteReceipts(t, w, alice, func(r [][]byte) [][]byte { return r[1:] })
		}, want: []string{"receipt.index"}},
		{name: "a changed leaf", after: func(t *testing.T, w *world) {
			rewrite(t, logFile(t, w, 1, "tile/entries/000.p/*"), func(b []byte) []byte { b[len(b)-1] ^= 1; return b })
		}, want: []string{"log.tree"}},
		{name: "a missing leaf", after: func(t *testing.T, w *world) {
			rewrite(t, logFile(t, w, 1, "tile/entries/000.p/*"), func(b []byte) []byte { return b[:len(b)-10] })
		}, want: []string{"log.tree"}},
		{name: "no leaves", after: func(t *testing.T, w *world) {
			if err := os.Remove(logFile(t, w, 1, "tile/entries/000.p/*")); err != nil {
				t.Fatal(err)
			}
		}, want: []string{"log.tree"}},
		{name: "a checkpoint of another root", after: func(t *testing.T, w *world) {
			raw, err := auditlog.SignCheckpoint(testKey("log 1"), auditlog.Checkpoint{LogID: attestation.LogID(public(testKey("log 1"))), Size: 9, Root: [32]byte{1}})
			if err != nil {
				t.Fatal(err)
			}
			rewrite(t, logFile(t, w, 1, "checkpoint"), func([]byte) []byte { return raw })
		}, want: []string{"log.tree"}},
		{name: "an unsigned checkpoint", after: func(t *testing.T, w *world) {
			rewrite(t, logFile(t, w, 1, "checkpoint"), func(b []byte) []byte { b[len(b)-5] ^= 1; return b })
		}, want: []string{"log.checkpoint"}},
		{name: "a bundle that is gone", after: func(t *testing.T, w *world) {
			all, err := filepath.Glob(filepath.Join(w.dir, "bundles/*"))
			if err != nil || len(all) == 0 {
				t.Fatal(err, len(all))
			}
			for _, p := range all {
				os.Remove(p)
			}
		}, want: []string{"bundle.present", "receipt.keyset", "log.attested"}},
		{name: "a changed bundle", after: func(t *testing.T, w *world) {
			all, _ := filepath.Glob(filepath.Join(w.dir, "bundles/*"))
			for _, p := range all {
				rewrite(t, p, func(b []byte) []byte { b[100] ^= 1; return b })
			}
		}, want: []string{"bundle.present", "receipt.keyset", "log.attested"}},
		{name: "a bundle that does not verify", cfg: func(c *auditlog.ReplayConfig) {
			c.VerifyBundle = func(*attestation.Bundle, time.Time) *attestation.Result {
				return &attestation.Result{Verdict: attestation.NotAuthentic}
			}
		}, want: []string{"bundle.verify", "receipt.attested"}},
		{name: "a head nobody has", cfg: func(c *auditlog.ReplayConfig) { c.Anchors[0].Head[0] ^= 1 }, want: []string{"anchor.head"}},
		{name: "a redemption below what was settled", cfg: func(c *auditlog.ReplayConfig) { c.Anchors[0].Cumulative, c.Anchors[0].Paid = 100, 100 }, want: []string{"anchor.settled"}},
		{name: "more paid than redeemed", cfg: func(c *auditlog.ReplayConfig) { c.Anchors[1].Paid = 501 }, want: []string{"anchor.paid"}},
		{name: "an anchor before the keyset", cfg: func(c *auditlog.ReplayConfig) { c.Anchors[0].Time = time.Unix(began, 0) }, want: []string{"bundle.time"}},
		{name: "a voucher that does not verify", after: func(t *testing.T, w *world) { w.put("vouchers/"+hex.EncodeToString(alice[:]), []byte("junk")) }, want: []string{"channel.voucher"}},
		{name: "a boot that uses an old log key", after: func(t *testing.T, w *world) {
			b := auditlog.Boot{Version: 1, Number: 3, WorkerID: w.worker, LogPublicKey: public(testKey("log 1")), Started: began}
			w.put("boots/3.cbor", b.Encode())
		}, want: []string{"log.boot"}},
		{name: "a larger checkpoint seen elsewhere", cfg: func(c *auditlog.ReplayConfig) {
			key := testKey("log 2")
			raw, _ := auditlog.SignCheckpoint(key, auditlog.Checkpoint{LogID: attestation.LogID(public(key)), Size: 1000, Root: [32]byte{1}})
			c.Checkpoints = [][]byte{raw}
		}, want: []string{"log.truncated"}},
		{name: "a forked checkpoint seen elsewhere", cfg: func(c *auditlog.ReplayConfig) {
			key := testKey("log 2")
			raw, _ := auditlog.SignCheckpoint(key, auditlog.Checkpoint{LogID: attestation.LogID(public(key)), Size: 3, Root: [32]byte{1}})
			c.Checkpoints = [][]byte{raw}
		}, want: []string{"log.fork"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := twoBoots(t, c.build)
			if c.after != nil {
				c.after(t, w)
			}
			r := w.replay(c.cfg)
			if r.OK {
				t.Error("ok, in spite of it")
			}
			known := make(map[string]bool)
			for _, i := range auditlog.Checks() {
				known[i.Name] = true
			}
			for _, n := range c.want {
				if r.Counts[n] == 0 {
					t.Errorf("not found: %s, among %v", n, r.Findings)
				}
				delete(r.Counts, n)
			}
			for _, n := range c.also {
				delete(r.Counts, n)
			}
			for n := range r.Counts {
				t.Errorf("found besides: %s, among %v", n, r.Findings)
			}
			for _, n := range append(names(r.Findings), names(r.Unchecked)...) {
				if !known[n] {
					t.Errorf("%s is not among Checks", n)
				}
			}
			for _, f := range r.Forks {
				if err := f.Verify(); err != nil {
					t.Error(err)
				}
			}
			if strings.Contains(c.name, "contradicts") && len(r.Forks) != 1 {
				t.Errorf("fork proofs: got %d, want 1", len(r.Forks))
			}
		})
	}
}

// rewriteReceipts changes what the store holds of a channel in the first boot.
func rewriteReceipts(t *testing.T, w *world, channel attestation.Address, change func([][]byte) [][]byte) {
	t.Helper()
	id := attestation.LogID(public(testKey("log 1")))
	path := filepath.Join(w.dir, "receipts", hex.EncodeToString(id[:]), hex.EncodeToString(channel[:]), "receipts")
	rewrite(t, path, func(b []byte) []byte {
		var list [][]byte
		for len(b) > 0 {
			n := binary.BigEndian.Uint64(b)
			list, b = append(list, b[8:8+n]), b[8+n:]
		}
		var out []byte
		for _, r := range change(list) {
			out = append(out, canonical.LP(r)...)
		}
		return out
	})
}

// logFile is the newest file of a boot's log that matches the pattern.
func logFile(t *testing.T, w *world, boot int, pattern string) string {
	t.Helper()
	id := attestation.LogID(public(testKey(fmt.Sprint("log ", boot))))
	all, err := filepath.Glob(filepath.Join(w.dir, "logs", hex.EncodeToString(id[:]), pattern))
	if err != nil || len(all) == 0 {
		t.Fatal(err, "no file is like", pattern)
	}
	longest := all[0]
	for _, p := range all {
		if size(t, p) > size(t, longest) {
			longest = p
		}
	}
	return longest
}

func size(t *testing.T, path string) int64 {
	i, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return i.Size()
}

func rewrite(t *testing.T, path string, change func([]byte) []byte) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, change(b), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestReplayWithoutDisclosure(t *testing.T) {
	t.Parallel()
	w := twoBoots(t, tamper{})
	r := w.replay(func(c *auditlog.ReplayConfig) { c.Disclosures, c.VerifyBundle, c.Cost = nil, nil, nil })
	if !r.OK {
		t.Errorf("findings: %v", r.Findings)
	}
	got := make(map[string]bool)
	for _, n := range names(r.Unchecked) {
		got[n] = true
	}
	for _, n := range []string{"receipt.undisclosed", "bundle.time", "bundle.verify", "anchor.head"} {
		if !got[n] {
			t.Errorf("unchecked: %s is not among %v", n, names(r.Unchecked))
		}
	}
}

// A client shows its own channel through a file, over the web, and the worker
// shows its store: they agree, or the report says where they do not.
func TestReplayOverTheWebWithAClientsDisclosure(t *testing.T) {
	t.Parallel()
	w := twoBoots(t, tamper{})
	f := w.folder()
	sections, err := f.Sections(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	file := disclose(t, f, sections, alice, nil)
	srv := httptest.NewServer(http.FileServerFS(withoutReceipts(os.DirFS(w.dir))))
	defer srv.Close()
	web, err := auditlog.NewWeb(srv.URL, srv.Client())
	if err != nil {
		t.Fatal(err)
	}
	c := w.config(f)
	c.Disclosures = []auditlog.Discloser{file}
	r, err := auditlog.Replay(t.Context(), web, c)
	if err != nil {
		t.Fatal(err)
	}
	if !r.OK {
		t.Errorf("findings: %v", r.Findings)
	}
	for _, s := range r.Channels {
		if s.Whole != (s.Channel == alice) || (s.Matched == s.Anchors) != (s.Channel == alice) {
			t.Errorf("channel: %+v", s)
		}
	}

	c.Disclosures = []auditlog.Discloser{file, f}
	if r, err = auditlog.Replay(t.Context(), web, c); err != nil || !r.OK {
		t.Errorf("both: %v %v", err, r.Findings)
	}
	other := disclose(t, f, sections, alice, func(n int) bool { return n == 1 })
	c.Disclosures = []auditlog.Discloser{other, f}
	if r, err = auditlog.Replay(t.Context(), web, c); err != nil || r.Counts["receipt.conflict"] != 0 || !r.OK {
		t.Errorf("one that leaves out what the other shows: %v %v", err, r.Findings)
	}
}

// withoutReceipts hides what a host does not serve.
func withoutReceipts(f fs.FS) fs.FS { return hidden{f} }

type hidden struct{ fs.FS }

func (h hidden) Open(name string) (fs.File, error) {
	if strings.HasPrefix(name, "receipts") || strings.HasPrefix(name, "vouchers") {
		return nil, fs.ErrNotExist
	}
	return h.FS.Open(name)
}

func TestReplayStopsWithItsContext(t *testing.T) {
	t.Parallel()
	w := twoBoots(t, tamper{})
	f := w.folder()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := auditlog.Replay(ctx, f, w.config(f)); err == nil {
		t.Error("got no error")
	}
}
