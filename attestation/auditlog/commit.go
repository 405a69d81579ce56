package auditlog

import (
	"crypto/hmac"
	"crypto/sha256"
	"hash"
)

// NewCommitment is a stream whose Sum is the blinded commitment to what was
// written: HMAC-SHA-256 under the blinding key that the client sent inside
// the seal. Without that key a commitment says nothing about its text.
func NewCommitment(key [32]byte) hash.Hash { return hmac.New(sha256.New, key[:]) }

// Commit is the blinded commitment to data.
func Commit(key [32]byte, data []byte) [32]byte {
	h := NewCommitment(key)
	h.Write(data)
	return [32]byte(h.Sum(nil))
}
