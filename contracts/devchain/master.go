package devchain

import (
	"fmt"
	"math/big"

	"github.com/xssnick/tonutils-go/tlb"
	"github.com/xssnick/tonutils-go/tvm/cell"
)

// master builds the masterchain block that commits to shard. Its cells are
// made by hand: tlb.McBlockExtra has no serializer.
func (s *step) master(seqno uint32, end uint64, prev, shard *block) (*block, error) {
	key := prev == nil || (s.network.keyBlockEvery > 0 && seqno%s.network.keyBlockEvery == 0)
	hashes, err := shardHashes(shard, s.start)
	if err != nil {
		return nil, fmt.Errorf("devchain: shard hashes: %w", err)
	}
	accounts, err := emptyDict(256, tlb.AugShardAccounts{})
	if err != nil {
		return nil, fmt.Errorf("devchain: accounts: %w", err)
	}
	accountBlocks, err := emptyDict(256, tlb.AugShardAccountBlocks{})
	if err != nil {
		return nil, fmt.Errorf("devchain: account blocks: %w", err)
	}
	info, err := s.masterInfo(key)
	if err != nil {
		return nil, fmt.Errorf("devchain: masterchain info: %w", err)
	}
	configAddr := make([]byte, 32)
	extra := noCoins(cell.BeginCell().MustStoreUInt(0xcc26, 16).MustStoreDict(hashes).
		MustStoreSlice(configAddr, 256).MustStoreRef(s.network.config).MustStoreRef(info)).EndCell()

	details := cell.BeginCell().MustStoreUInt(0, 3).EndCell()
	custom := noCoins(noCoins(cell.BeginCell().MustStoreUInt(0xcca5, 16).MustStoreBoolBit(key).MustStoreDict(hashes).MustStoreBoolBit(false))).
		MustStoreRef(details)
	if key {
		custom.MustStoreSlice(configAddr, 256).MustStoreRef(s.network.config)
	}
	return s.block(draft{wc: masterchain, seqno: seqno, end: end, key: key, prev: prev, accountBlocks: accountBlocks,
		state: s.state(masterchain, seqno, end, accounts, extra), custom: custom.EndCell()})
}

// masterInfo holds the references to all masterchain blocks before this one.
func (s *step) masterInfo(key bool) (*cell.Cell, error) {
	old, err := s.oldMC.ToCell()
	if err != nil {
		return nil, err
	}
	b := cell.BeginCell().MustStoreUInt(0, 16).MustStoreUInt(uint64(s.network.validatorHash), 32).MustStoreUInt(catchainSeqno, 32).MustStoreBoolBit(false).
		MustStoreBuilder(old.ToBuilder()).MustStoreBoolBit(key)
	if len(s.keySeqs) == 0 {
		return b.MustStoreBoolBit(false).EndCell(), nil
	}
	last, err := tlb.ToCell(s.blocks[s.keySeqs[len(s.keySeqs)-1]].master.ref())
	if err != nil {
		return nil, err
	}
	return b.MustStoreBoolBit(true).MustStoreBuilder(last.ToBuilder()).EndCell(), nil
}

// shardHashes is the one basechain shard as the masterchain records it.
func shardHashes(shard *block, start uint64) (*cell.Dictionary, error) {
	desc, err := tlb.ToCell(tlb.ShardDesc{
		SeqNo: shard.id.SeqNo, RegMcSeqno: shard.id.SeqNo, MinRefMcSeqNo: shard.id.SeqNo, StartLT: start, EndLT: shard.endLT,
		RootHash: shard.id.RootHash, FileHash: shard.id.FileHash, NextValidatorShard: shard.id.Shard,
		GenUTime: shard.time, SplitMergeAt: tlb.FutureSplitMergeNone{},
	})
	if err != nil {
		return nil, err
	}
	leaf := cell.BeginCell().MustStoreBoolBit(false).MustStoreBuilder(desc.ToBuilder()).EndCell()
	d := cell.NewDict(32)
	return d, d.SetIntKey(big.NewInt(0), cell.BeginCell().MustStoreRef(leaf).EndCell())
}

func emptyDict(keyBits uint, aug cell.Augmentation) (*cell.Cell, error) {
	d, err := cell.NewAugDict(keyBits, aug)
	if err != nil {
		return nil, err
	}
	return d.ToCell()
}

// oldBlocks augments OldMcBlocksInfo (block.tlb): HashmapAugE 32 KeyExtBlkRef
// KeyMaxLt, where a fork knows whether a key block lies under it and the
// largest end time.
type oldBlocks struct{}

func (oldBlocks) SkipExtra(s *cell.Slice) error {
	_, err := s.LoadSlice(1 + 64)
	return err
}

func (oldBlocks) EmptyExtra() (*cell.Cell, error) { return keyMaxLT(false, 0), nil }

func (oldBlocks) LeafExtra(value *cell.Slice) (*cell.Cell, error) {
	return loadKeyMaxLT(value.Copy())
}

func (oldBlocks) CombineExtra(left, right *cell.Slice) (*cell.Cell, error) {
	var l, r tlb.KeyMaxLt
	if err := tlb.LoadFromCell(&l, left); err != nil {
		return nil, err
	}
	if err := tlb.LoadFromCell(&r, right); err != nil {
		return nil, err
	}
	return keyMaxLT(l.IsKey || r.IsKey, max(l.MaxEndLT, r.MaxEndLT)), nil
}

// loadKeyMaxLT reads a KeyExtBlkRef, which begins with the two fields wanted.
func loadKeyMaxLT(s *cell.Slice) (*cell.Cell, error) {
	var v tlb.KeyMaxLt
	if err := tlb.LoadFromCell(&v, s); err != nil {
		return nil, err
	}
	return keyMaxLT(v.IsKey, v.MaxEndLT), nil
}

func keyMaxLT(key bool, lt uint64) *cell.Cell {
	return cell.BeginCell().MustStoreBoolBit(key).MustStoreUInt(lt, 64).EndCell()
}
