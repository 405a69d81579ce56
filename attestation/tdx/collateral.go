package tdx

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"cocoon/attestation"

	"github.com/google/go-tdx-guest/pcs"
)

const (
	maxDocumentBytes = 256 << 10 // TCB info, QE identity
	maxCRLBytes      = 1 << 20
	maxLevels        = 1024
)

// collateral is Intel's word on a platform, authenticated.
type collateral struct {
	tcb     pcs.TcbInfo
	qe      pcs.EnclaveIdentity
	signers []*x509.Certificate // TCB signing certificates and the root
}

// verifyCollateral authenticates TCB info and QE identity, and reads them
// after, never before.
func verifyCollateral(roots *x509.CertPool, t *attestation.TDXCollateral, p *pck) (*collateral, error) {
	c := new(collateral)
	signer, err := verifySigner(roots, t.TCBInfoIssuerChain, p)
	if err != nil {
		return nil, fmt.Errorf("tcb info: %w", err)
	}
	c.signers = signer
	if err := readSigned(t.TCBInfo, t.TCBInfoSignature, signer[0], &c.tcb); err != nil {
		return nil, fmt.Errorf("tcb info: %w", err)
	}
	if !bytes.Equal(t.QEIdentityIssuerChain, t.TCBInfoIssuerChain) {
		if signer, err = verifySigner(roots, t.QEIdentityIssuerChain, p); err != nil {
			return nil, fmt.Errorf("qe identity: %w", err)
		}
		c.signers = append(c.signers, signer[0])
	}
	if err := readSigned(t.QEIdentity, t.QEIdentitySignature, signer[0], &c.qe); err != nil {
		return nil, fmt.Errorf("qe identity: %w", err)
	}
	if err := checkTCBInfo(&c.tcb, p); err != nil {
		return nil, fmt.Errorf("tcb info: %w", err)
	}
	if err := checkQEIdentity(&c.qe); err != nil {
		return nil, fmt.Errorf("qe identity: %w", err)
	}
	return c, nil
}

// verifySigner returns the TCB signing certificate and the trusted root.
func verifySigner(roots *x509.CertPool, chainPEM []byte, p *pck) ([]*x509.Certificate, error) {
	certs, err := parseChain(chainPEM, 2)
	if err != nil {
		return nil, fmt.Errorf("issuer chain: %w", err)
	}
	chain, err := verifyChain(roots, certs, []string{cnTCB}, []string{cnRoot})
	if err != nil {
		return nil, fmt.Errorf("issuer chain: %w", err)
	}
	if root := p.chain[len(p.chain)-1]; !chain[1].Equal(root) {
		return nil, fmt.Errorf("issuer chain: ends in another root than the pck chain")
	}
	return chain, nil
}

func readSigned(body, sig []byte, signer *x509.Certificate, into any) error {
	if len(body) > maxDocumentBytes {
		return fmt.Errorf("size: got %d bytes, want at most %d", len(body), maxDocumentBytes)
	}
	key, err := p256(signer)
	if err != nil {
		return err
	}
	if err := verifyRaw(key, body, sig); err != nil {
		return err
	}
	return json.Unmarshal(body, into)
}

func checkTCBInfo(t *pcs.TcbInfo, p *pck) error {
	switch {
	case t.ID != "TDX" || t.Version != 3:
		return fmt.Errorf("got %q version %d, want \"TDX\" version 3", t.ID, t.Version)
	case !strings.EqualFold(t.Fmspc, p.fmspc): // Intel writes hex digits in either case
		return fmt.Errorf("fmspc: got %.20q, want %q, the platform's", t.Fmspc, p.fmspc)
	case !strings.EqualFold(t.PceID, p.pceID):
		return fmt.Errorf("pce id: got %.20q, want %q, the platform's", t.PceID, p.pceID)
	case t.TcbType != 0:
		return fmt.Errorf("tcb type: got %d, want 0", t.TcbType)
	case len(t.TcbLevels) == 0 || len(t.TcbLevels) > maxLevels || len(t.TdxModuleIdentities) > 256:
		return fmt.Errorf("got %d tcb levels and %d module identities, want 1 to %d and at most 256", len(t.TcbLevels), len(t.TdxModuleIdentities), maxLevels)
	}
	for i, l := range t.TcbLevels {
		if len(l.Tcb.SgxTcbcomponents) != 16 || len(l.Tcb.TdxTcbcomponents) != 16 || l.TcbStatus == "" {
			return fmt.Errorf("level %d: got %d SGX and %d TDX components and status %q, want 16, 16 and a status", i, len(l.Tcb.SgxTcbcomponents), len(l.Tcb.TdxTcbcomponents), l.TcbStatus)
		}
	}
	for _, m := range t.TdxModuleIdentities {
		if err := checkLevels(m.TcbLevels); err != nil {
			return fmt.Errorf("module %.20q: %w", m.ID, err)
		}
	}
	return nil
}

func checkQEIdentity(e *pcs.EnclaveIdentity) error {
	if e.ID != "TD_QE" || e.Version != 2 {
		return fmt.Errorf("got %q version %d, want \"TD_QE\" version 2", e.ID, e.Version)
	}
	return checkLevels(e.TcbLevels)
}

func checkLevels(ls []pcs.TcbLevel) error {
	if len(ls) == 0 || len(ls) > maxLevels {
		return fmt.Errorf("got %d tcb levels, want 1 to %d", len(ls), maxLevels)
	}
	for i, l := range ls {
		if l.TcbStatus == "" {
			return fmt.Errorf("level %d: no status", i)
		}
	}
	return nil
}

// crls are the two revocation lists of a PCK chain, authenticated.
type crls struct{ pck, root *x509.RevocationList }

// verifyCRLs authenticates both lists by the CAs that the quote's own chain
// names. The PCK CRL's issuer chain as served by Intel adds nothing to those;
// where it is given, it must be of the same CA.
func verifyCRLs(roots *x509.CertPool, t *attestation.TDXCollateral, p *pck) (*crls, error) {
	if len(t.PCKCRLIssuerChain) > 0 {
		certs, err := parseChain(t.PCKCRLIssuerChain, 2)
		if err == nil {
			_, err = verifyChain(roots, certs, []string{cnPlatform, cnProcessor}, []string{cnRoot})
		}
		if err == nil && !bytes.Equal(certs[0].RawSubjectPublicKeyInfo, p.chain[1].RawSubjectPublicKeyInfo) {
			err = fmt.Errorf("got the key of another CA than the pck chain's")
		}
		if err != nil {
			return nil, fmt.Errorf("pck crl: issuer chain: %w", err)
		}
	}
	leaf, err := verifyCRL(t.PCKCRL, p.chain[1])
	if err != nil {
		return nil, fmt.Errorf("pck crl: %w", err)
	}
	root, err := verifyCRL(t.RootCACRL, p.chain[2])
	if err != nil {
		return nil, fmt.Errorf("root ca crl: %w", err)
	}
	return &crls{leaf, root}, nil
}

func verifyCRL(der []byte, issuer *x509.Certificate) (*x509.RevocationList, error) {
	if len(der) > maxCRLBytes {
		return nil, fmt.Errorf("size: got %d bytes, want at most %d", len(der), maxCRLBytes)
	}
	l, err := x509.ParseRevocationList(der)
	if err != nil {
		return nil, err
	}
	if len(l.Raw) != len(der) { // the standard library reads on past the list's end
		return nil, fmt.Errorf("%d bytes after its end", len(der)-len(l.Raw))
	}
	if !bytes.Equal(l.RawIssuer, issuer.RawSubject) {
		return nil, fmt.Errorf("issuer: got %q, want %q", l.Issuer, issuer.Subject)
	}
	if err := l.CheckSignatureFrom(issuer); err != nil {
		return nil, err
	}
	for _, e := range l.Extensions {
		if e.Critical { // a delta or partial list is not the whole answer
			return nil, fmt.Errorf("critical extension %s is not known", e.Id)
		}
	}
	return l, nil
}

// revoked returns an error if the PCK, its CA or a TCB signer is on its issuer's list.
func (l *crls) revoked(p *pck, signers []*x509.Certificate) error {
	under := append([]*x509.Certificate{p.chain[1]}, signers...)
	for _, e := range l.pck.RevokedCertificateEntries {
		if e.SerialNumber.Cmp(p.chain[0].SerialNumber) == 0 {
			return fmt.Errorf("the pck was revoked at %s", e.RevocationTime.UTC().Format(time.RFC3339))
		}
	}
	for _, e := range l.root.RevokedCertificateEntries {
		for _, c := range under {
			if e.SerialNumber.Cmp(c.SerialNumber) == 0 {
				return fmt.Errorf("%s was revoked at %s", c.Subject.CommonName, e.RevocationTime.UTC().Format(time.RFC3339))
			}
		}
	}
	return nil
}
