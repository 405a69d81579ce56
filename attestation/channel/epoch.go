package channel

import (
	"crypto"
	"crypto/ed25519"
	"crypto/hpke"
	"errors"
	"fmt"
	"io"
	"sync"

	"cocoon/attestation"
)

// ErrDestroyed is the error of a key that was destroyed, or never made.
var ErrDestroyed = errors.New("epoch keys: destroyed")

// EpochKeys are the private keys of one keyset: HPKE and Ed25519. They never
// leave the process. It is safe for concurrent use; its zero value refuses.
type EpochKeys struct {
	rand io.Reader
	pub  []byte

	mu      sync.RWMutex
	hpke    hpke.PrivateKey
	signing ed25519.PrivateKey
	signPub [32]byte
}

// NewEpochKeys makes keys from rand, which also serves every job's
// worker_nonce and so must be safe for concurrent use: crypto/rand.Reader.
func NewEpochKeys(rand io.Reader) (*EpochKeys, error) {
	var ikm, seed [32]byte
	for _, b := range [][]byte{ikm[:], seed[:]} {
		if _, err := io.ReadFull(rand, b); err != nil {
			return nil, fmt.Errorf("epoch keys: randomness: %w", err)
		}
	}
	defer clear(ikm[:])
	defer clear(seed[:])
	kem, _, _ := suite()
	priv, err := kem.DeriveKeyPair(ikm[:])
	if err != nil {
		return nil, fmt.Errorf("epoch keys: hpke: %w", err)
	}
	signing := ed25519.NewKeyFromSeed(seed[:])
	return &EpochKeys{
		rand: rand, pub: priv.PublicKey().Bytes(), hpke: priv,
		signing: signing, signPub: [32]byte(signing.Public().(ed25519.PublicKey)),
	}, nil
}

// HPKEPublicKey is the keyset's hpke_public_key, 1216 bytes.
func (k *EpochKeys) HPKEPublicKey() []byte { return append([]byte(nil), k.pub...) }

// SigningPublicKey is the keyset's signing_public_key.
func (k *EpochKeys) SigningPublicKey() [32]byte { return k.signPub }

// SignSession signs attestation.SessionMessage for one connection.
func (k *EpochKeys) SignSession(nonce, ekm, keysetDigest [32]byte) (sig [64]byte, err error) {
	b, err := k.Sign(nil, attestation.SessionMessage(nonce, ekm, keysetDigest), crypto.Hash(0))
	copy(sig[:], b)
	return sig, err
}

// Public makes EpochKeys a crypto.Signer of the signing key, for receipts.
func (k *EpochKeys) Public() crypto.PublicKey { return ed25519.PublicKey(k.signPub[:]) }

// Sign signs a raw message with the signing key (Ed25519, never prehashed).
func (k *EpochKeys) Sign(_ io.Reader, message []byte, opts crypto.SignerOpts) ([]byte, error) {
	if opts.HashFunc() != crypto.Hash(0) {
		return nil, fmt.Errorf("epoch keys: hash: got %s, want none", opts.HashFunc())
	}
	k.mu.RLock()
	defer k.mu.RUnlock()
	if len(k.signing) == 0 {
		return nil, ErrDestroyed
	}
	return ed25519.Sign(k.signing, message), nil
}

// DestroyHPKE ends the opening of jobs, 60 s after the keyset's not_after.
// Open jobs go on. The key is dropped, not overwritten: Go's hpke package
// keeps its own copies, which the VM's memory encryption must cover.
func (k *EpochKeys) DestroyHPKE() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.hpke = nil
}

// Destroy drops both keys, at the job ceiling.
func (k *EpochKeys) Destroy() {
	k.DestroyHPKE()
	k.mu.Lock()
	defer k.mu.Unlock()
	clear(k.signing)
	k.signing = nil
}
