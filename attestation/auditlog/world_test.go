package auditlog_test

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"cocoon/attestation"
	"cocoon/attestation/auditlog"
	"cocoon/attestation/auditlog/writer"
	"cocoon/attestation/canonical"
)

// began is when the first keyset of a world comes into force.
const began = 1_790_000_000

func testKey(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte(name))
	return ed25519.NewKeyFromSeed(seed[:])
}

func public(k ed25519.PrivateKey) [32]byte { return [32]byte(k.Public().(ed25519.PublicKey)) }

func address(name string) attestation.Address {
	return attestation.NewAddress(0, sha256.Sum256([]byte(name)))
}

var testPrices = attestation.Prices{Prompt: 2, Cached: 1, Completion: 5, Reasoning: 7}

// cost stands in for contracts/payout.
func cost(u attestation.Usage, p attestation.Prices) (uint64, error) {
	return (u.Prompt-u.Cached)*p.Prompt + u.Cached*p.Cached + (u.Completion-u.Reasoning)*p.Completion + u.Reasoning*p.Reasoning, nil
}

// world builds a store as a worker would, or as a cheating one would.
type world struct {
	t        testing.TB
	dir      string
	worker   attestation.Address
	lastBoot uint64
	lastPred auditlog.PredecessorEntry
	anchors  []auditlog.Anchor
	written  bool // by the real writer, with its timer and its fsyncs
}

func newWorld(t testing.TB) *world {
	return &world{t: t, dir: t.TempDir(), worker: address("worker")}
}

func (w *world) put(path string, b []byte) {
	w.t.Helper()
	path = filepath.Join(w.dir, path)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, b, 0o644)); err != nil {
		w.t.Fatal(err)
	}
}

// boot is one boot of a world's worker.
type boot struct {
	*world
	key   ed25519.PrivateKey
	log   appender
	boot  auditlog.Boot
	epoch uint64
	sign  ed25519.PrivateKey
	ks    attestation.Keyset
	trees map[attestation.Address]*auditlog.HeadTree
	base  map[attestation.Address][32]byte
}

func (w *world) start(pred func(*auditlog.PredecessorEntry)) *boot {
	w.t.Helper()
	w.lastBoot++
	b := &boot{world: w, key: testKey(fmt.Sprint("log ", w.lastBoot)), trees: map[attestation.Address]*auditlog.HeadTree{}, base: map[attestation.Address][32]byte{}}
	b.boot = auditlog.Boot{Version: auditlog.BootVersion, Number: w.lastBoot, WorkerID: w.worker, BootID: sha256.Sum256([]byte(fmt.Sprint("boot ", w.lastBoot))), LogPublicKey: public(b.key), Started: began}
	w.put(fmt.Sprintf("boots/%d.cbor", w.lastBoot), b.boot.Encode())
	id := b.boot.LogID()
	dir := filepath.Join(w.dir, "logs", hex.EncodeToString(id[:]))
	if b.log = (&staticLog{dir: dir, key: b.key}); w.written {
		log, err := writer.Open(context.Background(), writer.Config{Dir: dir, Key: b.key, Interval: writer.MinInterval})
		if err != nil {
			w.t.Fatal(err)
		}
		b.log = log
	}
	w.t.Cleanup(func() { b.log.Close(context.Background()) })
	p := w.lastPred
	if pred != nil {
		pred(&p)
	}
	b.append(p)
	return b
}

func (b *boot) append(e auditlog.Entry) uint64 {
	b.t.Helper()
	i, err := b.log.Append(context.Background(), e)
	if err != nil {
		b.t.Fatal(err)
	}
	return i
}

func (b *boot) wait(i uint64) []byte {
	b.t.Helper()
	raw, err := b.log.WaitCheckpoint(context.Background(), i)
	if err != nil {
		b.t.Fatal(err)
	}
	return raw
}

// rekey begins an epoch: a keyset, its bundle, their entry.
func (b *boot) rekey() { b.rekeyTo(b.epoch + 1) }

func (b *boot) rekeyTo(epoch uint64) {
	b.t.Helper()
	b.epoch = epoch
	b.sign = testKey(fmt.Sprint("epoch ", b.boot.Number, " ", b.epoch))
	b.ks = attestation.Keyset{
		Version: attestation.KeysetVersion, WorkerID: b.worker, BootID: b.boot.BootID, Epoch: b.epoch,
		NotBefore: began + int64(b.boot.Number)*10_000 + int64(b.epoch)*300, HPKEPublicKey: make([]byte, attestation.HPKEKeyBytes),
		SigningPublicKey: public(b.sign), LogPublicKey: b.boot.LogPublicKey, PayoutAddress: address("payout"),
		Models:            []attestation.Model{{Name: "toy", WeightsRoot: attestation.Unmeasured}},
		GPUEvidenceDigest: attestation.GPUEvidenceDigest(nil),
	}
	b.ks.NotAfter = b.ks.NotBefore + 600
	bundle := attestation.Bundle{Version: attestation.BundleVersion, Keyset: b.ks.Encode(), CPU: attestation.CPUEvidence{TEE: attestation.TDX}}
	digest := bundle.Digest()
	b.put("bundles/"+hex.EncodeToString(digest[:])+".cbor", bundle.Encode())
	b.append(auditlog.KeysetEntry{Epoch: b.epoch, Keyset: b.ks.Digest(), Bundle: digest})
}

// job does the whole life of a receipt. change may falsify it before it is signed.
func (b *boot) job(channel attestation.Address, change func(*auditlog.Receipt)) []byte {
	b.t.Helper()
	raw := b.unlogged(channel, change)
	b.append(auditlog.ReceiptEntry{Digest: auditlog.ReceiptDigest(raw)})
	return raw
}

// unlogged signs and keeps a receipt and does not log it.
func (b *boot) unlogged(channel attestation.Address, change func(*auditlog.Receipt)) []byte {
	b.t.Helper()
	tree := b.tree(channel)
	n := tree.Count()
	u := attestation.Usage{Prompt: 10 + n, Cached: 3, Completion: 20, Reasoning: 5}
	c, _ := cost(u, testPrices)
	r := auditlog.Receipt{
		Version: auditlog.ReceiptVersion, JobID: [16]byte(binary.BigEndian.AppendUint64(append([]byte(nil), channel[4:12]...), n+1)),
		Channel: channel, WorkerID: b.worker, LogID: b.boot.LogID(), Checkpoint: b.log.Checkpoint(), Index: n,
		KeysetDigest: b.ks.Digest(), Model: b.ks.Models[0],
		RequestCommitment: auditlog.Commit([32]byte{1}, []byte("question")), ResponseCommitment: auditlog.Commit([32]byte{1}, []byte("answer")),
		Usage: u, Prices: testPrices, Cost: c, Started: b.ks.NotBefore*1000 + 5, Finished: b.ks.NotBefore*1000 + 900,
		FinishReason: "stop", Status: auditlog.StatusOK,
	}
	if change != nil {
		change(&r)
	}
	raw, err := auditlog.SignReceipt(b.sign, r)
	if err != nil {
		b.t.Fatal(err)
	}
	tree.Append(raw)
	b.keep(channel, raw)
	return raw
}

func (b *boot) tree(channel attestation.Address) *auditlog.HeadTree {
	if b.trees[channel] == nil {
		b.trees[channel] = new(auditlog.HeadTree)
	}
	return b.trees[channel]
}

func (b *boot) section(channel attestation.Address) string {
	id := b.boot.LogID()
	return "receipts/" + hex.EncodeToString(id[:]) + "/" + hex.EncodeToString(channel[:])
}

func (b *boot) keep(channel attestation.Address, raw []byte) {
	b.t.Helper()
	path := filepath.Join(b.dir, b.section(channel), "receipts")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		b.t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		b.t.Fatal(err)
	}
	_, err = f.Write(canonical.LP(raw))
	if err := errors.Join(err, f.Close()); err != nil {
		b.t.Fatal(err)
	}
}

// spent makes head the base of the channel in this boot.
func (b *boot) spent(channel attestation.Address, head [32]byte) {
	b.base[channel] = head
	b.put(b.section(channel)+"/base", []byte(hex.EncodeToString(head[:])+"\n"))
}

func (b *boot) head(channel attestation.Address) [32]byte {
	h, err := b.tree(channel).Head(b.boot.LogID(), b.base[channel], b.tree(channel).Count())
	if err != nil {
		b.t.Fatal(err)
	}
	return h
}

// redeem anchors what the channel's receipts come to now.
func (b *boot) redeem(channel attestation.Address, cumulative, paid uint64) {
	b.anchors = append(b.anchors, auditlog.Anchor{Channel: channel, Cumulative: cumulative, Paid: paid, Head: b.head(channel),
		Time: time.Unix(began+int64(b.boot.Number)*10_000+int64(b.epoch)*300+60, 0)})
}

// stop closes the log and makes it the predecessor of the next.
func (b *boot) stop() {
	b.t.Helper()
	if err := b.log.Close(context.Background()); err != nil {
		b.t.Fatal(err)
	}
	c, err := auditlog.ParseCheckpoint(b.log.Checkpoint(), b.boot.LogPublicKey)
	if err != nil {
		b.t.Fatal(err)
	}
	b.lastPred = auditlog.PredecessorEntry(c)
}

func (w *world) folder() *auditlog.Folder {
	w.t.Helper()
	f, err := auditlog.OpenFolder(w.dir)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { f.Close() })
	return f
}

func accept(*attestation.Bundle, time.Time) *attestation.Result {
	return &attestation.Result{Verdict: attestation.Accepted, Complete: true, Assurance: attestation.AssuranceTest}
}

func (w *world) config(f *auditlog.Folder) auditlog.ReplayConfig {
	return auditlog.ReplayConfig{VerifyBundle: accept, Cost: cost, Anchors: w.anchors, Disclosures: []auditlog.Discloser{f},
		Voucher: func(_ attestation.Address, raw []byte) (uint64, error) {
			if len(raw) != 8 {
				return 0, errors.New("not a voucher")
			}
			return binary.BigEndian.Uint64(raw), nil
		}}
}

func (w *world) voucher(channel attestation.Address, cumulative uint64) {
	w.put("vouchers/"+hex.EncodeToString(channel[:]), binary.BigEndian.AppendUint64(nil, cumulative))
}

func (w *world) replay(change func(*auditlog.ReplayConfig)) *auditlog.Report {
	w.t.Helper()
	f := w.folder()
	c := w.config(f)
	if change != nil {
		change(&c)
	}
	r, err := auditlog.Replay(w.t.Context(), f, c)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}
