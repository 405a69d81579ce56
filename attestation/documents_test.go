package attestation

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"cocoon/attestation/canonical"
)

func validKeyset() *Keyset {
	return &Keyset{
		Version: KeysetVersion, WorkerID: NewAddress(0, [32]byte{1}), BootID: [32]byte{2}, Epoch: 1,
		NotBefore: 1_800_000_000, NotAfter: 1_800_000_600, Beacon: Beacon{Seqno: 7, RootHash: [32]byte{3}},
		TLSSPKISHA256: [32]byte{4}, HPKEPublicKey: make([]byte, HPKEKeyBytes), SigningPublicKey: [32]byte{5}, LogPublicKey: [32]byte{6},
		PayoutAddress: NewAddress(0, [32]byte{7}), Models: []Model{{"seed", "gguf-sha256:" + strings.Repeat("ab", 32)}}, ConfigDigest: [32]byte{8},
		GPUEvidenceDigest: GPUEvidenceDigest(nil),
	}
}

func validConfig() *WorkerConfig {
	return &WorkerConfig{
		Version: ConfigVersion, WorkerID: NewAddress(0, [32]byte{1}), PayoutAddress: NewAddress(0, [32]byte{7}), Redeemer: NewAddress(0, [32]byte{7}),
		Models: validKeyset().Models, Prices: []ModelPrice{{Model: "seed", Min: Prices{Prompt: 1}}}, Engine: EngineGGUF,
	}
}

func validRelease() *Release {
	return &Release{Version: ReleaseVersion, Number: 1, Name: "r1", Launches: []Launch{
		{TEE: TDX, MRTD: make([]byte, 48), RTMR: [][]byte{make([]byte, 48), make([]byte, 48), make([]byte, 48), make([]byte, 48)}},
		{TEE: SNP, Measurement: make([]byte, 48)},
	}}
}

func validBundle() *Bundle {
	return &Bundle{Version: BundleVersion, Keyset: validKeyset().Encode(), Config: validConfig().Encode(), CPU: CPUEvidence{TEE: TDX, Quote: []byte{1}}, Release: validRelease().Encode()}
}

func TestDocumentsRoundTrip(t *testing.T) {
	if k, err := ParseKeyset(validKeyset().Encode()); err != nil || k.Digest() != validKeyset().Digest() {
		t.Errorf("keyset: %v", err)
	}
	if c, err := ParseWorkerConfig(validConfig().Encode()); err != nil || c.Digest() != validConfig().Digest() {
		t.Errorf("config: %v", err)
	}
	if r, err := ParseRelease(validRelease().Encode()); err != nil || r.Digest() != validRelease().Digest() {
		t.Errorf("release: %v", err)
	}
	if b, err := ParseBundle(validBundle().Encode()); err != nil || b.Digest() != validBundle().Digest() {
		t.Errorf("bundle: %v", err)
	}
}

func TestKeysetRefusals(t *testing.T) {
	for _, tt := range []struct {
		name string
		mut  func(*Keyset)
		want string
	}{
		{"version", func(k *Keyset) { k.Version = 2 }, "version: got 2, want 1"},
		{"no worker", func(k *Keyset) { k.WorkerID = Address{} }, "worker_id"},
		{"no payout", func(k *Keyset) { k.PayoutAddress = Address{} }, "payout_address"},
		{"epoch zero", func(k *Keyset) { k.Epoch = 0 }, "epoch"},
		{"epoch too long", func(k *Keyset) { k.NotAfter = k.NotBefore + int64(MaxEpoch/time.Second) + 1 }, "validity"},
		{"backwards", func(k *Keyset) { k.NotAfter = k.NotBefore }, "validity"},
		{"short hpke key", func(k *Keyset) { k.HPKEPublicKey = k.HPKEPublicKey[1:] }, "hpke_public_key: got 1215"},
		{"one key for two uses", func(k *Keyset) { k.LogPublicKey = k.SigningPublicKey }, "log_public_key"},
		{"no model", func(k *Keyset) { k.Models = nil }, "models: got 0"},
		{"name twice", func(k *Keyset) { k.Models = append(k.Models, k.Models[0]) }, "twice"},
		{"name with a newline", func(k *Keyset) { k.Models[0].Name = "a\nb" }, "byte 0xa"},
		{"root of unknown kind", func(k *Keyset) { k.Models[0].WeightsRoot = "md5:00" }, "weights_root"},
		{"root with upper-case hex", func(k *Keyset) { k.Models[0].WeightsRoot = "gguf-sha256:" + strings.Repeat("AB", 32) }, "weights_root"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k := validKeyset()
			tt.mut(k)
			if _, err := ParseKeyset(k.Encode()); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
	enc := validKeyset().Encode()
	if _, err := ParseKeyset(append(enc, 0)); err == nil {
		t.Error("a trailing byte was accepted")
	}
	if _, err := ParseKeyset(make([]byte, MaxKeysetBytes+1)); err == nil || !strings.Contains(err.Error(), "at most") {
		t.Errorf("oversized: got %v", err)
	}
	// The same map with its first two keys swapped: one meaning, other bytes.
	type swapped struct {
		B uint64 `cbor:"b"`
		A uint64 `cbor:"a"`
	}
	raw := []byte{0xa2, 0x61, 'b', 1, 0x61, 'a', 2}
	var s swapped
	if err := canonical.Unmarshal("map", raw, 100, &s); !errors.Is(err, canonical.ErrNotCanonical) {
		t.Errorf("keys out of order: got %v, want ErrNotCanonical", err)
	}
}

func TestConfigRefusesUnknownKey(t *testing.T) {
	type extended struct {
		WorkerConfig
		Debug bool `cbor:"debug"`
	}
	raw := canonical.MustMarshal(extended{WorkerConfig: *validConfig(), Debug: true})
	if _, err := ParseWorkerConfig(raw); err == nil || !strings.Contains(err.Error(), "unknown field") {
		t.Errorf("got %v, want an unknown field error", err)
	}
}

func TestPolicyRefusals(t *testing.T) {
	for _, tt := range []struct{ doc, want string }{
		{"frobnicate = 1", "unknown key"},
		{"[tdx]\ntcb_statuses = [\"Revoked\"]", "Revoked can never"},
		{"[tdx]\ntcb_statuses = [\"Fine\"]", "want one of"},
		{"registry = \"maybe\"", "registry"},
		{"releases = [\"abcd\"]", "64 hex digits"},
		{"[ages]\nregistry = \"-1h\"", "positive"},
	} {
		if _, err := ParsePolicy([]byte(tt.doc)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: got %v, want %q", tt.doc, err, tt.want)
		}
	}
}

func TestCombineIsTheStrictest(t *testing.T) {
	a, b, c := Digest{1}, Digest{2}, Digest{3}
	file := &Policy{Releases: []Digest{a, b}, ReleaseFloor: 3, Platforms: []Digest{a}, BannedPlatforms: []Digest{b}, Ages: Ages{Registry: Duration(2 * time.Hour)},
		Models: map[string]string{"m": "unmeasured"}, TDX: TDXPolicy{TCBStatuses: []string{"UpToDate", "SWHardeningNeeded"}, MinEvalNumber: 17}}
	floor := &Policy{Releases: []Digest{b, c}, ReleaseFloor: 2, BannedPlatforms: []Digest{c}, Ages: Ages{Registry: Duration(time.Minute)},
		Models: map[string]string{"m": "gguf-sha256:" + strings.Repeat("0", 64)}, TDX: TDXPolicy{TCBStatuses: []string{"UpToDate"}, MinEvalNumber: 18}}
	e, err := Combine(file, floor)
	if err != nil {
		t.Fatal(err)
	}
	p := e.Policy()
	if len(p.Releases) != 1 || p.Releases[0] != b {
		t.Errorf("releases: got %v, want the intersection", p.Releases)
	}
	if p.ReleaseFloor != 3 || p.TDX.MinEvalNumber != 18 {
		t.Errorf("floors: got %d and %d, want the maxima 3 and 18", p.ReleaseFloor, p.TDX.MinEvalNumber)
	}
	if len(p.BannedPlatforms) != 2 {
		t.Errorf("bans: got %v, want the union", p.BannedPlatforms)
	}
	if p.Ages.Registry != Duration(time.Minute) || p.Ages.Beacon != Default().Ages.Beacon {
		t.Errorf("ages: got %v", p.Ages)
	}
	if len(p.TDX.TCBStatuses) != 1 {
		t.Errorf("statuses: got %v, want the floor's one", p.TDX.TCBStatuses)
	}
	if p.Models["m"] != conflict {
		t.Errorf("two roots for one name: got %q, want no root to match", p.Models["m"])
	}
	if (Effective{}).Valid() {
		t.Error("the zero policy is valid")
	}
}

func TestZeroValuesReject(t *testing.T) {
	if _, err := (&Result{}).Verified(); !errors.Is(err, ErrNotVerified) {
		t.Errorf("zero result: %v", err)
	}
	if err := (&Verified{}).Current(time.Unix(0, 0)); !errors.Is(err, ErrNotVerified) {
		t.Errorf("zero verified: %v", err)
	}
	var none *Verified
	if err := none.Current(time.Unix(0, 0)); !errors.Is(err, ErrNotVerified) {
		t.Errorf("nil verified: %v", err)
	}
	res := (&Verifier{}).Verify(validBundle(), Expect{Now: time.Unix(1_800_000_001, 0)})
	if res.Verdict == Accepted {
		t.Error("the zero verifier accepted a bundle")
	}
	if (&Verifier{}).Verify(nil, Expect{}).Verdict != NotAuthentic {
		t.Error("no bundle was something else than not authentic")
	}
	var r Report
	if r.Passed("tdx.tcb") {
		t.Error("a check that was not made passed")
	}
}

func TestReleaseSignature(t *testing.T) {
	m := validRelease().Encode()
	key := testKey(t)
	s := SignRelease(key, m)
	if !VerifyReleaseSignature(s, m) {
		t.Fatal("a rebuilder's own signature was refused")
	}
	other := validRelease()
	other.Number = 2
	if VerifyReleaseSignature(s, other.Encode()) {
		t.Error("a signature over another release was accepted")
	}
	if VerifyReleaseSignature(ReleaseSignature{}, m) {
		t.Error("the zero signature was accepted")
	}
}

func FuzzParse(f *testing.F) {
	f.Add(validKeyset().Encode())
	f.Add(validConfig().Encode())
	f.Add(validRelease().Encode())
	f.Add(validBundle().Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if k, err := ParseKeyset(b); err == nil && !bytes.Equal(k.Encode(), b) {
			t.Error("keyset: another encoding was accepted")
		}
		if c, err := ParseWorkerConfig(b); err == nil && !bytes.Equal(c.Encode(), b) {
			t.Error("config: another encoding was accepted")
		}
		if r, err := ParseRelease(b); err == nil && !bytes.Equal(r.Encode(), b) {
			t.Error("release: another encoding was accepted")
		}
		if x, err := ParseBundle(b); err == nil && !bytes.Equal(x.Encode(), b) {
			t.Error("bundle: another encoding was accepted")
		}
	})
}

func FuzzParsePolicy(f *testing.F) {
	f.Add([]byte("registry = \"none\"\nreleases = []\n[tdx]\ntcb_statuses = [\"UpToDate\"]\n"))
	f.Add([]byte("[snp.min_tcb.Genoa]\nsnp = 3\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := ParsePolicy(b); err == nil {
			if _, err := Combine(p); err != nil && len(p.TDX.TCBStatuses)+len(p.SNP.Products) > 0 {
				t.Errorf("a policy that parses does not combine: %v", err)
			}
		}
	})
}

func FuzzParseAddress(f *testing.F) {
	f.Add(NewAddress(-1, [32]byte{9}).String())
	f.Fuzz(func(t *testing.T, s string) {
		if a, err := ParseAddress(s); err == nil {
			if b, err := ParseAddress(a.String()); err != nil || a != b {
				t.Errorf("%q: got %v, %v", s, b, err)
			}
		}
	})
}
