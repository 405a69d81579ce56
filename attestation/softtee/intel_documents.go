package softtee

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"math/big"
	"strings"
	"time"

	"cocoon/attestation"
)

const (
	issuedBefore = time.Hour           // how old a new document is
	validFor     = 30 * 24 * time.Hour // Intel's own nextUpdate
	evaluation   = 18                  // tcbEvaluationDataNumber
)

// Component is one SVN of a TCB level.
type Component struct {
	SVN byte `json:"svn"`
}

// TCB is what a level asks for: of a platform SGX, PCESVN and TDX; of a module or enclave ISVSVN.
type TCB struct {
	SGX    []Component `json:"sgxtcbcomponents,omitempty"`
	PCESVN *uint16     `json:"pcesvn,omitempty"`
	TDX    []Component `json:"tdxtcbcomponents,omitempty"`
	ISVSVN *uint32     `json:"isvsvn,omitempty"`
}

// Level is one TCB level.
type Level struct {
	TCB        TCB      `json:"tcb"`
	Date       string   `json:"tcbDate"`
	Status     string   `json:"tcbStatus"`
	Advisories []string `json:"advisoryIDs,omitempty"`
}

// Module identifies a TDX module.
type Module struct {
	ID             string  `json:"id,omitempty"`
	MRSigner       string  `json:"mrsigner"`
	Attributes     string  `json:"attributes"`
	AttributesMask string  `json:"attributesMask"`
	Levels         []Level `json:"tcbLevels,omitempty"`
}

// TCBInfo is Intel PCS's TCB info, version 3, of TDX.
type TCBInfo struct {
	ID         string    `json:"id"`
	Version    int       `json:"version"`
	IssueDate  time.Time `json:"issueDate"`
	NextUpdate time.Time `json:"nextUpdate"`
	FMSPC      string    `json:"fmspc"`
	PCEID      string    `json:"pceId"`
	Type       int       `json:"tcbType"`
	Evaluation int       `json:"tcbEvaluationDataNumber"`
	Module     Module    `json:"tdxModule"`
	Modules    []Module  `json:"tdxModuleIdentities"`
	Levels     []Level   `json:"tcbLevels"`
}

// QEIdentity is Intel PCS's enclave identity, version 2, of the TD quoting enclave.
type QEIdentity struct {
	ID             string    `json:"id"`
	Version        int       `json:"version"`
	IssueDate      time.Time `json:"issueDate"`
	NextUpdate     time.Time `json:"nextUpdate"`
	Evaluation     int       `json:"tcbEvaluationDataNumber"`
	MiscSelect     string    `json:"miscselect"`
	MiscSelectMask string    `json:"miscselectMask"`
	Attributes     string    `json:"attributes"`
	AttributesMask string    `json:"attributesMask"`
	MRSigner       string    `json:"mrsigner"`
	ISVProdID      int       `json:"isvprodid"`
	Levels         []Level   `json:"tcbLevels"`
}

// Documents is all that Intel publishes on a platform, before it is signed.
type Documents struct {
	TCBInfo    TCBInfo
	QEIdentity QEIdentity
	PCKCRL     x509.RevocationList
	RootCACRL  x509.RevocationList
	PCK        *x509.Certificate // the platform's, to be revoked by tests
	Signer     *x509.Certificate // the TCB signer
	QESigner   *x509.Certificate // that of QE identity: Signer, unless the machine's faults ask for another
	CA         *x509.Certificate // the PCK's CA
}

func components(svn [16]byte) []Component {
	out := make([]Component, 16)
	for i, v := range svn {
		out[i].SVN = v
	}
	return out
}

func isv(svn uint32, status string, advisories ...string) Level {
	return Level{TCB: TCB{ISVSVN: &svn}, Date: "2025-05-14T00:00:00Z", Status: status, Advisories: advisories}
}

// newDocuments are those of a platform that is up to date.
func newDocuments(issued time.Time, p Platform, td TD) Documents {
	next := issued.Add(validFor)
	level := func(cpu [16]byte, pce uint16, tee [16]byte, status string, advisories ...string) Level {
		return Level{TCB: TCB{SGX: components(cpu), PCESVN: &pce, TDX: components(tee)}, Date: "2025-05-14T00:00:00Z", Status: status, Advisories: advisories}
	}
	needs := td.TEETCBSVN // components 0 and 1 are of a TDX 1.0 module, which this is not
	needs[0], needs[1] = 5, 0
	old := p.CPUSVN
	old[0]--
	noSigner, noAttributes, allAttributes := strings.Repeat("0", 96), strings.Repeat("0", 16), strings.Repeat("F", 16)
	module := func(id string, levels ...Level) Module {
		return Module{ID: id, MRSigner: noSigner, Attributes: noAttributes, AttributesMask: allAttributes, Levels: levels}
	}
	return Documents{
		TCBInfo: TCBInfo{
			ID: "TDX", Version: 3, IssueDate: issued, NextUpdate: next,
			FMSPC: fmt.Sprintf("%X", p.FMSPC), PCEID: fmt.Sprintf("%X", p.PCEID), Evaluation: evaluation,
			Module: module(""),
			Modules: []Module{
				module("TDX_03", isv(3, "UpToDate")),
				module("TDX_01", isv(6, "UpToDate"), isv(4, "OutOfDate", "INTEL-SA-01036"), isv(2, "OutOfDate", "INTEL-SA-01036", "INTEL-SA-01099")),
			},
			Levels: []Level{
				level(p.CPUSVN, p.PCESVN, needs, "UpToDate"),
				level(old, p.PCESVN, needs, "OutOfDate", "INTEL-SA-01103"),
			},
		},
		QEIdentity: QEIdentity{
			ID: "TD_QE", Version: 2, IssueDate: issued, NextUpdate: next, Evaluation: evaluation,
			MiscSelect: "00000000", MiscSelectMask: "FFFFFFFF",
			Attributes: "11000000000000000000000000000000", AttributesMask: "FBFFFFFFFFFFFFFF0000000000000000",
			MRSigner: fmt.Sprintf("%X", qeSigner), ISVProdID: 2, Levels: []Level{isv(4, "UpToDate")},
		},
		PCKCRL:    x509.RevocationList{Number: big.NewInt(1), ThisUpdate: issued, NextUpdate: next},
		RootCACRL: x509.RevocationList{Number: big.NewInt(1), ThisUpdate: issued, NextUpdate: issued.AddDate(1, 0, 0)},
	}
}

// Revoke puts a certificate on a list.
func Revoke(l *x509.RevocationList, c *x509.Certificate) {
	l.RevokedCertificateEntries = append(l.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: c.SerialNumber, RevocationTime: l.ThisUpdate})
}

// sign turns documents into collateral.
func (i *Intel) sign(d *Documents, caKey *ecdsa.PrivateKey) (*attestation.TDXCollateral, error) {
	c := &attestation.TDXCollateral{
		TCBInfoIssuerChain: pemChain(d.Signer, i.root), QEIdentityIssuerChain: pemChain(d.QESigner, i.root), PCKCRLIssuerChain: pemChain(d.CA, i.root),
	}
	var err error
	if c.TCBInfo, c.TCBInfoSignature, err = i.signJSON(d.TCBInfo); err != nil {
		return nil, err
	}
	if c.QEIdentity, c.QEIdentitySignature, err = i.signJSON(d.QEIdentity); err != nil {
		return nil, err
	}
	if c.PCKCRL, err = x509.CreateRevocationList(rand.Reader, &d.PCKCRL, d.CA, caKey); err != nil {
		return nil, err
	}
	c.RootCACRL, err = x509.CreateRevocationList(rand.Reader, &d.RootCACRL, i.root, i.rootKey)
	return c, err
}

func (i *Intel) signJSON(v any) (body, sig []byte, err error) {
	if body, err = json.Marshal(v); err != nil {
		return nil, nil, err
	}
	sig, err = signRaw(i.tcbKey, body)
	return body, sig, err
}
