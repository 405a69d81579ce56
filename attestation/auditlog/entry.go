package auditlog

import (
	"bytes"
	"crypto/sha256"
	"fmt"

	"cocoon/attestation/canonical"
)

// MaxEntryBytes bounds one leaf of the log.
const MaxEntryBytes = 512

// Entry is one leaf of a worker's log: a ReceiptEntry, KeysetEntry,
// EpochClosedEntry or PredecessorEntry. Entries hold digests only. A new kind
// of entry is a new type name, which old readers report and count past.
type Entry interface{ kind() string }

// ReceiptEntry records that a receipt was signed.
type ReceiptEntry struct {
	Digest [32]byte // ReceiptDigest
}

// KeysetEntry records a keyset and a bundle that attests it. It stands before
// every receipt that the keyset's key signed.
type KeysetEntry struct {
	Epoch  uint64
	Keyset [32]byte // SHA-256 of the keyset's CBOR
	Bundle [32]byte // SHA-256 of the bundle's CBOR
}

// EpochClosedEntry records that an epoch's signing key was destroyed: receipts
// of that epoch after this leaf are void.
type EpochClosedEntry struct {
	Epoch uint64
}

// PredecessorEntry is the first leaf of every log: the last checkpoint of the
// boot before, zeros for a worker's first boot.
type PredecessorEntry struct {
	LogID [32]byte
	Size  uint64
	Root  [32]byte
}

func (ReceiptEntry) kind() string     { return "receipt" }
func (KeysetEntry) kind() string      { return "keyset" }
func (EpochClosedEntry) kind() string { return "epoch-closed" }
func (PredecessorEntry) kind() string { return "predecessor" }

type receiptLeaf struct {
	Type   string   `cbor:"type"`
	Digest [32]byte `cbor:"digest"`
}

type keysetLeaf struct {
	Type   string   `cbor:"type"`
	Epoch  uint64   `cbor:"epoch"`
	Keyset [32]byte `cbor:"keyset"`
	Bundle [32]byte `cbor:"bundle"`
}

type epochClosedLeaf struct {
	Type  string `cbor:"type"`
	Epoch uint64 `cbor:"epoch"`
}

type predecessorLeaf struct {
	Type  string   `cbor:"type"`
	LogID [32]byte `cbor:"log_id"`
	Size  uint64   `cbor:"size"`
	Root  [32]byte `cbor:"root"`
}

// EncodeEntry returns an entry's canonical CBOR: the bytes of its leaf.
func EncodeEntry(e Entry) ([]byte, error) {
	switch v := e.(type) {
	case ReceiptEntry:
		return canonical.Marshal(receiptLeaf{v.kind(), v.Digest})
	case KeysetEntry:
		return canonical.Marshal(keysetLeaf{v.kind(), v.Epoch, v.Keyset, v.Bundle})
	case EpochClosedEntry:
		return canonical.Marshal(epochClosedLeaf{v.kind(), v.Epoch})
	case PredecessorEntry:
		return canonical.Marshal(predecessorLeaf{v.kind(), v.LogID, v.Size, v.Root})
	}
	return nil, fmt.Errorf("log entry: got %T, want one of the four kinds", e)
}

// receiptPrefix is how a receipt's leaf begins: {"type": "receipt", "digest": a byte string of 32}.
// Nearly all leaves are of that kind, and an auditor reads each one twice.
const receiptPrefix = "\xa2\x64type\x67receipt\x66digest\x58\x20"

// ParseEntry reads a leaf.
func ParseEntry(b []byte) (Entry, error) {
	if digest, ok := bytes.CutPrefix(b, []byte(receiptPrefix)); ok && len(digest) == 32 {
		return ReceiptEntry{[32]byte(digest)}, nil
	}
	var k keysetLeaf
	if canonical.Unmarshal("log entry", b, MaxEntryBytes, &k) == nil && k.Type == (KeysetEntry{}).kind() {
		return KeysetEntry{k.Epoch, k.Keyset, k.Bundle}, nil
	}
	var c epochClosedLeaf
	if canonical.Unmarshal("log entry", b, MaxEntryBytes, &c) == nil && c.Type == (EpochClosedEntry{}).kind() {
		return EpochClosedEntry{c.Epoch}, nil
	}
	var p predecessorLeaf
	if canonical.Unmarshal("log entry", b, MaxEntryBytes, &p) == nil && p.Type == (PredecessorEntry{}).kind() {
		return PredecessorEntry{p.LogID, p.Size, p.Root}, nil
	}
	return nil, fmt.Errorf("log entry: got %d bytes (SHA-256 %x), want one of the four kinds", len(b), sha256.Sum256(b))
}
