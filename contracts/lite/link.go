package lite

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/xssnick/tonutils-go/address"
	"github.com/xssnick/tonutils-go/ton"
	"github.com/xssnick/tonutils-go/tvm/cell"
)

// Block is a masterchain block that was proven.
type Block struct {
	Seqno    uint32
	RootHash [32]byte
	FileHash [32]byte
	Time     time.Time // of its generation, as validators signed it
}

// ID names the block.
func (b Block) ID() BlockID {
	return BlockID{Seqno: b.Seqno, RootHash: b.RootHash, FileHash: b.FileHash}
}

// Bounds on the parts of a link. Mainnet's 34th config param is about 50 KB,
// and its masterchain has at most 100 validators at a time.
const (
	maxHeaderBytes    = 32 << 10
	maxConfigBytes    = 192 << 10
	maxSignatures     = 1024
	maxCandidateBytes = 4 << 10
)

// link proves masterchain block To from key block Key: To's header, Key's
// validators, and their signatures over To. Where To is Key, the header alone
// is there, and the block is believed for being trusted already.
type link struct {
	Key        BlockID    `cbor:"key"`
	To         BlockID    `cbor:"to"`
	Header     []byte     `cbor:"header"` // BoC: Merkle proof of To's header
	Config     []byte     `cbor:"config"` // BoC: Merkle proof of Key's params 28 and 34; empty if To is Key
	Signatures signatures `cbor:"signatures"`
}

// signatures is liteServer.SignatureSet: ordinary ones over the block's id, or,
// when Simplex is set, over the finalize vote of that consensus.
type signatures struct {
	Simplex          bool        `cbor:"simplex"`
	ValidatorSetHash uint32      `cbor:"validator_set_hash"`
	CatchainSeqno    uint32      `cbor:"catchain_seqno"`
	List             []signature `cbor:"list"`
	SessionID        [32]byte    `cbor:"session_id"`
	Slot             int32       `cbor:"slot"`
	Candidate        []byte      `cbor:"candidate"`
}

type signature struct {
	Node      [32]byte `cbor:"node"`
	Signature [64]byte `cbor:"signature"`
}

// header is what the proof of a masterchain block's header says.
type header struct {
	Block
	key      bool
	prevKey  uint32
	globalID int32
}

// verify proves l.To under trust.
func (l *link) verify(trust KeyBlocks) (h header, err error) {
	defer recoverParse(&err)
	if err := l.check(); err != nil {
		return header{}, err
	}
	if h, err = parseHeader(l.To, l.Header); err != nil {
		return header{}, err
	}
	if known, ok := trust.at(l.To.Seqno); ok && known != l.To {
		return header{}, fmt.Errorf("block: got %s, want %s as trusted", l.To, known)
	}
	if l.Key == l.To {
		if !trust.Contains(l.To) {
			return header{}, fmt.Errorf("key block: got %s, want a trusted one", l.Key)
		}
		return h, nil
	}
	if want, ok := trust.before(l.To.Seqno); !ok || l.Key != want {
		return header{}, fmt.Errorf("key block: got %s, want the newest trusted one before block %d", l.Key, l.To.Seqno)
	}
	if h.prevKey != l.Key.Seqno {
		return header{}, fmt.Errorf("key block: got %d, want %d as the header says", l.Key.Seqno, h.prevKey)
	}
	return h, l.checkSignatures(h)
}

// check bounds the parts before anything is parsed.
func (l *link) check() error {
	switch {
	case len(l.Header) > maxHeaderBytes:
		return fmt.Errorf("header: got %d bytes, want at most %d", len(l.Header), maxHeaderBytes)
	case len(l.Config) > maxConfigBytes:
		return fmt.Errorf("config: got %d bytes, want at most %d", len(l.Config), maxConfigBytes)
	case len(l.Signatures.List) > maxSignatures:
		return fmt.Errorf("signatures: got %d, want at most %d", len(l.Signatures.List), maxSignatures)
	case len(l.Signatures.Candidate) > maxCandidateBytes:
		return fmt.Errorf("candidate: got %d bytes, want at most %d", len(l.Signatures.Candidate), maxCandidateBytes)
	case !l.Signatures.Simplex && (l.Signatures.SessionID != [32]byte{} || l.Signatures.Slot != 0 || len(l.Signatures.Candidate) > 0):
		return errors.New("signatures: got a session, slot or candidate, want none without simplex")
	case l.Key == l.To && (len(l.Config) > 0 || len(l.Signatures.List) > 0 || l.Signatures.Simplex || l.Signatures.ValidatorSetHash != 0 || l.Signatures.CatchainSeqno != 0):
		return errors.New("signatures: got some, want none where the block is the key block")
	}
	return nil
}

func (l *link) checkSignatures(h header) error {
	dest, err := parseBOC("header", l.Header)
	if err != nil {
		return err
	}
	config, err := parseBOC("config", l.Config)
	if err != nil {
		return err
	}
	from, err := ton.CheckBlockProof(config, l.Key.RootHash[:])
	if err != nil {
		return fmt.Errorf("config: %w", err)
	}
	if from.GlobalID != h.globalID {
		return fmt.Errorf("global_id: got %d, want %d as in the key block", h.globalID, from.GlobalID)
	}
	if from.Extra == nil || from.Extra.Custom == nil || from.Extra.Custom.ConfigParams == nil {
		return errors.New("config: got none, want a key block's")
	}
	return ton.CheckForwardBlockProof(l.Key.ton(), l.To.ton(), h.key, config, dest, l.Signatures.ton())
}

// parseHeader reads a header under its Merkle proof. tonutils compares only the
// hash; the signed id has no seqno, so the header's own must be the one claimed.
func parseHeader(id BlockID, boc []byte) (header, error) {
	root, err := parseBOC("header", boc)
	if err != nil {
		return header{}, err
	}
	b, err := ton.CheckBlockProof(root, id.RootHash[:])
	if err != nil {
		return header{}, fmt.Errorf("header: %w", err)
	}
	i := b.BlockInfo
	if i.SeqNo != id.Seqno {
		return header{}, fmt.Errorf("header: seqno: got %d, want %d", i.SeqNo, id.Seqno)
	}
	if i.NotMaster || i.Shard.WorkchainID != address.MasterchainID || i.Shard.PrefixBits != 0 {
		return header{}, errors.New("header: want a masterchain block's")
	}
	return header{
		Block: Block{Seqno: id.Seqno, RootHash: id.RootHash, FileHash: id.FileHash, Time: time.Unix(int64(i.GenUtime), 0).UTC()},
		key:   i.KeyBlock, prevKey: i.PrevKeyBlockSeqno, globalID: b.GlobalID,
	}, nil
}

func (s signatures) ton() any {
	list := make([]ton.Signature, len(s.List))
	for i, x := range s.List {
		list[i] = ton.Signature{NodeIDShort: x.Node[:], Signature: x.Signature[:]}
	}
	if s.Simplex {
		return ton.SignatureSetSimplex{
			CCSeqno: int32(s.CatchainSeqno), ValidatorSetHash: int32(s.ValidatorSetHash), Signatures: list,
			SessionID: s.SessionID[:], Slot: s.Slot, Candidate: s.Candidate,
		}
	}
	return ton.SignatureSetOrdinary{ValidatorSetHash: int32(s.ValidatorSetHash), CatchainSeqno: int32(s.CatchainSeqno), Signatures: list}
}

// fromTON reads the signatures of one of the forms that liteservers send.
func (s *signatures) fromTON(set any) error {
	var list []ton.Signature
	*s = signatures{Candidate: []byte{}}
	switch t := set.(type) {
	case ton.SignatureSet:
		s.ValidatorSetHash, s.CatchainSeqno, list = uint32(t.ValidatorSetHash), uint32(t.CatchainSeqno), t.Signatures
	case ton.SignatureSetOrdinary:
		s.ValidatorSetHash, s.CatchainSeqno, list = uint32(t.ValidatorSetHash), uint32(t.CatchainSeqno), t.Signatures
	case ton.SignatureSetSimplex:
		s.Simplex, s.ValidatorSetHash, s.CatchainSeqno, list = true, uint32(t.ValidatorSetHash), uint32(t.CCSeqno), t.Signatures
		if len(t.SessionID) != 32 {
			return fmt.Errorf("session_id: got %d bytes, want 32", len(t.SessionID))
		}
		s.SessionID, s.Slot, s.Candidate = [32]byte(t.SessionID), t.Slot, slices.Clone(t.Candidate)
	default:
		return fmt.Errorf("signature set: got %T, want ordinary or simplex", set)
	}
	s.List = make([]signature, 0, len(list))
	for _, x := range list {
		if len(x.NodeIDShort) != 32 || len(x.Signature) != 64 {
			return fmt.Errorf("signature: got %d and %d bytes, want 32 and 64", len(x.NodeIDShort), len(x.Signature))
		}
		s.List = append(s.List, signature{Node: [32]byte(x.NodeIDShort), Signature: [64]byte(x.Signature)})
	}
	return nil
}

// parseBOC reads exactly one root, and makes no more cells than the bytes hold.
func parseBOC(what string, boc []byte) (*cell.Cell, error) {
	c, err := cell.FromBOCWithOptions(boc, cell.BOCParseOptions{MaxCells: len(boc)/2 + 1})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	return c, nil
}

// recoverParse turns a panic into an error: tonutils-go v1.18.0 dereferences
// what a pruned branch left out (a header's state update, a key block's
// params), and proofs come from strangers.
func recoverParse(err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("malformed proof: %v", r)
	}
}
