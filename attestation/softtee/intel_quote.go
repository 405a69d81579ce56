package softtee

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"time"

	"cocoon/attestation"
)

// qeSigner is the MRSIGNER of Intel's TD quoting enclave.
var qeSigner = [32]byte{
	0xdc, 0x9e, 0x2a, 0x7c, 0x6f, 0x94, 0x8f, 0x17, 0x47, 0x4e, 0x34, 0xa7, 0xfc, 0x43, 0xed, 0x03,
	0x0f, 0x7c, 0x15, 0x63, 0xf1, 0xba, 0xbd, 0xdf, 0x63, 0x40, 0xc8, 0x2e, 0x0e, 0x54, 0xa8, 0xc5,
}

// TDXFaults is what is wrong with a TDX machine. Its zero value is nothing.
// The functions see what a healthy machine would sign, and may change it.
type TDXFaults struct {
	Debug        bool   // the TD's DEBUG attribute
	TCBStatus    string // of the platform's TCB level; empty: UpToDate
	NoCollateral bool
	V5           bool // not a fault: a version 5 quote with a TDX 1.5 report

	QESigner  func(*x509.Certificate) // not nil: QE identity has a TCB signer of its own
	Platform  func(*Platform)
	PCK       func(*x509.Certificate)
	TD        func(*TD)
	QE        func(*QE)
	Documents func(*Documents)
}

// TD is a TD report (Intel TDX Module 1.5 ABI, TDREPORT_STRUCT). The last two are of version 5 quotes alone.
type TD struct {
	TEETCBSVN      [16]byte
	MRSEAM         [48]byte
	MRSignerSEAM   [48]byte
	SEAMAttributes uint64
	Attributes     uint64
	XFAM           uint64
	MRTD           [48]byte
	MRConfigID     [48]byte
	MROwner        [48]byte
	MROwnerConfig  [48]byte
	RTMR           [4][48]byte
	ReportData     [64]byte
	TEETCBSVN2     [16]byte
	MRServiceTD    [48]byte
}

// QE is the quoting enclave's SGX report. Its report data is set by Quote.
type QE struct {
	VendorID   [16]byte
	MiscSelect uint32
	Attributes [16]byte
	MRSigner   [32]byte
	ISVProdID  uint16
	ISVSVN     uint16
	OtherKey   bool // vouch for another attestation key than the one that signs
}

// intelCollateral is collateral with its chain, kept for a day.
type intelCollateral struct {
	at    time.Time
	chain []*x509.Certificate
	col   *attestation.TDXCollateral
}

func (m *Machine) quoteTDX(reportData [64]byte, now time.Time) (attestation.CPUEvidence, error) {
	l := m.Launch()
	td := TD{
		TEETCBSVN: [16]byte{7, 1, 3}, MRSEAM: [48]byte{0x5b}, Attributes: 1 << 28, XFAM: 0x602e7,
		MRTD: [48]byte(l.MRTD), ReportData: reportData, TEETCBSVN2: [16]byte{7, 1, 3},
	}
	for i := range td.RTMR {
		td.RTMR[i] = [48]byte(l.RTMR[i])
	}
	if m.TDX.Debug {
		td.Attributes |= 1
	}
	c, err := m.collateral(now, td)
	if err != nil {
		return attestation.CPUEvidence{}, err
	}
	if m.TDX.TD != nil {
		m.TDX.TD(&td)
	}
	qe := QE{
		VendorID:   [16]byte{0x93, 0x9a, 0x72, 0x33, 0xf7, 0x9c, 0x4c, 0xa9, 0x94, 0x0a, 0x0d, 0xb3, 0x95, 0x7f, 0x06, 0x07},
		Attributes: [16]byte{0x15, 8: 0xe7}, MRSigner: qeSigner, ISVProdID: 2, ISVSVN: 4,
	}
	if m.TDX.QE != nil {
		m.TDX.QE(&qe)
	}
	q, err := m.world.intel.quote(td, qe, m.TDX.V5, pemChain(c.chain...))
	if err != nil {
		return attestation.CPUEvidence{}, err
	}
	ev := attestation.CPUEvidence{TEE: attestation.TDX, Quote: q}
	if !m.TDX.NoCollateral {
		ev.TDX = clone(c.col) // After may change it
	}
	return ev, nil
}

func clone(c *attestation.TDXCollateral) *attestation.TDXCollateral {
	out := *c
	for _, b := range []*[]byte{
		&out.TCBInfo, &out.TCBInfoSignature, &out.TCBInfoIssuerChain, &out.QEIdentity, &out.QEIdentitySignature,
		&out.QEIdentityIssuerChain, &out.PCKCRL, &out.PCKCRLIssuerChain, &out.RootCACRL,
	} {
		*b = bytes.Clone(*b)
	}
	return &out
}

// collateral returns what was issued in the last day, or issues it. A machine
// with faults in it issues each time.
func (m *Machine) collateral(now time.Time, td TD) (*intelCollateral, error) {
	f := &m.TDX
	healthy := f.TCBStatus == "" && f.Platform == nil && f.PCK == nil && f.QESigner == nil && f.Documents == nil
	m.mu.Lock()
	defer m.mu.Unlock()
	if c := m.cached; healthy && c != nil && !now.Before(c.at) && now.Sub(c.at) < 24*time.Hour {
		return c, nil
	}
	p := Platform{PPID: m.ppid, CPUSVN: [16]byte{3, 3, 2, 2, 4, 1, 0, 5}, PCESVN: 13, FMSPC: [6]byte{0xb0, 0xc0, 0x6f}}
	if f.Platform != nil {
		f.Platform(&p)
	}
	intel := m.world.intel
	chain, caKey, err := intel.issuePCK(now, p, f.PCK)
	if err != nil {
		return nil, err
	}
	d := newDocuments(now.Add(-issuedBefore).UTC().Truncate(time.Second), p, td)
	d.PCK, d.Signer, d.QESigner, d.CA = chain[0], intel.tcb, intel.tcb, chain[1]
	if f.TCBStatus != "" {
		d.TCBInfo.Levels[0].Status, d.TCBInfo.Levels[0].Advisories = f.TCBStatus, []string{"INTEL-SA-00615"}
	}
	if f.QESigner != nil {
		if d.QESigner, err = intel.issueSigner(now, f.QESigner); err != nil {
			return nil, err
		}
	}
	if f.Documents != nil {
		f.Documents(&d)
	}
	col, err := intel.sign(&d, caKey)
	if err != nil {
		return nil, err
	}
	c := &intelCollateral{at: now, chain: chain, col: col}
	if healthy {
		m.cached = c
	}
	return c, nil
}

// quote signs a report (Intel TDX DCAP Quoting Library API, appendix 3).
func (i *Intel) quote(td TD, qe QE, v5 bool, chain []byte) ([]byte, error) {
	le := binary.LittleEndian
	version := uint16(4)
	if v5 {
		version = 5
	}
	signed := le.AppendUint16(nil, version)
	signed = le.AppendUint16(signed, 2)    // attestation key: ECDSA P-256
	signed = le.AppendUint32(signed, 0x81) // TEE: TDX
	signed = le.AppendUint32(signed, 0)    // reserved
	signed = append(signed, qe.VendorID[:]...)
	signed = append(signed, make([]byte, 20)...) // user data
	if v5 {
		signed = le.AppendUint16(signed, 3) // TDX 1.5 report
		signed = le.AppendUint32(signed, 648)
	}
	signed = append(signed, td.bytes(v5)...)

	uncompressed, err := i.attestationKey.PublicKey.Bytes()
	if err != nil {
		return nil, err
	}
	key := uncompressed[1:]
	auth := make([]byte, 32)
	for n := range auth {
		auth[n] = byte(n)
	}
	report := qe.bytes(sha256.Sum256(append(append([]byte{}, key...), auth...)))
	reportSig, err := signRaw(i.pckKey, report)
	if err != nil {
		return nil, err
	}
	cert := append(report, reportSig...)
	cert = le.AppendUint16(cert, uint16(len(auth)))
	cert = append(cert, auth...)
	cert = le.AppendUint16(cert, 5) // PCK chain
	cert = le.AppendUint32(cert, uint32(len(chain)))
	cert = append(cert, chain...)

	data, err := signRaw(i.attestationKey, signed)
	if err != nil {
		return nil, err
	}
	data = append(data, key...)
	data = le.AppendUint16(data, 6) // QE report certification data
	data = le.AppendUint32(data, uint32(len(cert)))
	data = append(data, cert...)
	return append(le.AppendUint32(signed, uint32(len(data))), data...), nil
}

func (t *TD) bytes(v15 bool) []byte {
	le := binary.LittleEndian
	b := append([]byte{}, t.TEETCBSVN[:]...)
	b = append(b, t.MRSEAM[:]...)
	b = append(b, t.MRSignerSEAM[:]...)
	b = le.AppendUint64(b, t.SEAMAttributes)
	b = le.AppendUint64(b, t.Attributes)
	b = le.AppendUint64(b, t.XFAM)
	for _, m := range append([][48]byte{t.MRTD, t.MRConfigID, t.MROwner, t.MROwnerConfig}, t.RTMR[:]...) {
		b = append(b, m[:]...)
	}
	b = append(b, t.ReportData[:]...)
	if v15 {
		b = append(b, t.TEETCBSVN2[:]...)
		b = append(b, t.MRServiceTD[:]...)
	}
	return b
}

func (q *QE) bytes(vouched [32]byte) []byte {
	le := binary.LittleEndian
	b := make([]byte, 384)
	le.PutUint32(b[16:], q.MiscSelect)
	copy(b[48:], q.Attributes[:])
	copy(b[128:], q.MRSigner[:])
	le.PutUint16(b[256:], q.ISVProdID)
	le.PutUint16(b[258:], q.ISVSVN)
	if q.OtherKey {
		vouched[0] ^= 1
	}
	copy(b[320:], vouched[:])
	return b
}
