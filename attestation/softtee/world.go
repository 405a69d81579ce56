package softtee

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"time"

	"cocoon/attestation"
	"cocoon/attestation/canonical"
	"cocoon/attestation/internal/testtrust"
	"cocoon/attestation/sevsnp"
	"cocoon/attestation/tdx"
)

const (
	worldVersion  = 1
	maxWorldBytes = 1 << 18
)

// World holds the signing keys of a software Intel and a software AMD.
type World struct {
	// Clock dates quotes' collateral. In a World made by New it stands still at
	// New's now; in one read by Load it is the system's.
	Clock func() time.Time

	seed  [32]byte // all that is random and not a vendor's key
	intel *Intel
	amd   *AMD
}

// worldState is a World as a file holds it. It is secret.
type worldState struct {
	Version uint64   `cbor:"version"`
	Seed    [32]byte `cbor:"seed"`
	Intel   []byte   `cbor:"intel"`
	AMD     []byte   `cbor:"amd"`
}

// rootsState is a World's public part as a file holds it.
type rootsState struct {
	Version uint64            `cbor:"version"`
	Intel   []byte            `cbor:"intel"` // DER
	AMD     map[string][]byte `cbor:"amd"`   // DER by product line
}

// New makes a world whose certificates are valid from a day before now and for years.
func New(now time.Time) (*World, error) {
	w := &World{Clock: func() time.Time { return now }}
	rand.Read(w.seed[:])
	var err error
	if w.intel, err = NewIntel(now); err != nil {
		return nil, fmt.Errorf("software world: %w", err)
	}
	if w.amd, err = NewAMD(now, "Genoa"); err != nil {
		return nil, fmt.Errorf("software world: %w", err)
	}
	return w, nil
}

// Save returns the world with its private keys: for a worker's machine alone,
// in a file of mode 0600.
func (w *World) Save() ([]byte, error) {
	intel, err := w.intel.save()
	if err != nil {
		return nil, fmt.Errorf("software world: %w", err)
	}
	amd, err := w.amd.save()
	if err != nil {
		return nil, fmt.Errorf("software world: %w", err)
	}
	return canonical.Marshal(worldState{worldVersion, w.seed, intel, amd})
}

// Load reads what Save returned.
func Load(b []byte) (*World, error) {
	var s worldState
	if err := canonical.Unmarshal("software world", b, maxWorldBytes, &s); err != nil {
		return nil, err
	}
	if s.Version != worldVersion {
		return nil, fmt.Errorf("software world: version: got %d, want %d", s.Version, worldVersion)
	}
	w := &World{Clock: time.Now, seed: s.Seed}
	var err error
	if w.intel, err = loadIntel(s.Intel); err != nil {
		return nil, err
	}
	if w.amd, err = loadAMD(s.AMD); err != nil {
		return nil, err
	}
	return w, nil
}

// derive returns n bytes that are the world's own for a purpose.
func (w *World) derive(purpose string, n int) []byte {
	b, err := hkdf.Key(sha256.New, w.seed[:], nil, "cocoon/softtee/"+purpose, n)
	if err != nil {
		panic(err) // n is a small constant
	}
	return b
}

// RebuilderKey is an Ed25519 key that may vouch for the world's releases: the same
// in every process that holds the world.
func (w *World) RebuilderKey() ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(w.derive("rebuilder", ed25519.SeedSize))
}

// Launch is what every machine of a technology measures: random per world.
func (w *World) Launch(tee attestation.TEE) attestation.Launch {
	l := attestation.Launch{TEE: tee, Shape: "software " + string(tee)}
	if tee == attestation.SNP {
		l.Measurement = w.derive("snp/measurement", 48)
		return l
	}
	l.MRTD = w.derive("tdx/mrtd", 48)
	for i := range 4 {
		l.RTMR = append(l.RTMR, w.derive(fmt.Sprintf("tdx/rtmr%d", i), 48))
	}
	return l
}

// Roots is the world's public part.
func (w *World) Roots() *Roots {
	return &Roots{intel: w.intel.root, amd: w.amd.Roots()}
}

// Public encodes the world's roots for LoadPublic: no secret.
func (w *World) Public() []byte {
	s := rootsState{Version: worldVersion, Intel: w.intel.root.Raw, AMD: map[string][]byte{w.amd.product: w.amd.ark.Raw}}
	return canonical.MustMarshal(s)
}

// Roots verifies a world's evidence. Its zero value trusts nothing.
type Roots struct {
	intel *x509.Certificate
	amd   sevsnp.Roots
}

// LoadPublic reads what Public returned.
func LoadPublic(b []byte) (*Roots, error) {
	var s rootsState
	if err := canonical.Unmarshal("software roots", b, maxWorldBytes, &s); err != nil {
		return nil, err
	}
	if s.Version != worldVersion {
		return nil, fmt.Errorf("software roots: version: got %d, want %d", s.Version, worldVersion)
	}
	r := &Roots{amd: sevsnp.Roots{}}
	var err error
	if r.intel, err = x509.ParseCertificate(s.Intel); err != nil {
		return nil, fmt.Errorf("software roots: intel: %w", err)
	}
	for product, der := range s.AMD {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("software roots: amd: %w", err)
		}
		r.amd[product] = []*x509.Certificate{c}
	}
	return r, nil
}

// CPUVerifiers are the production verifiers under the world's roots. Their
// assurance is test.
func (r *Roots) CPUVerifiers() []attestation.CPUVerifier {
	pool := x509.NewCertPool()
	if r.intel != nil {
		pool.AddCert(r.intel)
	}
	return []attestation.CPUVerifier{tdx.NewWithRootsUnsafe(pool), sevsnp.NewWithRootsUnsafe(r.amd)}
}

// Verifier returns a verifier that accepts the world's evidence, with assurance
// test. policy may be nil for the strict default.
func (r *Roots) Verifier(policy *attestation.Policy, chain attestation.ChainVerifier) (*attestation.Verifier, error) {
	return attestation.NewVerifier(attestation.Config{
		Policy: policy, CPU: r.CPUVerifiers(), Chain: chain, Test: testtrust.Grant(),
	})
}
