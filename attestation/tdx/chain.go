package tdx

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/google/go-tdx-guest/pcs"
)

// Names in Intel's PCK certificate profile. They keep one branch of Intel's
// hierarchy from standing in for another.
const (
	cnRoot      = "Intel SGX Root CA"
	cnPlatform  = "Intel SGX PCK Platform CA"
	cnProcessor = "Intel SGX PCK Processor CA"
	cnPCK       = "Intel SGX PCK Certificate"
	cnTCB       = "Intel SGX TCB Signing"
)

const maxChainBytes = 16 << 10

// parseChain reads exactly n PEM certificates, leaf first, and nothing else.
func parseChain(b []byte, n int) ([]*x509.Certificate, error) {
	if len(b) > maxChainBytes {
		return nil, fmt.Errorf("size: got %d bytes, want at most %d", len(b), maxChainBytes)
	}
	b = bytes.TrimSuffix(b, []byte{0}) // Intel's library ends the string in a quote with one
	var out []*x509.Certificate
	for b = bytes.TrimSpace(b); len(b) > 0; b = bytes.TrimSpace(b) {
		if len(out) == n {
			return nil, fmt.Errorf("got more than %d certificates", n)
		}
		if !bytes.HasPrefix(b, []byte("-----BEGIN CERTIFICATE-----")) {
			return nil, fmt.Errorf("certificate %d: not PEM", len(out))
		}
		block, rest := pem.Decode(b)
		if block == nil || len(block.Headers) != 0 {
			return nil, fmt.Errorf("certificate %d: not PEM", len(out))
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", len(out), err)
		}
		out, b = append(out, c), rest
	}
	if len(out) != n {
		return nil, fmt.Errorf("got %d certificates, want %d", len(out), n)
	}
	return out, nil
}

// verifyChain proves that certs, leaf first, are signed down from a trusted
// root, whose own certificate it returns in the sender's place. names are the
// common names allowed at each place. It asks whether there was a time at
// which all were valid; whether that is now is tdx.collateral-fresh.
func verifyChain(roots *x509.CertPool, certs []*x509.Certificate, names ...[]string) ([]*x509.Certificate, error) {
	if roots == nil {
		return nil, fmt.Errorf("no trusted root")
	}
	inter := x509.NewCertPool()
	var at time.Time
	for i, c := range certs {
		if !slices.Contains(names[i], c.Subject.CommonName) {
			return nil, fmt.Errorf("certificate %d: subject: got %.60q, want one of %q", i, c.Subject.CommonName, names[i])
		}
		if _, err := p256(c); err != nil {
			return nil, fmt.Errorf("certificate %d: %w", i, err)
		}
		if i > 0 && i < len(certs)-1 {
			inter.AddCert(c)
		}
		if c.NotBefore.After(at) {
			at = c.NotBefore
		}
	}
	chains, err := certs[0].Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: inter, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return nil, err
	}
	for _, chain := range chains {
		last := len(chain) - 1
		if slices.EqualFunc(chain[:last], certs[:len(certs)-1], (*x509.Certificate).Equal) &&
			bytes.Equal(chain[last].RawSubjectPublicKeyInfo, certs[last].RawSubjectPublicKeyInfo) {
			// Nothing rests on the sender's copy of the root. It is held to be one
			// all the same, so that no bit of evidence is anybody's to change.
			if err := certs[last].CheckSignatureFrom(certs[last]); err != nil {
				return nil, fmt.Errorf("root: its copy is not signed by itself: %w", err)
			}
			return chain, nil
		}
	}
	return nil, fmt.Errorf("root: got the key %x, want a pinned one", sha256.Sum256(certs[len(certs)-1].RawSubjectPublicKeyInfo))
}

// p256 returns a certificate's key if both it and the signature on it are
// ECDSA over P-256 and SHA-256, as the profile has them.
func p256(c *x509.Certificate) (*ecdsa.PublicKey, error) {
	key, ok := c.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() || c.SignatureAlgorithm != x509.ECDSAWithSHA256 {
		return nil, fmt.Errorf("key: got %s signed with %s, want P-256 signed with ECDSA-SHA256", c.PublicKeyAlgorithm, c.SignatureAlgorithm)
	}
	return key, nil
}

// verifyRaw checks a 64-byte r‖s signature over SHA-256 of message.
func verifyRaw(key *ecdsa.PublicKey, message []byte, sig []byte) error {
	if len(sig) != 64 {
		return fmt.Errorf("signature: got %d bytes, want 64", len(sig))
	}
	sum := sha256.Sum256(message)
	if !ecdsa.Verify(key, sum[:], new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:])) {
		return fmt.Errorf("signature does not verify")
	}
	return nil
}

// pck is a platform's certified identity.
type pck struct {
	chain  []*x509.Certificate // PCK, its CA, the trusted root
	key    *ecdsa.PublicKey
	ppid   []byte // 16 bytes: names the machine
	fmspc  string // hex
	pceID  string // hex
	cpuSVN []byte // the 16 SGX TCB components
	pceSVN uint16
}

// verifyPCK authenticates the chain in a quote, and reads the SGX extension.
func verifyPCK(roots *x509.CertPool, chainPEM []byte) (*pck, error) {
	certs, err := parseChain(chainPEM, 3)
	if err != nil {
		return nil, fmt.Errorf("pck chain: %w", err)
	}
	chain, err := verifyChain(roots, certs, []string{cnPCK}, []string{cnPlatform, cnProcessor}, []string{cnRoot})
	if err != nil {
		return nil, fmt.Errorf("pck chain: %w", err)
	}
	if chain[0].IsCA {
		return nil, fmt.Errorf("pck: basic constraints: got a CA, want a leaf")
	}
	ext, err := pcs.PckCertificateExtensions(chain[0])
	if err != nil {
		return nil, fmt.Errorf("pck: sgx extension: %w", err)
	}
	p := &pck{chain: chain, fmspc: ext.FMSPC, pceID: ext.PCEID, cpuSVN: ext.TCB.CPUSvnComponents, pceSVN: ext.TCB.PCESvn}
	if p.key, err = p256(chain[0]); err != nil {
		return nil, fmt.Errorf("pck: %w", err)
	}
	// The PPID stands in the certificate in the clear; all zeros would name nobody.
	if p.ppid, err = hex.DecodeString(ext.PPID); err != nil || len(p.ppid) != 16 || strings.Trim(ext.PPID, "0") == "" {
		return nil, fmt.Errorf("pck: sgx extension: ppid: got %q, want 16 bytes that are not all zero", ext.PPID)
	}
	if len(p.fmspc) != 12 || len(p.pceID) != 4 || len(p.cpuSVN) != 16 {
		return nil, fmt.Errorf("pck: sgx extension: got fmspc %q, pceid %q and %d tcb components, want 6 bytes, 2 bytes and 16", p.fmspc, p.pceID, len(p.cpuSVN))
	}
	return p, nil
}

// verifySignatures proves that the attestation key signed the quote, and that
// a quoting enclave on the PCK's platform vouches for that key.
func (q *quote) verifySignatures(p *pck) error {
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), append([]byte{4}, q.key[:]...))
	if err != nil {
		return fmt.Errorf("attestation key: %w", err)
	}
	if err := verifyRaw(key, q.signed, q.signature[:]); err != nil {
		return fmt.Errorf("quote: %w", err)
	}
	if err := verifyRaw(p.key, q.qe.raw, q.qeSignature[:]); err != nil {
		return fmt.Errorf("qe report: %w", err)
	}
	sum := sha256.Sum256(append(q.key[:], q.qeAuth...))
	if want := [64]byte(append(sum[:], make([]byte, 32)...)); q.qe.reportData != want {
		return fmt.Errorf("qe report: report data: got %x, want %x: it vouches for another key", q.qe.reportData, want)
	}
	return nil
}
