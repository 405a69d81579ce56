package lite

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"cocoon/attestation"

	"github.com/xssnick/tonutils-go/liteclient"
	"github.com/xssnick/tonutils-go/ton"
)

const (
	masterchainID    = -1
	masterchainShard = -1 << 63
)

// BlockID names a masterchain block.
type BlockID struct {
	Seqno    uint32   `cbor:"seqno" json:"seqno"`
	RootHash [32]byte `cbor:"root_hash" json:"root_hash"`
	FileHash [32]byte `cbor:"file_hash" json:"file_hash"`
}

func (b BlockID) String() string { return fmt.Sprintf("%d:%x", b.Seqno, b.RootHash) }

func (b BlockID) ton() *ton.BlockIDExt {
	return &ton.BlockIDExt{Workchain: masterchainID, Shard: masterchainShard, SeqNo: b.Seqno, RootHash: b.RootHash[:], FileHash: b.FileHash[:]}
}

func blockID(b *ton.BlockIDExt) (BlockID, error) {
	if b == nil || b.Workchain != masterchainID || b.Shard != masterchainShard || len(b.RootHash) != 32 || len(b.FileHash) != 32 {
		return BlockID{}, errors.New("block id: want a masterchain block")
	}
	return BlockID{Seqno: b.SeqNo, RootHash: [32]byte(b.RootHash), FileHash: [32]byte(b.FileHash)}, nil
}

// KeyBlocks is a set of masterchain key blocks that its holder trusts: their
// validators may sign the blocks after them, up to the next key block. The zero
// value trusts nothing. It is immutable.
type KeyBlocks struct {
	ids []BlockID // by seqno
}

// TrustKeyBlocks trusts ids without proof. Two blocks of one seqno are a fork,
// and refused.
func TrustKeyBlocks(ids ...BlockID) (KeyBlocks, error) {
	var k KeyBlocks
	for _, id := range ids {
		var err error
		if k, err = k.with(id); err != nil {
			return KeyBlocks{}, err
		}
	}
	return k, nil
}

// ConfigKeyBlocks trusts the init block of a TON global config.
func ConfigKeyBlocks(globalConfigJSON []byte) (KeyBlocks, error) {
	_, init, err := parseGlobalConfig(globalConfigJSON)
	if err != nil {
		return KeyBlocks{}, err
	}
	return TrustKeyBlocks(init)
}

// VerifyBeacon is the function of that name under this trust: it makes
// KeyBlocks an attestation.ChainVerifier.
func (k KeyBlocks) VerifyBeacon(b attestation.Beacon, proof []byte) (time.Time, error) {
	return VerifyBeacon(b.Seqno, b.RootHash, proof, k)
}

// List returns the trusted blocks, oldest first.
func (k KeyBlocks) List() []BlockID { return slices.Clone(k.ids) }

// Contains reports whether id, in all its parts, is trusted.
func (k KeyBlocks) Contains(id BlockID) bool {
	got, ok := k.at(id.Seqno)
	return ok && got == id
}

// newest is the trusted block with the largest seqno.
func (k KeyBlocks) newest() (BlockID, bool) {
	if len(k.ids) == 0 {
		return BlockID{}, false
	}
	return k.ids[len(k.ids)-1], true
}

func (k KeyBlocks) at(seqno uint32) (BlockID, bool) {
	i, ok := k.search(seqno)
	if !ok {
		return BlockID{}, false
	}
	return k.ids[i], true
}

// before is the newest trusted block older than seqno: the only one whose
// validators may have signed the block of that seqno. An older set could be
// bribed, or its keys stolen, long after it handed over.
func (k KeyBlocks) before(seqno uint32) (BlockID, bool) {
	i, _ := k.search(seqno)
	if i == 0 {
		return BlockID{}, false
	}
	return k.ids[i-1], true
}

func (k KeyBlocks) search(seqno uint32) (int, bool) {
	return slices.BinarySearchFunc(k.ids, seqno, func(b BlockID, s uint32) int {
		switch {
		case b.Seqno < s:
			return -1
		case b.Seqno > s:
			return 1
		}
		return 0
	})
}

func (k KeyBlocks) with(id BlockID) (KeyBlocks, error) {
	i, ok := k.search(id.Seqno)
	if ok && k.ids[i] != id {
		return k, fmt.Errorf("key block: got %s, want %s as trusted", id, k.ids[i])
	}
	if ok {
		return k, nil
	}
	return KeyBlocks{slices.Insert(slices.Clone(k.ids), i, id)}, nil
}

// maxGlobalConfigBytes bounds a global config; mainnet's is about 50 KB.
const maxGlobalConfigBytes = 1 << 20

func parseGlobalConfig(raw []byte) (*liteclient.GlobalConfig, BlockID, error) {
	if len(raw) > maxGlobalConfigBytes {
		return nil, BlockID{}, fmt.Errorf("global config: got %d bytes, want at most %d", len(raw), maxGlobalConfigBytes)
	}
	var cfg liteclient.GlobalConfig
	if err := json.Unmarshal(raw, &cfg); err != nil {
		return nil, BlockID{}, fmt.Errorf("global config: %w", err)
	}
	b := ton.BlockIDExt(cfg.Validator.InitBlock)
	init, err := blockID(&b)
	if err == nil && (init.Seqno == 0 || init.RootHash == [32]byte{} || init.FileHash == [32]byte{}) {
		err = errors.New("got none")
	}
	if err != nil {
		return nil, BlockID{}, fmt.Errorf("global config: validator.init_block: %w", err)
	}
	return &cfg, init, nil
}
