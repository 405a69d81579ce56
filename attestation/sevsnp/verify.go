package sevsnp

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"github.com/google/go-sev-guest/abi"

	"cocoon/attestation"
)

// Verifier implements attestation.CPUVerifier for AMD SEV-SNP. Its zero value trusts no root.
type Verifier struct {
	roots     Roots
	assurance attestation.Assurance
}

// New trusts AMD's own roots. Its verdicts have assurance "hardware".
func New() (*Verifier, error) {
	roots, err := AMDRoots()
	if err != nil {
		return nil, err
	}
	return &Verifier{roots, attestation.AssuranceHardware}, nil
}

// NewWithRootsUnsafe trusts the caller's roots. Its verdicts have assurance "test".
func NewWithRootsUnsafe(roots Roots) *Verifier {
	return &Verifier{roots, attestation.AssuranceTest}
}

// TEE is attestation.SNP.
func (v *Verifier) TEE() attestation.TEE { return attestation.SNP }

var nothing = &attestation.SNPCollateral{}

// VerifyCPU makes every snp.* check.
func (v *Verifier) VerifyCPU(ev *attestation.CPUEvidence, p attestation.Policy, now time.Time, r *attestation.Report) attestation.CPUClaims {
	claims := attestation.CPUClaims{Assurance: v.assurance}
	rep, err := parseReport(ev.Quote)
	if !r.Error("snp.parse", err) {
		return claims
	}
	claims.Signed = sha256.Sum256(rep.raw[:signedSize])
	claims.ReportData = rep.reportData
	claims.Launch = attestation.Launch{TEE: attestation.SNP, Measurement: rep.measurement[:]}
	claims.PlatformKey = rep.chipID[:]
	v.guest(rep, p, r)

	col := ev.SNP
	if col == nil {
		col = nothing
	}
	l, end, vek, ok := v.endorsed(rep, col, now, r, &claims)
	if !ok {
		if l.name != "" {
			v.product(rep, l, p, r)
			claims.Product = l.name
		}
		return claims
	}
	claims.Product = l.name
	r.Error("snp.signature", checkSignature(rep.raw, vek))
	r.Error("snp.chip-id", chipID(rep, l, end))
	v.product(rep, l, p, r)
	return claims
}

// checkSignature does not go through go-sev-guest's own parser, which refuses
// policy and platform bits newer than itself: those are for named checks to judge.
func checkSignature(raw []byte, vek *x509.Certificate) error {
	der, err := abi.ReportToSignatureDER(raw)
	if err != nil {
		return err
	}
	return vek.CheckSignature(x509.ECDSAWithSHA384, abi.SignedComponent(raw), der)
}

// endorsed checks the certificate chain and its revocation list.
func (v *Verifier) endorsed(rep *report, col *attestation.SNPCollateral, now time.Time, r *attestation.Report, claims *attestation.CPUClaims) (l line, end endorsement, vek *x509.Certificate, ok bool) {
	l, _ = rep.lineOf("") // as far as the report itself says
	if len(col.VEK) == 0 {
		for _, n := range []string{"snp.root", "snp.signature", "snp.crl", "snp.chip-id"} {
			r.Skip(n, "no VCEK or VLEK given")
		}
		return l, end, nil, false
	}
	vek, err := parseCert("vek", col.VEK)
	var ask *x509.Certificate
	if err == nil {
		ask, err = parseCert("ask", col.ASK)
	}
	if err == nil {
		end, err = parseEndorsement(vek)
	}
	if err == nil {
		l, err = rep.lineOf(end.product)
	}
	if err == nil && (rep.signer == abi.VlekReportSigner) != col.VLEK {
		err = fmt.Errorf("signing key: report says %v, collateral says vlek %t", rep.signer, col.VLEK)
	}
	if err == nil {
		err = end.check(l, col.VLEK, vek, ask)
	}
	var ark *x509.Certificate
	if err == nil {
		ark, err = v.roots.chain(l, vek, ask, now)
	}
	if err == nil && len(col.ARK) > 0 {
		err = sameRoot(col.ARK, ark)
	}
	if !r.Error("snp.root", err) {
		return l, end, nil, false
	}
	claims.ValidFrom = vek.NotBefore
	claims.ValidUntil = earliest(vek.NotAfter, ask.NotAfter, ark.NotAfter)
	if len(col.CRL) == 0 {
		r.Skip("snp.crl", "no revocation list given")
		return l, end, vek, true
	}
	crl, err := checkCRL(col.CRL, ark, ask, vek, now)
	if r.Error("snp.crl", err) {
		claims.ValidUntil = earliest(claims.ValidUntil, crl.NextUpdate)
		if crl.ThisUpdate.After(claims.ValidFrom) {
			claims.ValidFrom = crl.ThisUpdate
		}
	}
	return l, end, vek, true
}

// sameRoot holds the sender's copy of the root, on which nothing rests, to be
// one: no bit of evidence is anybody's to change.
func sameRoot(der []byte, ark *x509.Certificate) error {
	c, err := parseCert("ark", der)
	if err != nil {
		return err
	}
	if !bytes.Equal(c.RawSubjectPublicKeyInfo, ark.RawSubjectPublicKeyInfo) {
		return fmt.Errorf("ark: got another key than the pinned root's")
	}
	return c.CheckSignatureFrom(c)
}

func earliest(ts ...time.Time) time.Time {
	return slices.MinFunc(ts, func(a, b time.Time) int { return a.Compare(b) })
}

// chipID ties the report to the certificate's chip and TCB version. A chip id
// that its host has masked with zeros is no identity, so it fails.
func chipID(rep *report, l line, end endorsement) error {
	if rep.maskChipKey || rep.chipID == [64]byte{} {
		return fmt.Errorf("chip_id: masked by the host")
	}
	if rep.signer == abi.VcekReportSigner {
		n := len(end.hwid) // 8 on Turin, where the rest of the field is zero
		if !bytes.Equal(end.hwid, rep.chipID[:n]) || len(bytes.Trim(rep.chipID[n:], "\x00")) != 0 {
			return fmt.Errorf("chip_id: report has %x, certificate has %x", rep.chipID[:8], end.hwid[:8])
		}
	}
	got, err := l.decode(rep.reported)
	if err != nil {
		return err
	}
	if got != end.tcb {
		return fmt.Errorf("reported_tcb: report has %+v, certificate has %+v", got, end.tcb)
	}
	return nil
}

// product makes the checks that depend on the product line.
func (v *Verifier) product(rep *report, l line, p attestation.Policy, r *attestation.Report) {
	r.Expect("snp.product", slices.Contains(p.SNP.Products, l.name), l.name, p.SNP.Products)
	r.Error("snp.tcb", func() error {
		want, ok := p.SNP.MinTCB[l.cpu]
		if !ok {
			return fmt.Errorf("no minimum is published for %s", l.cpu)
		}
		for _, t := range []struct {
			name string
			v    uint64
		}{{"reported", rep.reported}, {"committed", rep.committed}, {"current", rep.current}, {"launch", rep.launch}} {
			got, err := l.decode(t.v)
			if err != nil {
				return fmt.Errorf("%s: %w", t.name, err)
			}
			if why := below(got, want); why != "" {
				return fmt.Errorf("%s tcb: %s", t.name, why)
			}
		}
		need := p.SNP.MinMitigations[l.cpu]
		for _, m := range []struct {
			name string
			v    uint64
		}{{"launch", rep.launchMitigations}, {"current", rep.currentMitigations}} {
			if m.v&need != need {
				return fmt.Errorf("%s mitigation vector: got %#x, want all of %#x", m.name, m.v, need)
			}
		}
		return nil
	}())
}

// Bits of the guest policy (56860, table 10) and of PLATFORM_INFO (table 24).
const (
	policySMT       = 1 << 16
	policyReserved1 = 1 << 17 // must be one
	policyMigrateMA = 1 << 18
	policyDebug     = 1 << 19
	policyCXL       = 1 << 21
	policyKnown     = 1<<26 - 1

	platformKnown = 1<<7 - 1 // SMT, TSME, ECC, RAPL off, ciphertext hiding, alias check, TIO
)

// guest makes the checks on what the guest was launched as.
func (v *Verifier) guest(rep *report, p attestation.Policy, r *attestation.Report) {
	r.Expect("snp.vmpl", rep.vmpl == 0, rep.vmpl, 0)
	r.Expect("snp.debug-off", rep.policy&policyDebug == 0, fmt.Sprintf("policy %#x with DEBUG", rep.policy), "DEBUG clear")
	smt := p.SNP.AllowSMT == nil || *p.SNP.AllowSMT
	r.Error("snp.policy", func() error {
		switch {
		case rep.policy&policyReserved1 == 0:
			return fmt.Errorf("policy %#x: bit 17 is clear, want set", rep.policy)
		case rep.policy&^uint64(policyKnown) != 0:
			return fmt.Errorf("policy %#x: unknown bits %#x", rep.policy, rep.policy&^uint64(policyKnown))
		case rep.policy&policyMigrateMA != 0:
			return fmt.Errorf("policy %#x: a migration agent is allowed", rep.policy)
		case rep.policy&policyCXL != 0:
			return fmt.Errorf("policy %#x: CXL memory is allowed", rep.policy)
		case rep.policy&policySMT != 0 && !smt:
			return fmt.Errorf("policy %#x: SMT is allowed, and this verifier's policy refuses it", rep.policy)
		}
		return nil
	}())
	r.Expect("snp.platform-info", rep.platformInfo&^uint64(platformKnown) == 0 && (smt || rep.platformInfo&1 == 0),
		fmt.Sprintf("%#x", rep.platformInfo), "known bits only, and SMT off if the policy says so")
}
