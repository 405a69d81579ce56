package auditlog

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/sha256"
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
	out, err := cose.Sign1(nil, s, receiptHeaders(r.KeysetDigest), canonical.MustMarshal(r), nil)
	if err != nil {
		return nil, fmt.Errorf("receipt: %w", err)
	}
	if len(out) > MaxReceiptBytes {
		return nil, fmt.Errorf("receipt: size: got %d bytes, want at most %d", len(out), MaxReceiptBytes)
	}
	return out, nil
}

func receiptHeaders(keyset [32]byte) cose.Headers {
	return cose.Headers{
		Protected: cose.ProtectedHeader{
			cose.HeaderLabelAlgorithm:   cose.AlgorithmEdDSA,
			cose.HeaderLabelContentType: ReceiptContentType,
			cose.HeaderLabelKeyID:       keyset[:],
		},
		Unprotected: cose.UnprotectedHeader{},
	}
}

// ParseReceipt reads a receipt and does not verify its signature. It refuses
// any encoding other than the one SignReceipt writes.
func ParseReceipt(raw []byte) (Receipt, error) {
	_, r, err := parseReceipt(raw)
	return r, err
}

func parseReceipt(raw []byte) (*cose.Sign1Message, Receipt, error) {
	if len(raw) > MaxReceiptBytes {
		return nil, Receipt{}, fmt.Errorf("receipt: size: got %d bytes, want at most %d", len(raw), MaxReceiptBytes)
	}
	var m cose.Sign1Message
	if err := m.UnmarshalCBOR(raw); err != nil {
		return nil, Receipt{}, fmt.Errorf("receipt: %w", err)
	}
	r, err := parsePayload(m.Payload)
	if err != nil {
		return nil, Receipt{}, err
	}
	if len(m.Signature) != ed25519.SignatureSize {
		return nil, Receipt{}, fmt.Errorf("receipt: signature: got %d bytes, want %d", len(m.Signature), ed25519.SignatureSize)
	}
	want := cose.Sign1Message{Headers: receiptHeaders(r.KeysetDigest), Payload: m.Payload, Signature: m.Signature}
	again, err := want.MarshalCBOR()
	if err != nil {
		return nil, Receipt{}, fmt.Errorf("receipt: %w", err)
	}
	if !bytes.Equal(again, raw) {
		return nil, Receipt{}, fmt.Errorf("receipt: header: not exactly alg EdDSA, content type and the payload's keyset digest: %w", canonical.ErrNotCanonical)
	}
	return &want, r, nil
}

// VerifyReceipt reads a receipt and verifies it under an attested signing key.
// It returns ErrReceiptSignature if another key signed.
func VerifyReceipt(raw []byte, key [32]byte) (Receipt, error) {
	m, r, err := parseReceipt(raw)
	if err != nil {
		return Receipt{}, err
	}
	if err := verifyParsed(m, key); err != nil {
		return Receipt{}, err
	}
	return r, nil
}

func verifyParsed(m *cose.Sign1Message, key [32]byte) error {
	v, err := cose.NewVerifier(cose.AlgorithmEdDSA, ed25519.PublicKey(key[:]))
	if err != nil {
		return fmt.Errorf("receipt: %w", err)
	}
	if err := m.Verify(nil, v); err != nil {
		return fmt.Errorf("%w: %w", ErrReceiptSignature, err)
	}
	return nil
}

// ReceiptDigest is the receipt's name in the log: SHA-256 of its COSE bytes.
func ReceiptDigest(raw []byte) [32]byte { return sha256.Sum256(raw) }
