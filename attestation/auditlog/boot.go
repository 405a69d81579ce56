package auditlog

import (
	"fmt"

	"cocoon/attestation"
	"cocoon/attestation/canonical"
)

// Limits of a boot record.
const (
	BootVersion  = 1
	MaxBootBytes = 512
)

// Boot says which log belongs to a worker's boot. The host keeps one per boot;
// it is an index, believed only as far as the logs themselves bear it out.
type Boot struct {
	Version      uint64              `cbor:"version"`
	Number       uint64              `cbor:"number"` // counts from 1
	WorkerID     attestation.Address `cbor:"worker_id"`
	BootID       [32]byte            `cbor:"boot_id"`
	LogPublicKey [32]byte            `cbor:"log_public_key"`
	Started      int64               `cbor:"started"` // Unix seconds, by the guest's clock
}

// LogID names the boot's log.
func (b Boot) LogID() [32]byte { return attestation.LogID(b.LogPublicKey) }

// Encode returns the record's canonical CBOR.
func (b Boot) Encode() []byte { return canonical.MustMarshal(b) }

// ParseBoot reads a boot record.
func ParseBoot(raw []byte) (Boot, error) {
	var b Boot
	if err := canonical.Unmarshal("boot", raw, MaxBootBytes, &b); err != nil {
		return Boot{}, err
	}
	switch {
	case b.Version != BootVersion:
		return Boot{}, fmt.Errorf("boot: version: got %d, want %d", b.Version, BootVersion)
	case b.Number == 0:
		return Boot{}, fmt.Errorf("boot: number: got 0, want 1 or more")
	case b.LogPublicKey == [32]byte{}:
		return Boot{}, fmt.Errorf("boot: log_public_key: got zero")
	}
	return b, nil
}
