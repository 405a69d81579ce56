package tdx

import (
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"cocoon/attestation"
)

// Product is the product line in platform ids and claims.
const Product = "tdx"

// Verifier authenticates TDX quotes under a set of roots. It is safe for
// concurrent use. Its zero value trusts no root.
type Verifier struct {
	roots     *x509.CertPool
	assurance attestation.Assurance
}

// New returns a verifier that trusts the Intel SGX Root CA alone, with
// assurance hardware.
func New() *Verifier {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(intelRoot)) {
		return &Verifier{} // rejects
	}
	return &Verifier{pool, attestation.AssuranceHardware}
}

// NewWithRootsUnsafe returns a verifier that trusts roots in Intel's place.
// Its assurance is test, whatever the roots.
func NewWithRootsUnsafe(roots *x509.CertPool) *Verifier {
	return &Verifier{roots, attestation.AssuranceTest}
}

// TEE is attestation.TDX.
func (v *Verifier) TEE() attestation.TEE { return attestation.TDX }

// VerifyCPU records every tdx.* check once. A check that could not be made,
// because collateral was not given or a check it builds on failed, is SKIP.
// Claims are filled as far as they were authenticated.
func (v *Verifier) VerifyCPU(ev *attestation.CPUEvidence, p attestation.Policy, now time.Time, r *attestation.Report) attestation.CPUClaims {
	claims := attestation.CPUClaims{Assurance: v.assurance, Product: Product}
	s := &step{r: r, why: "the evidence could not be read"}
	defer s.skipRest()
	if ev == nil || ev.TEE != attestation.TDX {
		r.Error("tdx.parse", fmt.Errorf("evidence: not of a TDX platform"))
		return claims
	}
	q, err := parseQuote(ev.Quote)
	if !r.Error("tdx.parse", err) {
		return claims
	}
	s.why = "the PCK chain is not trusted"
	pk, err := verifyPCK(v.roots, q.pckChain)
	if !r.Error("tdx.root", err) {
		return claims
	}
	claims.PlatformKey = pk.ppid

	s.why = "the quote is not authentic"
	signed := r.Error("tdx.signature", q.verifySignatures(pk))
	if signed {
		claims.Signed = q.signedDigest()
		claims.ReportData = q.td.reportData
		claims.Launch = launch(&q.td)
	}
	s.collateral(v.roots, ev.TDX, pk)
	if s.col != nil && signed {
		r.Error("tdx.qe-identity", checkQE(&s.col.qe, q))
	}
	s.freshness(&claims, pk, now, p)
	s.evalNumber(p)
	if signed {
		s.level(&claims, q, pk, p)
		checkTD(&q.td, r)
	}
	return claims
}

func launch(t *tdReport) attestation.Launch {
	l := attestation.Launch{TEE: attestation.TDX, MRTD: t.mrtd[:]}
	for i := range t.rtmr {
		l.RTMR = append(l.RTMR, t.rtmr[i][:])
	}
	return l
}

// step carries one verification from check to check.
type step struct {
	r   *attestation.Report
	col *collateral // nil: not authenticated
	crl *crls       // nil: not authenticated
	why string      // the reason of what is still missing
}

// skipRest records SKIP for every tdx.* check that was not made.
func (s *step) skipRest() {
	made := make(map[string]bool)
	for _, c := range s.r.Checks() {
		made[c.Name] = true
	}
	for _, n := range attestation.Names() {
		if n.TEE == attestation.TDX && !made[n.Name] {
			s.r.Skip(n.Name, s.why)
		}
	}
}

func given(parts ...[]byte) bool {
	return !slices.ContainsFunc(parts, func(b []byte) bool { return len(b) == 0 })
}

// collateral authenticates what Intel says, as far as it was given.
func (s *step) collateral(roots *x509.CertPool, t *attestation.TDXCollateral, p *pck) {
	const absent = "collateral was not given"
	if t == nil {
		t = &attestation.TDXCollateral{}
	}
	var err error
	if !given(t.TCBInfo, t.TCBInfoSignature, t.TCBInfoIssuerChain, t.QEIdentity, t.QEIdentitySignature, t.QEIdentityIssuerChain) {
		s.r.Skip("tdx.collateral", absent)
		s.needs(absent, "tdx.qe-identity", "tdx.eval-number", "tdx.module", "tdx.tcb", "tdx.collateral-fresh")
	} else if s.col, err = verifyCollateral(roots, t, p); !s.r.Error("tdx.collateral", err) {
		s.col = nil
		s.needs("collateral is not authentic", "tdx.qe-identity", "tdx.eval-number", "tdx.module", "tdx.tcb", "tdx.collateral-fresh")
	}
	if !given(t.PCKCRL, t.RootCACRL) {
		s.r.Skip("tdx.crl", absent)
	} else if s.crl, err = verifyCRLs(roots, t, p); err != nil {
		s.crl = nil
		s.r.Error("tdx.crl", err)
	} else {
		var signers []*x509.Certificate
		if s.col != nil {
			signers = s.col.signers
		}
		s.r.Error("tdx.crl", s.crl.revoked(p, signers))
	}
	if s.crl == nil && s.col != nil {
		s.needs("no authentic revocation lists", "tdx.collateral-fresh")
	}
}

func (s *step) needs(why string, names ...string) {
	for _, n := range names {
		s.r.Skip(n, why)
	}
}

// freshness sets the claims' validity, also when it is over.
func (s *step) freshness(claims *attestation.CPUClaims, p *pck, now time.Time, policy attestation.Policy) {
	if s.col == nil || s.crl == nil {
		return
	}
	w, err := fresh(pieces(s.col, s.crl, p), now, time.Duration(policy.Ages.Collateral))
	claims.ValidFrom, claims.ValidUntil = w.from, w.until
	s.r.Error("tdx.collateral-fresh", err)
}

// evalNumber guards against an old evaluation of the TCB, which Intel still
// re-signs for a year, and against mixing TCB info of one with QE identity of
// another: Intel moves the number of both together.
func (s *step) evalNumber(policy attestation.Policy) {
	if s.col == nil {
		return
	}
	tcb, qe, floor := s.col.tcb.TcbEvaluationDataNumber, s.col.qe.TcbEvaluationDataNumber, int64(policy.TDX.MinEvalNumber)
	s.r.Expect("tdx.eval-number", tcb > 0 && tcb == qe && int64(tcb) >= floor,
		fmt.Sprintf("TCB info %d, QE identity %d", tcb, qe), fmt.Sprintf("one number, at least %d", max(floor, 1)))
}

// level decides the TCB status and whether the policy allows it.
func (s *step) level(claims *attestation.CPUClaims, q *quote, p *pck, policy attestation.Policy) {
	if s.col == nil {
		return
	}
	s.r.Error("tdx.module", checkModule(&s.col.tcb, &q.td))
	if !moduleKnown(&s.col.tcb, &q.td) {
		s.r.Skip("tdx.tcb", "the TDX module is not known, so it has no level")
		return
	}
	v, err := evaluate(s.col, p, &q.td, &q.qe)
	if err != nil {
		s.r.Error("tdx.tcb", err)
		return
	}
	claims.TCBStatus, claims.Advisories = v.status.String(), v.advisories
	ok := v.status&revoked == 0 && slices.Contains(policy.TDX.TCBStatuses, claims.TCBStatus)
	s.r.Expect("tdx.tcb", ok, fmt.Sprintf("%s %v", v, v.advisories), fmt.Sprintf("one of %q", policy.TDX.TCBStatuses))
}
