package attestation

import (
	"crypto/sha256"
	"encoding/binary"
	"time"

	"cocoon/attestation/canonical"
)

// Kinds of registry entries.
const (
	EntryRelease     = 1 // key: SHA-256 of the manifest; meta: its number
	EntryModel       = 2 // key: ModelKey; meta: SHA-256 of the name
	EntryPolicyFloor = 3 // key: SHA-256 of the TOML document
)

// RegistryEntry is one entry of the registry. Times are Unix seconds;
// RevokedAt is 0 for never.
type RegistryEntry struct {
	Kind      uint8
	NotBefore int64
	RevokedAt int64
	Meta      [32]byte
}

// Live reports whether the entry is in force at now.
func (e RegistryEntry) Live(now time.Time) bool {
	return e.NotBefore <= now.Unix() && (e.RevokedAt == 0 || now.Unix() < e.RevokedAt)
}

// RegistryView is the registry's state as it was proven. Whoever makes one
// has checked the account's proof, its code hash and its data.
type RegistryView struct {
	Address      Address
	Version      uint64
	ReleaseFloor uint64
	Entries      map[[32]byte]RegistryEntry
	ProvenAt     time.Time // generation time of the masterchain block
}

// RecordView is a worker's record on TON as it was proven. A record without
// ProvenAt has no age: whoever made it answers for that.
type RecordView struct {
	WorkerID   Address
	Payout     Address
	PlatformID [32]byte
	Expiry     time.Time
	ProvenAt   time.Time // generation time of the masterchain block
}

// ModelKey is a model's key in the registry:
// SHA-256("cocoon/model/v1" ‖ lp(name) ‖ lp(weights root)).
func ModelKey(m Model) [32]byte {
	b := append([]byte("cocoon/model/v1"), canonical.LP([]byte(m.Name))...)
	return sha256.Sum256(append(b, canonical.LP([]byte(m.WeightsRoot))...))
}

// ReleaseMeta is the meta of a release's entry: its number as a u256.
func ReleaseMeta(number uint64) [32]byte {
	var m [32]byte
	binary.BigEndian.PutUint64(m[24:], number)
	return m
}

// ChainVerifier proves beacons offline against key blocks it trusts.
type ChainVerifier interface {
	// VerifyBeacon returns the generation time of the masterchain block that b names.
	VerifyBeacon(b Beacon, proof []byte) (time.Time, error)
}
