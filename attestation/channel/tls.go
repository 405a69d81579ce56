package channel

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// ekmLabel is the TLS exporter label (DESIGN section 3); the context is empty.
const ekmLabel = "EXPORTER-cocoon-v1"

// ServerTLS is the worker's TLS configuration: 1.3, group X25519MLKEM768 only,
// no tickets and so no resumption or 0-RTT, ALPN h2.
func ServerTLS(cert tls.Certificate) *tls.Config {
	c := baseTLS()
	c.Certificates = []tls.Certificate{cert}
	return c
}

// ClientTLS is the client's. The handshake proves that the peer holds its
// certificate's key and nothing else about it: trust comes from Open, which
// compares that key with the attested one. It must not be used without Open.
func ClientTLS() *tls.Config {
	c := baseTLS()
	c.InsecureSkipVerify = true
	return c
}

func baseTLS() *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		MaxVersion:             tls.VersionTLS13,
		CurvePreferences:       []tls.CurveID{tls.X25519MLKEM768},
		SessionTicketsDisabled: true,
		NextProtos:             []string{"h2"},
		VerifyConnection:       checkState,
	}
}

// checkState refuses a handshake that the configuration should have made impossible.
func checkState(cs tls.ConnectionState) error {
	switch {
	case cs.Version != tls.VersionTLS13:
		return fmt.Errorf("tls: version: got %s, want TLS 1.3", tls.VersionName(cs.Version))
	case cs.CurveID != tls.X25519MLKEM768:
		return fmt.Errorf("tls: group: got %s, want X25519MLKEM768", cs.CurveID)
	case cs.DidResume:
		return errors.New("tls: resumed session")
	case cs.NegotiatedProtocol != "h2":
		return fmt.Errorf("tls: protocol: got %q, want \"h2\"", cs.NegotiatedProtocol)
	}
	return nil
}

// EKM is the connection's exporter value, which both ends compute alike and no
// relay can bring about on two connections.
func EKM(cs tls.ConnectionState) ([32]byte, error) {
	if !cs.HandshakeComplete {
		return [32]byte{}, errors.New("tls: handshake is not complete")
	}
	if err := checkState(cs); err != nil {
		return [32]byte{}, err
	}
	b, err := cs.ExportKeyingMaterial(ekmLabel, nil, 32)
	if err != nil {
		return [32]byte{}, fmt.Errorf("tls: exporter: %w", err)
	}
	return [32]byte(b), nil
}

// SPKI is SHA-256 of the peer's SubjectPublicKeyInfo: the key it proved to hold.
func SPKI(cs tls.ConnectionState) ([32]byte, error) {
	if len(cs.PeerCertificates) == 0 {
		return [32]byte{}, errors.New("tls: the peer sent no certificate")
	}
	return sha256.Sum256(cs.PeerCertificates[0].RawSubjectPublicKeyInfo), nil
}

// NewCertificate makes a TLS key (ECDSA P-256) and a self-signed certificate
// around it, and returns the keyset's tls_spki_sha256 of it. Clients look at
// the key alone. Randomness is the process's.
func NewCertificate(notBefore, notAfter time.Time) (tls.Certificate, [32]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, [32]byte{}, fmt.Errorf("tls key: %w", err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "cocoon worker"},
		NotBefore:    notBefore,
		NotAfter:     notAfter,
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, [32]byte{}, fmt.Errorf("tls certificate: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return tls.Certificate{}, [32]byte{}, fmt.Errorf("tls certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, sha256.Sum256(leaf.RawSubjectPublicKeyInfo), nil
}
