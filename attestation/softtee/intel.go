package softtee

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"math/big"
	"time"

	"cocoon/attestation/canonical"
)

// Intel is a software Intel: a root, the two CAs that certify platforms, a
// TCB signer, and the keys of a platform and its quoting enclave.
type Intel struct {
	rootKey, platformKey, processorKey, tcbKey, pckKey, attestationKey *ecdsa.PrivateKey

	root, platform, processor, tcb *x509.Certificate
}

// intelState is Intel as a file holds it.
type intelState struct {
	Keys  [][]byte `cbor:"keys"`  // PKCS #8, in the order of keys
	Certs [][]byte `cbor:"certs"` // DER, in the order of certs
}

func (i *Intel) keys() []**ecdsa.PrivateKey {
	return []**ecdsa.PrivateKey{&i.rootKey, &i.platformKey, &i.processorKey, &i.tcbKey, &i.pckKey, &i.attestationKey}
}

func (i *Intel) certs() []**x509.Certificate {
	return []**x509.Certificate{&i.root, &i.platform, &i.processor, &i.tcb}
}

// NewIntel makes a vendor.
func NewIntel(now time.Time) (*Intel, error) {
	i := new(Intel)
	for _, k := range i.keys() {
		var err error
		if *k, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			return nil, err
		}
	}
	for _, c := range []struct {
		into   **x509.Certificate
		cn     string
		ca     bool
		key    *ecdsa.PrivateKey
		parent *x509.Certificate
	}{
		{&i.root, "Intel SGX Root CA", true, i.rootKey, nil},
		{&i.platform, "Intel SGX PCK Platform CA", true, i.platformKey, nil},
		{&i.processor, "Intel SGX PCK Processor CA", true, i.processorKey, nil},
		{&i.tcb, "Intel SGX TCB Signing", false, i.tcbKey, nil},
	} {
		t, err := certificate(now, c.cn, c.ca)
		if err != nil {
			return nil, err
		}
		if *c.into, err = issue(t, i.root, &c.key.PublicKey, i.rootKey); err != nil {
			return nil, err
		}
	}
	return i, nil
}

// certificate is a template in Intel's profile.
func certificate(now time.Time, cn string, ca bool) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 150))
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		SerialNumber: serial, NotBefore: now.Add(-24 * time.Hour), NotAfter: now.AddDate(10, 0, 0),
		Subject: pkix.Name{CommonName: cn, Organization: []string{"Intel Corporation"}, Locality: []string{"Santa Clara"},
			Province: []string{"CA"}, Country: []string{"US"}},
		IsCA: ca, BasicConstraintsValid: true, SignatureAlgorithm: x509.ECDSAWithSHA256,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		CRLDistributionPoints: []string{"https://certificates.trustedservices.intel.com/IntelSGXRootCA.der"},
	}
	if ca {
		t.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	}
	return t, nil
}

// issue signs t; a nil parent makes it a root.
func issue(t, parent *x509.Certificate, pub *ecdsa.PublicKey, by *ecdsa.PrivateKey) (*x509.Certificate, error) {
	raw, err := pub.Bytes()
	if err != nil {
		return nil, err
	}
	id := sha256.Sum256(raw)
	t.SubjectKeyId = id[:20]
	if parent == nil {
		parent = t
	}
	der, err := x509.CreateCertificate(rand.Reader, t, parent, pub, by)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", t.Subject.CommonName, err)
	}
	return x509.ParseCertificate(der)
}

// Platform is what a PCK certificate says.
type Platform struct {
	PPID      [16]byte
	CPUSVN    [16]byte // the 16 SGX TCB components
	PCESVN    uint16
	FMSPC     [6]byte
	PCEID     [2]byte
	Processor bool // certified by the Processor CA rather than the Platform CA
}

// issuePCK certifies a platform's key. It returns the chain, leaf first, and
// the key of the CA.
func (i *Intel) issuePCK(now time.Time, p Platform, edit func(*x509.Certificate)) ([]*x509.Certificate, *ecdsa.PrivateKey, error) {
	t, err := certificate(now, "Intel SGX PCK Certificate", false)
	if err != nil {
		return nil, nil, err
	}
	ext, err := p.extension()
	if err != nil {
		return nil, nil, err
	}
	t.KeyUsage |= x509.KeyUsageContentCommitment
	t.ExtraExtensions = []pkix.Extension{ext}
	if edit != nil {
		edit(t)
	}
	ca, key := i.platform, i.platformKey
	if p.Processor {
		ca, key = i.processor, i.processorKey
	}
	c, err := issue(t, ca, &i.pckKey.PublicKey, key)
	if err != nil {
		return nil, nil, err
	}
	return []*x509.Certificate{c, ca, i.root}, key, nil
}

// issueSigner certifies the TCB signing key once more.
func (i *Intel) issueSigner(now time.Time, edit func(*x509.Certificate)) (*x509.Certificate, error) {
	t, err := certificate(now, "Intel SGX TCB Signing", false)
	if err != nil {
		return nil, err
	}
	edit(t)
	return issue(t, i.root, &i.tcbKey.PublicKey, i.rootKey)
}

// extension is the SGX extension (Intel SGX PCK Certificate and CRL Profile, section 1.3.5).
func (p *Platform) extension() (pkix.Extension, error) {
	oid := func(n ...int) asn1.ObjectIdentifier {
		return append(asn1.ObjectIdentifier{1, 2, 840, 113741, 1, 13, 1}, n...)
	}
	type field struct {
		ID    asn1.ObjectIdentifier
		Value any
	}
	type sequence struct {
		ID    asn1.ObjectIdentifier
		Value []field
	}
	tcb := sequence{ID: oid(2)}
	for n, svn := range p.CPUSVN {
		tcb.Value = append(tcb.Value, field{oid(2, n+1), int(svn)})
	}
	tcb.Value = append(tcb.Value, field{oid(2, 17), int(p.PCESVN)}, field{oid(2, 18), p.CPUSVN[:]})
	var body []byte
	for _, f := range []any{field{oid(1), p.PPID[:]}, tcb, field{oid(3), p.PCEID[:]}, field{oid(4), p.FMSPC[:]}, field{oid(5), asn1.Enumerated(1)}} {
		b, err := asn1.Marshal(f)
		if err != nil {
			return pkix.Extension{}, err
		}
		body = append(body, b...)
	}
	value, err := asn1.Marshal(asn1.RawValue{Class: asn1.ClassUniversal, Tag: asn1.TagSequence, IsCompound: true, Bytes: body})
	return pkix.Extension{Id: oid(), Value: value}, err
}

func pemChain(certs ...*x509.Certificate) []byte {
	var b bytes.Buffer
	for _, c := range certs {
		b.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
	}
	return b.Bytes()
}

// signRaw returns r‖s over SHA-256 of message, 64 bytes.
func signRaw(key *ecdsa.PrivateKey, message []byte) ([]byte, error) {
	sum := sha256.Sum256(message)
	r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
	if err != nil {
		return nil, err
	}
	out := make([]byte, 64)
	r.FillBytes(out[:32])
	s.FillBytes(out[32:])
	return out, nil
}

func (i *Intel) save() ([]byte, error) {
	var s intelState
	for _, k := range i.keys() {
		b, err := x509.MarshalPKCS8PrivateKey(*k)
		if err != nil {
			return nil, err
		}
		s.Keys = append(s.Keys, b)
	}
	for _, c := range i.certs() {
		s.Certs = append(s.Certs, (*c).Raw)
	}
	return canonical.Marshal(s)
}

func loadIntel(b []byte) (*Intel, error) {
	var s intelState
	if err := canonical.Unmarshal("software Intel", b, 1<<16, &s); err != nil {
		return nil, err
	}
	i := new(Intel)
	if len(s.Keys) != len(i.keys()) || len(s.Certs) != len(i.certs()) {
		return nil, fmt.Errorf("software Intel: got %d keys and %d certificates, want %d and %d", len(s.Keys), len(s.Certs), len(i.keys()), len(i.certs()))
	}
	for n, into := range i.keys() {
		k, err := x509.ParsePKCS8PrivateKey(s.Keys[n])
		if err != nil {
			return nil, fmt.Errorf("software Intel: %w", err)
		}
		key, ok := k.(*ecdsa.PrivateKey)
		if !ok {
			return nil, fmt.Errorf("software Intel: key %d: got %T, want ECDSA", n, k)
		}
		*into = key
	}
	for n, into := range i.certs() {
		var err error
		if *into, err = x509.ParseCertificate(s.Certs[n]); err != nil {
			return nil, fmt.Errorf("software Intel: %w", err)
		}
	}
	return i, nil
}
