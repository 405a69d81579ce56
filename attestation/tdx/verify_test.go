package tdx_test

import (
	"bytes"
	"crypto/x509"
	"sync"
	"testing"
	"time"

	"cocoon/attestation"
	"cocoon/attestation/softtee"
	"cocoon/attestation/tdx"

	"github.com/google/go-cmp/cmp"
)

// What was not given is SKIP, by name and reason, and never a pass.
func TestMissingCollateralIsNotAcceptable(t *testing.T) {
	w := newWorld(t)
	lists := []string{"tdx.crl", "tdx.collateral-fresh"}
	documents := []string{"tdx.collateral", "tdx.qe-identity", "tdx.collateral-fresh", "tdx.eval-number", "tdx.module", "tdx.tcb"}
	all := append([]string{"tdx.crl"}, documents...)
	for _, tt := range []struct {
		name string
		drop func(*attestation.CPUEvidence)
		skip []string
	}{
		{"all", func(e *attestation.CPUEvidence) { e.TDX = nil }, all},
		{"all, empty", func(e *attestation.CPUEvidence) { e.TDX = &attestation.TDXCollateral{} }, all},
		{"TCB info", func(e *attestation.CPUEvidence) { e.TDX.TCBInfo = nil }, documents},
		{"TCB info's chain", func(e *attestation.CPUEvidence) { e.TDX.TCBInfoIssuerChain = nil }, documents},
		{"QE identity", func(e *attestation.CPUEvidence) { e.TDX.QEIdentity = nil }, documents},
		{"QE identity's signature", func(e *attestation.CPUEvidence) { e.TDX.QEIdentitySignature = nil }, documents},
		{"PCK CRL", func(e *attestation.CPUEvidence) { e.TDX.PCKCRL = nil }, lists},
		{"root CA CRL", func(e *attestation.CPUEvidence) { e.TDX.RootCACRL = nil }, lists},
	} {
		m := w.Machine(attestation.TDX)
		m.After = tt.drop
		ev := quote(t, m)
		res := verify(t, w.Roots(), nil, &ev, now)
		fail, skip := outcomes(res)
		if diff := cmp.Diff(tt.skip, skip, sortStrings); diff != "" || len(fail) > 0 || res.Verdict != attestation.NotAcceptable {
			t.Errorf("%s: got %s, failed %v; skipped (-want +got):\n%s", tt.name, res.Verdict, fail, diff)
		}
		for _, c := range res.Checks {
			if c.Outcome == attestation.Skip && c.Reason == "" {
				t.Errorf("%s: %s was skipped without a reason", tt.name, c.Name)
			}
		}
		recordedOnce(t, res)
	}
}

func claims(t *testing.T, v *tdx.Verifier, ev *attestation.CPUEvidence) attestation.CPUClaims {
	t.Helper()
	p, err := attestation.Combine(nil)
	if err != nil {
		t.Fatal(err)
	}
	var r attestation.Report
	return v.VerifyCPU(ev, p.Policy(), now, &r)
}

func rootPool(t *testing.T, ev *attestation.CPUEvidence) *x509.CertPool {
	t.Helper()
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(rootOf(t, ev.TDX.TCBInfoIssuerChain)) {
		t.Fatal("no root")
	}
	return pool
}

func TestClaims(t *testing.T) {
	w := newWorld(t)
	m := w.Machine(attestation.TDX)
	m.TDX.TCBStatus = "SWHardeningNeeded"
	ev := quote(t, m)
	got := claims(t, tdx.NewWithRootsUnsafe(rootPool(t, &ev)), &ev)
	if got.ReportData != [64]byte{1, 2, 3} || got.Product != "tdx" || got.Assurance != attestation.AssuranceTest {
		t.Errorf("got report data %x, product %q, assurance %q", got.ReportData, got.Product, got.Assurance)
	}
	want := m.Launch()
	want.Shape = ""
	if diff := cmp.Diff(want, got.Launch); diff != "" {
		t.Errorf("launch (-want +got):\n%s", diff)
	}
	if attestation.PlatformID(got.Product, got.PlatformKey) != m.PlatformID() || len(got.PlatformKey) != 16 {
		t.Errorf("platform key: got %x", got.PlatformKey)
	}
	if got.TCBStatus != "SWHardeningNeeded" || !cmp.Equal(got.Advisories, []string{"INTEL-SA-00615"}) {
		t.Errorf("got status %q, advisories %q", got.TCBStatus, got.Advisories)
	}
	if from, until := now.Add(-time.Hour), now.Add(-time.Hour).AddDate(0, 0, 7); !got.ValidFrom.Equal(from) || !got.ValidUntil.Equal(until) {
		t.Errorf("validity: got %s to %s, want %s to %s, a week after issue", got.ValidFrom, got.ValidUntil, from, until)
	}
}

// Anyone can change padding; a name that changes with it names nothing.
func TestSignedNamesTheSignedPartAlone(t *testing.T) {
	w := newWorld(t)
	m := w.Machine(attestation.TDX)
	a, again := quote(t, m), quote(t, m)
	if bytes.Equal(a.Quote, again.Quote) {
		t.Fatal("two signatures are equal")
	}
	v := tdx.NewWithRootsUnsafe(rootPool(t, &a))
	padded := a
	padded.Quote = append(bytes.Clone(a.Quote), make([]byte, 70)...)
	want := claims(t, v, &a).Signed
	if got := claims(t, v, &padded).Signed; got != want {
		t.Error("padding changed the quote's name")
	}
	if got := claims(t, v, &again).Signed; got != want {
		t.Error("another signature over the same report changed the quote's name")
	}
	if other, err := m.Quote(t.Context(), [64]byte{9}); err != nil || claims(t, v, &other).Signed == want {
		t.Errorf("another report has the same name (%v)", err)
	}
}

func TestNothingIsTrustedByDefault(t *testing.T) {
	ev := quote(t, newWorld(t).Machine(attestation.TDX))
	for name, v := range map[string]*tdx.Verifier{
		"zero": {}, "nil roots": tdx.NewWithRootsUnsafe(nil), "no roots": tdx.NewWithRootsUnsafe(x509.NewCertPool()), "Intel's": tdx.New(),
	} {
		for _, e := range []*attestation.CPUEvidence{&ev, nil, {}, {TEE: attestation.SNP, Quote: ev.Quote, TDX: ev.TDX}} {
			var r attestation.Report
			p := attestation.Policy{}
			c := v.VerifyCPU(e, p, now, &r)
			if r.Passed("tdx.root") || r.Passed("tdx.signature") || c.PlatformKey != nil || c.Signed != [32]byte{} {
				t.Errorf("%s: software evidence was believed: %v", name, r.Checks())
			}
		}
	}
}

func TestEvidenceOfAnotherTechnologyIsRefused(t *testing.T) {
	ev := quote(t, newWorld(t).Machine(attestation.TDX))
	v := tdx.NewWithRootsUnsafe(rootPool(t, &ev))
	ev.TEE = attestation.SNP
	if c := claims(t, v, &ev); c.PlatformKey != nil || c.ValidUntil != (time.Time{}) {
		t.Errorf("a TDX quote given as SNP evidence made claims: %+v", c)
	}
}

// The zero policy allows nothing, whatever the evidence.
func TestZeroPolicyRefuses(t *testing.T) {
	ev := quote(t, newWorld(t).Machine(attestation.TDX))
	var r attestation.Report
	tdx.NewWithRootsUnsafe(rootPool(t, &ev)).VerifyCPU(&ev, attestation.Policy{}, now, &r)
	if !r.Passed("tdx.signature") || r.Passed("tdx.tcb") || r.Passed("tdx.collateral-fresh") {
		t.Errorf("got %v", r.Checks())
	}
}

// Roots that are not Intel's are test roots, even if one of them is Intel's.
func TestOtherRootsAreTestRoots(t *testing.T) {
	ev := quote(t, newWorld(t).Machine(attestation.TDX))
	v, err := attestation.NewVerifier(attestation.Config{CPU: []attestation.CPUVerifier{tdx.NewWithRootsUnsafe(rootPool(t, &ev))}})
	if err != nil {
		t.Fatal(err)
	}
	res := v.VerifyCPUEvidence(&ev, now)
	if fail, _ := outcomes(res); !cmp.Equal(fail, []string{"assurance.allowed"}) || res.Verdict != attestation.NotAcceptable {
		t.Errorf("got %s: %v", res.Verdict, res.Checks)
	}
}

func TestVerifierIsSafeForConcurrentUse(t *testing.T) {
	w := newWorld(t)
	m := w.Machine(attestation.TDX)
	v, err := w.Roots().Verifier(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			ev, err := m.Quote(t.Context(), [64]byte{1})
			if err != nil {
				t.Error(err)
				return
			}
			if res := v.VerifyCPUEvidence(&ev, now); res.Verdict != attestation.Accepted {
				t.Errorf("got %s: %v", res.Verdict, res.Checks)
			}
		})
	}
	wg.Wait()
}

// An old module that was updated under a running TD is named as such.
func TestRelaunchIsAdvised(t *testing.T) {
	w := newWorld(t)
	m := w.Machine(attestation.TDX)
	m.TDX.V5 = true
	m.TDX.TD = func(d *softtee.TD) { d.TEETCBSVN[0] = 5 }
	ev := quote(t, m)
	res := verify(t, w.Roots(), nil, &ev, now)
	for _, c := range res.Checks {
		if c.Name == "tdx.tcb" && bytes.Contains([]byte(c.Got), []byte("relaunch advised")) && c.Outcome == attestation.Fail {
			return
		}
	}
	t.Errorf("got %v", res.Checks)
}
