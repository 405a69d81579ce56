package api

import (
	"fmt"

	"cocoon/attestation"
	"cocoon/attestation/canonical"
	"cocoon/attestation/channel"
)

// Bounds of messages, in bytes but for MaxReceipts.
const (
	MaxRequestBytes  = channel.MaxOpenBytes + 4<<10 // anything that a worker receives
	MaxResponseBytes = attestation.MaxBundleBytes + 1<<20
	MaxReceipts      = 1000
	MaxReceiptBytes  = 4 << 10

	maxControlBytes = 4 << 10 // a request other than Run's
)

// AttestRequest asks for the evidence and for the session's signature.
type AttestRequest struct {
	Nonce     [32]byte            `cbor:"nonce"` // random
	Fresh     bool                `cbor:"fresh"` // a new quote over Nonce; costs up to a second
	Channel   attestation.Address `cbor:"channel"`
	Signature [64]byte            `cbor:"signature"` // over channel.FreshMessage; zeros unless Fresh
}

// AttestResponse is the bundle and the signature over attestation.SessionMessage.
type AttestResponse struct {
	Bundle    []byte   `cbor:"bundle"`
	Signature [64]byte `cbor:"signature"`
}

// ReceiptsRequest asks for a channel's receipts in one log, from an index on.
type ReceiptsRequest struct {
	Channel   attestation.Address `cbor:"channel"`
	LogID     [32]byte            `cbor:"log_id"` // zeros: the current log
	From      uint64              `cbor:"from"`
	Signature [64]byte            `cbor:"signature"` // over channel.ReceiptsMessage
}

// ReceiptsResponse is where the worker stands with a channel, and at most
// MaxReceipts of its receipts (COSE_Sign1), from the index asked for.
type ReceiptsResponse struct {
	LogID    [32]byte `cbor:"log_id"`
	Base     []byte   `cbor:"base"`      // the voucher counted as spent at boot, binary; empty if none
	BasePaid uint64   `cbor:"base_paid"` // nano-coins counted as spent at boot where Base is empty (channel.Hello)
	Highest  []byte   `cbor:"highest"`   // the highest voucher held, binary; empty if none
	Settled  uint64   `cbor:"settled"`   // nano-coins of all the channel's receipts in the log
	Count    uint64   `cbor:"count"`     // of those receipts
	Receipts [][]byte `cbor:"receipts"`
}

// EvidenceRequest asks for a bundle by its digest.
type EvidenceRequest struct {
	Digest [32]byte `cbor:"digest"`
}

// EvidenceResponse is that bundle.
type EvidenceResponse struct {
	Bundle []byte `cbor:"bundle"`
}

// message is a request or response as it travels: canonical CBOR.
type message interface{ decode([]byte) error }

func (m *AttestRequest) decode(b []byte) error {
	return canonical.Unmarshal("attest request", b, maxControlBytes, m)
}

func (m *AttestResponse) decode(b []byte) error {
	return canonical.Unmarshal("attest response", b, MaxResponseBytes, m)
}

func (m *ReceiptsRequest) decode(b []byte) error {
	return canonical.Unmarshal("receipts request", b, maxControlBytes, m)
}

func (m *EvidenceRequest) decode(b []byte) error {
	return canonical.Unmarshal("evidence request", b, maxControlBytes, m)
}

func (m *EvidenceResponse) decode(b []byte) error {
	return canonical.Unmarshal("evidence response", b, MaxResponseBytes, m)
}

func (m *ReceiptsResponse) decode(b []byte) error {
	if err := canonical.Unmarshal("receipts response", b, MaxResponseBytes, m); err != nil {
		return err
	}
	if len(m.Receipts) > MaxReceipts {
		return fmt.Errorf("receipts response: receipts: got %d, want at most %d", len(m.Receipts), MaxReceipts)
	}
	if len(m.Base) > channel.MaxVoucherBytes || len(m.Highest) > channel.MaxVoucherBytes {
		return fmt.Errorf("receipts response: vouchers: got %d and %d bytes, want at most %d", len(m.Base), len(m.Highest), channel.MaxVoucherBytes)
	}
	if len(m.Base) > 0 && m.BasePaid != 0 {
		return fmt.Errorf("receipts response: base_paid: got %d beside a base voucher, want 0", m.BasePaid)
	}
	for i, r := range m.Receipts {
		if len(r) > MaxReceiptBytes {
			return fmt.Errorf("receipts response: receipt %d: got %d bytes, want at most %d", i, len(r), MaxReceiptBytes)
		}
	}
	return nil
}
