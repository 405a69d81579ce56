package sevsnp

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"testing"
	"time"

	"github.com/google/go-sev-guest/verify/testdata"
	"github.com/google/go-sev-guest/verify/trust"

	"cocoon/attestation"
)

// The roots come with a library. That one day it comes with others must not go unseen.
func TestAMDRootsAreTheKnownOnes(t *testing.T) {
	roots, err := AMDRoots()
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{ // SHA-256 of the certificates
		"Milan": "69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd",
		"Genoa": "4c6598d19c18719c5dfd4a7d335f674e5bfe1d8f800cea2cf270c10d103db2f1",
		"Turin": "1f084161a44bb6d93778a904877d4819cafa5d05ef4193b2ded9dd9c73dd3f6a",
	}
	if len(roots) != len(want) {
		t.Errorf("got roots of %d lines, want %d", len(roots), len(want))
	}
	for line, arks := range roots {
		if len(arks) == 0 {
			t.Errorf("%s: no root", line)
		}
		for _, ark := range arks {
			if sum := sha256.Sum256(ark.Raw); hex.EncodeToString(sum[:]) != want[line] {
				t.Errorf("%s: got %x, want %s", line, sum, want[line])
			}
		}
	}
}

// A real report of version 2, whose product only its certificate names, of a
// guest that its host may debug.
func TestRealVersion2Report(t *testing.T) {
	ask, _ := pem.Decode(trust.AskArkMilanVcekBytes)
	ev := &attestation.CPUEvidence{TEE: attestation.SNP, Quote: testdata.AttestationBytes, SNP: &attestation.SNPCollateral{VEK: testdata.VcekBytes, ASK: ask.Bytes}}
	hw, err := New()
	if err != nil {
		t.Fatal(err)
	}
	v, err := attestation.NewVerifier(attestation.Config{CPU: []attestation.CPUVerifier{hw}})
	if err != nil {
		t.Fatal(err)
	}
	res := v.VerifyCPUEvidence(ev, time.Date(2023, 6, 1, 0, 0, 0, 0, time.UTC))
	want := map[string]attestation.Outcome{
		"snp.crl": attestation.Skip, "snp.product": attestation.Fail, "snp.tcb": attestation.Fail, "snp.debug-off": attestation.Fail,
	}
	for _, c := range res.Checks {
		w, odd := want[c.Name]
		if !odd {
			w = attestation.Pass
		}
		if c.Outcome != w {
			t.Errorf("%v, want %v", c, w)
		}
	}
	if res.Verdict != attestation.NotAcceptable || res.Product != "Milan" {
		t.Errorf("got %s of %s", res.Verdict, res.Product)
	}
}

// A real issuer of VLEKs is one by AMD's root, and issues no VCEK.
func TestRealVLEKIssuer(t *testing.T) {
	roots, err := AMDRoots()
	if err != nil {
		t.Fatal(err)
	}
	for name, bundle := range map[string][]byte{"Milan": trust.AskArkMilanVlekBytes, "Genoa": trust.AskArkGenoaVlekBytes, "Turin": trust.AskArkTurinVlekBytes} {
		block, _ := pem.Decode(bundle)
		ask, err := parseCert("ask", block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		if err := issued(ask, roots[name][0]); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if ask.Subject.CommonName != "SEV-VLEK-"+name {
			t.Errorf("%s: got %q", name, ask.Subject.CommonName)
		}
	}
}
