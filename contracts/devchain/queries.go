package devchain

import (
	"bytes"
	"slices"
	"sort"

	"cocoon/attestation"

	"github.com/xssnick/tonutils-go/tl"
	"github.com/xssnick/tonutils-go/tlb"
	"github.com/xssnick/tonutils-go/ton"
	"github.com/xssnick/tonutils-go/tvm/cell"
)

func (c *Chain) accountState(q ton.GetAccountState) (tl.Serializable, error) {
	v, err := c.view(q.ID, q.Account)
	if err != nil {
		return nil, err
	}
	r := ton.AccountState{ID: q.ID, Shard: v.at.shard.id, ShardProof: v.shardProof, Proof: v.proof}
	if v.account == nil {
		return r, nil
	}
	r.State = v.account.Account
	if c.faults.LieAccount {
		var s tlb.AccountState
		if err := tlb.Parse(&s, r.State); err != nil {
			return nil, err
		}
		s.Balance = tlb.FromNanoTONU(s.Balance.Nano().Uint64() + 1)
		r.State, err = s.ToCell()
	}
	return r, err
}

func (c *Chain) transactions(q ton.GetTransactions) (tl.Serializable, error) {
	noLT := ton.LSError{Code: codeNoLT, Text: "cannot compute block with specified transaction: lt not in db"}
	if q.AccID == nil || len(q.AccID.ID) != 32 {
		return nil, noLT
	}
	a := c.accounts[attestation.NewAddress(q.AccID.Workchain, [32]byte(q.AccID.ID))]
	if a == nil {
		return nil, noLT
	}
	at := sort.Search(len(a.txs), func(i int) bool { return a.txs[i].lt >= uint64(q.LT) })
	if at == len(a.txs) || a.txs[at].lt != uint64(q.LT) || !bytes.Equal(a.txs[at].cell.Hash(), q.TxHash) {
		return nil, noLT
	}
	r := ton.TransactionList{}
	var cells []*cell.Cell
	for i := at; i >= 0 && len(cells) < min(int(q.Limit), maxTxsPerQuery); i-- {
		cells, r.IDs = append(cells, a.txs[i].cell), append(r.IDs, a.txs[i].block)
	}
	r.Transactions = cell.ToBOCWithOptions(cells, cell.BOCSerializeOptions{})
	return r, nil
}

func (c *Chain) oneTransaction(q ton.GetOneTransaction) (tl.Serializable, error) {
	b, err := c.find(q.ID)
	if err != nil {
		return nil, err
	}
	for _, t := range b.txs {
		id := t.account.ID()
		if t.lt == uint64(q.LT) && q.AccID != nil && bytes.Equal(id[:], q.AccID.ID) {
			p, err := prove(b.root, transactionsIn([]transaction{t}))
			if err != nil {
				return nil, err
			}
			return ton.TransactionInfo{ID: b.id, Proof: p.ToBOC(), Transaction: t.cell.ToBOC()}, nil
		}
	}
	return ton.TransactionInfo{ID: b.id, Proof: []byte{}, Transaction: []byte{}}, nil
}

func (b *block) header() (tl.Serializable, error) {
	p, err := prove(b.root, header)
	if err != nil {
		return nil, err
	}
	return ton.BlockHeader{ID: b.id, HeaderProof: p.ToBOC()}, nil
}

// lookupBlock finds by seqno (mode 1), logical time (2) or time (4); for the
// last two the first kept block that reaches it.
func (c *Chain) lookupBlock(q ton.LookupBlock) (tl.Serializable, error) {
	pick := func(h *height) *block {
		if q.ID.Workchain == masterchain {
			return h.master
		}
		return h.shard
	}
	if q.Mode&1 != 0 {
		if h := c.blocks[uint32(q.ID.Seqno)]; h != nil {
			return pick(h).header()
		}
		return nil, errNoBlock
	}
	var seqnos []uint32
	for n := range c.blocks {
		seqnos = append(seqnos, n)
	}
	slices.Sort(seqnos)
	for _, n := range seqnos {
		b := pick(c.blocks[n])
		if (q.Mode&2 != 0 && b.endLT >= q.LT) || (q.Mode&4 != 0 && b.time >= q.UTime) {
			return b.header()
		}
	}
	return nil, errNoBlock
}

func (c *Chain) getBlockProof(q ton.GetBlockProof) (tl.Serializable, error) {
	known, err := c.find(q.KnownBlock)
	if err != nil {
		return nil, err
	}
	target := c.blocks[c.shownHead()].master
	if q.TargetBlock != nil {
		if target, err = c.find(q.TargetBlock); err != nil {
			return nil, err
		}
	}
	if known.id.Workchain != masterchain || target.id.Workchain != masterchain {
		return nil, ton.LSError{Code: codeFailed, Text: "want masterchain blocks"}
	}
	p, err := c.blockProof(known, target)
	if c.faults.RelabelHead && err == nil && len(p.Steps) > 0 {
		relabel(&p)
	}
	return p, err
}

// relabel raises the seqno that the last link claims for its block.
func relabel(p *ton.PartialBlockProof) {
	last, ok := p.Steps[len(p.Steps)-1].(ton.BlockLinkForward)
	if !ok {
		return
	}
	last.To = last.To.Copy()
	last.To.SeqNo++
	p.Steps[len(p.Steps)-1], p.To = last, last.To
}

func (c *Chain) config(id *ton.BlockIDExt, params []int32) (tl.Serializable, error) {
	b, err := c.find(id)
	if err != nil {
		return nil, err
	}
	if b.id.Workchain != masterchain {
		return nil, errNoBlock
	}
	path, err := b.pathTo(configIn(params))
	if err != nil {
		return nil, err
	}
	return ton.ConfigAll{ID: b.id, StateProof: path[0].ToBOC(), ConfigProof: path[1].ToBOC()}, nil
}

func (c *Chain) allShards(q ton.GetAllShardsInfo) (tl.Serializable, error) {
	b, err := c.find(q.ID)
	if err != nil {
		return nil, err
	}
	var full tlb.Block
	if err := tlb.Parse(&full, b.root); err != nil {
		return nil, err
	}
	if full.Extra.Custom == nil {
		return nil, errNoBlock
	}
	p, err := prove(b.root, func(root *cell.Cell) error {
		_, err := blockExtra(root)
		return err
	})
	if err != nil {
		return nil, err
	}
	data := cell.BeginCell().MustStoreDict(full.Extra.Custom.ShardHashes).EndCell()
	return ton.AllShardsInfo{ID: b.id, Proof: []*cell.Cell{p}, Data: data}, nil
}

func (c *Chain) shardInfo(q ton.GetShardInfo) (tl.Serializable, error) {
	b, err := c.find(q.ID)
	if err != nil {
		return nil, err
	}
	if b.id.Workchain != masterchain || q.Workchain != 0 {
		return nil, errNoBlock
	}
	h := c.blocks[b.id.SeqNo]
	path, err := b.pathTo(shardsOf)
	if err != nil {
		return nil, err
	}
	d, err := shardHashes(h.shard, h.shard.startLT)
	if err != nil {
		return nil, err
	}
	leaf, err := d.AsCell().PeekRef(0)
	if err != nil {
		return nil, err
	}
	return ton.ShardInfo{ID: b.id, ShardBlock: h.shard.id, ShardProof: path, ShardDescription: leaf}, nil
}

// page picks a block's transactions after one of them, as both list queries ask.
func (b *block) page(count uint32, after *ton.TransactionID3, reverse bool) (txs []transaction, incomplete bool) {
	all := slices.Clone(b.txs)
	if reverse {
		slices.Reverse(all)
	}
	if after != nil && len(after.Account) == 32 {
		mark := attestation.NewAddress(b.id.Workchain, [32]byte(after.Account))
		for len(all) > 0 {
			d := bytes.Compare(all[0].account[:], mark[:])
			past := d > 0 || (d == 0 && all[0].lt > after.LT)
			if reverse {
				past = d < 0 || (d == 0 && all[0].lt < after.LT)
			}
			if past {
				break
			}
			all = all[1:]
		}
	}
	if n := min(int(count), 1024); len(all) > n {
		return all[:n], true
	}
	return all, false
}

func (c *Chain) listTransactions(q ton.ListBlockTransactions) (tl.Serializable, error) {
	b, err := c.find(q.ID)
	if err != nil {
		return nil, err
	}
	txs, more := b.page(q.Count, q.After, q.Mode&(1<<6) != 0)
	r := ton.BlockTransactions{ID: b.id, ReqCount: int32(q.Count), Incomplete: more, TransactionIds: []ton.TransactionID{}}
	for _, t := range txs {
		id := t.account.ID()
		r.TransactionIds = append(r.TransactionIds, ton.TransactionID{Flags: q.Mode & 7, Account: id[:], LT: t.lt, Hash: t.cell.Hash()})
	}
	if q.Mode&(1<<5) != 0 {
		r.Proof, err = prove(b.root, transactionsIn(txs))
	}
	return r, err
}

func (c *Chain) listTransactionsExt(q ton.ListBlockTransactionsExt) (tl.Serializable, error) {
	b, err := c.find(q.ID)
	if err != nil {
		return nil, err
	}
	txs, more := b.page(q.Count, q.After, q.Mode&(1<<6) != 0)
	r := ton.BlockTransactionsExt{ID: b.id, ReqCount: int32(q.Count), Incomplete: more, Proof: []byte{}}
	for _, t := range txs {
		r.Transactions = append(r.Transactions, t.cell)
	}
	if q.Mode&(1<<5) == 0 {
		return r, nil
	}
	p, err := prove(b.root, transactionsIn(txs))
	if err != nil {
		return nil, err
	}
	r.Proof = p.ToBOC()
	return r, nil
}
