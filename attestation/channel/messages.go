package channel

import (
	"fmt"

	"cocoon/attestation"
	"cocoon/attestation/canonical"
)

// Bounds of messages, in bytes.
const (
	MaxVoucherBytes = 1 << 10
	MaxOpenBody     = MaxFrameData - 4<<10 // the part of a body that goes with FrameOpen
	maxTextBytes    = 4 << 10
)

// OpenRequest is FrameOpen's data.
type OpenRequest struct {
	Endpoint  string   `cbor:"endpoint"` // below /v1: "chat/completions"
	Voucher   []byte   `cbor:"voucher"`  // a signed voucher's binary form
	LogID     [32]byte `cbor:"log_id"`   // with Count, what the voucher's head is over
	Count     uint64   `cbor:"count"`
	BlindKey  [32]byte `cbor:"blind_key"`  // of the receipt's commitments
	CacheSalt [32]byte `cbor:"cache_salt"` // random per API key
	Shape     Shape    `cbor:"shape"`
	Body      []byte   `cbor:"body"`      // the OpenAI JSON, or its first part
	BodyDone  bool     `cbor:"body_done"` // no FrameBody follows
}

// ParseOpenRequest reads canonical CBOR. Body and Voucher are its own copies.
func ParseOpenRequest(b []byte) (OpenRequest, error) {
	var r OpenRequest
	if err := canonical.Unmarshal("open request", b, MaxFrameData, &r); err != nil {
		return OpenRequest{}, err
	}
	switch {
	case len(r.Endpoint) == 0 || len(r.Endpoint) > 64:
		return OpenRequest{}, fmt.Errorf("open request: endpoint: got %d bytes, want 1 to 64", len(r.Endpoint))
	case len(r.Voucher) > MaxVoucherBytes:
		return OpenRequest{}, fmt.Errorf("open request: voucher: got %d bytes, want at most %d", len(r.Voucher), MaxVoucherBytes)
	case !r.Shape.valid():
		return OpenRequest{}, fmt.Errorf("open request: shape: got %d, want 0 or 1", r.Shape)
	}
	return r, nil
}

// Encode returns canonical CBOR.
func (r OpenRequest) Encode() []byte { return canonical.MustMarshal(r) }

// VoucherUpdate is FrameVoucher's data.
type VoucherUpdate struct {
	Voucher []byte   `cbor:"voucher"`
	LogID   [32]byte `cbor:"log_id"`
	Count   uint64   `cbor:"count"`
}

// ParseVoucherUpdate reads canonical CBOR.
func ParseVoucherUpdate(b []byte) (VoucherUpdate, error) {
	var u VoucherUpdate
	if err := canonical.Unmarshal("voucher update", b, MaxVoucherBytes+256, &u); err != nil {
		return VoucherUpdate{}, err
	}
	if len(u.Voucher) > MaxVoucherBytes {
		return VoucherUpdate{}, fmt.Errorf("voucher update: voucher: got %d bytes, want at most %d", len(u.Voucher), MaxVoucherBytes)
	}
	return u, nil
}

// Encode returns canonical CBOR.
func (u VoucherUpdate) Encode() []byte { return canonical.MustMarshal(u) }

// Hello is FrameHello's data: where the worker stands with this channel.
type Hello struct {
	Highest []byte `cbor:"highest"` // the highest voucher it holds, binary; empty if none
	Base    []byte `cbor:"base"`    // the voucher it counts as spent at boot, binary; empty if none
	// BasePaid is what it counts as spent at boot where Base is empty, in
	// nano-coins: what the chain had paid. It is 0 where Base is not empty.
	BasePaid uint64 `cbor:"base_paid"`
	Settled  uint64 `cbor:"settled"` // nano-coins of the channel's receipts in this log
	Count    uint64 `cbor:"count"`   // of those receipts
}

// ParseHello reads canonical CBOR.
func ParseHello(b []byte) (Hello, error) {
	var h Hello
	if err := canonical.Unmarshal("hello", b, 2*MaxVoucherBytes+256, &h); err != nil {
		return Hello{}, err
	}
	if len(h.Highest) > MaxVoucherBytes || len(h.Base) > MaxVoucherBytes {
		return Hello{}, fmt.Errorf("hello: vouchers: got %d and %d bytes, want at most %d", len(h.Highest), len(h.Base), MaxVoucherBytes)
	}
	if len(h.Base) > 0 && h.BasePaid != 0 {
		return Hello{}, fmt.Errorf("hello: base_paid: got %d beside a base voucher, want 0", h.BasePaid)
	}
	return h, nil
}

// Encode returns canonical CBOR.
func (h Hello) Encode() []byte { return canonical.MustMarshal(h) }

// JobError is FrameError's data, in the shape of an OpenAI error object.
type JobError struct {
	Status  int    `cbor:"status"` // HTTP status, 400 to 599
	Type    string `cbor:"type"`
	Code    string `cbor:"code"`
	Param   string `cbor:"param"`
	Message string `cbor:"message"` // never quotes the prompt
}

func (e *JobError) Error() string {
	return fmt.Sprintf("worker: %d %s: %s", e.Status, e.Code, e.Message)
}

// ParseJobError reads canonical CBOR.
func ParseJobError(b []byte) (JobError, error) {
	var e JobError
	if err := canonical.Unmarshal("job error", b, 4*maxTextBytes, &e); err != nil {
		return JobError{}, err
	}
	if e.Status < 400 || e.Status > 599 {
		return JobError{}, fmt.Errorf("job error: status: got %d, want 400 to 599", e.Status)
	}
	return e, nil
}

// Encode returns canonical CBOR.
func (e JobError) Encode() []byte { return canonical.MustMarshal(e) }

// FreshMessage is what a channel's client key signs to ask for a quote over its
// own nonce: "cocoon/fresh/v1" ‖ EKM ‖ nonce ‖ channel (DESIGN section 3).
func FreshMessage(ekm, nonce [32]byte, channel attestation.Address) []byte {
	return join("cocoon/fresh/v1", ekm[:], nonce[:], channel[:])
}

// ReceiptsMessage is what a channel's client key signs to ask for its receipts:
// "cocoon/receipts/v1" ‖ EKM ‖ channel.
func ReceiptsMessage(ekm [32]byte, channel attestation.Address) []byte {
	return join("cocoon/receipts/v1", ekm[:], channel[:])
}

func join(domain string, parts ...[]byte) []byte {
	b := []byte(domain)
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}
