package tdx_test

import (
	"bytes"
	"testing"

	"cocoon/attestation"
	"cocoon/attestation/softtee"
	"cocoon/attestation/tdx"
)

// signedPart is what the attestation key signs, by the quote's own version.
func signedPart(q []byte) []byte {
	if q[0] == 5 {
		return q[:48+6+648]
	}
	return q[:48+584]
}

// Whatever is done to a quote's bytes, it is accepted only with its signed
// part untouched; every check is recorded once.
func FuzzQuote(f *testing.F) {
	w := newWorld(f)
	var genuine [][]byte
	var collateral *attestation.TDXCollateral
	for _, v5 := range []bool{false, true} {
		m := w.Machine(attestation.TDX)
		m.TDX.V5 = v5
		ev, err := m.Quote(f.Context(), [64]byte{1})
		if err != nil {
			f.Fatal(err)
		}
		genuine, collateral = append(genuine, ev.Quote), ev.TDX
		f.Add(ev.Quote)
		f.Add(ev.Quote[:len(ev.Quote)/2])
		f.Add(append(bytes.Clone(ev.Quote), 0, 0))
	}
	f.Add([]byte{4, 0, 2, 0, 0x81, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		res := verify(t, w.Roots(), nil, &attestation.CPUEvidence{TEE: attestation.TDX, Quote: b, TDX: collateral}, now)
		recordedOnce(t, res)
		fail, _ := outcomes(res)
		ours := false
		for _, g := range genuine {
			ours = ours || bytes.HasPrefix(b, signedPart(g))
		}
		if authentic := res.Verdict != attestation.NotAuthentic || len(fail) == 0; authentic && !ours {
			t.Fatalf("an altered quote is %s: %v", res.Verdict, res.Checks)
		}
	})
}

// Whatever is done to a collateral file, no check fails to answer.
func FuzzCollateral(f *testing.F) {
	w := newWorld(f)
	ev, err := w.Machine(attestation.TDX).Quote(f.Context(), [64]byte{1})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(encode(f, collateralJSON(f, ev.TDX)))
	m := w.Machine(attestation.TDX)
	m.TDX.Documents = func(d *softtee.Documents) { d.TCBInfo.Levels = nil }
	bad, err := m.Quote(f.Context(), [64]byte{1})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(encode(f, collateralJSON(f, bad.TDX)))
	f.Add([]byte(`{"tcb_info":"{}","pck_crl":"MAA="}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := tdx.ParseCollateralJSON(b)
		if err != nil {
			return
		}
		res := verify(t, w.Roots(), nil, &attestation.CPUEvidence{TEE: attestation.TDX, Quote: ev.Quote, TDX: c}, now)
		recordedOnce(t, res)
		same := bytes.Equal(c.TCBInfo, ev.TDX.TCBInfo) && bytes.Equal(c.QEIdentity, ev.TDX.QEIdentity)
		if res.Verdict == attestation.Accepted && !same {
			t.Fatalf("altered collateral was accepted: %v", res.Checks)
		}
	})
}

func FuzzDecodeQuote(f *testing.F) {
	f.Add([]byte("0x0400"))
	f.Add([]byte("BAACAA=="))
	f.Add([]byte{5, 0, 2})
	f.Fuzz(func(t *testing.T, b []byte) {
		if q, err := tdx.DecodeQuote(b); err == nil && len(q) > len(b) {
			t.Fatalf("%d bytes out of %d", len(q), len(b))
		}
	})
}
