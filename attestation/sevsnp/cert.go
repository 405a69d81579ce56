package sevsnp

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"github.com/google/go-sev-guest/verify/trust"
)

// maxCert bounds one certificate or CRL of the collateral, in bytes.
const maxCert = 16 << 10

// Roots are the ARKs trusted for each product line. The zero value trusts nothing.
type Roots map[string][]*x509.Certificate

// AMDRoots returns AMD's roots for VCEK and VLEK chains of Milan, Genoa and Turin,
// as go-sev-guest carries them.
func AMDRoots() (Roots, error) {
	roots := Roots{}
	for name, bundles := range map[string][][]byte{
		"Milan": {trust.AskArkMilanVcekBytes, trust.AskArkMilanVlekBytes},
		"Genoa": {trust.AskArkGenoaVcekBytes, trust.AskArkGenoaVlekBytes},
		"Turin": {trust.AskArkTurinVcekBytes, trust.AskArkTurinVlekBytes},
	} {
		for _, b := range bundles {
			_, rest := pem.Decode(b) // the ASK
			block, _ := pem.Decode(rest)
			if block == nil {
				return nil, fmt.Errorf("%s: bundle holds no ARK", name)
			}
			ark, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return nil, fmt.Errorf("%s: ARK: %w", name, err)
			}
			roots[name] = append(roots[name], ark)
		}
	}
	return roots, nil
}

// parseCert reads exactly one certificate, in DER, or in PEM with nothing around it.
func parseCert(what string, b []byte) (*x509.Certificate, error) {
	if len(b) == 0 {
		return nil, fmt.Errorf("%s: not given", what)
	}
	if len(b) > maxCert {
		return nil, fmt.Errorf("%s: got %d bytes, want at most %d", what, len(b), maxCert)
	}
	if bytes.HasPrefix(b, []byte("-----BEGIN ")) {
		block, rest := pem.Decode(b)
		if block == nil || block.Type != "CERTIFICATE" || len(block.Headers) != 0 || len(bytes.TrimSpace(rest)) != 0 {
			return nil, fmt.Errorf("%s: got other PEM than one certificate", what)
		}
		b = block.Bytes
	}
	c, err := x509.ParseCertificate(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	return c, nil
}

// endorsement is what a VCEK or VLEK says of its chip (57230, table 8).
type endorsement struct {
	product string
	hwid    []byte // empty in a VLEK
	tcb     tcb
	cspID   string          // VLEK only
	parts   map[string]bool // of the TCB, by OID
}

var (
	oidProduct = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 3704, 1, 2}
	oidHWID    = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 3704, 1, 4}
	oidCSP     = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 3704, 1, 5}
)

func spl(n int) asn1.ObjectIdentifier {
	return asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 3704, 1, 3, n}
}

func parseEndorsement(c *x509.Certificate) (endorsement, error) {
	e := endorsement{parts: make(map[string]bool)}
	parts := map[string]*uint8{
		spl(1).String(): &e.tcb.Bootloader, spl(2).String(): &e.tcb.TEE, spl(3).String(): &e.tcb.SNP,
		spl(8).String(): &e.tcb.Microcode, spl(9).String(): &e.tcb.FMC,
	}
	for _, x := range c.Extensions {
		switch {
		case x.Id.Equal(oidProduct), x.Id.Equal(oidCSP):
			var s string
			if rest, err := asn1.UnmarshalWithParams(x.Value, &s, "ia5"); err != nil || len(rest) != 0 {
				return e, fmt.Errorf("extension %v: not an IA5String", x.Id)
			}
			if x.Id.Equal(oidProduct) {
				e.product = s
			} else {
				e.cspID = s
			}
		case x.Id.Equal(oidHWID):
			e.hwid = x.Value
			var wrapped []byte // newer certificates wrap it in an OCTET STRING
			if rest, err := asn1.Unmarshal(x.Value, &wrapped); err == nil && len(rest) == 0 && (len(wrapped) == 64 || len(wrapped) == 8) {
				e.hwid = wrapped
			}
		default:
			p := parts[x.Id.String()]
			if p == nil {
				continue
			}
			var v int
			if rest, err := asn1.Unmarshal(x.Value, &v); err != nil || len(rest) != 0 || v < 0 || v > 255 {
				return e, fmt.Errorf("extension %v: not an integer from 0 to 255", x.Id)
			}
			*p = uint8(v)
			e.parts[x.Id.String()] = true
		}
	}
	if e.product == "" {
		return e, errors.New("extension productName is absent")
	}
	return e, nil
}

// check holds the certificates to their kind (57230, tables 7 to 10): a VCEK names
// a chip and no provider, a VLEK a provider and no chip, each has an issuer of
// its own, and all name every part of the TCB.
func (e endorsement) check(l line, vlek bool, vek, ask *x509.Certificate) error {
	leaf, issuer, hwid := "SEV-VCEK", "SEV-"+l.name, 64
	if l.turin {
		hwid = 8
	}
	if vlek {
		leaf, issuer, hwid = "SEV-VLEK", "SEV-VLEK-"+l.name, 0
	}
	switch key, isEC := vek.PublicKey.(*ecdsa.PublicKey); {
	case vek.Subject.CommonName != leaf || ask.Subject.CommonName != issuer:
		return fmt.Errorf("got %.40q issued by %.40q, want %q by %q", vek.Subject.CommonName, ask.Subject.CommonName, leaf, issuer)
	case len(e.hwid) != hwid:
		return fmt.Errorf("%s: hwid: got %d bytes, want %d", leaf, len(e.hwid), hwid)
	case vlek != (e.cspID != ""):
		return fmt.Errorf("%s: csp_id: got %.40q, want one in a VLEK only", leaf, e.cspID)
	case !isEC || key.Curve != elliptic.P384():
		return fmt.Errorf("%s: public key: got %T, want ECDSA P-384", leaf, vek.PublicKey)
	}
	parts := []int{1, 2, 3, 8}
	if l.turin {
		parts = append(parts, 9)
	}
	for _, n := range parts {
		if !e.parts[spl(n).String()] {
			return fmt.Errorf("%s: extension %v of the TCB is absent", leaf, spl(n))
		}
	}
	return nil
}

// issued verifies that parent, by name and key, issued c.
func issued(c, parent *x509.Certificate) error {
	if !bytes.Equal(c.RawIssuer, parent.RawSubject) {
		return fmt.Errorf("issuer: got %.80q, want %.80q", c.Issuer.String(), parent.Subject.String())
	}
	return c.CheckSignatureFrom(parent)
}

// chain verifies VEK <- ASK <- one of the line's pinned ARKs, all valid at now.
func (r Roots) chain(l line, vek, ask *x509.Certificate, now time.Time) (*x509.Certificate, error) {
	arks := r[l.name]
	if len(arks) == 0 {
		return nil, fmt.Errorf("no root is trusted for %s", l.name)
	}
	var last error
	for _, ark := range arks {
		err := issued(ask, ark)
		if err == nil {
			err = issued(vek, ask)
		}
		if err != nil {
			last = err
			continue
		}
		for _, c := range []*x509.Certificate{vek, ask, ark} {
			if now.Before(c.NotBefore) || now.After(c.NotAfter) {
				return nil, fmt.Errorf("%.40q: valid %s to %s", c.Subject.CommonName, c.NotBefore.Format(time.RFC3339), c.NotAfter.Format(time.RFC3339))
			}
		}
		return ark, nil
	}
	return nil, fmt.Errorf("%.40q does not chain to a pinned %s root: %w", vek.Subject.CommonName, l.name, last)
}

// checkCRL verifies that the ARK's list is current and names neither ASK nor VEK.
// It returns when the list runs out.
func checkCRL(raw []byte, ark, ask, vek *x509.Certificate, now time.Time) (*x509.RevocationList, error) {
	if len(raw) > 1<<20 {
		return nil, fmt.Errorf("crl: got %d bytes, want at most %d", len(raw), 1<<20)
	}
	crl, err := x509.ParseRevocationList(raw)
	if err != nil {
		return nil, fmt.Errorf("crl: %w", err)
	}
	if len(crl.Raw) != len(raw) {
		return nil, fmt.Errorf("crl: trailing bytes: got %d", len(raw)-len(crl.Raw))
	}
	if !bytes.Equal(crl.RawIssuer, ark.RawSubject) {
		return nil, fmt.Errorf("crl: issuer: got %.80q, want %.80q", crl.Issuer.String(), ark.Subject.String())
	}
	if err := crl.CheckSignatureFrom(ark); err != nil {
		return nil, fmt.Errorf("crl: %w", err)
	}
	if now.Before(crl.ThisUpdate) || !now.Before(crl.NextUpdate) {
		return nil, fmt.Errorf("crl: valid %s to %s", crl.ThisUpdate.Format(time.RFC3339), crl.NextUpdate.Format(time.RFC3339))
	}
	for _, e := range crl.RevokedCertificateEntries {
		for _, c := range []*x509.Certificate{ask, vek} {
			if e.SerialNumber.Cmp(c.SerialNumber) == 0 {
				return nil, fmt.Errorf("%.40q, serial %v, was revoked on %s", c.Subject.CommonName, c.SerialNumber, e.RevocationTime.Format(time.RFC3339))
			}
		}
	}
	return crl, nil
}
