package attestation

import (
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"

	"cocoon/attestation/canonical"
)

// MaxReleaseBytes bounds a release manifest.
const MaxReleaseBytes = 64 << 10

// Launch is one shape a release may be launched in: the measurements that a
// TEE must report. Fields of the other TEE are empty.
type Launch struct {
	TEE         TEE      `cbor:"tee"`
	Shape       string   `cbor:"shape"`       // for people: "tdx 8 vcpu"
	MRTD        []byte   `cbor:"mrtd"`        // TDX, 48 bytes
	RTMR        [][]byte `cbor:"rtmr"`        // TDX, 4 x 48 bytes
	Measurement []byte   `cbor:"measurement"` // SNP launch digest, 48 bytes
}

// Allowances bound how many tokens a template may add to a prompt's bytes.
type Allowances struct {
	Message uint64 `cbor:"message"` // tokens per chat message, the request's own frame included
	Tool    uint64 `cbor:"tool"`    // tokens per tool definition
	Medium  uint64 `cbor:"medium"`  // tokens per image or audio clip
}

// Release is a release's manifest: what auditors rebuild and registries name by digest.
type Release struct {
	Version    uint64     `cbor:"version"`
	Number     uint64     `cbor:"number"` // the release floor compares it; only rises
	Name       string     `cbor:"name"`
	Launches   []Launch   `cbor:"launches"`
	Allowances Allowances `cbor:"allowances"`
}

// ReleaseVersion is the only manifest version there is.
const ReleaseVersion = 1

// Encode returns the manifest's canonical CBOR.
func (m *Release) Encode() []byte { return canonical.MustMarshal(m) }

// ParseRelease reads a manifest.
func ParseRelease(b []byte) (*Release, error) {
	var m Release
	if err := canonical.Unmarshal("release", b, MaxReleaseBytes, &m); err != nil {
		return nil, err
	}
	if m.Version != ReleaseVersion {
		return nil, fmt.Errorf("release: version: got %d, want %d", m.Version, ReleaseVersion)
	}
	if m.Number == 0 {
		return nil, fmt.Errorf("release: number: got 0, want 1 or more")
	}
	if m.Name == "" || !isLabel(m.Name) {
		return nil, fmt.Errorf("release: name: got %.40q, want 1 to %d printable ASCII bytes", m.Name, MaxNameBytes)
	}
	if len(m.Launches) == 0 || len(m.Launches) > 64 {
		return nil, fmt.Errorf("release: launches: got %d, want 1 to 64", len(m.Launches))
	}
	for i, l := range m.Launches {
		if err := l.check(); err != nil {
			return nil, fmt.Errorf("release: launches: entry %d: %w", i, err)
		}
	}
	if m.Allowances.Message > 1<<20 || m.Allowances.Tool > 1<<20 || m.Allowances.Medium > 1<<20 {
		return nil, fmt.Errorf("release: allowances: got %+v, want at most %d tokens each", m.Allowances, 1<<20)
	}
	return &m, nil
}

// isLabel reports whether s is safe to show to people: printable ASCII, and short.
func isLabel(s string) bool {
	for _, c := range []byte(s) {
		if c < ' ' || c > '~' {
			return false
		}
	}
	return len(s) <= MaxNameBytes
}

func (l *Launch) check() error {
	if !isLabel(l.Shape) {
		return fmt.Errorf("shape: got %.40q, want at most %d printable ASCII bytes", l.Shape, MaxNameBytes)
	}
	switch l.TEE {
	case TDX:
		if len(l.MRTD) != 48 || len(l.RTMR) != 4 || len(l.Measurement) != 0 {
			return fmt.Errorf("tdx: got mrtd of %d bytes and %d rtmr, want 48 and 4", len(l.MRTD), len(l.RTMR))
		}
		for _, r := range l.RTMR {
			if len(r) != 48 {
				return fmt.Errorf("tdx: rtmr: got %d bytes, want 48", len(r))
			}
		}
	case SNP:
		if len(l.Measurement) != 48 || len(l.MRTD) != 0 || len(l.RTMR) != 0 {
			return fmt.Errorf("snp: got measurement of %d bytes, want 48", len(l.Measurement))
		}
	default:
		return fmt.Errorf("tee: got %.20q, want %q or %q", l.TEE, TDX, SNP)
	}
	return nil
}

// Digest is SHA-256 of the manifest's canonical CBOR: its name in the registry.
func (m *Release) Digest() [32]byte { return sha256.Sum256(m.Encode()) }

// ReleaseSignature is one independent rebuilder's word that the manifest's
// measurements are what its sources build to. It signs "cocoon/release/v1" ‖
// SHA-256(manifest).
type ReleaseSignature struct {
	Key       [32]byte `cbor:"key"` // Ed25519
	Signature [64]byte `cbor:"signature"`
}

func releaseMessage(digest [32]byte) []byte {
	return append([]byte("cocoon/release/v1"), digest[:]...)
}

// SignRelease signs a manifest as a rebuilder.
func SignRelease(key ed25519.PrivateKey, manifest []byte) ReleaseSignature {
	var s ReleaseSignature
	copy(s.Key[:], key.Public().(ed25519.PublicKey))
	copy(s.Signature[:], ed25519.Sign(key, releaseMessage(sha256.Sum256(manifest))))
	return s
}

// VerifyReleaseSignature says whether s is its key's signature over the manifest.
func VerifyReleaseSignature(s ReleaseSignature, manifest []byte) bool {
	return ed25519.Verify(s.Key[:], releaseMessage(sha256.Sum256(manifest)), s.Signature[:])
}
