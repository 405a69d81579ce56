package attestation

import (
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
	"strings"
	"time"

	"cocoon/attestation/canonical"
)

// Sizes and limits of a keyset (DESIGN section 3).
const (
	KeysetVersion  = 1
	MaxKeysetBytes = 16 << 10
	MaxModels      = 32
	MaxNameBytes   = 128
	HPKEKeyBytes   = 1216 // MLKEM768-X25519 public key, KEM 0x647a

	MaxEpoch = 10 * time.Minute // longest not_before..not_after
)

// Model names a model and the root its weights are measured by.
type Model struct {
	Name        string `cbor:"name" json:"name"`
	WeightsRoot string `cbor:"weights_root" json:"weights_root"` // "verity-sha256:HEX", "gguf-sha256:HEX" or "unmeasured"
}

// Beacon is a TON masterchain block: what carries it was made after it.
type Beacon struct {
	Seqno    uint32   `cbor:"seqno" json:"seqno"`
	RootHash [32]byte `cbor:"root_hash" json:"root_hash"`
}

// Keyset is what a worker makes inside its VM at each key epoch, and what its
// CPU quote commits to. Times are Unix seconds. Its canonical CBOR is the
// only form that is hashed or sent. A new field is a new Version.
type Keyset struct {
	Version           uint64   `cbor:"version"`
	WorkerID          Address  `cbor:"worker_id"` // the worker's record on TON
	BootID            [32]byte `cbor:"boot_id"`   // random, once per boot
	Epoch             uint64   `cbor:"epoch"`     // counts from 1 within a boot
	NotBefore         int64    `cbor:"not_before"`
	NotAfter          int64    `cbor:"not_after"`
	Beacon            Beacon   `cbor:"beacon"`
	TLSSPKISHA256     [32]byte `cbor:"tls_spki_sha256"`
	HPKEPublicKey     []byte   `cbor:"hpke_public_key"`    // MLKEM768-X25519, 1216 bytes
	SigningPublicKey  [32]byte `cbor:"signing_public_key"` // Ed25519: receipts and sessions
	LogPublicKey      [32]byte `cbor:"log_public_key"`     // Ed25519: checkpoints only, once per boot
	PayoutAddress     Address  `cbor:"payout_address"`
	Models            []Model  `cbor:"models"`
	ConfigDigest      [32]byte `cbor:"config_digest"`
	GPUEvidenceDigest [32]byte `cbor:"gpu_evidence_digest"`
	GPUCount          uint64   `cbor:"gpu_count"`
}

// keysetWithoutGPU is the keyset as it stands before GPU evidence is collected.
type keysetWithoutGPU struct {
	Version          uint64   `cbor:"version"`
	WorkerID         Address  `cbor:"worker_id"`
	BootID           [32]byte `cbor:"boot_id"`
	Epoch            uint64   `cbor:"epoch"`
	NotBefore        int64    `cbor:"not_before"`
	NotAfter         int64    `cbor:"not_after"`
	Beacon           Beacon   `cbor:"beacon"`
	TLSSPKISHA256    [32]byte `cbor:"tls_spki_sha256"`
	HPKEPublicKey    []byte   `cbor:"hpke_public_key"`
	SigningPublicKey [32]byte `cbor:"signing_public_key"`
	LogPublicKey     [32]byte `cbor:"log_public_key"`
	PayoutAddress    Address  `cbor:"payout_address"`
	Models           []Model  `cbor:"models"`
	ConfigDigest     [32]byte `cbor:"config_digest"`
}

// Encode returns the keyset's canonical CBOR.
func (k *Keyset) Encode() []byte { return canonical.MustMarshal(k) }

// ParseKeyset reads canonical CBOR and checks every field's own bounds.
// Whether it is current, and whose it is, Verify decides.
func ParseKeyset(b []byte) (*Keyset, error) {
	var k Keyset
	if err := canonical.Unmarshal("keyset", b, MaxKeysetBytes, &k); err != nil {
		return nil, err
	}
	switch {
	case k.Version != KeysetVersion:
		return nil, fmt.Errorf("keyset: version: got %d, want %d", k.Version, KeysetVersion)
	case k.WorkerID.IsZero():
		return nil, fmt.Errorf("keyset: worker_id: got zero")
	case k.PayoutAddress.IsZero():
		return nil, fmt.Errorf("keyset: payout_address: got zero")
	case k.Epoch == 0:
		return nil, fmt.Errorf("keyset: epoch: got 0, want 1 or more")
	case k.NotBefore <= 0 || k.NotAfter <= k.NotBefore || k.NotAfter-k.NotBefore > int64(MaxEpoch/time.Second):
		return nil, fmt.Errorf("keyset: validity: got %d..%d, want at most %s", k.NotBefore, k.NotAfter, MaxEpoch)
	case len(k.HPKEPublicKey) != HPKEKeyBytes:
		return nil, fmt.Errorf("keyset: hpke_public_key: got %d bytes, want %d", len(k.HPKEPublicKey), HPKEKeyBytes)
	case k.SigningPublicKey == k.LogPublicKey:
		return nil, fmt.Errorf("keyset: log_public_key: got the signing key, want a key of its own")
	}
	if err := checkModels("keyset", k.Models); err != nil {
		return nil, err
	}
	return &k, nil
}

func checkModels(doc string, ms []Model) error {
	if len(ms) == 0 || len(ms) > MaxModels {
		return fmt.Errorf("%s: models: got %d, want 1 to %d", doc, len(ms), MaxModels)
	}
	seen := make(map[string]bool, len(ms))
	for _, m := range ms {
		if err := CheckModelName(m.Name); err != nil {
			return fmt.Errorf("%s: models: %w", doc, err)
		}
		if seen[m.Name] {
			return fmt.Errorf("%s: models: name %q twice", doc, m.Name)
		}
		seen[m.Name] = true
		if err := checkWeightsRoot(m.WeightsRoot); err != nil {
			return fmt.Errorf("%s: models: %s: %w", doc, m.Name, err)
		}
	}
	return nil
}

// CheckModelName bounds a model's name to what is safe in a URL, a header and a terminal.
func CheckModelName(s string) error {
	if s == "" || len(s) > MaxNameBytes {
		return fmt.Errorf("name: got %d bytes, want 1 to %d", len(s), MaxNameBytes)
	}
	for _, c := range []byte(s) {
		ok := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-_./@:", c) >= 0
		if !ok {
			return fmt.Errorf("name: got byte %#x, want letters, digits or one of -_./@: only", c)
		}
	}
	return nil
}

func checkWeightsRoot(s string) error {
	if s == Unmeasured {
		return nil
	}
	kind, digest, ok := strings.Cut(s, ":")
	if !ok || kind != "verity-sha256" && kind != "gguf-sha256" {
		return fmt.Errorf("weights_root: got %.80q, want verity-sha256:HEX, gguf-sha256:HEX or %s", s, Unmeasured)
	}
	if len(digest) != 64 || strings.Trim(digest, "0123456789abcdef") != "" {
		return fmt.Errorf("weights_root: digest: got %d characters, want 64 lower-case hex digits", len(digest))
	}
	return nil
}

// Unmeasured is the weights root of an engine whose weights nothing measures.
const Unmeasured = "unmeasured"

// Digest is SHA-256 of the keyset's canonical CBOR.
func (k *Keyset) Digest() [32]byte { return sha256.Sum256(k.Encode()) }

// LogID names the boot's log: SHA-256("cocoon/log/v1" ‖ log public key).
func LogID(logPublicKey [32]byte) [32]byte {
	return sha256.Sum256(append([]byte("cocoon/log/v1"), logPublicKey[:]...))
}

// GPUNonce is the nonce that all GPU and switch evidence of the keyset is
// made under: SHA-256("cocoon/gpu/v1" ‖ SHA-256(keyset without its two GPU
// fields)). The receiver's GPU fields are ignored.
func (k *Keyset) GPUNonce() [32]byte {
	bare := sha256.Sum256(canonical.MustMarshal(keysetWithoutGPU{
		k.Version, k.WorkerID, k.BootID, k.Epoch, k.NotBefore, k.NotAfter, k.Beacon, k.TLSSPKISHA256,
		k.HPKEPublicKey, k.SigningPublicKey, k.LogPublicKey, k.PayoutAddress, k.Models, k.ConfigDigest,
	}))
	return sha256.Sum256(append([]byte("cocoon/gpu/v1"), bare[:]...))
}

// ReportData is what the CPU quote carries: SHA-512("cocoon/evidence/v1" ‖
// lp(keyset) ‖ nonce). The nonce is all zeros when the quote is cached.
func ReportData(keyset []byte, nonce [32]byte) [64]byte {
	h := sha512.New()
	h.Write([]byte("cocoon/evidence/v1"))
	h.Write(canonical.LP(keyset))
	h.Write(nonce[:])
	return [64]byte(h.Sum(nil))
}

// PlatformID names a machine: SHA-256("cocoon/platform/v1" ‖ product ‖ PPID or CHIP_ID).
// product is "tdx" or AMD's product line ("Milan", "Genoa", "Turin").
func PlatformID(product string, id []byte) [32]byte {
	h := sha256.New()
	h.Write([]byte("cocoon/platform/v1"))
	h.Write([]byte(product))
	h.Write(id)
	return [32]byte(h.Sum(nil))
}

// SessionMessage is what the attested key signs for one connection:
// "cocoon/session/v1" ‖ client nonce ‖ EKM ‖ SHA-256(keyset).
func SessionMessage(nonce, ekm, keysetDigest [32]byte) []byte {
	m := append([]byte("cocoon/session/v1"), nonce[:]...)
	m = append(m, ekm[:]...)
	return append(m, keysetDigest[:]...)
}
