package tdx_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"cocoon/attestation"
	"cocoon/attestation/tdx"

	"github.com/google/go-cmp/cmp"
)

// vectors returns the folder of real evidence. Where it is absent the test is
// skipped, and fails under COCOON_REQUIRE_VECTORS=1.
func vectors(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("COCOON_VECTORS")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "shared", "vectors") // from the repository's root: ../shared/vectors
	}
	if _, err := os.Stat(filepath.Join(dir, "tdx")); err != nil {
		if os.Getenv("COCOON_REQUIRE_VECTORS") == "1" {
			t.Fatalf("real vectors are required and absent: %v", err)
		}
		t.Skipf("REAL VECTORS ARE ABSENT, nothing was tested: set COCOON_VECTORS (%v)", err)
	}
	return dir
}

func readVector(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(vectors(t), "tdx", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestRealVectors(t *testing.T) {
	at := func(s string) time.Time {
		v, err := time.Parse(time.RFC3339, s)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	const v4, v5, alone = "quote_v4_fmspc_20250619.bin", "quote_v5_no_matching_level.bin", "quote_chain_only.hex"
	tests := []struct {
		name, quote, collateral string
		at                      string
		verdict                 attestation.Verdict
		fail, skip              []string
	}{
		{"v4 in its window", v4, "quote_v4_fmspc_20250619.collateral.json", "2025-06-25T00:00:00Z", attestation.Accepted, nil, nil},
		{"v4 at its first instant", v4, "quote_v4_fmspc_20250619.collateral.json", "2025-06-19T10:33:00Z", attestation.Accepted, nil, nil},
		{"v4 before it was issued", v4, "quote_v4_fmspc_20250619.collateral.json", "2025-06-19T10:00:00Z", attestation.NotAcceptable, []string{"tdx.collateral-fresh"}, nil},
		{"v4 older than 7 days", v4, "quote_v4_fmspc_20250619.collateral.json", "2025-06-29T00:00:00Z", attestation.NotAcceptable, []string{"tdx.collateral-fresh"}, nil},
		{"v4 expired", v4, "quote_v4_fmspc_20250619.collateral.json", "2026-06-25T00:00:00Z", attestation.NotAcceptable, []string{"tdx.collateral-fresh"}, nil},
		{"v5 without a matching level", v5, "quote_v5_no_matching_level.collateral.json", "2026-02-20T00:00:00Z", attestation.NotAcceptable, []string{"tdx.tcb"}, nil},
		{"v5 with the collateral of another platform", v5, "quote_v4_fmspc_20250619.collateral.json", "2025-06-25T00:00:00Z", attestation.NotAuthentic, []string{"tdx.collateral"},
			[]string{"tdx.qe-identity", "tdx.collateral-fresh", "tdx.eval-number", "tdx.module", "tdx.tcb"}},
		{"chain only", alone, "", "2025-06-25T00:00:00Z", attestation.NotAcceptable, nil,
			[]string{"tdx.collateral", "tdx.crl", "tdx.qe-identity", "tdx.collateral-fresh", "tdx.eval-number", "tdx.module", "tdx.tcb"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			raw, err := tdx.DecodeQuote(readVector(t, tt.quote))
			if err != nil {
				t.Fatal(err)
			}
			ev := &attestation.CPUEvidence{TEE: attestation.TDX, Quote: raw}
			if tt.collateral != "" {
				if ev.TDX, err = tdx.ParseCollateralJSON(readVector(t, tt.collateral)); err != nil {
					t.Fatal(err)
				}
			}
			v, err := attestation.NewVerifier(attestation.Config{CPU: []attestation.CPUVerifier{tdx.New()}})
			if err != nil {
				t.Fatal(err)
			}
			res := v.VerifyCPUEvidence(ev, at(tt.at))
			fail, skip := outcomes(res)
			if diff := cmp.Diff(tt.fail, fail); diff != "" {
				t.Errorf("failed checks (-want +got):\n%s%v", diff, res.Checks)
			}
			if diff := cmp.Diff(tt.skip, skip, sortStrings); diff != "" {
				t.Errorf("skipped checks (-want +got):\n%s%v", diff, res.Checks)
			}
			if res.Verdict != tt.verdict || res.Complete || res.Assurance != attestation.AssuranceHardware {
				t.Errorf("got %s, complete %t, assurance %s, want %s, false, hardware: %v", res.Verdict, res.Complete, res.Assurance, tt.verdict, res.Checks)
			}
			if _, err := res.Verified(); err == nil {
				t.Error("evidence alone was made into a *Verified")
			}
		})
	}
}
