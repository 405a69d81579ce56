package main

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"testing"
	"time"

	"cocoon/attestation"
	"cocoon/attestation/softtee"
)

// beacons proves every beacon, at a fixed time.
type beacons struct{ at time.Time }

func (b beacons) VerifyBeacon(attestation.Beacon, []byte) (time.Time, error) { return b.at, nil }

// Years later a bundle is judged by what held when it was made: revoked since
// is not revoked then, and collateral that has run out had not.
func TestBundlesAreJudgedAsOfTheirTime(t *testing.T) {
	made := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	today := made.AddDate(3, 0, 0)
	world, err := softtee.New(made)
	if err != nil {
		t.Fatal(err)
	}
	m := world.Machine(attestation.TDX)
	worker, payout := attestation.NewAddress(0, [32]byte{1}), attestation.NewAddress(0, [32]byte{2})
	model := attestation.Model{Name: "toy", WeightsRoot: "gguf-sha256:1a89193e72ba5cab1894b52dcd0dae946096206c8b48bea75ac94bb7711df9fc"}
	cfg := attestation.WorkerConfig{Version: 1, WorkerID: worker, PayoutAddress: payout, Redeemer: payout, Models: []attestation.Model{model},
		Prices: []attestation.ModelPrice{{Model: model.Name}}, Engine: attestation.EngineGGUF}
	rel := attestation.Release{Version: 1, Number: 1, Name: "r1", Launches: []attestation.Launch{m.Launch()}}
	ks := attestation.Keyset{Version: 1, WorkerID: worker, Epoch: 1, NotBefore: made.Unix(), NotAfter: made.Add(10 * time.Minute).Unix(),
		HPKEPublicKey: make([]byte, attestation.HPKEKeyBytes), SigningPublicKey: [32]byte{3}, LogPublicKey: [32]byte{4}, PayoutAddress: payout,
		Models: cfg.Models, ConfigDigest: cfg.Digest(), GPUEvidenceDigest: attestation.GPUEvidenceDigest(nil)}
	cpu, err := m.Quote(context.Background(), attestation.ReportData(ks.Encode(), [32]byte{}))
	if err != nil {
		t.Fatal(err)
	}
	b := &attestation.Bundle{Version: 1, Keyset: ks.Encode(), Config: cfg.Encode(), CPU: cpu, Release: rel.Encode(),
		ReleaseSignatures: []attestation.ReleaseSignature{attestation.SignRelease(world.RebuilderKey(), rel.Encode())}}
	var rebuilder attestation.Digest
	copy(rebuilder[:], world.RebuilderKey().Public().(ed25519.PublicKey))
	v, err := attestation.NewVerifier(attestation.Config{
		Policy: &attestation.Policy{Rebuilders: []attestation.Digest{rebuilder}}, CPU: world.Roots().CPUVerifiers(), Chain: beacons{made.Add(-time.Minute)},
	})
	if err != nil {
		t.Fatal(err)
	}
	reg := attestation.RegistryView{ProvenAt: today, ReleaseFloor: 1, Entries: map[[32]byte]attestation.RegistryEntry{
		sha256.Sum256(b.Release):    {Kind: attestation.EntryRelease, RevokedAt: made.AddDate(1, 0, 0).Unix(), Meta: attestation.ReleaseMeta(1)},
		attestation.ModelKey(model): {Kind: attestation.EntryModel, Meta: sha256.Sum256([]byte(model.Name))},
	}}
	rec := attestation.RecordView{WorkerID: worker, Payout: payout, PlatformID: m.PlatformID(), Expiry: today.AddDate(0, 1, 0), ProvenAt: today}

	res := asOf(v, worker, reg, rec, true)(b, made)
	if res.Verdict != attestation.Accepted || !res.Complete || res.Assurance != attestation.AssuranceTest {
		t.Errorf("then: got %s, complete %t, assurance %q: %v", res.Verdict, res.Complete, res.Assurance, res.Checks)
	}
	if _, err := res.Verified(); err == nil {
		t.Error("a result for show opens a channel")
	}
	if res := asOf(v, worker, reg, rec, true)(b, today); res.Verdict == attestation.Accepted {
		t.Error("today: accepted")
	}
	if res := asOf(v, worker, reg, rec, false)(b, made); res.Verdict == attestation.Accepted {
		t.Error("software roots were accepted without being asked for")
	}
	spoiled := *b
	spoiled.Config = append([]byte(nil), b.Config...)
	spoiled.Config[len(spoiled.Config)-1] ^= 1
	if res := asOf(v, worker, reg, rec, true)(&spoiled, made); res.Verdict == attestation.Accepted {
		t.Error("a changed config was accepted, because the roots are software")
	}
}
