// Package payout computes what jobs cost and whether receipts, vouchers and payouts add up.
//
// It is pure: worker, proxy and auditor call the same functions on the same numbers and must reach the same
// amounts, to the nano. All amounts are nano (1e-9 coin) in uint64; whatever does not fit is an error, never a
// wrapped number. It does not verify signatures, proofs or heads: give it only what was verified.
package payout

import (
	"errors"
	"fmt"
	"math/bits"

	"cocoon/attestation"
)

// TokensPerPrice is how many tokens a price is for.
const TokensPerPrice = 1_000_000

// ErrOverflow is an amount that does not fit into uint64 nano.
var ErrOverflow = errors.New("amount exceeds uint64 nano")

// Cost is what a job's tokens cost. Cached tokens are part of the prompt and reasoning tokens of the completion;
// each token is charged at one price. The sum is exact and rounded up once, to a whole nano.
func Cost(u attestation.Usage, p attestation.Prices) (uint64, error) {
	if u.Cached > u.Prompt {
		return 0, fmt.Errorf("usage: cached: got %d, want at most the prompt's %d", u.Cached, u.Prompt)
	}
	if u.Reasoning > u.Completion {
		return 0, fmt.Errorf("usage: reasoning: got %d, want at most the completion's %d", u.Reasoning, u.Completion)
	}
	var hi, lo uint64
	for _, part := range [...]struct{ tokens, price uint64 }{
		{u.Prompt - u.Cached, p.Prompt},
		{u.Cached, p.Cached},
		{u.Completion - u.Reasoning, p.Completion},
		{u.Reasoning, p.Reasoning},
	} {
		ph, pl := bits.Mul64(part.tokens, part.price)
		var carry uint64
		lo, carry = bits.Add64(lo, pl, 0)
		if hi, carry = bits.Add64(hi, ph, carry); carry != 0 {
			return 0, fmt.Errorf("cost: %w", ErrOverflow)
		}
	}
	if hi >= TokensPerPrice {
		return 0, fmt.Errorf("cost: %w", ErrOverflow)
	}
	cost, rest := bits.Div64(hi, lo, TokensPerPrice)
	if rest == 0 {
		return cost, nil
	}
	return Add(cost, 1)
}

// Ceiling is the most that so many prompt and completion tokens can cost, whichever of them turn out to be
// cached or reasoning.
func Ceiling(prompt, completion uint64, p attestation.Prices) (uint64, error) {
	return Cost(attestation.Usage{Prompt: prompt, Completion: completion}, attestation.Prices{
		Prompt:     max(p.Prompt, p.Cached),
		Completion: max(p.Completion, p.Reasoning),
	})
}

// Add adds two amounts.
func Add(a, b uint64) (uint64, error) {
	sum, carry := bits.Add64(a, b, 0)
	if carry != 0 {
		return 0, ErrOverflow
	}
	return sum, nil
}
