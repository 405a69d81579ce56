package sevsnp_test

import (
	"testing"
	"time"

	"cocoon/attestation"
	"cocoon/attestation/softtee"
)

// BenchmarkVerifySNP makes every snp.* check on one report: chain, revocation
// list, signature, policy. A software vendor's RSA keys are half of AMD's length.
func BenchmarkVerifySNP(b *testing.B) {
	now := time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)
	w, err := softtee.New(now)
	if err != nil {
		b.Fatal(err)
	}
	ev, err := w.Machine(attestation.SNP).Quote(b.Context(), [64]byte{1})
	if err != nil {
		b.Fatal(err)
	}
	v, err := w.Roots().Verifier(nil, nil)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if res := v.VerifyCPUEvidence(&ev, now); res.Verdict != attestation.Accepted {
			b.Fatal(res.Err())
		}
	}
}
