package tdx_test

import (
	"encoding/pem"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"crypto/x509"

	"cocoon/attestation"
	"cocoon/attestation/softtee"
	"cocoon/attestation/tdx"

	"github.com/google/go-tdx-guest/pcs"
	upstream "github.com/google/go-tdx-guest/verify"
)

// offline answers as Intel's service would, out of recorded collateral.
type offline struct{ c *attestation.TDXCollateral }

func (o offline) Get(u string) (map[string][]string, []byte, error) {
	header := func(key string, chain []byte) map[string][]string {
		return map[string][]string{key: {url.QueryEscape(string(chain))}}
	}
	c := o.c
	switch {
	case strings.Contains(u, "/tcb?"):
		return header(pcs.TcbInfoIssuerChainPhrase, c.TCBInfoIssuerChain), fmt.Appendf(nil, `{"tcbInfo":%s,"signature":"%x"}`, c.TCBInfo, c.TCBInfoSignature), nil
	case strings.Contains(u, "/qe/identity"):
		return header(pcs.SgxQeIdentityIssuerChainPhrase, c.QEIdentityIssuerChain), fmt.Appendf(nil, `{"enclaveIdentity":%s,"signature":"%x"}`, c.QEIdentity, c.QEIdentitySignature), nil
	case strings.Contains(u, "/pckcrl"):
		return header(pcs.SgxPckCrlIssuerChainPhrase, c.PCKCRLIssuerChain), c.PCKCRL, nil
	case strings.HasSuffix(u, ".der"):
		return nil, c.RootCACRL, nil
	}
	return nil, nil, fmt.Errorf("nothing is recorded for %s", u)
}

// library verifies with the pinned go-tdx-guest, all its checks on.
func library(t testing.TB, ev *attestation.CPUEvidence, rootPEM []byte, at time.Time) error {
	t.Helper()
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(rootPEM) {
		t.Fatal("no root")
	}
	return upstream.RawTdxQuoteContext(t.Context(), ev.Quote, &upstream.Options{
		CheckRevocations: true, GetCollateral: true, Getter: offline{ev.TDX}, TrustedRoots: roots,
		Now: &upstream.TimeSet{PckCertChain: at, TcbInfo: at, QeIdentity: at, PckCrl: at, RootCaCrl: at},
	})
}

// rootOf is the last certificate of a chain.
func rootOf(t testing.TB, chain []byte) []byte {
	t.Helper()
	_, rest := pem.Decode(chain)
	if len(rest) == 0 {
		t.Fatal("chain of one")
	}
	return rest
}

// Where both have an opinion, this package and the pinned library agree. The
// library has none, or a wrong one, on what the other tests are about.
func TestLibraryAgreesOnAuthenticity(t *testing.T) {
	w, other := newWorld(t), newWorld(t)
	strange := quote(t, other.Machine(attestation.TDX))
	rows := []struct {
		name  string
		spoil func(*attack)
		good  bool
	}{
		{"healthy, version 4", func(*attack) {}, true},
		{"healthy, version 5", func(a *attack) { a.m.TDX.V5 = true }, true},
		{"flipped quote signature", after(func(e *attestation.CPUEvidence) { e.Quote[48+584+4] ^= 1 }), false},
		{"QE vouches for another key", qe(func(q *softtee.QE) { q.OtherKey = true }), false},
		{"QE with MRSIGNER 0", qe(func(q *softtee.QE) { q.MRSigner = [32]byte{} }), false},
		{"TCB info of another world", after(func(e *attestation.CPUEvidence) { e.TDX = strange.TDX }), false},
		{"PCK revoked", documents(func(d *softtee.Documents) { softtee.Revoke(&d.PCKCRL, d.PCK) }), false},
		{"CA revoked", documents(func(d *softtee.Documents) { softtee.Revoke(&d.RootCACRL, d.CA) }), false},
		{"TCB info expired", documents(func(d *softtee.Documents) { d.TCBInfo.NextUpdate = now.Add(-time.Second) }), false},
		{"another FMSPC", documents(func(d *softtee.Documents) { d.TCBInfo.FMSPC = "00806F050000" }), false},
		{"another SEAM signer", td(func(d *softtee.TD) { d.MRSignerSEAM = ones() }), false},
	}
	healthy := quote(t, w.Machine(attestation.TDX))
	root := rootOf(t, healthy.TDX.TCBInfoIssuerChain)
	for _, tt := range rows {
		a := &attack{m: w.Machine(attestation.TDX), at: now}
		tt.spoil(a)
		ev := quote(t, a.m)
		err := library(t, &ev, root, now)
		res := verify(t, w.Roots(), nil, &ev, now)
		if (err == nil) != tt.good || (res.Verdict == attestation.Accepted) != tt.good {
			t.Errorf("%s: library says %v, this package %s, want accepted %t: %v", tt.name, err, res.Verdict, tt.good, res.Checks)
		}
	}
}

func TestLibraryAgreesOnTheRealQuote(t *testing.T) {
	raw, err := tdx.DecodeQuote(readVector(t, "quote_v4_fmspc_20250619.bin"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := tdx.ParseCollateralJSON(readVector(t, "quote_v4_fmspc_20250619.collateral.json"))
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2025, 6, 25, 0, 0, 0, 0, time.UTC)
	if err := library(t, &attestation.CPUEvidence{Quote: raw, TDX: c}, rootOf(t, c.TCBInfoIssuerChain), at); err != nil {
		t.Error(err)
	}
}

// The pinned library accepts a platform whose TCB level is Revoked when its
// module is of TDX 1.5; this package's own evaluator must not.
func TestPlatformRevokedIsRefused(t *testing.T) {
	w := newWorld(t)
	for _, v5 := range []bool{false, true} {
		for _, policy := range []*attestation.Policy{nil, statuses("UpToDate", "Revoked")} {
			m := w.Machine(attestation.TDX)
			m.TDX.V5, m.TDX.TCBStatus = v5, "Revoked"
			ev := quote(t, m)
			res := verify(t, w.Roots(), policy, &ev, now)
			if fail, _ := outcomes(res); res.Verdict != attestation.NotAcceptable || len(fail) != 1 || fail[0] != "tdx.tcb" || res.TCBStatus != "Revoked" {
				t.Errorf("version 5 %t: got %s, status %q, failed %v", v5, res.Verdict, res.TCBStatus, fail)
			}
		}
	}
}

// Without the QE's identity any owner of one genuine platform could sign
// quotes of TDs that never ran. Leaving collateral out must not help either.
func TestQuotingEnclaveWithMRSigner0IsRefused(t *testing.T) {
	w := newWorld(t)
	for name, without := range map[string]bool{"with collateral": false, "without": true} {
		m := w.Machine(attestation.TDX)
		m.TDX.QE = func(q *softtee.QE) { q.MRSigner = [32]byte{} }
		m.TDX.NoCollateral = without
		ev := quote(t, m)
		if res := verify(t, w.Roots(), nil, &ev, now); res.Verdict == attestation.Accepted {
			t.Errorf("%s: was accepted: %v", name, res.Checks)
		}
	}
}

func BenchmarkVerify(b *testing.B) {
	w := newWorld(b)
	ev := quote(b, w.Machine(attestation.TDX))
	root := rootOf(b, ev.TDX.TCBInfoIssuerChain)
	b.Run("this", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if res := verify(b, w.Roots(), nil, &ev, now); res.Verdict != attestation.Accepted {
				b.Fatal(res.Checks)
			}
		}
	})
	b.Run("library", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := library(b, &ev, root, now); err != nil {
				b.Fatal(err)
			}
		}
	})
}
