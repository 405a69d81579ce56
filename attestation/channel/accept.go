package channel

import (
	"crypto/ed25519"
	"crypto/hpke"

	"cocoon/attestation"
)

// Accept opens a job, or refuses with a *RefusedError before anything was
// promised, run or billed:
//
//	open.parse      not a JobOpen, or terms out of bounds
//	open.keyset     sealed for another keyset: the client must attest again
//	open.channel    channelKey knows no client key for the channel
//	open.signature  not signed by that key for this keyset, job and connection
//	open.replay     its job id or encapsulated key was seen under this key
//	open.full       the replay set is full: the client must wait for the next epoch
//	open.key-gone   the key was destroyed
//	open.sealed     does not decrypt
//	open.request    the plaintext is not an opening frame
//
// keysetDigest is that of the keyset k was made for, and seen the one set kept
// for k. The signature is checked before the set grows.
func (k *EpochKeys) Accept(open []byte, ekm, keysetDigest [32]byte, channelKey func(attestation.Address) (ed25519.PublicKey, error), seen *Replay) (*ServerJob, error) {
	o, terms, err := parseJobOpen(open)
	if err != nil {
		return nil, &RefusedError{"open.parse", err}
	}
	if o.KeysetDigest != keysetDigest {
		return nil, refuse("open.keyset", "keyset: got %x, want %x", o.KeysetDigest, keysetDigest)
	}
	key, err := channelKey(o.Channel)
	if err != nil {
		return nil, &RefusedError{"open.channel", err}
	}
	if !o.verify(key, ekm) {
		return nil, refuse("open.signature", "not by the client key of channel %s over this job and connection", o.Channel)
	}
	priv, err := k.opener()
	if err != nil {
		return nil, err
	}
	if err := seen.add(o.JobID, o.Enc); err != nil {
		return nil, err
	}
	_, kdf, aead := suite()
	r, err := hpke.NewRecipient(o.Enc, priv, kdf, aead, jobInfo(o.KeysetDigest, o.JobID))
	if err != nil {
		return nil, &RefusedError{"open.sealed", err}
	}
	return newServerJob(k.rand, &o, terms, r)
}

func (k *EpochKeys) opener() (hpke.PrivateKey, error) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if k.hpke == nil {
		return nil, &RefusedError{"open.key-gone", ErrDestroyed}
	}
	return k.hpke, nil
}
