package auditlog

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/veraison/go-cose"

	"cocoon/attestation/canonical"
)

// ReceiptContentType is the content type in a receipt's protected header.
const ReceiptContentType = "application/vnd.cocoon.receipt.v1+cbor"

// ErrReceiptSignature is a receipt that the given key did not sign.
var ErrReceiptSignature = errors.New("receipt: signature does not verify under the attested key")

// SignReceipt checks r's fields and signs it with an epoch's Ed25519 key. The
// result is a tagged COSE_Sign1 (RFC 9052) whose protected header is exactly
// {alg: EdDSA, content type, kid: keyset digest} and whose unprotected header
// is empty.
func SignReceipt(key crypto.Signer, r Receipt) ([]byte, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	if _, ok := key.Public().(ed25519.PublicKey); !ok {
		return nil, fmt.Errorf("receipt: key: got %T, want Ed25519", key.Public())
	}
	s, err := cose.NewSigner(cose.AlgorithmEdDSA, key)
	if err != nil {
		return nil, fmt.Errorf("receipt: %w", err)
	}
	headers := cose.Headers{
		Protected: cose.ProtectedHeader{
			cose.HeaderLabelAlgorithm:   cose.AlgorithmEdDSA,
			cose.HeaderLabelContentType: ReceiptContentType,
			cose.HeaderLabelKeyID:       r.KeysetDigest[:],
		},
		Unprotected: cose.UnprotectedHeader{},
	}
	out, err := cose.Sign1(nil, s, headers, canonical.MustMarshal(r), nil)
	if err != nil {
		return nil, fmt.Errorf("receipt: %w", err)
	}
	if len(out) > MaxReceiptBytes {
		return nil, fmt.Errorf("receipt: size: got %d bytes, want at most %d", len(out), MaxReceiptBytes)
	}
	return out, nil
}

// A receipt's envelope has one spelling, so it is read by comparing bytes
// rather than through maps: an auditor reads millions.
const (
	envelopeTag = "\xd2\x84" // COSE_Sign1, an array of four
	// the protected header: a byte string of {1: -8, 3: content type, 4: 32 bytes}
	envelopeHeader = "\x58\x4f\xa3\x01\x27\x03\x78\x26" + ReceiptContentType + "\x04\x58\x20"
	// and behind it, an empty unprotected header
	envelopeUnprotected = "\xa0"
	signatureHead       = "\x58\x40"
)

// envelope is a receipt taken apart. Its slices are of the receipt.
type envelope struct {
	protected []byte // as a CBOR byte string
	keyset    [32]byte
	payload   []byte
	signature []byte
}

// openEnvelope takes a receipt apart. It accepts the one spelling only.
func openEnvelope(raw []byte) (envelope, error) {
	var e envelope
	if len(raw) > MaxReceiptBytes {
		return e, fmt.Errorf("receipt: size: got %d bytes, want at most %d", len(raw), MaxReceiptBytes)
	}
	rest, ok := bytes.CutPrefix(raw, []byte(envelopeTag))
	if !ok {
		return e, errors.New("receipt: not a tagged COSE_Sign1")
	}
	head := rest
	if rest, ok = bytes.CutPrefix(rest, []byte(envelopeHeader)); !ok || len(rest) < 32 {
		return e, errors.New("receipt: protected header: want exactly alg EdDSA, the content type and a keyset digest")
	}
	e.protected, e.keyset, rest = head[:len(envelopeHeader)+32], [32]byte(rest), rest[32:]
	if rest, ok = bytes.CutPrefix(rest, []byte(envelopeUnprotected)); !ok {
		return e, errors.New("receipt: unprotected header: want it empty")
	}
	// A payload of 256 bytes or more has a two-byte length; a receipt is longer than that.
	if len(rest) < 3 || rest[0] != 0x59 || rest[1] == 0 {
		return e, errors.New("receipt: payload: want a byte string of 256 bytes or more")
	}
	n := int(binary.BigEndian.Uint16(rest[1:]))
	if rest = rest[3:]; len(rest) < n {
		return e, fmt.Errorf("receipt: payload: got %d bytes, want %d", len(rest), n)
	}
	e.payload, rest = rest[:n], rest[n:]
	if e.signature, ok = bytes.CutPrefix(rest, []byte(signatureHead)); !ok || len(e.signature) != ed25519.SignatureSize {
		return e, fmt.Errorf("receipt: signature: got %d bytes with its length, want %d", len(rest), len(signatureHead)+ed25519.SignatureSize)
	}
	return e, nil
}

// verify verifies the signature over the Sig_structure (RFC 9052 section 4.4).
func (e *envelope) verify(key [32]byte) error {
	m := make([]byte, 0, len(e.protected)+len(e.payload)+32)
	m = append(m, "\x84\x6aSignature1"...)
	m = append(m, e.protected...)
	m = append(m, 0x40, 0x59) // no external data; then the payload's length
	m = binary.BigEndian.AppendUint16(m, uint16(len(e.payload)))
	m = append(m, e.payload...)
	if !ed25519.Verify(key[:], m, e.signature) {
		return ErrReceiptSignature
	}
	return nil
}

// ParseReceipt reads a receipt and does not verify its signature. It refuses
// any encoding other than the one SignReceipt writes.
func ParseReceipt(raw []byte) (Receipt, error) {
	_, r, err := parseReceipt(raw)
	r.Checkpoint = bytes.Clone(r.Checkpoint)
	return r, err
}

// parseReceipt returns parts of raw.
func parseReceipt(raw []byte) (envelope, Receipt, error) {
	e, err := openEnvelope(raw)
	if err != nil {
		return e, Receipt{}, err
	}
	r, err := parsePayload(e.payload)
	if err != nil {
		return e, Receipt{}, err
	}
	if r.KeysetDigest != e.keyset {
		return e, Receipt{}, fmt.Errorf("receipt: keyset_digest: got %x, the header names %x", r.KeysetDigest, e.keyset)
	}
	return e, r, nil
}

// VerifyReceipt reads a receipt and verifies it under an attested signing key.
// It returns ErrReceiptSignature if another key signed.
func VerifyReceipt(raw []byte, key [32]byte) (Receipt, error) {
	e, r, err := parseReceipt(raw)
	if err != nil {
		return Receipt{}, err
	}
	if err := e.verify(key); err != nil {
		return Receipt{}, err
	}
	r.Checkpoint = bytes.Clone(r.Checkpoint)
	return r, nil
}

// ReceiptDigest is the receipt's name in the log: SHA-256 of its COSE bytes.
func ReceiptDigest(raw []byte) [32]byte { return sha256.Sum256(raw) }
