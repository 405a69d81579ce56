package channel

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hpke"
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"cocoon/attestation"
)

const (
	encBytes     = 1120 // MLKEM768-X25519 encapsulated key
	answerLabel  = "cocoon/answer/v1"
	answerSecret = 32
)

// suite is the one HPKE suite: KEM 0x647a, HKDF-SHA256, AES-256-GCM.
func suite() (hpke.KEM, hpke.KDF, hpke.AEAD) {
	return hpke.MLKEM768X25519(), hpke.HKDFSHA256(), hpke.AES256GCM()
}

// jobInfo is HPKE's info: "cocoon/job/v1" ‖ SHA-256(keyset) ‖ job id.
func jobInfo(keyset [32]byte, job [16]byte) []byte {
	return join("cocoon/job/v1", keyset[:], job[:])
}

// openMessage is what the channel's client key signs to open a job:
// "cocoon/open/v1" ‖ SHA-256(keyset) ‖ job id ‖ channel ‖
// SHA-256(enc ‖ first ciphertext) ‖ terms ‖ EKM, terms being lp(CBOR).
func openMessage(keyset [32]byte, job [16]byte, ch attestation.Address, enc, first, terms []byte, ekm [32]byte) []byte {
	h := sha256.New()
	h.Write(enc)
	h.Write(first)
	return join("cocoon/open/v1", keyset[:], job[:], ch[:], h.Sum(nil), terms, ekm[:])
}

// answerKeys seals or opens a job's answer frames, in order. It is not safe for
// concurrent use.
type answerKeys struct {
	aead  cipher.AEAD
	base  [12]byte
	index uint64
	nonce [12]byte // of the frame at hand
	aad   [9]byte  // index u64 ‖ final bit
}

// newAnswerKeys derives key and nonce by HKDF-SHA256 from the HPKE export, with
// salt enc ‖ worker_nonce and infos "key" and "nonce".
func newAnswerKeys(secret, enc, workerNonce []byte) (*answerKeys, error) {
	salt := append(append(make([]byte, 0, len(enc)+len(workerNonce)), enc...), workerNonce...)
	prk, err := hkdf.Extract(sha256.New, secret, salt)
	if err != nil {
		return nil, fmt.Errorf("answer keys: %w", err)
	}
	key, err := hkdf.Expand(sha256.New, prk, "key", 32)
	if err != nil {
		return nil, fmt.Errorf("answer keys: %w", err)
	}
	nonce, err := hkdf.Expand(sha256.New, prk, "nonce", 12)
	if err != nil {
		return nil, fmt.Errorf("answer keys: %w", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("answer keys: %w", err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("answer keys: %w", err)
	}
	return &answerKeys{aead: aead, base: [12]byte(nonce)}, nil
}

func (k *answerKeys) prepare(final bool) {
	k.nonce = k.base
	binary.BigEndian.PutUint64(k.nonce[4:], binary.BigEndian.Uint64(k.base[4:])^k.index)
	binary.BigEndian.PutUint64(k.aad[:8], k.index)
	k.aad[8] = 0
	if final {
		k.aad[8] = 1
	}
}

// sealTail seals dst[start:] in place and moves on.
func (k *answerKeys) sealTail(dst []byte, start int, final bool) []byte {
	k.prepare(final)
	k.index++
	return k.aead.Seal(dst[:start], k.nonce[:], dst[start:], k.aad[:])
}

// open appends the plaintext of the next frame to dst. The final bit is not
// sent, so a frame that is not the next is tried as the last.
func (k *answerKeys) open(dst, ct []byte) (out []byte, final bool, err error) {
	for _, final := range []bool{false, true} {
		k.prepare(final)
		if out, err := k.aead.Open(dst, k.nonce[:], ct, k.aad[:]); err == nil {
			k.index++
			return out, final, nil
		}
	}
	return nil, false, errNotInOrder
}
