package contracts

import (
	"fmt"
	"math"

	"cocoon/attestation"
)

// Amounts are nano (1e-9 coin). The fees are upper bounds under the fee table of TON's mainnet of 2026-05-14;
// testdata/gas.golden has what each operation takes, and a test holds these bounds above it.
const (
	// RedeemFee is what to attach to a redeem. The change goes to the payout address.
	RedeemFee = 2_000_000
	// CloseFee is what to attach to StartClose, FinishClose and Release of a channel that still has its reserve.
	CloseFee = 2_000_000
	// DeployFee is what a deployment takes beyond what it leaves on the account.
	DeployFee = 5_000_000
	// RegistryFee is what to attach to a registry's or a worker record's messages; the change stays there as rent.
	RegistryFee = 10_000_000
	// Reserve never leaves a channel: it is the rent of its tombstone for 23 years.
	Reserve = 20_000_000
	// MinDeposit is what must have been deposited above the reserve before a worker serves a channel.
	MinDeposit = 100 * RedeemFee
	// CloseDelay is the only close delay that workers serve, in seconds.
	CloseDelay = 24 * 3600
)

// Available is what vouchers can still move out of a channel of that balance.
func (s ChannelState) Available(balance uint64) uint64 {
	if s.Closed || balance <= Reserve {
		return 0
	}
	return balance - Reserve
}

// CreditLimit is the largest cumulative amount that the channel can pay: paid + balance - reserve. A worker
// credits no voucher above it.
func (s ChannelState) CreditLimit(balance uint64) uint64 {
	a := s.Available(balance)
	if a > math.MaxUint64-s.Paid {
		return math.MaxUint64
	}
	return s.Paid + a
}

// WorkerChecks is what a worker expects in the initial data of a channel that it serves.
type WorkerChecks struct {
	WorkerID attestation.Address
	Payout   attestation.Address
	Redeemer attestation.Address
}

// ChannelRefusedError says why a worker does not serve a channel.
type ChannelRefusedError struct {
	Field     string
	Got, Want string
}

func (e *ChannelRefusedError) Error() string {
	return fmt.Sprintf("channel refused: %s: got %s, want %s", e.Field, e.Got, e.Want)
}

// CheckChannelForWorker applies DESIGN section 5, "the worker serves a channel only if", to a state from
// ParseChannel and the balance proven with it. That the proof is fresh (10 minutes) is the caller's to check.
// It returns a *ChannelRefusedError.
func CheckChannelForWorker(s ChannelState, want WorkerChecks, balance uint64) error {
	refuse := func(field string, got, want any) error {
		return &ChannelRefusedError{field, fmt.Sprint(got), fmt.Sprint(want)}
	}
	switch {
	case want.WorkerID.IsZero() || want.Payout.IsZero() || want.Redeemer.IsZero():
		return refuse("worker's own addresses", "a zero one", "all three set")
	case s.Init.WorkerID != want.WorkerID:
		return refuse("worker id", s.Init.WorkerID, want.WorkerID)
	case s.Init.Payout != want.Payout:
		return refuse("payout", s.Init.Payout, want.Payout)
	case s.Init.Redeemer != want.Redeemer:
		return refuse("redeemer", s.Init.Redeemer, want.Redeemer)
	case s.Init.CloseDelay != CloseDelay:
		return refuse("close delay", s.Init.CloseDelay, CloseDelay)
	case CheckClientKey(s.Init.ClientKey) != nil:
		return refuse("client key", fmt.Sprintf("%x", s.Init.ClientKey), "a point that is not of small order")
	case s.Closed:
		return refuse("state", "closed", "open")
	case s.CloseAt != 0:
		return refuse("state", fmt.Sprintf("closing at %d", s.CloseAt), "open")
	case s.CreditLimit(balance) < MinDeposit:
		return refuse("deposit", s.CreditLimit(balance), fmt.Sprintf("at least %d", MinDeposit))
	}
	return nil
}
