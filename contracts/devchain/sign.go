package devchain

import (
	"crypto/ed25519"
	"crypto/sha256"

	"github.com/xssnick/tonutils-go/adnl/keys"
	"github.com/xssnick/tonutils-go/tl"
	"github.com/xssnick/tonutils-go/ton"
)

// signatures are the validator's over a masterchain block, in the form that
// the network's consensus gives them.
func (c *Chain) signatures(id *ton.BlockIDExt) (any, error) {
	node, err := tl.Hash(keys.PublicKeyED25519{Key: c.keys.public()})
	if err != nil {
		return nil, err
	}
	list := []ton.Signature{{NodeIDShort: node}}
	if c.cfg.Simplex {
		return c.simplex(id, list)
	}
	msg, err := tl.Serialize(ton.BlockID{RootHash: id.RootHash, FileHash: id.FileHash}, true)
	if err != nil {
		return nil, err
	}
	list[0].Signature = c.sign(msg)
	return ton.SignatureSetOrdinary{ValidatorSetHash: int32(c.network.validatorHash), CatchainSeqno: catchainSeqno, Signatures: list}, nil
}

// simplex signs the vote that finalizes the block as a candidate of one session.
func (c *Chain) simplex(id *ton.BlockIDExt, list []ton.Signature) (any, error) {
	candidate, err := tl.Serialize(ton.ConsensusCandidateHashDataOrdinary{
		Block: *id, CollatedFileHash: make([]byte, 32), Parent: ton.ConsensusCandidateWithoutParents{},
	}, true)
	if err != nil {
		return nil, err
	}
	session, hash, slot := sha256.Sum256([]byte("devchain")), sha256.Sum256(candidate), int32(id.SeqNo)
	vote, err := tl.Serialize(ton.ConsensusSimplexFinalizeVote{ID: ton.ConsensusCandidateID{Slot: slot, Hash: hash[:]}}, true)
	if err != nil {
		return nil, err
	}
	msg, err := tl.Serialize(ton.ConsensusDataToSign{SessionID: session[:], Data: vote}, true)
	if err != nil {
		return nil, err
	}
	list[0].Signature = c.sign(msg)
	return ton.SignatureSetSimplex{
		CCSeqno: catchainSeqno, ValidatorSetHash: int32(c.network.validatorHash), Signatures: list,
		SessionID: session[:], Slot: slot, Candidate: candidate,
	}, nil
}

func (c *Chain) sign(msg []byte) []byte {
	sig := ed25519.Sign(c.keys.validator, msg)
	if c.faults.CorruptSignature {
		sig[0] ^= 1
	}
	return sig
}
