package auditlog

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"

	"cocoon/attestation/canonical"
)

// MaxForkBytes bounds a fork proof.
const MaxForkBytes = 8 << 10

// ForkProof is two checkpoints, signed by one log's key, that cannot both be
// true. Anyone can verify it with nothing else.
type ForkProof struct {
	Version      uint64   `cbor:"version"`
	LogPublicKey [32]byte `cbor:"log_public_key"`
	Smaller      []byte   `cbor:"smaller"` // signed notes; Smaller's size is at most Larger's
	Larger       []byte   `cbor:"larger"`
	Root         [32]byte `cbor:"root"`  // what Larger's tree had at Smaller's size
	Proof        []Hash   `cbor:"proof"` // that it had (RFC 6962 section 2.1.2); empty at equal sizes
}

// Encode returns the proof's canonical CBOR.
func (f *ForkProof) Encode() []byte { return canonical.MustMarshal(f) }

// MarshalText writes the encoding in hex.
func (f *ForkProof) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(f.Encode())), nil }

// ParseForkProof reads a fork proof and verifies it.
func ParseForkProof(raw []byte) (*ForkProof, error) {
	var f ForkProof
	if err := canonical.Unmarshal("fork proof", raw, MaxForkBytes, &f); err != nil {
		return nil, err
	}
	if err := f.Verify(); err != nil {
		return nil, err
	}
	return &f, nil
}

// Verify returns nil if the two checkpoints contradict each other.
func (f *ForkProof) Verify() error {
	if f.Version != 1 {
		return fmt.Errorf("fork proof: version: got %d, want 1", f.Version)
	}
	small, err := ParseCheckpoint(f.Smaller, f.LogPublicKey)
	if err != nil {
		return fmt.Errorf("fork proof: smaller: %w", err)
	}
	large, err := ParseCheckpoint(f.Larger, f.LogPublicKey)
	if err != nil {
		return fmt.Errorf("fork proof: larger: %w", err)
	}
	if small.Size > large.Size {
		return fmt.Errorf("fork proof: sizes: got %d before %d", small.Size, large.Size)
	}
	if small.Root == f.Root {
		return fmt.Errorf("fork proof: the checkpoints of size %d and %d agree", small.Size, large.Size)
	}
	if err := consistent(small.Size, f.Root, large, f.Proof); err != nil {
		return fmt.Errorf("fork proof: root at size %d: %w", small.Size, err)
	}
	return nil
}

// ProveFork makes the proof that two checkpoints of one log contradict each
// other, reading tiles under the larger one from src. It returns nil and no
// error if they agree.
func ProveFork(ctx context.Context, src Source, logPublicKey [32]byte, a, b []byte) (*ForkProof, error) {
	ca, err := ParseCheckpoint(a, logPublicKey)
	if err != nil {
		return nil, err
	}
	cb, err := ParseCheckpoint(b, logPublicKey)
	if err != nil {
		return nil, err
	}
	if ca.Size > cb.Size {
		a, b, ca, cb = b, a, cb, ca
	}
	f := &ForkProof{Version: 1, LogPublicKey: logPublicKey, Smaller: bytes.Clone(a), Larger: bytes.Clone(b), Root: cb.Root}
	if ca.Size < cb.Size {
		r := hashReader(ctx, src, cb)
		if f.Root, err = rootAt(ca.Size, r); err != nil {
			return nil, err
		}
		if f.Root != ca.Root {
			if f.Proof, err = ConsistencyProof(ctx, src, cb, ca.Size); err != nil {
				return nil, err
			}
		}
	}
	if f.Root == ca.Root {
		return nil, nil
	}
	return f, f.Verify()
}
