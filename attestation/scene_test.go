package attestation

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"slices"
	"testing"
	"time"
)

var sceneNow = time.Unix(1_800_000_100, 0)

// honestCPU is a vendor whose evidence is always in order: what it says about
// report data is what the bundle needs. Tests of what stands around the vendor
// use it; answer, if set, has the last word.
type honestCPU struct {
	reportData [64]byte
	until      time.Time
	answer     func(*Report, *CPUClaims)
}

func (h *honestCPU) TEE() TEE { return SNP }

func (h *honestCPU) VerifyCPU(_ *CPUEvidence, _ Policy, _ time.Time, r *Report) CPUClaims {
	for _, n := range Names() {
		if n.TEE == SNP {
			r.Error(n.Name, nil)
		}
	}
	c := CPUClaims{
		Assurance: AssuranceHardware, Product: "Genoa", PlatformKey: []byte{1}, ReportData: h.reportData,
		Launch: Launch{TEE: SNP, Measurement: make([]byte, 48)}, ValidUntil: h.until,
	}
	if h.answer != nil {
		h.answer(r, &c)
	}
	return c
}

// blocks is a network whose beacon has a time.
type blocks struct{ at time.Time }

func (b blocks) VerifyBeacon(Beacon, []byte) (time.Time, error) { return b.at, nil }

// scene is a worker, its network and a client that verifies it. Tests change one thing.
type scene struct {
	keyset   *Keyset
	config   *WorkerConfig
	release  *Release
	signers  []ed25519.PrivateKey
	floors   []string
	entries  map[[32]byte]RegistryEntry // beside those of the release, the models and the floors
	noModels bool                       // the registry lists none
	policy   *Policy
	cpu      *honestCPU
	beacon   time.Time
	expect   Expect
	edit     func(*Bundle)

	bundle   *Bundle
	verifier *Verifier
}

func newScene(t *testing.T) *scene {
	key := testKey(t)
	s := &scene{
		keyset: validKeyset(), config: validConfig(), release: validRelease(), signers: []ed25519.PrivateKey{key},
		policy: &Policy{Rebuilders: []Digest{Digest(key.Public().(ed25519.PublicKey))}},
		cpu:    &honestCPU{until: sceneNow.Add(time.Hour)}, beacon: sceneNow.Add(-time.Minute),
		entries: map[[32]byte]RegistryEntry{},
	}
	s.expect = Expect{
		Now: sceneNow, Nonce: [32]byte{1}, WorkerID: s.keyset.WorkerID,
		Registry: &RegistryView{Address: NewAddress(0, [32]byte{9}), ProvenAt: sceneNow.Add(-time.Second)},
		Record: &RecordView{
			WorkerID: s.keyset.WorkerID, Payout: s.keyset.PayoutAddress, PlatformID: PlatformID("Genoa", []byte{1}),
			Expiry: sceneNow.Add(24 * time.Hour), ProvenAt: sceneNow.Add(-time.Second),
		},
	}
	return s
}

func (s *scene) verify(t *testing.T) *Result {
	t.Helper()
	b := &Bundle{Version: BundleVersion, Config: s.config.Encode(), Release: s.release.Encode(), CPU: CPUEvidence{TEE: SNP, Quote: []byte{1}}}
	for _, k := range s.signers {
		b.ReleaseSignatures = append(b.ReleaseSignatures, SignRelease(k, b.Release))
	}
	if g := s.expect.Registry; g != nil {
		g.Entries = map[[32]byte]RegistryEntry{s.release.Digest(): {Kind: EntryRelease, Meta: ReleaseMeta(s.release.Number)}}
		for _, m := range s.keyset.Models {
			if !s.noModels {
				g.Entries[ModelKey(m)] = RegistryEntry{Kind: EntryModel, Meta: sha256.Sum256([]byte(m.Name))}
			}
		}
		for _, f := range s.floors {
			g.Entries[sha256.Sum256([]byte(f))] = RegistryEntry{Kind: EntryPolicyFloor}
		}
		for k, e := range s.entries {
			g.Entries[k] = e
		}
	}
	for _, f := range s.floors {
		b.PolicyFloors = append(b.PolicyFloors, []byte(f))
	}
	s.keyset.ConfigDigest = s.config.Digest()
	b.Keyset = s.keyset.Encode()
	s.cpu.reportData = ReportData(b.Keyset, b.Nonce)
	if s.edit != nil {
		s.edit(b)
	}
	s.bundle = b
	var err error
	if s.verifier, err = NewVerifier(Config{Policy: s.policy, CPU: []CPUVerifier{s.cpu}, Chain: blocks{s.beacon}}); err != nil {
		t.Fatal(err)
	}
	return s.verifier.Verify(b, s.expect)
}

// refused asserts that nothing was verified, and that check failed.
func refused(t *testing.T, res *Result, check string) {
	t.Helper()
	if v, err := res.Verified(); v != nil || err == nil || outcome(res, check) != Fail {
		t.Errorf("got %v, want a refusal by %s", err, check)
	}
}

func accepted(t *testing.T, res *Result) *Verified {
	t.Helper()
	v, err := res.Verified()
	if err != nil {
		t.Fatalf("%v: %v", err, res.Checks)
	}
	return v
}

func outcome(res *Result, name string) Outcome {
	i := slices.IndexFunc(res.Checks, func(c Check) bool { return c.Name == name })
	if i < 0 {
		return Skip
	}
	return res.Checks[i].Outcome
}

func TestSceneIsAccepted(t *testing.T) {
	s := newScene(t)
	v := accepted(t, s.verify(t))
	if !bytes.Equal(v.KeysetBytes(), s.bundle.Keyset) {
		t.Error("another keyset was verified")
	}
}
