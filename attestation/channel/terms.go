package channel

import (
	"fmt"

	"cocoon/attestation"
	"cocoon/attestation/canonical"
)

// MaxTermsBytes bounds encoded terms.
const MaxTermsBytes = 1 << 10

const maxTokens = 1 << 32

// Terms are what a job may cost at most. They travel outside the seal, are
// signed by the channel's client key, and are the additional data of every
// sealed client frame: lp(CBOR(terms)).
type Terms struct {
	Model             string             `cbor:"model"`
	Prices            attestation.Prices `cbor:"prices"`
	PromptCeiling     uint64             `cbor:"prompt_ceiling"`     // tokens, > 0
	CompletionCeiling uint64             `cbor:"completion_ceiling"` // tokens
	TotalCeiling      uint64             `cbor:"total_ceiling"`      // nano-coins
}

// Check bounds every field. Whether the prices are right, both ends decide.
func (t Terms) Check() error {
	if err := attestation.CheckModelName(t.Model); err != nil {
		return fmt.Errorf("terms: %w", err)
	}
	if t.PromptCeiling == 0 || t.PromptCeiling > maxTokens {
		return fmt.Errorf("terms: prompt_ceiling: got %d, want 1 to %d tokens", t.PromptCeiling, uint64(maxTokens))
	}
	if t.CompletionCeiling > maxTokens {
		return fmt.Errorf("terms: completion_ceiling: got %d, want at most %d tokens", t.CompletionCeiling, uint64(maxTokens))
	}
	return nil
}

// ParseTerms reads canonical CBOR and checks it.
func ParseTerms(b []byte) (Terms, error) {
	var t Terms
	if err := canonical.Unmarshal("terms", b, MaxTermsBytes, &t); err != nil {
		return Terms{}, err
	}
	return t, t.Check()
}
