package channel

import (
	"crypto/ed25519"
	"fmt"

	"cocoon/attestation"
	"cocoon/attestation/canonical"
)

// MaxOpenBytes bounds the message that opens a job.
const MaxOpenBytes = MaxWireBytes + encBytes + MaxTermsBytes + 1<<10

// jobOpen is the first message of a job. A new field is a new info string.
type jobOpen struct {
	JobID        [16]byte            `cbor:"job_id"`
	KeysetDigest [32]byte            `cbor:"keyset_digest"`
	Channel      attestation.Address `cbor:"channel"`
	Enc          []byte              `cbor:"enc"`
	Terms        []byte              `cbor:"terms"` // canonical CBOR of Terms
	Ciphertext   []byte              `cbor:"ciphertext"`
	Signature    [64]byte            `cbor:"signature"`
}

func parseJobOpen(b []byte) (jobOpen, Terms, error) {
	var o jobOpen
	if err := canonical.Unmarshal("job open", b, MaxOpenBytes, &o); err != nil {
		return jobOpen{}, Terms{}, err
	}
	switch {
	case o.JobID == [16]byte{}:
		return jobOpen{}, Terms{}, fmt.Errorf("job open: job_id: got zeros")
	case len(o.Enc) != encBytes:
		return jobOpen{}, Terms{}, fmt.Errorf("job open: enc: got %d bytes, want %d", len(o.Enc), encBytes)
	case len(o.Ciphertext) < headerBytes+tagBytes || len(o.Ciphertext) > MaxWireBytes:
		return jobOpen{}, Terms{}, fmt.Errorf("job open: ciphertext: got %d bytes, want %d to %d", len(o.Ciphertext), headerBytes+tagBytes, MaxWireBytes)
	}
	t, err := ParseTerms(o.Terms)
	if err != nil {
		return jobOpen{}, Terms{}, fmt.Errorf("job open: %w", err)
	}
	return o, t, nil
}

// verify says whether key signed o for this connection.
func (o *jobOpen) verify(key ed25519.PublicKey, ekm [32]byte) bool {
	if len(key) != ed25519.PublicKeySize {
		return false
	}
	m := openMessage(o.KeysetDigest, o.JobID, o.Channel, o.Enc, o.Ciphertext, canonical.LP(o.Terms), ekm)
	return ed25519.Verify(key, m, o.Signature[:])
}
