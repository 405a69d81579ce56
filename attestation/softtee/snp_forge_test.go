package softtee

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"cocoon/attestation"
)

// forge is one report with its collateral, made by the vendor or by somebody
// who holds one of its keys.
type forge struct {
	*AMD
	t      *testing.T
	guest  SNPGuest
	vlek   bool // what the collateral says
	crlBy  *x509.Certificate
	crlKey *rsa.PrivateKey
	revoke *x509.Certificate
	edit   func(*attestation.SNPCollateral)
	policy attestation.Policy
}

func newForge(t *testing.T, amd *AMD) *forge {
	mine := *amd
	return &forge{AMD: &mine, t: t, guest: mine.NewSNPGuest([48]byte{1}), crlBy: mine.ark, crlKey: mine.arkKey}
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// reissue replaces the VCEK.
func (f *forge) reissue(cn, product string, change func([]pkix.Extension) []pkix.Extension) {
	f.t.Helper()
	ext := must[[]pkix.Extension](f.t)(f.extensions(product))
	if change != nil {
		ext = change(ext)
	}
	f.vek = must[*x509.Certificate](f.t)(f.issue(snpNow, cn, false, f.ask, &f.vcekKey.PublicKey, f.askKey, ext))
}

// without drops an extension; with adds one.
func without(n ...int) func([]pkix.Extension) []pkix.Extension {
	return func(ext []pkix.Extension) []pkix.Extension {
		return slices.DeleteFunc(ext, func(e pkix.Extension) bool { return e.Id.Equal(amdOID(n...)) })
	}
}

func withCSP(ext []pkix.Extension) []pkix.Extension {
	name, _ := asn1.MarshalWithParams("cloud", "ia5")
	return append(ext, pkix.Extension{Id: amdOID(5), Value: name})
}

func toVLEK(ext []pkix.Extension) []pkix.Extension { return withCSP(without(4)(ext)) }

// becomeVLEK makes the whole chain a provider's.
func (f *forge) becomeVLEK() {
	f.t.Helper()
	f.ask = must[*x509.Certificate](f.t)(f.issue(snpNow, "SEV-VLEK-"+f.product, true, f.ark, &f.askKey.PublicKey, f.arkKey, nil))
	f.reissue("SEV-VLEK", f.product, toVLEK)
	f.guest.VLEK, f.vlek = true, true
}

func (f *forge) verify(roots *AMD) *attestation.Result {
	f.t.Helper()
	raw := must[[]byte](f.t)(f.Report(f.guest, [64]byte{9}))
	list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: snpNow.Add(-time.Hour), NextUpdate: snpNow.Add(time.Hour), SignatureAlgorithm: x509.SHA384WithRSAPSS}
	if f.revoke != nil {
		list.RevokedCertificateEntries = []x509.RevocationListEntry{{SerialNumber: f.revoke.SerialNumber, RevocationTime: snpNow.Add(-time.Hour)}}
	}
	crl := must[[]byte](f.t)(x509.CreateRevocationList(rand.Reader, list, f.crlBy, f.crlKey))
	c := &attestation.SNPCollateral{VEK: f.vek.Raw, ASK: f.ask.Raw, ARK: f.ark.Raw, CRL: crl, VLEK: f.vlek}
	if f.edit != nil {
		f.edit(c)
	}
	return snpVerifier(f.t, roots, &f.policy).VerifyCPUEvidence(&attestation.CPUEvidence{TEE: attestation.SNP, Quote: raw, SNP: c}, snpNow)
}

func asPEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// What a holder of genuine keys and certificates may put together otherwise.
// A row without a check is as it should be.
func TestSNPEvidencePutTogether(t *testing.T) {
	amd := map[string]*AMD{"Genoa": newAMD(t, "Genoa"), "Turin": newAMD(t, "Turin")}
	for _, tt := range []struct {
		check, name, product string
		make                 func(*forge)
	}{
		{"", "a VCEK", "Genoa", func(*forge) {}},
		{"", "PEM", "Genoa", func(f *forge) { f.edit = func(c *attestation.SNPCollateral) { c.VEK = asPEM(c.VEK) } }},
		{"", "a product with a stepping", "Genoa", func(f *forge) { f.reissue("SEV-VCEK", "Genoa-B1", nil) }},
		{"", "a VLEK", "Genoa", (*forge).becomeVLEK},
		{"", "a VLEK of Turin", "Turin", (*forge).becomeVLEK},
		{"", "version 5 with the mitigations asked for", "Turin", func(f *forge) {
			f.guest.Version, f.guest.Mitigations = 5, [2]uint64{7, 7}
			f.policy.SNP.MinMitigations = map[string]uint64{"Turin": 5}
		}},
		{"", "version 2, by the certificate's product", "Genoa", func(f *forge) { f.guest.Version = 2 }},

		{"snp.root", "a VLEK called a VCEK by the sender", "Genoa", func(f *forge) { f.becomeVLEK(); f.vlek = false }},
		{"snp.root", "a VLEK called a VCEK by everybody", "Genoa", func(f *forge) { f.becomeVLEK(); f.vlek, f.guest.VLEK = false, false }},
		{"snp.root", "a VCEK called a VLEK, to leave its chip unchecked", "Genoa", func(f *forge) { f.vlek, f.guest.VLEK, f.guest.WrongChipID = true, true, true }},
		{"snp.root", "a VLEK of no provider", "Genoa", func(f *forge) { f.becomeVLEK(); f.reissue("SEV-VLEK", "Genoa", without(4)) }},
		{"snp.root", "a VLEK with a chip", "Genoa", func(f *forge) { f.becomeVLEK(); f.reissue("SEV-VLEK", "Genoa", withCSP) }},
		{"snp.root", "a VLEK below the VCEKs' issuer", "Genoa", func(f *forge) {
			f.reissue("SEV-VLEK", "Genoa", toVLEK)
			f.vlek, f.guest.VLEK = true, true
		}},
		{"snp.root", "a VCEK with a provider", "Genoa", func(f *forge) { f.reissue("SEV-VCEK", "Genoa", withCSP) }},
		{"snp.root", "a VCEK of no chip", "Genoa", func(f *forge) { f.reissue("SEV-VCEK", "Genoa", without(4)) }},
		{"snp.root", "a certificate of another name", "Genoa", func(f *forge) { f.reissue("SEV-OTHER", "Genoa", nil) }},
		{"snp.root", "no product", "Genoa", func(f *forge) { f.reissue("SEV-VCEK", "Genoa", without(2)) }},
		{"snp.root", "no bootloader version", "Genoa", func(f *forge) { f.reissue("SEV-VCEK", "Genoa", without(3, 1)) }},
		{"snp.root", "no TEE version", "Genoa", func(f *forge) { f.reissue("SEV-VCEK", "Genoa", without(3, 2)) }},
		{"snp.root", "no FMC version", "Turin", func(f *forge) { f.reissue("SEV-VCEK", "Turin", without(3, 9)) }},
		{"snp.root", "another product in the certificate", "Genoa", func(f *forge) { f.reissue("SEV-VCEK", "Milan-B0", nil) }},
		{"snp.root", "a product that only begins alike", "Genoa", func(f *forge) { f.reissue("SEV-VCEK", "GenoaX", nil) }},
		{"snp.root", "another product in the report", "Genoa", func(f *forge) { f.guest.CPU = [2]byte{0x19, 0x01} }},
		{"snp.root", "a processor that nobody knows", "Genoa", func(f *forge) { f.guest.CPU = [2]byte{0x19, 0x60} }},
		{"snp.root", "version 2 of Turin", "Turin", func(f *forge) { f.guest.Version = 2 }},
		{"snp.root", "an intermediate that is no authority", "Genoa", func(f *forge) {
			f.ask = must[*x509.Certificate](f.t)(f.issue(snpNow, "SEV-Genoa", false, f.ark, &f.askKey.PublicKey, f.arkKey, nil))
			f.reissue("SEV-VCEK", "Genoa", nil)
		}},
		{"snp.root", "an intermediate of another name", "Genoa", func(f *forge) {
			f.ask = must[*x509.Certificate](f.t)(f.issue(snpNow, "SEV-Turin", true, f.ark, &f.askKey.PublicKey, f.arkKey, nil))
			f.reissue("SEV-VCEK", "Genoa", nil)
		}},
		{"snp.root", "an intermediate that did not issue it by name", "Genoa", func(f *forge) {
			f.ask = must[*x509.Certificate](f.t)(f.issue(snpNow, "SEV-Elsewhere", true, f.ark, &f.askKey.PublicKey, f.arkKey, nil))
			f.reissue("SEV-VCEK", "Genoa", nil)
			f.ask = must[*x509.Certificate](f.t)(f.issue(snpNow, "SEV-Genoa", true, f.ark, &f.askKey.PublicKey, f.arkKey, nil))
		}},
		{"snp.root", "an intermediate that has run out", "Genoa", func(f *forge) {
			f.ask = must[*x509.Certificate](f.t)(f.issue(snpNow.AddDate(-8, 0, 0), "SEV-Genoa", true, f.ark, &f.askKey.PublicKey, f.arkKey, nil))
		}},
		{"snp.root", "a VCEK of another curve", "Genoa", func(f *forge) {
			f.vcekKey = must[*ecdsa.PrivateKey](f.t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
			f.reissue("SEV-VCEK", "Genoa", nil)
		}},
		{"snp.root", "bytes before PEM", "Genoa", func(f *forge) {
			f.edit = func(c *attestation.SNPCollateral) { c.VEK = append([]byte("# mine\n"), asPEM(c.VEK)...) }
		}},
		{"snp.root", "PEM twice", "Genoa", func(f *forge) {
			f.edit = func(c *attestation.SNPCollateral) { c.ASK = append(asPEM(c.ASK), asPEM(c.ASK)...) }
		}},
		{"snp.root", "PEM of something else", "Genoa", func(f *forge) {
			f.edit = func(c *attestation.SNPCollateral) {
				c.VEK = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: c.VEK})
			}
		}},
		{"snp.root", "bytes after DER", "Genoa", func(f *forge) {
			f.edit = func(c *attestation.SNPCollateral) { c.VEK = append(c.VEK[:len(c.VEK):len(c.VEK)], 0) }
		}},
		{"snp.root", "a huge certificate", "Genoa", func(f *forge) { f.edit = func(c *attestation.SNPCollateral) { c.ASK = make([]byte, 1<<20) } }},
		{"snp.crl", "a list with bytes after it", "Genoa", func(f *forge) { f.edit = func(c *attestation.SNPCollateral) { c.CRL = append(c.CRL, 0) } }},
		{"snp.crl", "a list by the intermediate", "Genoa", func(f *forge) { f.crlBy, f.crlKey = f.ask, f.askKey }},
		{"snp.crl", "the intermediate is revoked", "Genoa", func(f *forge) { f.revoke = f.ask }},
		{"snp.crl", "a list by the root under another name", "Genoa", func(f *forge) {
			other := *f.ark
			other.RawSubject = f.ask.RawSubject
			f.crlBy = &other
		}},
		{"snp.chip-id", "a masked chip under a VLEK", "Genoa", func(f *forge) { f.becomeVLEK(); f.guest.MaskChipID = true }},
		{"snp.parse", "mitigations before version 5", "Turin", func(f *forge) { f.guest.Mitigations = [2]uint64{7, 7} }},
		{"snp.parse", "version 6", "Genoa", func(f *forge) { f.guest.Version = 6 }},
		{"snp.tcb", "launched without a mitigation asked for", "Turin", func(f *forge) {
			f.guest.Version, f.guest.Mitigations = 5, [2]uint64{3, 7}
			f.policy.SNP.MinMitigations = map[string]uint64{"Turin": 5}
		}},
		{"snp.tcb", "without a mitigation asked for", "Turin", func(f *forge) {
			f.guest.Version, f.guest.Mitigations = 5, [2]uint64{7, 3}
			f.policy.SNP.MinMitigations = map[string]uint64{"Turin": 5}
		}},
		{"snp.tcb", "a version that has no mitigations", "Turin", func(f *forge) { f.policy.SNP.MinMitigations = map[string]uint64{"Turin": 1} }},
		{"snp.policy", "CXL memory", "Genoa", func(f *forge) { f.guest.Policy |= 1 << 21 }},
		{"snp.policy", "the bit that must be set is clear", "Genoa", func(f *forge) { f.guest.Policy &^= 1 << 17 }},
	} {
		t.Run(tt.check+"/"+tt.name, func(t *testing.T) {
			f := newForge(t, amd[tt.product])
			tt.make(f)
			res := f.verify(amd[tt.product])
			var failed []string
			for _, c := range res.Checks {
				if c.Outcome == attestation.Fail {
					failed = append(failed, c.Name)
				}
			}
			if got := strings.Join(failed, " "); got != tt.check {
				t.Errorf("failed checks: got %q, want %q: %v", got, tt.check, res.Checks)
			}
			if (res.Verdict == attestation.Accepted) != (tt.check == "") {
				t.Errorf("verdict: got %s", res.Verdict)
			}
		})
	}
}
