package softtee_test

import (
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"cocoon/attestation"
	"cocoon/attestation/softtee"

	"github.com/google/go-cmp/cmp"
)

// chain is a TON network that proves one beacon.
type chain struct {
	at  time.Time
	err error
}

func (c chain) VerifyBeacon(attestation.Beacon, []byte) (time.Time, error) { return c.at, c.err }

// scene is a worker, its network and its client, all as they should be. A row
// of the table changes one thing before the documents are joined (early) or
// after the quote is signed (late).
type scene struct {
	w        *softtee.World
	m        *softtee.Machine
	config   attestation.WorkerConfig
	keyset   attestation.Keyset
	release  attestation.Release
	gpus     []attestation.GPUEvidence
	floor    []byte
	registry *attestation.RegistryView
	record   *attestation.RecordView
	policy   *attestation.Policy
	chain    chain
	expect   attestation.Expect
	nonce    [32]byte // of the quote
	strict   bool     // a client that does not accept test roots

	wrap     func(attestation.CPUVerifier) attestation.CPUVerifier // stands between a strict client and its vendors
	late     func(*attestation.Bundle)
	listed   func(map[[32]byte]attestation.RegistryEntry) // changes the registry's entries
	noConfig bool                                         // leave the keyset's config digest as it is
	noGPU    bool                                         // leave the keyset's GPU digest as it is
}

func address(b byte) attestation.Address { return attestation.NewAddress(0, [32]byte{b}) }

func weights(b byte) string { return "gguf-sha256:" + strings.Repeat(fmt.Sprintf("%02x", b), 32) }

func newScene(w *softtee.World, tee attestation.TEE) *scene {
	m := w.Machine(tee)
	models := []attestation.Model{{Name: "seed", WeightsRoot: weights(1)}}
	s := &scene{
		w: w, m: m,
		config: attestation.WorkerConfig{
			Version: attestation.ConfigVersion, WorkerID: address(1), PayoutAddress: address(2), Redeemer: address(3),
			Models: models, Prices: []attestation.ModelPrice{{Model: "seed"}}, Engine: attestation.EngineGGUF,
		},
		keyset: attestation.Keyset{
			Version: attestation.KeysetVersion, WorkerID: address(1), BootID: [32]byte{4}, Epoch: 1,
			NotBefore: now.Add(-time.Minute).Unix(), NotAfter: now.Add(9 * time.Minute).Unix(),
			Beacon: attestation.Beacon{Seqno: 5, RootHash: [32]byte{6}}, HPKEPublicKey: make([]byte, attestation.HPKEKeyBytes),
			SigningPublicKey: [32]byte{7}, LogPublicKey: [32]byte{8}, PayoutAddress: address(2), Models: models,
		},
		release: attestation.Release{
			Version: attestation.ReleaseVersion, Number: 3, Name: "r3", Launches: []attestation.Launch{m.Launch()},
		},
		floor:    []byte("release_floor = 2\n"),
		registry: &attestation.RegistryView{Address: address(9), ReleaseFloor: 1, ProvenAt: now.Add(-time.Minute)},
		record:   &attestation.RecordView{WorkerID: address(1), Payout: address(2), PlatformID: m.PlatformID(), Expiry: now.Add(time.Hour), ProvenAt: now.Add(-time.Minute)},
		policy:   &attestation.Policy{Rebuilders: []attestation.Digest{rebuilder(w)}},
		chain:    chain{at: now.Add(-2 * time.Minute)},
		expect:   attestation.Expect{Now: now, Nonce: [32]byte{10}, WorkerID: address(1)},
	}
	return s
}

func rebuilder(w *softtee.World) attestation.Digest {
	return attestation.Digest(w.RebuilderKey().Public().(ed25519.PublicKey))
}

// play makes the bundle and verifies it.
func (s *scene) play(t *testing.T) *attestation.Result {
	t.Helper()
	b := &attestation.Bundle{
		Version: attestation.BundleVersion, Config: s.config.Encode(), Nonce: s.nonce, GPUs: s.gpus,
		Release: s.release.Encode(), PolicyFloors: [][]byte{s.floor},
	}
	b.ReleaseSignatures = []attestation.ReleaseSignature{attestation.SignRelease(s.w.RebuilderKey(), b.Release)}
	if !s.noConfig {
		s.keyset.ConfigDigest = s.config.Digest()
	}
	if !s.noGPU {
		s.keyset.GPUEvidenceDigest = attestation.GPUEvidenceDigest(s.gpus)
	}
	b.Keyset = s.keyset.Encode()
	var err error
	if b.CPU, err = s.m.Quote(t.Context(), attestation.ReportData(b.Keyset, b.Nonce)); err != nil {
		t.Fatal(err)
	}
	if s.late != nil {
		s.late(b)
	}
	if s.registry != nil {
		model := s.keyset.Models[0]
		s.registry.Entries = map[[32]byte]attestation.RegistryEntry{
			s.release.Digest():          {Kind: attestation.EntryRelease, Meta: attestation.ReleaseMeta(s.release.Number)},
			attestation.ModelKey(model): {Kind: attestation.EntryModel, Meta: sha256.Sum256([]byte(model.Name))},
			sha256.Sum256(s.floor):      {Kind: attestation.EntryPolicyFloor},
		}
		if s.listed != nil {
			s.listed(s.registry.Entries)
		}
	}
	s.expect.Registry, s.expect.Record = s.registry, s.record
	v, err := s.w.Roots().Verifier(s.policy, s.chain)
	if s.strict {
		cpu := s.w.Roots().CPUVerifiers()
		for i := range cpu {
			if s.wrap != nil {
				cpu[i] = s.wrap(cpu[i])
			}
		}
		v, err = attestation.NewVerifier(attestation.Config{Policy: s.policy, CPU: cpu, Chain: s.chain})
	}
	if err != nil {
		t.Fatal(err)
	}
	return v.Verify(b, s.expect)
}

func failed(res *attestation.Result) (names []string) {
	for _, c := range res.Checks {
		if c.Outcome == attestation.Fail {
			names = append(names, c.Name)
		}
	}
	return names
}

func TestAWorkerAsItShouldBeIsVerified(t *testing.T) {
	w := newWorld(t)
	for _, tee := range []attestation.TEE{attestation.TDX, attestation.SNP} {
		t.Run(string(tee), func(t *testing.T) {
			s := newScene(w, tee)
			res := s.play(t)
			v, err := res.Verified()
			if err != nil {
				t.Fatalf("%v: %v", err, res.Checks)
			}
			for _, c := range res.Checks {
				if c.Outcome != attestation.Pass {
					t.Errorf("got %s", c)
				}
			}
			if !res.Complete || v.Assurance() != attestation.AssuranceTest || v.Platform() != s.m.PlatformID() {
				t.Errorf("got complete %t, assurance %s, platform %x", res.Complete, v.Assurance(), v.Platform())
			}
			if want := time.Unix(s.keyset.NotAfter, 0); !v.Expires().Equal(want) {
				t.Errorf("expires: got %s, want %s, the keyset's not_after", v.Expires(), want)
			}
			if err := v.Current(v.Expires()); !errors.Is(err, attestation.ErrNotVerified) {
				t.Errorf("at its expiry: got %v, want %v", err, attestation.ErrNotVerified)
			}
		})
	}
}

// Each row breaks one thing of a worker that is otherwise verified. The check
// named is the only one that fails.
func TestEveryCommonCheckRefuses(t *testing.T) {
	w := newWorld(t)
	type entries = map[[32]byte]attestation.RegistryEntry
	editRelease := func(f func(*attestation.RegistryEntry)) func(*scene) {
		return func(s *scene) {
			s.listed = func(es entries) {
				k := s.release.Digest()
				e := es[k]
				f(&e)
				es[k] = e
			}
		}
	}
	rows := []struct {
		check, name string
		spoil       func(*scene)
	}{
		{"keyset.parse", "a trailing byte", func(s *scene) { s.late = func(b *attestation.Bundle) { b.Keyset = append(b.Keyset, 0) } }},
		{"keyset.parse", "no keyset", func(s *scene) { s.late = func(b *attestation.Bundle) { b.Keyset = nil } }},
		{"keyset.current", "over", func(s *scene) {
			s.keyset.NotBefore, s.keyset.NotAfter = now.Add(-10*time.Minute).Unix(), now.Unix()
		}},
		{"keyset.current", "not yet", func(s *scene) { s.keyset.NotBefore = now.Add(time.Second).Unix() }},
		{"keyset.current", "over by the chain's clock", func(s *scene) {
			s.chain.at, s.registry.ProvenAt, s.record.Expiry = now.Add(10*time.Minute), now.Add(10*time.Minute), now.Add(time.Hour)
		}},
		{"binding.report-data", "a quote over other keys", func(s *scene) {
			s.late = func(b *attestation.Bundle) {
				k := s.keyset
				k.SigningPublicKey = [32]byte{99} // the attacker's
				b.Keyset = k.Encode()
			}
		}},
		{"binding.report-data", "a quote over another nonce", func(s *scene) {
			s.late = func(b *attestation.Bundle) { b.Nonce = s.expect.Nonce }
		}},
		{"binding.gpu-digest", "other GPUs", func(s *scene) { s.noGPU = true }},
		{"gpu.evidence", "a GPU that nobody verified", func(s *scene) {
			s.gpus = []attestation.GPUEvidence{{Kind: "gpu", Arch: "hopper"}}
			s.keyset.GPUCount, s.config.GPUCount = 1, 1
		}},
		{"gpu.evidence", "a GPU left out of the evidence", func(s *scene) { s.keyset.GPUCount, s.config.GPUCount = 1, 1 }},
		{"binding.config", "another config", func(s *scene) { s.noConfig = true }},
		{"binding.nonce", "fresh was asked for, cached came", func(s *scene) { s.expect.Fresh = true }},
		{"binding.nonce", "a nonce nobody sent", func(s *scene) { s.nonce = [32]byte{11} }},
		{"binding.nonce", "fresh with a nonce of zeros", func(s *scene) { s.expect.Fresh, s.expect.Nonce = true, [32]byte{} }},
		{"binding.worker", "another worker", func(s *scene) { s.expect.WorkerID = address(50) }},
		{"binding.platform", "another machine", func(s *scene) { s.record.PlatformID[0] ^= 1 }},
		{"binding.platform", "another worker's record", func(s *scene) { s.record.WorkerID = address(50) }},
		{"binding.platform", "a record that ran out", func(s *scene) { s.record.Expiry = now }},
		{"binding.payout", "another payout address", func(s *scene) { s.record.Payout = address(50) }},
		{"config.allowed", "an engine that no image has", func(s *scene) { s.config.Engine = "sh -c" }},
		{"config.allowed", "another payout address than the keyset", func(s *scene) { s.config.PayoutAddress = address(50) }},
		{"config.allowed", "another worker than the keyset", func(s *scene) { s.config.WorkerID = address(50) }},
		{"config.allowed", "other models than the keyset", func(s *scene) {
			s.config.Models = []attestation.Model{{Name: "seed", WeightsRoot: weights(2)}}
		}},
		{"config.allowed", "more GPUs than the keyset", func(s *scene) { s.config.GPUCount = 1 }},
		{"platform.allowed", "banned", func(s *scene) {
			s.policy.BannedPlatforms = []attestation.Digest{attestation.Digest(s.m.PlatformID())}
		}},
		{"platform.allowed", "not on the list", func(s *scene) { s.policy.Platforms = []attestation.Digest{{1}} }},
		{"image.allowed", "no rebuilder's signature", func(s *scene) {
			s.late = func(b *attestation.Bundle) { b.ReleaseSignatures = nil }
		}},
		{"image.allowed", "a forged rebuilder's signature", func(s *scene) {
			s.late = func(b *attestation.Bundle) { b.ReleaseSignatures[0].Signature[0] ^= 1 }
		}},
		{"image.allowed", "a rebuilder that is not pinned", func(s *scene) { s.policy.Rebuilders = []attestation.Digest{{1}} }},
		{"image.allowed", "no rebuilder is pinned", func(s *scene) { s.policy = nil }},
		{"image.allowed", "revoked", editRelease(func(e *attestation.RegistryEntry) { e.RevokedAt = now.Unix() })},
		{"image.allowed", "not in force yet", editRelease(func(e *attestation.RegistryEntry) { e.NotBefore = now.Add(time.Second).Unix() })},
		{"image.allowed", "listed as a model", editRelease(func(e *attestation.RegistryEntry) { e.Kind = attestation.EntryModel })},
		{"image.allowed", "listed with another number", editRelease(func(e *attestation.RegistryEntry) { e.Meta = attestation.ReleaseMeta(9) })},
		{"image.allowed", "other releases are pinned", func(s *scene) { s.policy.Releases = []attestation.Digest{{1}} }},
		{"image.measurement", "another image", func(s *scene) { s.release.Launches[0].RTMR[2] = make([]byte, 48) }},
		{"image.measurement", "a release for the other technology", func(s *scene) {
			s.release.Launches = []attestation.Launch{s.w.Launch(attestation.SNP)}
		}},
		{"image.measurement", "an event log that nothing replays", func(s *scene) {
			s.late = func(b *attestation.Bundle) { b.EventLog = []byte("boot") }
		}},
		{"image.floor", "below the registry's floor", func(s *scene) { s.registry.ReleaseFloor = 4 }},
		{"image.floor", "below the client's floor", func(s *scene) { s.policy.ReleaseFloor = 4 }},
		{"image.floor", "below a policy floor of the registry", func(s *scene) { s.floor = []byte("release_floor = 4\n") }},
		{"model.weights", "unmeasured", func(s *scene) {
			s.keyset.Models = []attestation.Model{{Name: "seed", WeightsRoot: attestation.Unmeasured}}
			s.config.Models = s.keyset.Models
		}},
		{"model.weights", "not in the registry", func(s *scene) {
			s.listed = func(es entries) { delete(es, attestation.ModelKey(s.keyset.Models[0])) }
		}},
		{"model.weights", "two roots for one name", func(s *scene) {
			s.listed = func(es entries) {
				es[attestation.ModelKey(attestation.Model{Name: "seed", WeightsRoot: weights(2)})] = attestation.RegistryEntry{
					Kind: attestation.EntryModel, Meta: sha256.Sum256([]byte("seed")),
				}
			}
		}},
		{"model.weights", "another root is pinned", func(s *scene) { s.policy.Models = map[string]string{"seed": weights(2)} }},
		{"registry.fresh", "proven two hours ago", func(s *scene) { s.registry.ProvenAt = now.Add(-2 * time.Hour) }},
		{"registry.fresh", "never proven", func(s *scene) { s.registry.ProvenAt = time.Time{} }},
		{"registry.policy-floor", "a floor that was kept back", func(s *scene) {
			s.late = func(b *attestation.Bundle) { b.PolicyFloors = nil }
		}},
		{"registry.policy-floor", "a floor that cannot be read", func(s *scene) { s.floor = []byte("relase_floor = 2\n") }},
		{"beacon.proof", "a block of no known network", func(s *scene) { s.chain.err = errors.New("not signed by the validators") }},
		{"beacon.fresh", "16 minutes old", func(s *scene) { s.chain.at = now.Add(-16 * time.Minute) }},
		{"beacon.fresh", "61 minutes old, with a fresh quote", func(s *scene) {
			s.expect.Fresh, s.nonce, s.chain.at = true, s.expect.Nonce, now.Add(-61*time.Minute)
		}},
		{"assurance.allowed", "test roots under a production client", func(s *scene) { s.strict = true }},
	}
	covered := make(map[string]bool)
	for _, tt := range rows {
		t.Run(tt.check+"/"+tt.name, func(t *testing.T) {
			s := newScene(w, attestation.TDX)
			tt.spoil(s)
			res := s.play(t)
			if diff := cmp.Diff([]string{tt.check}, failed(res)); diff != "" {
				t.Errorf("failed checks (-want +got):\n%s%v", diff, res.Checks)
			}
			want := attestation.NotAcceptable
			for _, n := range attestation.Names() {
				if n.Name == tt.check && n.Class == attestation.Authenticity {
					want = attestation.NotAuthentic
				}
			}
			if res.Verdict != want {
				t.Errorf("verdict: got %s, want %s", res.Verdict, want)
			}
			v, err := res.Verified()
			if v != nil || !errors.Is(err, attestation.ErrNotVerified) || !strings.Contains(err.Error(), tt.check) {
				t.Errorf("Verified: got %v, %v, want nothing and an error that names %s", v, err, tt.check)
			}
		})
		covered[tt.check] = true
	}
	for _, n := range attestation.Names() {
		if n.TEE == "" && !covered[n.Name] {
			t.Errorf("no row makes %s fail", n.Name)
		}
	}
}

// What is not asked is not proven: nothing that was left out makes a *Verified.
func TestLeavingContextOutIsIncomplete(t *testing.T) {
	w := newWorld(t)
	for name, leave := range map[string]func(*scene){
		"worker":   func(s *scene) { s.expect.WorkerID = attestation.Address{} },
		"record":   func(s *scene) { s.record = nil },
		"registry": func(s *scene) { s.registry = nil },
	} {
		s := newScene(w, attestation.TDX)
		leave(s)
		res := s.play(t)
		if _, err := res.Verified(); err == nil || res.Complete {
			t.Errorf("without the %s: got complete %t and error %v", name, res.Complete, err)
		}
	}
}

func TestAClientWithoutARegistryStandsOnItsPins(t *testing.T) {
	w := newWorld(t)
	s := newScene(w, attestation.TDX)
	s.registry = nil
	s.policy = &attestation.Policy{
		Registry: "none", Releases: []attestation.Digest{attestation.Digest(s.release.Digest())}, Models: map[string]string{"seed": weights(1)},
	}
	if _, err := s.play(t).Verified(); err != nil {
		t.Errorf("pinned release and model: %v", err)
	}
	s.policy.Models = nil
	if res := s.play(t); !cmp.Equal(failed(res), []string{"model.weights"}) {
		t.Errorf("no model is pinned: got %v", failed(res))
	}
}

// nameless is a vendor whose evidence is in order and names no machine.
type nameless struct{ attestation.CPUVerifier }

func (n nameless) VerifyCPU(ev *attestation.CPUEvidence, p attestation.Policy, at time.Time, r *attestation.Report) attestation.CPUClaims {
	c := n.CPUVerifier.VerifyCPU(ev, p, at, r)
	c.PlatformKey = nil
	return c
}

func TestAMachineWithoutANameIsRefused(t *testing.T) {
	w := newWorld(t)
	s := newScene(w, attestation.TDX)
	s.wrap = func(c attestation.CPUVerifier) attestation.CPUVerifier { return nameless{c} }
	s.strict = true
	s.record.PlatformID = attestation.PlatformID("tdx", nil)
	if got := failed(s.play(t)); !cmp.Equal(got, []string{"assurance.allowed", "binding.platform", "platform.allowed"}) {
		t.Errorf("got %v", got)
	}
}
