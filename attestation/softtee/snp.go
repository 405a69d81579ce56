package softtee

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"fmt"
	"math/big"
	"time"

	"github.com/google/go-sev-guest/abi"

	"cocoon/attestation"
	"cocoon/attestation/canonical"
	"cocoon/attestation/sevsnp"
)

// AMD is a software AMD: a root (ARK), an intermediate (ASK), and one chip
// with its versioned key (VCEK). The RSA keys are half of AMD's length, so that a world is
// made in a moment; everything else has AMD's shape.
type AMD struct {
	product       string // "Genoa", "Milan" or "Turin"
	arkKey        *rsa.PrivateKey
	askKey        *rsa.PrivateKey
	vcekKey       *ecdsa.PrivateKey
	ark, ask, vek *x509.Certificate
	chipID        [64]byte
	tcb           attestation.SNPTCB
}

// amdState is AMD as a file holds it.
type amdState struct {
	Product string             `cbor:"product"`
	Keys    [][]byte           `cbor:"keys"`  // PKCS #8: ARK, ASK, VCEK
	Certs   [][]byte           `cbor:"certs"` // DER: ARK, ASK, VCEK
	ChipID  [64]byte           `cbor:"chip_id"`
	TCB     attestation.SNPTCB `cbor:"tcb"`
}

// NewAMD makes a vendor and one chip. The chip's TCB is the default policy's minimum.
func NewAMD(now time.Time, product string) (*AMD, error) {
	a := &AMD{product: product, tcb: attestation.Default().SNP.MinTCB[product]}
	rand.Read(a.chipID[:a.hwidSize()])
	var err error
	if a.arkKey, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		return nil, err
	}
	if a.askKey, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		return nil, err
	}
	if a.vcekKey, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader); err != nil {
		return nil, err
	}
	if a.ark, err = a.issue(now, "ARK-"+product, true, nil, &a.arkKey.PublicKey, a.arkKey, nil); err != nil {
		return nil, err
	}
	if a.ask, err = a.issue(now, "SEV-"+product, true, a.ark, &a.askKey.PublicKey, a.arkKey, nil); err != nil {
		return nil, err
	}
	if a.vek, err = a.issueVCEK(now); err != nil {
		return nil, err
	}
	return a, nil
}

func (a *AMD) hwidSize() int {
	if a.product == "Turin" {
		return 8
	}
	return 64
}

func (a *AMD) issue(now time.Time, cn string, ca bool, parent *x509.Certificate, pub any, key *rsa.PrivateKey, ext []pkix.Extension) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 63))
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		SerialNumber: serial, NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(7, 0, 0),
		Subject: pkix.Name{CommonName: cn, Organization: []string{"Advanced Micro Devices"}, OrganizationalUnit: []string{"Engineering"},
			Country: []string{"US"}, Province: []string{"CA"}, Locality: []string{"Santa Clara"}},
		IsCA: ca, BasicConstraintsValid: ca, SignatureAlgorithm: x509.SHA384WithRSAPSS, ExtraExtensions: ext,
	}
	if ca {
		t.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	}
	if parent == nil {
		parent = t
	}
	der, err := x509.CreateCertificate(rand.Reader, t, parent, pub, key)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", cn, err)
	}
	return x509.ParseCertificate(der)
}

// issueVCEK writes the chip's identity and TCB into a certificate (57230, table 8).
func (a *AMD) issueVCEK(now time.Time) (*x509.Certificate, error) {
	ext, err := a.extensions(a.product)
	if err != nil {
		return nil, err
	}
	return a.issue(now, "SEV-VCEK", false, a.ask, &a.vcekKey.PublicKey, a.askKey, ext)
}

func amdOID(n ...int) asn1.ObjectIdentifier {
	return append(asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 3704, 1}, n...)
}

// extensions are a VCEK's: its product, its hardware id and its TCB.
func (a *AMD) extensions(product string) ([]pkix.Extension, error) {
	name, err := asn1.MarshalWithParams(product, "ia5")
	if err != nil {
		return nil, err
	}
	ext := []pkix.Extension{
		{Id: amdOID(2), Value: name},
		{Id: amdOID(4), Value: a.chipID[:a.hwidSize()]},
	}
	spl := map[int]uint8{1: a.tcb.Bootloader, 2: a.tcb.TEE, 3: a.tcb.SNP, 8: a.tcb.Microcode}
	if a.product == "Turin" {
		spl[9] = a.tcb.FMC
	}
	for _, n := range []int{1, 2, 3, 8, 9} {
		v, ok := spl[n]
		if !ok {
			continue
		}
		b, err := asn1.Marshal(int(v))
		if err != nil {
			return nil, err
		}
		ext = append(ext, pkix.Extension{Id: amdOID(3, n), Value: b})
	}
	return ext, nil
}

// Roots is what a verifier of this AMD trusts.
func (a *AMD) Roots() sevsnp.Roots {
	return sevsnp.Roots{a.product: {a.ark}}
}

// SNPGuest is what a report will say. NewSNPGuest gives one that a strict policy accepts.
type SNPGuest struct {
	Policy       uint64
	VMPL         uint32
	PlatformInfo uint64
	Measurement  [48]byte
	Reported     attestation.SNPTCB
	Committed    attestation.SNPTCB
	Current      attestation.SNPTCB
	Launch       attestation.SNPTCB
	MaskChipID   bool
	WrongChipID  bool
	BreakReport  bool      // set a reserved byte
	BadSignature bool      // sign something else
	VLEK         bool      // say that a VLEK signs
	Mitigations  [2]uint64 // launch and current vectors; a report of version 5 has them
	Version      uint32    // of the report; 3 where this is zero
	CPU          [2]byte   // CPUID family and model; the product's where this is zero
}

// NewSNPGuest is a guest as a careful owner launches it.
func (a *AMD) NewSNPGuest(measurement [48]byte) SNPGuest {
	return SNPGuest{Policy: 0x3001f, PlatformInfo: 1, Measurement: measurement, Reported: a.tcb, Committed: a.tcb, Current: a.tcb, Launch: a.tcb}
}

func (a *AMD) tcbBytes(t attestation.SNPTCB) uint64 {
	b := [8]byte{0: t.Bootloader, 1: t.TEE, 6: t.SNP, 7: t.Microcode}
	if a.product == "Turin" {
		b = [8]byte{0: t.FMC, 1: t.Bootloader, 2: t.TEE, 3: t.SNP, 7: t.Microcode}
	}
	return binary.LittleEndian.Uint64(b[:])
}

// Report signs a report over report data (56860, table 23).
func (a *AMD) Report(g SNPGuest, reportData [64]byte) ([]byte, error) {
	le := binary.LittleEndian
	r := make([]byte, sevsnp.ReportSize)
	le.PutUint32(r, max(g.Version, 2))
	if g.Version == 0 {
		r[0] = 3
	}
	if g.VLEK {
		r[0x48] = 1 << 2
	}
	le.PutUint64(r[0x08:], g.Policy)
	le.PutUint32(r[0x30:], g.VMPL)
	le.PutUint32(r[0x34:], abi.SignEcdsaP384Sha384)
	le.PutUint64(r[0x38:], a.tcbBytes(g.Current))
	le.PutUint64(r[0x40:], g.PlatformInfo)
	copy(r[0x50:], reportData[:])
	copy(r[0x90:], g.Measurement[:])
	le.PutUint64(r[0x180:], a.tcbBytes(g.Reported))
	if g.Version != 2 {
		cpu := map[string][2]byte{"Milan": {0x19, 0x01}, "Genoa": {0x19, 0x11}, "Turin": {0x1a, 0x02}}[a.product]
		if g.CPU != [2]byte{} {
			cpu = g.CPU
		}
		copy(r[0x188:], cpu[:])
	}
	le.PutUint64(r[0x1f8:], g.Mitigations[0])
	le.PutUint64(r[0x200:], g.Mitigations[1])
	chip := a.chipID
	if g.MaskChipID {
		chip = [64]byte{}
		r[0x48] |= 2
	}
	if g.WrongChipID {
		chip[0] ^= 1
	}
	copy(r[0x1a0:], chip[:])
	le.PutUint64(r[0x1e0:], a.tcbBytes(g.Committed))
	le.PutUint64(r[0x1f0:], a.tcbBytes(g.Launch))
	if g.BreakReport {
		r[0x4c] = 1
	}
	digest := sha512.Sum384(abi.SignedComponent(r))
	if g.BadSignature {
		digest[0] ^= 1
	}
	x, y, err := ecdsa.Sign(rand.Reader, a.vcekKey, digest[:])
	if err != nil {
		return nil, err
	}
	return r, abi.SetSignature(x, y, r)
}

// SNPCRL says how to issue the root's revocation list.
type SNPCRL struct {
	ThisUpdate, NextUpdate time.Time
	RevokeVCEK             bool
}

// Collateral issues certificates and a revocation list.
func (a *AMD) Collateral(c SNPCRL) (*attestation.SNPCollateral, error) {
	t := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: c.ThisUpdate, NextUpdate: c.NextUpdate, SignatureAlgorithm: x509.SHA384WithRSAPSS}
	if c.RevokeVCEK {
		t.RevokedCertificateEntries = []x509.RevocationListEntry{{SerialNumber: a.vek.SerialNumber, RevocationTime: c.ThisUpdate}}
	}
	crl, err := x509.CreateRevocationList(rand.Reader, t, a.ark, a.arkKey)
	if err != nil {
		return nil, err
	}
	return &attestation.SNPCollateral{VEK: a.vek.Raw, ASK: a.ask.Raw, ARK: a.ark.Raw, CRL: crl}, nil
}

// PlatformID is the chip's id as policies and records name it.
func (a *AMD) PlatformID() [32]byte { return attestation.PlatformID(a.product, a.chipID[:]) }

func (a *AMD) save() ([]byte, error) {
	s := amdState{Product: a.product, Certs: [][]byte{a.ark.Raw, a.ask.Raw, a.vek.Raw}, ChipID: a.chipID, TCB: a.tcb}
	for _, k := range []any{a.arkKey, a.askKey, a.vcekKey} {
		b, err := x509.MarshalPKCS8PrivateKey(k)
		if err != nil {
			return nil, err
		}
		s.Keys = append(s.Keys, b)
	}
	return canonical.Marshal(s)
}

func loadAMD(b []byte) (*AMD, error) {
	var s amdState
	if err := canonical.Unmarshal("software AMD", b, 1<<16, &s); err != nil {
		return nil, err
	}
	if len(s.Keys) != 3 || len(s.Certs) != 3 {
		return nil, fmt.Errorf("software AMD: got %d keys and %d certificates, want 3 and 3", len(s.Keys), len(s.Certs))
	}
	a := &AMD{product: s.Product, chipID: s.ChipID, tcb: s.TCB}
	for i, c := range []**x509.Certificate{&a.ark, &a.ask, &a.vek} {
		var err error
		if *c, err = x509.ParseCertificate(s.Certs[i]); err != nil {
			return nil, err
		}
	}
	keys := make([]any, 3)
	for i := range keys {
		k, err := x509.ParsePKCS8PrivateKey(s.Keys[i])
		if err != nil {
			return nil, err
		}
		keys[i] = k
	}
	var ok [3]bool
	a.arkKey, ok[0] = keys[0].(*rsa.PrivateKey)
	a.askKey, ok[1] = keys[1].(*rsa.PrivateKey)
	a.vcekKey, ok[2] = keys[2].(*ecdsa.PrivateKey)
	if ok != [3]bool{true, true, true} {
		return nil, fmt.Errorf("software AMD: keys are of other kinds than RSA, RSA and ECDSA")
	}
	return a, nil
}
