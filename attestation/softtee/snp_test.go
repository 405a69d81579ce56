package softtee

import (
	"testing"
	"time"

	"cocoon/attestation"
	"cocoon/attestation/internal/testtrust"
	"cocoon/attestation/sevsnp"
)

var snpNow = time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)

func snpVerifier(t *testing.T, a *AMD, p *attestation.Policy) *attestation.Verifier {
	t.Helper()
	v, err := attestation.NewVerifier(attestation.Config{Policy: p, CPU: []attestation.CPUVerifier{sevsnp.NewWithRootsUnsafe(a.Roots())}, Test: testtrust.Grant()})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func newAMD(t *testing.T, product string) *AMD {
	t.Helper()
	a, err := NewAMD(snpNow, product)
	if err != nil {
		t.Fatal(err)
	}
	b, err := a.save()
	if err != nil {
		t.Fatal(err)
	}
	if a, err = loadAMD(b); err != nil {
		t.Fatal(err)
	}
	return a
}

// Each row breaks one thing. Exactly that check fails, so a verifier without
// it would accept.
func TestEverySNPCheckRefuses(t *testing.T) {
	genoa := newAMD(t, "Genoa")
	other := newAMD(t, "Genoa")
	milan := newAMD(t, "Milan")
	strict := false
	type input struct {
		amd    *AMD
		guest  SNPGuest
		crl    SNPCRL
		policy *attestation.Policy
		edit   func(*attestation.CPUEvidence)
	}
	rows := []struct {
		check, name string
		verdict     attestation.Verdict
		edit        func(*input)
	}{
		{"snp.parse", "a reserved byte is set", attestation.NotAuthentic, func(in *input) { in.guest.BreakReport = true }},
		{"snp.parse", "a trailing byte", attestation.NotAuthentic, func(in *input) { in.edit = func(e *attestation.CPUEvidence) { e.Quote = append(e.Quote, 0) } }},
		{"snp.parse", "a truncated report", attestation.NotAuthentic, func(in *input) { in.edit = func(e *attestation.CPUEvidence) { e.Quote = e.Quote[:100] } }},
		{"snp.root", "another vendor's chain", attestation.NotAuthentic, func(in *input) { in.amd = other; in.guest = other.NewSNPGuest([48]byte{1}) }},
		{"snp.root", "the sender's own root offered as ASK", attestation.NotAuthentic, func(in *input) {
			in.edit = func(e *attestation.CPUEvidence) { e.SNP.ASK = other.ask.Raw; e.SNP.VEK = other.vek.Raw }
		}},
		{"snp.signature", "signed over something else", attestation.NotAuthentic, func(in *input) { in.guest.BadSignature = true }},
		{"snp.crl", "the VCEK is revoked", attestation.NotAuthentic, func(in *input) { in.crl.RevokeVCEK = true }},
		{"snp.crl", "the list has expired", attestation.NotAuthentic, func(in *input) { in.crl.NextUpdate = snpNow.Add(-time.Minute) }},
		{"snp.crl", "the list is from the future", attestation.NotAuthentic, func(in *input) { in.crl.ThisUpdate = snpNow.Add(time.Minute) }},
		{"snp.chip-id", "another chip", attestation.NotAuthentic, func(in *input) { in.guest.WrongChipID = true }},
		{"snp.chip-id", "a masked chip", attestation.NotAuthentic, func(in *input) { in.guest.MaskChipID = true }},
		{"snp.chip-id", "a reported TCB that the certificate does not have", attestation.NotAuthentic, func(in *input) { in.guest.Reported.SNP++ }},
		{"snp.product", "Milan", attestation.NotAcceptable, func(in *input) { in.amd = milan; in.guest = milan.NewSNPGuest([48]byte{1}) }},
		{"snp.tcb", "committed is behind", attestation.NotAcceptable, func(in *input) { in.guest.Committed.SNP-- }},
		{"snp.tcb", "current is behind", attestation.NotAcceptable, func(in *input) { in.guest.Current.Microcode-- }},
		{"snp.tcb", "launched on an old TCB", attestation.NotAcceptable, func(in *input) { in.guest.Launch.Bootloader-- }},
		{"snp.vmpl", "asked for at VMPL 1", attestation.NotAcceptable, func(in *input) { in.guest.VMPL = 1 }},
		{"snp.debug-off", "a guest its host can debug", attestation.NotAcceptable, func(in *input) { in.guest.Policy |= 1 << 19 }},
		{"snp.policy", "a migration agent", attestation.NotAcceptable, func(in *input) { in.guest.Policy |= 1 << 18 }},
		{"snp.policy", "an unknown bit", attestation.NotAcceptable, func(in *input) { in.guest.Policy |= 1 << 40 }},
		{"snp.policy", "SMT where the policy refuses it", attestation.NotAcceptable, func(in *input) {
			in.policy = &attestation.Policy{SNP: attestation.SNPPolicy{AllowSMT: &strict}}
			in.guest.PlatformInfo = 0
		}},
		{"snp.platform-info", "an unknown bit", attestation.NotAcceptable, func(in *input) { in.guest.PlatformInfo |= 1 << 20 }},
	}
	seen := map[string]bool{}
	run := func(t *testing.T, edit func(*input)) *attestation.Result {
		in := input{amd: genoa, guest: genoa.NewSNPGuest([48]byte{1}), crl: SNPCRL{ThisUpdate: snpNow.Add(-time.Hour), NextUpdate: snpNow.Add(time.Hour)}}
		if edit != nil {
			edit(&in)
		}
		raw, err := in.amd.Report(in.guest, [64]byte{9})
		if err != nil {
			t.Fatal(err)
		}
		col, err := in.amd.Collateral(in.crl)
		if err != nil {
			t.Fatal(err)
		}
		ev := &attestation.CPUEvidence{TEE: attestation.SNP, Quote: raw, SNP: col}
		if in.edit != nil {
			in.edit(ev)
		}
		roots := genoa
		if in.amd == milan {
			roots = milan
		}
		return snpVerifier(t, roots, in.policy).VerifyCPUEvidence(ev, snpNow)
	}
	for _, row := range rows {
		t.Run(row.check+"/"+row.name, func(t *testing.T) {
			seen[row.check] = true
			res := run(t, row.edit)
			if res.Verdict != row.verdict {
				t.Errorf("verdict: got %s, want %s", res.Verdict, row.verdict)
			}
			failed := 0
			for _, c := range res.Checks {
				if c.Outcome == attestation.Fail {
					failed++
					if c.Name != row.check {
						t.Errorf("failed another check: %v", c)
					}
				}
			}
			if failed != 1 {
				t.Errorf("got %d failed checks, want 1: %v", failed, res.Checks)
			}
			if _, err := res.Verified(); err == nil {
				t.Error("a quote alone opened a channel")
			}
		})
	}
	for _, n := range attestation.Names() {
		if n.TEE == attestation.SNP && !seen[n.Name] {
			t.Errorf("%s: no evidence that it refuses anything", n.Name)
		}
	}
	for _, product := range []string{"Genoa", "Turin"} {
		a := newAMD(t, product)
		raw, err := a.Report(a.NewSNPGuest([48]byte{1}), [64]byte{9})
		if err != nil {
			t.Fatal(err)
		}
		col, err := a.Collateral(SNPCRL{ThisUpdate: snpNow.Add(-time.Hour), NextUpdate: snpNow.Add(time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		res := snpVerifier(t, a, nil).VerifyCPUEvidence(&attestation.CPUEvidence{TEE: attestation.SNP, Quote: raw, SNP: col}, snpNow)
		if res.Verdict != attestation.Accepted || res.Complete || res.Assurance != attestation.AssuranceTest {
			t.Errorf("%s: got %s, complete %t, %s: %v", product, res.Verdict, res.Complete, res.Assurance, res.Checks)
		}
		hw, err := sevsnp.New()
		if err != nil {
			t.Fatal(err)
		}
		v, err := attestation.NewVerifier(attestation.Config{CPU: []attestation.CPUVerifier{hw}})
		if err != nil {
			t.Fatal(err)
		}
		res = v.VerifyCPUEvidence(&attestation.CPUEvidence{TEE: attestation.SNP, Quote: raw, SNP: col}, snpNow)
		if res.Verdict != attestation.NotAuthentic || res.Err() == nil {
			t.Errorf("%s under AMD's own roots: got %s", product, res.Verdict)
		}
	}
}
