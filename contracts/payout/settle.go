package payout

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"

	"cocoon/attestation"
)

// Receipt is the cost of one job, under its place in the tree of its (channel, log).
type Receipt struct {
	Channel attestation.Address
	LogID   [32]byte
	Index   uint64
	Cost    uint64 // nano
}

// Voucher is a signed total of one channel. Of several, the largest counts.
type Voucher struct {
	Channel    attestation.Address
	Cumulative uint64 // nano
}

// Payout is what one redemption moved to the worker.
type Payout struct {
	Channel attestation.Address
	Amount  uint64 // nano: the channel's paid after it, less that before it
}

// Account is one channel's sum.
type Account struct {
	Channel  attestation.Address
	Settled  uint64 // the receipts' costs, over all logs
	Vouchers uint64 // the highest voucher
	Payouts  uint64 // what redemptions moved
	Unused   uint64 // Vouchers - Settled: promised, and no work receipted for it; 0 if it would be negative
}

// Inequality names what must hold of an account.
type Inequality string

// The inequalities of DESIGN section 6.
const (
	SettledWithinVouchers Inequality = "settled <= vouchers"
	PayoutsWithinVouchers Inequality = "payouts <= vouchers"
)

// ImbalanceError is an account that does not add up.
type ImbalanceError struct {
	Channel     attestation.Address
	Fails       Inequality
	Left, Right uint64 // nano
}

func (e *ImbalanceError) Error() string {
	return fmt.Sprintf("channel %s: %s fails: got %d and %d nano", e.Channel, e.Fails, e.Left, e.Right)
}

// Check returns an *ImbalanceError for each inequality that fails, joined.
func (a Account) Check() error {
	var errs []error
	if a.Settled > a.Vouchers {
		errs = append(errs, &ImbalanceError{a.Channel, SettledWithinVouchers, a.Settled, a.Vouchers})
	}
	if a.Payouts > a.Vouchers {
		errs = append(errs, &ImbalanceError{a.Channel, PayoutsWithinVouchers, a.Payouts, a.Vouchers})
	}
	return errors.Join(errs...)
}

// Settle sums everything per channel, in the channels' order, and checks each account. The accounts are
// complete also when an inequality fails. A receipt index that appears twice in one (channel, log), and a sum
// beyond uint64, are errors without accounts. If some receipts were not disclosed, Settled is a lower bound and
// Unused an upper one.
func Settle(receipts []Receipt, vouchers []Voucher, payouts []Payout) ([]Account, error) {
	type place struct {
		channel attestation.Address
		logID   [32]byte
		index   uint64
	}
	sums := map[attestation.Address]*Account{}
	account := func(c attestation.Address) *Account {
		if sums[c] == nil {
			sums[c] = &Account{Channel: c}
		}
		return sums[c]
	}
	seen := make(map[place]bool, len(receipts))
	for _, r := range receipts {
		p := place{r.Channel, r.LogID, r.Index}
		if seen[p] {
			return nil, fmt.Errorf("channel %s: log %x: receipt %d appears twice", r.Channel, r.LogID, r.Index)
		}
		seen[p] = true
		a := account(r.Channel)
		var err error
		if a.Settled, err = Add(a.Settled, r.Cost); err != nil {
			return nil, fmt.Errorf("channel %s: settled: %w", r.Channel, err)
		}
	}
	for _, v := range vouchers {
		a := account(v.Channel)
		a.Vouchers = max(a.Vouchers, v.Cumulative)
	}
	for _, p := range payouts {
		a := account(p.Channel)
		var err error
		if a.Payouts, err = Add(a.Payouts, p.Amount); err != nil {
			return nil, fmt.Errorf("channel %s: payouts: %w", p.Channel, err)
		}
	}
	out := make([]Account, 0, len(sums))
	var errs []error
	for _, a := range slices.SortedFunc(maps.Values(sums), func(x, y *Account) int {
		return bytes.Compare(x.Channel[:], y.Channel[:])
	}) {
		if a.Vouchers > a.Settled {
			a.Unused = a.Vouchers - a.Settled
		}
		errs = append(errs, a.Check())
		out = append(out, *a)
	}
	return out, errors.Join(errs...)
}
