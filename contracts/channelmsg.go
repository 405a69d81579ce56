package contracts

import (
	"fmt"

	"github.com/xssnick/tonutils-go/tvm/cell"
)

const (
	opTopUp       = 0x43430001
	opRedeem      = 0x43430002
	opStartClose  = 0x43430003
	opFinishClose = 0x43430004
	opRelease     = 0x43430005
	opRedeemed    = 0x43430081
)

// TopUpBody deposits what its message carries, from anyone, while no close was started; afterwards it bounces.
// An empty body does the same, so a plain transfer is a deposit too.
func TopUpBody() *cell.Cell { return bareOp(opTopUp) }

// StartCloseBody starts the close window. Only the client may.
func StartCloseBody() *cell.Cell { return bareOp(opStartClose) }

// FinishCloseBody closes the channel once the window has passed, for anyone. What is above the reserve goes to
// the client.
func FinishCloseBody() *cell.Cell { return bareOp(opFinishClose) }

// ReleaseBody closes the channel at once. Only the payout address may.
func ReleaseBody() *cell.Cell { return bareOp(opRelease) }

func bareOp(op uint64) *cell.Cell { return cell.BeginCell().MustStoreUInt(op, 32).EndCell() }

// RedeemBody asks the channel to pay a voucher. Send it from the payout or the redeemer address, bounceable,
// with RedeemFee attached; what the chain does not use goes to the payout address.
func RedeemBody(s SignedVoucher) (*cell.Cell, error) {
	v, err := s.Voucher.Cell()
	if err != nil {
		return nil, err
	}
	return cell.BeginCell().
		MustStoreUInt(opRedeem, 32).
		MustStoreSlice(s.Signature[:], 512).
		MustStoreRef(v).
		EndCell(), nil
}

// ParseRedeem reads a redeem message's body. It does not verify the signature.
func ParseRedeem(body *cell.Cell) (SignedVoucher, error) {
	var s SignedVoucher
	if err := ordinary(body, 2); err != nil {
		return s, fmt.Errorf("redeem: %w", err)
	}
	r := read(body)
	r.op(opRedeem, 32)
	if r.err == nil {
		sig, err := r.s.LoadSlice(512)
		r.fail("signature", err)
		copy(s.Signature[:], sig)
	}
	v := r.ref("voucher")
	if err := r.end(); err != nil {
		return s, fmt.Errorf("redeem: %w", err)
	}
	var err error
	s.Voucher, err = ParseVoucher(v)
	return s, err
}

// Redeemed is the external log message that a channel emits for each redeem. With the head it anchors the
// worker's log; the amount moved is Paid less the Paid before it.
type Redeemed struct {
	Cumulative   uint64   // nano, the voucher's
	Paid         uint64   // nano, the channel's afterwards; below Cumulative when the deposit did not reach
	ReceiptsHead [32]byte // the voucher's
}

// Cell is the log message's body (Redeemed in schema.tlb).
func (e Redeemed) Cell() *cell.Cell {
	return cell.BeginCell().
		MustStoreUInt(opRedeemed, 32).
		MustStoreCoins(e.Cumulative).
		MustStoreCoins(e.Paid).
		MustStoreSlice(e.ReceiptsHead[:], 256).
		EndCell()
}

// ParseRedeemed reads the body of an external log message. That the channel sent it, the caller has from the
// proven transaction it stands in.
func ParseRedeemed(body *cell.Cell) (Redeemed, error) {
	var e Redeemed
	if err := ordinary(body, 1); err != nil {
		return e, fmt.Errorf("redeemed: %w", err)
	}
	r := read(body)
	r.op(opRedeemed, 32)
	e.Cumulative = r.coins("cumulative")
	e.Paid = r.coins("paid")
	e.ReceiptsHead = r.bytes32("receipts head")
	if err := r.end(); err != nil {
		return e, fmt.Errorf("redeemed: %w", err)
	}
	if e.Paid > e.Cumulative {
		return e, fmt.Errorf("redeemed: paid: got %d, want at most the cumulative %d", e.Paid, e.Cumulative)
	}
	if err := same(body, e.Cell(), nil); err != nil {
		return e, fmt.Errorf("redeemed: %w", err)
	}
	return e, nil
}
