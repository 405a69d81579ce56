package contracts

import (
	"crypto/ed25519"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/xssnick/tonutils-go/tvm/cell"

	"cocoon/attestation"
)

const opVoucher = 0x43435631 // "CCV1"

// ErrVoucherSignature is a voucher that the client's key did not sign.
var ErrVoucherSignature = errors.New("voucher: signature does not verify under the client key")

// VoucherMismatchError is a well-signed voucher for something else: another network or another channel.
type VoucherMismatchError struct {
	Field     string
	Got, Want string
}

func (e *VoucherMismatchError) Error() string {
	return fmt.Sprintf("voucher: %s: got %s, want %s", e.Field, e.Got, e.Want)
}

// Voucher is the client's promise of a total. A later one replaces an earlier one only by being larger.
type Voucher struct {
	GlobalID     int32 // the network's (config parameter 19), so that a test voucher is worth nothing elsewhere
	Channel      attestation.Address
	Cumulative   uint64   // nano, over the channel's life
	ReceiptsHead [32]byte // the receipts it pays for (DESIGN section 5)
}

// Cell is the voucher as the channel reads it (Voucher in schema.tlb).
func (v Voucher) Cell() (*cell.Cell, error) {
	b := cell.BeginCell()
	for _, err := range []error{
		b.StoreUInt(opVoucher, 32),
		b.StoreInt(int64(v.GlobalID), 32),
		storeAddress(b, "channel", v.Channel),
		b.StoreCoins(v.Cumulative),
		b.StoreSlice(v.ReceiptsHead[:], 256),
	} {
		if err != nil {
			return nil, fmt.Errorf("voucher: %w", err)
		}
	}
	return b.EndCell(), nil
}

// Hash is what the client signs: the cell's representation hash.
func (v Voucher) Hash() ([32]byte, error) {
	c, err := v.Cell()
	if err != nil {
		return [32]byte{}, err
	}
	return [32]byte(c.Hash()), nil
}

// ParseVoucher reads a voucher cell.
func ParseVoucher(c *cell.Cell) (Voucher, error) {
	var v Voucher
	if err := ordinary(c, 1); err != nil {
		return v, fmt.Errorf("voucher: %w", err)
	}
	r := read(c)
	r.op(opVoucher, 32)
	v.GlobalID = int32(uint32(r.uint("global id", 32)))
	v.Channel = r.address("channel")
	v.Cumulative = r.coins("cumulative")
	v.ReceiptsHead = r.bytes32("receipts head")
	if err := r.end(); err != nil {
		return v, fmt.Errorf("voucher: %w", err)
	}
	built, err := v.Cell()
	if err := same(c, built, err); err != nil {
		return v, fmt.Errorf("voucher: %w", err)
	}
	return v, nil
}

// SignedVoucher is a voucher and the Ed25519 signature over its hash.
type SignedVoucher struct {
	Voucher   Voucher
	Signature [64]byte
}

// SignVoucher signs v with the channel's client key.
func SignVoucher(key ed25519.PrivateKey, v Voucher) (SignedVoucher, error) {
	if len(key) != ed25519.PrivateKeySize {
		return SignedVoucher{}, fmt.Errorf("voucher: client key: got %d bytes, want %d", len(key), ed25519.PrivateKeySize)
	}
	h, err := v.Hash()
	if err != nil {
		return SignedVoucher{}, err
	}
	return SignedVoucher{Voucher: v, Signature: [64]byte(ed25519.Sign(key, h[:]))}, nil
}

// Verify says whether the channel would take the voucher, were its cumulative amount above what was paid. It
// returns a *VoucherMismatchError for another network or channel, ErrUnsoundKey, or ErrVoucherSignature.
func (s SignedVoucher) Verify(clientKey [32]byte, globalID int32, channel attestation.Address) error {
	if s.Voucher.GlobalID != globalID {
		return &VoucherMismatchError{"global id", fmt.Sprint(s.Voucher.GlobalID), fmt.Sprint(globalID)}
	}
	if s.Voucher.Channel != channel {
		return &VoucherMismatchError{"channel", s.Voucher.Channel.String(), channel.String()}
	}
	if err := CheckClientKey(clientKey); err != nil {
		return fmt.Errorf("voucher: %w", err)
	}
	h, err := s.Voucher.Hash()
	if err != nil {
		return err
	}
	if !ed25519.Verify(clientKey[:], h[:], s.Signature[:]) {
		return fmt.Errorf("%w %s", ErrVoucherSignature, hex.EncodeToString(clientKey[:]))
	}
	return nil
}

// SignedVoucherSize is the length of a signed voucher's binary form.
const SignedVoucherSize = 4 + 36 + 8 + 32 + 64

// MarshalBinary lays out i32 global id ‖ channel (i32 workchain ‖ 32 bytes) ‖ u64 cumulative ‖ receipts head ‖
// signature, all big-endian. It never fails. Another layout will have another length.
func (s SignedVoucher) MarshalBinary() ([]byte, error) {
	b := make([]byte, 0, SignedVoucherSize)
	b = binary.BigEndian.AppendUint32(b, uint32(s.Voucher.GlobalID))
	b = append(b, s.Voucher.Channel[:]...)
	b = binary.BigEndian.AppendUint64(b, s.Voucher.Cumulative)
	b = append(b, s.Voucher.ReceiptsHead[:]...)
	return append(b, s.Signature[:]...), nil
}

// UnmarshalBinary reads exactly SignedVoucherSize bytes. It does not verify the signature.
func (s *SignedVoucher) UnmarshalBinary(b []byte) error {
	if len(b) != SignedVoucherSize {
		return fmt.Errorf("voucher: got %d bytes, want %d", len(b), SignedVoucherSize)
	}
	v := SignedVoucher{
		Voucher: Voucher{
			GlobalID:     int32(binary.BigEndian.Uint32(b)),
			Channel:      attestation.Address(b[4:40]),
			Cumulative:   binary.BigEndian.Uint64(b[40:48]),
			ReceiptsHead: [32]byte(b[48:80]),
		},
		Signature: [64]byte(b[80:]),
	}
	if _, err := v.Voucher.Cell(); err != nil {
		return err
	}
	*s = v
	return nil
}
