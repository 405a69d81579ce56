package devchain

import (
	"crypto/sha256"
	"fmt"
	"math/big"

	"cocoon/attestation"

	"github.com/xssnick/tonutils-go/tlb"
	"github.com/xssnick/tonutils-go/ton"
	"github.com/xssnick/tonutils-go/tvm/cell"
)

const (
	masterchain = -1
	fullShard   = uint64(1) << 63
)

// blockBOC is the form whose SHA-256 is a block's file hash.
var blockBOC = cell.BOCSerializeOptions{WithCRC32C: true, WithIndex: true}

type block struct {
	id             *ton.BlockIDExt
	root, state    *cell.Cell
	startLT, endLT uint64
	time           uint32
	key            bool
	txs            []transaction // of a shard block, by account and logical time
}

func (b *block) ref() tlb.ExtBlkRef {
	if b == nil {
		return tlb.ExtBlkRef{RootHash: make([]byte, 32), FileHash: make([]byte, 32)}
	}
	return tlb.ExtBlkRef{EndLt: b.endLT, SeqNo: b.id.SeqNo, RootHash: b.id.RootHash, FileHash: b.id.FileHash}
}

// commit turns the step's transactions into the next two blocks.
func (s *step) commit() error {
	seqno := s.head + 1
	prev := s.blocks[s.head]
	if prev == nil {
		prev = &height{}
	}
	txs := sortedTxs(s.txs)
	accountBlocks, err := s.accountBlocks(txs)
	if err != nil {
		return fmt.Errorf("devchain: account blocks: %w", err)
	}
	accounts, err := s.states.ToCell()
	if err != nil {
		return fmt.Errorf("devchain: accounts: %w", err)
	}
	end := s.lt + 1
	shard, err := s.block(draft{wc: 0, seqno: seqno, end: end, prev: prev.shard, prevMC: prev.master, accountBlocks: accountBlocks,
		state: s.state(0, seqno, end, accounts, nil)})
	if err != nil {
		return err
	}
	for i := range txs {
		txs[i].block = shard.id
		a := s.accounts[txs[i].account]
		a.txs = append(a.txs, txs[i])
	}
	shard.txs = txs
	master, err := s.master(seqno, end, prev.master, shard)
	if err != nil {
		return err
	}
	return s.add(&height{master: master, shard: shard})
}

// add makes the pair the chain's head, and forgets what is too old.
func (c *Chain) add(h *height) error {
	b := h.master
	c.head = b.id.SeqNo
	c.blocks[c.head] = h
	if b.key {
		c.keySeqs = append(c.keySeqs, c.head)
	}
	if old := c.head - c.cfg.KeepBlocks; c.head > c.cfg.KeepBlocks && c.blocks[old] != nil && !c.blocks[old].master.key {
		delete(c.blocks, old)
	}
	r := b.ref()
	value := cell.BeginCell().MustStoreBoolBit(b.key).MustStoreUInt(r.EndLt, 64).MustStoreUInt(uint64(r.SeqNo), 32).
		MustStoreSlice(r.RootHash, 256).MustStoreSlice(r.FileHash, 256).EndCell()
	if err := c.oldMC.SetIntKey(big.NewInt(int64(c.head)), value); err != nil {
		return fmt.Errorf("devchain: old blocks: %w", err)
	}
	return nil
}

// draft is what differs between the two kinds of block.
type draft struct {
	wc            int32
	seqno         uint32
	end           uint64
	key           bool
	prev, prevMC  *block
	state         *cell.Cell
	accountBlocks *cell.Cell
	custom        *cell.Cell
}

func (s *step) block(d draft) (*block, error) {
	h := tlb.BlockHeader{PrevRef: tlb.BlkPrevInfo{Prev1: d.prev.ref()}}
	h.NotMaster, h.KeyBlock = d.wc != masterchain, d.key
	h.SeqNo, h.GenUtime, h.StartLt, h.EndLt = d.seqno, s.rec.Time, s.start, d.end
	h.Shard = tlb.ShardIdent{WorkchainID: d.wc, ShardPrefix: fullShard}
	h.GenValidatorListHashShort, h.GenCatchainSeqno = s.network.validatorHash, catchainSeqno
	if n := len(s.keySeqs); n > 0 {
		h.PrevKeyBlockSeqno = s.keySeqs[n-1]
	}
	if h.NotMaster {
		r := d.prevMC.ref()
		h.MasterRef = &r
	}
	info, err := h.ToCell()
	if err != nil {
		return nil, fmt.Errorf("devchain: header: %w", err)
	}
	update, err := stateUpdate(d.prev, d.state)
	if err != nil {
		return nil, fmt.Errorf("devchain: state update: %w", err)
	}
	empty := cell.BeginCell().EndCell()
	extra := cell.BeginCell().MustStoreUInt(0x4a33f6fd, 32).MustStoreRef(empty).MustStoreRef(empty).MustStoreRef(d.accountBlocks).
		MustStoreSlice(s.seed[:], 256).MustStoreSlice(make([]byte, 32), 256).MustStoreMaybeRef(d.custom).EndCell()
	root := cell.BeginCell().MustStoreUInt(0x11ef55aa, 32).MustStoreInt(int64(s.network.globalID), 32).
		MustStoreRef(info).MustStoreRef(empty).MustStoreRef(update).MustStoreRef(extra).EndCell()
	file := sha256.Sum256(root.ToBOCWithOptions(blockBOC))
	shard := fullShard
	return &block{
		id:   &ton.BlockIDExt{Workchain: d.wc, Shard: int64(shard), SeqNo: d.seqno, RootHash: root.Hash(), FileHash: file[:]},
		root: root, state: d.state, startLT: s.start, endLT: d.end, time: s.rec.Time, key: d.key,
	}, nil
}

// stateUpdate names the old and the new state by hash and depth alone.
func stateUpdate(prev *block, state *cell.Cell) (*cell.Cell, error) {
	old := cell.BeginCell().EndCell()
	if prev != nil {
		old = prev.state
	}
	from, err := cell.CreatePrunedBranch(old, 1, 0)
	if err != nil {
		return nil, err
	}
	to, err := cell.CreatePrunedBranch(state, 1, 0)
	if err != nil {
		return nil, err
	}
	return cell.CreateMerkleUpdate(from, to)
}

// noCoins stores an empty CurrencyCollection.
func noCoins(b *cell.Builder) *cell.Builder { return b.MustStoreCoins(0).MustStoreBoolBit(false) }

// state builds a ShardStateUnsplit (block.tlb, shard_state#9023afe2).
func (s *step) state(wc int32, seqno uint32, end uint64, accounts, extra *cell.Cell) *cell.Cell {
	queues := cell.BeginCell().MustStoreBoolBit(false).MustStoreUInt(0, 64).MustStoreBoolBit(false).MustStoreBoolBit(false).EndCell()
	stats := noCoins(noCoins(cell.BeginCell().MustStoreUInt(0, 128))).MustStoreBoolBit(false).MustStoreBoolBit(false).EndCell()
	return cell.BeginCell().MustStoreUInt(0x9023afe2, 32).MustStoreInt(int64(s.network.globalID), 32).
		MustStoreUInt(0, 2).MustStoreUInt(0, 6).MustStoreInt(int64(wc), 32).MustStoreUInt(fullShard, 64).
		MustStoreUInt(uint64(seqno), 32).MustStoreUInt(0, 32).MustStoreUInt(uint64(s.rec.Time), 32).
		MustStoreUInt(end, 64).MustStoreUInt(uint64(seqno), 32).
		MustStoreRef(queues).MustStoreBoolBit(false).MustStoreRef(accounts).MustStoreRef(stats).MustStoreMaybeRef(extra).EndCell()
}

// accountBlocks files the transactions by account, and writes the accounts'
// new states.
func (s *step) accountBlocks(txs []transaction) (*cell.Cell, error) {
	all, err := cell.NewAugDict(256, tlb.AugShardAccountBlocks{})
	if err != nil {
		return nil, err
	}
	for len(txs) > 0 {
		addr := txs[0].account
		list, err := tlb.NewAccountTransactionsAugDict()
		if err != nil {
			return nil, err
		}
		for len(txs) > 0 && txs[0].account == addr {
			key := cell.BeginCell().MustStoreUInt(txs[0].lt, 64).EndCell()
			if err := list.Set(key, cell.BeginCell().MustStoreRef(txs[0].cell).EndCell()); err != nil {
				return nil, err
			}
			txs = txs[1:]
		}
		inline, err := list.InlineCell()
		if err != nil {
			return nil, err
		}
		if err := s.accountBlock(all, addr, inline); err != nil {
			return nil, err
		}
	}
	return all.ToCell()
}

func (s *step) accountBlock(all *cell.AugmentedDictionary, addr attestation.Address, txs *cell.Cell) error {
	id := addr.ID()
	now := s.accounts[addr].prepared
	update := cell.BeginCell().MustStoreUInt(0x72, 8).MustStoreSlice(make([]byte, 32), 256).MustStoreSlice(now.ShardAccount().Account.Hash(), 256).EndCell()
	b := cell.BeginCell().MustStoreUInt(5, 4).MustStoreSlice(id[:], 256).MustStoreBuilder(txs.ToBuilder()).MustStoreRef(update).EndCell()
	if err := all.Set(accountKey(addr), b); err != nil {
		return err
	}
	return s.states.Set(accountKey(addr), now.ShardAccountCell())
}
