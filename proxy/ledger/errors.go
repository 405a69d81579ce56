package ledger

import (
	"errors"
	"fmt"
	"math"

	"cocoon/attestation"
)

// maxAmount is the largest amount the file holds, in nano: SQLite's integers are signed.
const maxAmount = math.MaxInt64

// ErrForeignVoucher is a voucher that a worker shows as this client's and that
// this channel's key did not sign.
var ErrForeignVoucher = errors.New("voucher: not signed by this client")

// ErrLogEnded says that the worker has since begun another log: it restarted.
var ErrLogEnded = errors.New("the worker's log has ended")

// ErrJobEnded says that the job's receipt was recorded.
var ErrJobEnded = errors.New("the job has ended")

// UnknownVoucherError is a voucher that this channel's key signed and the
// ledger does not know: the ledger is older than the vouchers made with it.
// Signing on would pay twice; Signer.Adopt takes the voucher over.
type UnknownVoucherError struct {
	Channel    attestation.Address
	Cumulative uint64 // nano, the voucher's
	Highest    uint64 // nano, the ledger's
}

func (e *UnknownVoucherError) Error() string {
	return fmt.Sprintf("channel %s: the worker holds a voucher of ours over %d nano that this ledger does not know (its highest is %d): "+
		"the ledger is out of date; stop every other copy and start once with --restore", e.Channel, e.Cumulative, e.Highest)
}

// CreditError is an allocation that the channel cannot pay.
type CreditError struct {
	Channel attestation.Address
	Need    uint64 // nano, cumulative
	Limit   uint64 // nano: paid + proven balance - reserve
}

func (e *CreditError) Error() string {
	return fmt.Sprintf("channel %s: needs vouchers to %d nano, can pay %d: top it up", e.Channel, e.Need, e.Limit)
}

// BooksError is a worker whose accounts differ from this client's. The
// channel signs nothing more for that log.
type BooksError struct {
	Channel   attestation.Address
	Field     string
	Got, Want string
}

func (e *BooksError) Error() string {
	return fmt.Sprintf("channel %s: the worker's books differ: %s: got %s, want %s", e.Channel, e.Field, e.Got, e.Want)
}
