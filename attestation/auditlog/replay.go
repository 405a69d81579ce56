package auditlog

import (
	"context"
	"errors"
	"time"

	"cocoon/attestation"
)

// Anchor is one redemption, proven from the chain: it carried a voucher whose
// head commits to receipts, and with them to the worker's log.
type Anchor struct {
	Channel    attestation.Address
	Cumulative uint64   // the voucher's, nano
	Paid       uint64   // what this redemption sent to the payout address, nano
	Head       [32]byte // the voucher's receipts_head
	Time       time.Time
}

// ReplayConfig is what a replay is given besides the logs. Everything is
// optional; what is not given is named in the report as not checked.
type ReplayConfig struct {
	// VerifyBundle verifies a bundle at its proven time, against the registry as it stood then.
	VerifyBundle func(b *attestation.Bundle, at time.Time) *attestation.Result
	// Cost is counts x prices, in nano (contracts/payout.Cost).
	Cost func(attestation.Usage, attestation.Prices) (uint64, error)
	// Voucher verifies a disclosed voucher of a channel and returns its cumulative amount.
	Voucher func(channel attestation.Address, raw []byte) (cumulative uint64, err error)
	// Anchors are the redemptions found on chain, in any order.
	Anchors []Anchor
	// Disclosures show receipts. Two may show the same section; the longer one counts.
	Disclosures []Discloser
	// Checkpoints are signed checkpoints seen elsewhere (by clients, by other auditors).
	Checkpoints [][]byte
	// Workers bounds the goroutines that verify signatures; 0 is one per processor.
	Workers int
}

// Replay recomputes every log of a source, offline and deterministically. It
// returns an error only when ctx ends or the source cannot be read at all;
// whatever does not add up is a finding of the report.
func Replay(ctx context.Context, src Source, c ReplayConfig) (*Report, error) {
	return nil, errors.New("replay: not complete")
}
