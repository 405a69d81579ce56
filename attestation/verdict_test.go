package attestation

import (
	"bytes"
	"strings"
	"testing"
	"unicode"
)

// A vendor's verifier that answers too little, twice, or for others opens nothing.
func TestAVerifierOfOddAnswers(t *testing.T) {
	for name, tt := range map[string]struct {
		check  string
		answer func(*Report, *CPUClaims)
		spoil  func(*scene)
	}{
		"says nothing":   {"", func(r *Report, _ *CPUClaims) { *r = Report{} }, nil},
		"claims nothing": {"assurance.allowed", func(_ *Report, c *CPUClaims) { *c = CPUClaims{} }, nil},
		"never expires":  {"", func(_ *Report, c *CPUClaims) { c.ValidUntil = c.ValidUntil.AddDate(-9999, 0, 0) }, nil},
		"no expiry": {"", func(_ *Report, c *CPUClaims) {
			*c = CPUClaims{Assurance: c.Assurance, Product: c.Product, PlatformKey: c.PlatformKey, ReportData: c.ReportData, Launch: c.Launch}
		}, nil},
		"no platform":           {"platform.allowed", func(_ *Report, c *CPUClaims) { c.PlatformKey = nil }, nil},
		"another assurance":     {"assurance.allowed", func(_ *Report, c *CPUClaims) { c.Assurance = "hardware " }, nil},
		"passes, then fails":    {"snp.vmpl", func(r *Report, _ *CPUClaims) { r.Expect("snp.vmpl", false, 1, 0) }, nil},
		"passes, then skips":    {"", func(r *Report, _ *CPUClaims) { r.Skip("snp.vmpl", "tired") }, nil},
		"fails an unknown name": {"snp.new-rule", func(r *Report, _ *CPUClaims) { r.Expect("snp.new-rule", false, 1, 0) }, nil},
		"skips an unknown name": {"", func(r *Report, _ *CPUClaims) { r.Skip("snp.new-rule", "tired") }, nil},
		"answers for the image": {"image.measurement", func(r *Report, _ *CPUClaims) { r.Error("image.measurement", nil) }, func(s *scene) {
			s.edit = func(b *Bundle) { b.Release = nil }
		}},
		"answers for a good image": {"image.measurement", func(r *Report, _ *CPUClaims) { r.Error("image.measurement", nil) }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			if s.cpu.answer = tt.answer; tt.spoil != nil {
				tt.spoil(s)
			}
			res := s.verify(t)
			if v, err := res.Verified(); v != nil || err == nil {
				t.Fatalf("verified: %v", res.Checks)
			}
			if tt.check != "" && failures(res, tt.check) == 0 {
				t.Errorf("got %v, want %s to fail", res.Checks, tt.check)
			}
			if res.Verdict == Accepted && res.Complete && name != "never expires" && name != "no expiry" {
				t.Errorf("got %s, complete", res.Verdict)
			}
		})
	}
}

func failures(res *Result, name string) (n int) {
	for _, c := range res.Checks {
		if c.Name == name && c.Outcome == Fail {
			n++
		}
	}
	return n
}

// What was not given is not held against a worker: the verdict stands, incomplete.
func TestContextThatWasNotGiven(t *testing.T) {
	for name, leave := range map[string]func(*scene){
		"registry": func(s *scene) { s.expect.Registry = nil },
		"record":   func(s *scene) { s.expect.Record = nil },
		"worker":   func(s *scene) { s.expect.WorkerID = Address{} },
		"all":      func(s *scene) { s.expect = Expect{Now: s.expect.Now, Nonce: s.expect.Nonce} },
	} {
		s := newScene(t)
		leave(s)
		res := s.verify(t)
		if res.Verdict != Accepted || res.Complete {
			t.Errorf("%s: got %s, complete %t: %v", name, res.Verdict, res.Complete, res.Checks)
		}
		if v, err := res.Verified(); v != nil || err == nil {
			t.Errorf("%s: an incomplete result was verified", name)
		}
	}
}

func TestACheckThatWasNotMadeIsNotAcceptable(t *testing.T) {
	s := newScene(t)
	s.cpu.answer = func(r *Report, _ *CPUClaims) {
		kept := r.checks[:0]
		for _, c := range r.checks {
			if c.Name != "snp.crl" {
				kept = append(kept, c)
			}
		}
		r.checks = kept
	}
	if res := s.verify(t); res.Verdict != NotAcceptable {
		t.Errorf("got %s, want %s", res.Verdict, NotAcceptable)
	}
}

// A caller, or whoever else holds the bundle, may write to it after Verify.
func TestWhatWasVerifiedStays(t *testing.T) {
	s := newScene(t)
	v := accepted(t, s.verify(t))
	raw, hpke := bytes.Clone(v.KeysetBytes()), bytes.Clone(v.Keyset().HPKEPublicKey)
	for _, b := range [][]byte{s.bundle.Keyset, s.bundle.Config, s.bundle.Release} {
		for i := range b {
			b[i] ^= 0xff
		}
	}
	if !bytes.Equal(v.KeysetBytes(), raw) || !bytes.Equal(v.Keyset().HPKEPublicKey, hpke) || v.Release().Launches[0].MRTD[0] != 0 {
		t.Error("writing to the bundle changed what was verified from it")
	}
	s.policy.Rebuilders[0], s.policy.Models = Digest{}, map[string]string{"seed": Unmeasured}
	b := s.bundle
	for _, x := range [][]byte{b.Keyset, b.Config, b.Release} {
		for i := range x {
			x[i] ^= 0xff
		}
	}
	accepted(t, s.verifier.Verify(b, s.expect)) // under the policy as it was
}

// Bounds hold for bundles that never were bytes, too.
func TestBundlesOutOfBounds(t *testing.T) {
	for name, edit := range map[string]func(*Bundle){
		"no technology":       func(b *Bundle) { b.CPU.TEE = "" },
		"another technology":  func(b *Bundle) { b.CPU.TEE = TEE(strings.Repeat("x", 1<<20)) },
		"both collaterals":    func(b *Bundle) { b.CPU.TDX = &TDXCollateral{} },
		"another version":     func(b *Bundle) { b.Version = 2 },
		"a huge event log":    func(b *Bundle) { b.EventLog = make([]byte, maxEvidenceBytes+1) },
		"huge":                func(b *Bundle) { b.CPU.SNP = &SNPCollateral{ARK: make([]byte, MaxBundleBytes)} },
		"too many signatures": func(b *Bundle) { b.ReleaseSignatures = make([]ReleaseSignature, 33) },
	} {
		s := newScene(t)
		s.edit = edit
		res := s.verify(t)
		if res.Verdict != NotAuthentic {
			t.Errorf("%s: got %s", name, res.Verdict)
		}
		for _, c := range res.Checks {
			if len(c.String()) > 4096 {
				t.Errorf("%s: a check of %d bytes", name, len(c.String()))
			}
		}
	}
}

// Names in evidence come from the other side, and reach terminals.
func TestChecksAreSafeToPrint(t *testing.T) {
	var r Report
	r.Expect("image.measurement", false, "\x1b]0;pwned\a\r\n\u202e", strings.Repeat("x", 1<<20))
	r.Skip("a", "b\x00")
	for _, c := range r.Checks() {
		s := c.String()
		if i := strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }); i >= 0 || len(s) > 4096 {
			t.Errorf("got %d bytes: %.80q", len(s), s)
		}
	}
	for _, name := range []string{"", "r\x1b[2J", strings.Repeat("r", MaxNameBytes+1)} {
		m := validRelease()
		m.Name = name
		if _, err := ParseRelease(m.Encode()); err == nil {
			t.Errorf("a release named %.20q was read", name)
		}
		m = validRelease()
		m.Launches[0].Shape = "x" + name
		if _, err := ParseRelease(m.Encode()); err == nil && name != "" {
			t.Errorf("a shape named %.20q was read", name)
		}
	}
}

func TestNoEvidence(t *testing.T) {
	v, err := NewVerifier(Config{})
	if err != nil {
		t.Fatal(err)
	}
	if res := v.VerifyCPUEvidence(nil, sceneNow); res.Verdict != NotAuthentic {
		t.Errorf("no evidence: got %s", res.Verdict)
	}
	if res := v.VerifyCPUEvidence(&CPUEvidence{TEE: TDX}, sceneNow); res.Verdict == Accepted || res.Complete {
		t.Errorf("no verifier: got %s, complete %t", res.Verdict, res.Complete)
	}
}
