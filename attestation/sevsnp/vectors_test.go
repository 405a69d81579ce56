package sevsnp

import (
	"encoding/pem"
	"os"
	"path/filepath"
	"testing"
	"time"

	"cocoon/attestation"
)

// vectors finds the folder of captured evidence, or skips and says so.
func vectors(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("COCOON_VECTORS")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "shared", "vectors")
	}
	if _, err := os.Stat(filepath.Join(dir, "snp")); err != nil {
		if os.Getenv("COCOON_REQUIRE_VECTORS") != "" {
			t.Fatalf("captured evidence is required: %v", err)
		}
		t.Skipf("no captured evidence (set COCOON_VECTORS): %v", err)
	}
	return filepath.Join(dir, "snp")
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if block, _ := pem.Decode(b); block != nil {
		return block.Bytes
	}
	return b
}

// Real reports of three product lines, signed by real chips. No revocation
// list was captured with them, so that check is skipped and a strict verdict
// is never better than not acceptable; every other check is made.
func TestRealReports(t *testing.T) {
	dir := vectors(t)
	hw, err := New()
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		name    string
		notPass map[string]attestation.Outcome
		product string
	}{
		{"milan", map[string]attestation.Outcome{"snp.crl": attestation.Skip, "snp.product": attestation.Fail}, "Milan"},
		{"genoa", map[string]attestation.Outcome{"snp.crl": attestation.Skip}, "Genoa"},
		{"turin", map[string]attestation.Outcome{"snp.crl": attestation.Skip}, "Turin"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ev := &attestation.CPUEvidence{TEE: attestation.SNP, Quote: read(t, filepath.Join(dir, tt.name+"_attestation_report.bin")),
				SNP: &attestation.SNPCollateral{VEK: read(t, filepath.Join(dir, tt.name+"_vcek.pem")), ASK: read(t, filepath.Join(dir, tt.name+"_ask.pem"))}}
			v, err := attestation.NewVerifier(attestation.Config{CPU: []attestation.CPUVerifier{hw}})
			if err != nil {
				t.Fatal(err)
			}
			res := v.VerifyCPUEvidence(ev, at)
			for _, c := range res.Checks {
				want, odd := tt.notPass[c.Name]
				if !odd {
					want = attestation.Pass
				}
				if c.Outcome != want {
					t.Errorf("%v, want %v", c, want)
				}
			}
			if res.Verdict != attestation.NotAcceptable || res.Assurance != attestation.AssuranceHardware || res.Product != tt.product {
				t.Errorf("got %s, %s, %s", res.Verdict, res.Assurance, res.Product)
			}

			for i := 0; i < signedSize; i += 16 {
				bad := append([]byte(nil), ev.Quote...)
				bad[i+7] ^= 0x10
				if res := v.VerifyCPUEvidence(&attestation.CPUEvidence{TEE: attestation.SNP, Quote: bad, SNP: ev.SNP}, at); res.Verdict != attestation.NotAuthentic {
					t.Errorf("a flipped bit in byte %#x: got %s, want not_authentic", i+7, res.Verdict)
				}
			}
			early := v.VerifyCPUEvidence(ev, time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC))
			if early.Verdict != attestation.NotAuthentic {
				t.Errorf("before the certificate was valid: got %s", early.Verdict)
			}
		})
	}
}

func TestZeroVerifierTrustsNothing(t *testing.T) {
	dir := vectors(t)
	v, err := attestation.NewVerifier(attestation.Config{CPU: []attestation.CPUVerifier{&Verifier{}}})
	if err != nil {
		t.Fatal(err)
	}
	ev := &attestation.CPUEvidence{TEE: attestation.SNP, Quote: read(t, filepath.Join(dir, "genoa_attestation_report.bin")),
		SNP: &attestation.SNPCollateral{VEK: read(t, filepath.Join(dir, "genoa_vcek.pem")), ASK: read(t, filepath.Join(dir, "genoa_ask.pem"))}}
	if res := v.VerifyCPUEvidence(ev, time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)); res.Verdict != attestation.NotAuthentic {
		t.Errorf("got %s", res.Verdict)
	}
}

func FuzzParseReport(f *testing.F) {
	r := make([]byte, ReportSize)
	r[0], r[0x34], r[0x0a] = 3, 1, 2
	f.Add(r)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		rep, err := parseReport(b)
		if err != nil {
			return
		}
		if l, err := rep.lineOf(""); err == nil {
			l.decode(rep.reported)
		}
	})
}

func FuzzCollateral(f *testing.F) {
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n"), []byte{0x30, 0})
	f.Fuzz(func(t *testing.T, cert, crl []byte) {
		if c, err := parseCert("vek", cert); err == nil {
			parseEndorsement(c)
			checkCRL(crl, c, c, c, time.Unix(0, 0))
		}
	})
}
