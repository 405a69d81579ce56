package devchain

import (
	"errors"
	"math/big"

	"cocoon/attestation"

	"github.com/xssnick/tonutils-go/tlb"
	"github.com/xssnick/tonutils-go/ton"
	"github.com/xssnick/tonutils-go/tvm/cell"
)

// prove returns a Merkle proof of root with just the cells that read loads.
func prove(root *cell.Cell, read func(*cell.Cell) error) (*cell.Cell, error) {
	b := cell.NewMerkleProofBuilder(root)
	if err := read(b.Root()); err != nil {
		return nil, err
	}
	return b.CreateProof()
}

// header reads a block's info and the hashes of its two states.
func header(root *cell.Cell) error {
	s, err := root.BeginParse()
	if err != nil {
		return err
	}
	info, err := s.LoadRef()
	if err != nil {
		return err
	}
	var h tlb.BlockHeader
	if err := tlb.LoadFromCell(&h, info); err != nil {
		return err
	}
	if _, err = s.LoadRefCell(); err != nil { // value flow stays pruned
		return err
	}
	_, err = s.LoadRef()
	return err
}

// blockExtra reads a block down to its extra, and its masterchain extra.
func blockExtra(root *cell.Cell) (*tlb.Block, error) {
	if err := header(root); err != nil {
		return nil, err
	}
	var b tlb.Block
	return &b, tlb.Parse(&b, root)
}

// keyConfig reads what a forward link needs of a key block: its validators.
func keyConfig(root *cell.Cell) error {
	b, err := blockExtra(root)
	if err != nil {
		return err
	}
	if b.Extra.Custom == nil || b.Extra.Custom.ConfigParams == nil {
		return errors.New("not a key block")
	}
	return readParams(b.Extra.Custom.ConfigParams.Config.Params, paramCatchain, paramValidators)
}

func readParams(params *cell.Dictionary, keys ...int32) error {
	for _, k := range keys {
		v, err := params.LoadValueByIntKey(big.NewInt(int64(k)))
		if errors.Is(err, cell.ErrNoSuchKeyInDict) {
			continue
		}
		if err != nil {
			return err
		}
		ref, err := v.LoadRefCell()
		if err != nil {
			return err
		}
		if err := everything(ref); err != nil {
			return err
		}
	}
	return nil
}

// everything reads all cells under c.
func everything(c *cell.Cell) error {
	s, err := c.BeginParse()
	if err != nil {
		return err
	}
	for s.RefsNum() > 0 {
		ref, err := s.LoadRefCell()
		if err != nil {
			return err
		}
		if err := everything(ref); err != nil {
			return err
		}
	}
	return nil
}

func masterExtra(state *cell.Cell) (*tlb.McStateExtra, error) {
	var s tlb.ShardStateUnsplit
	if err := tlb.Parse(&s, state); err != nil {
		return nil, err
	}
	var e tlb.McStateExtra
	return &e, tlb.Parse(&e, s.McStateExtra)
}

// shardsOf reads the masterchain state down to the shards it commits to.
func shardsOf(state *cell.Cell) error {
	e, err := masterExtra(state)
	if err != nil {
		return err
	}
	_, err = ton.LoadShardsFromHashes(e.ShardHashes, false)
	return err
}

// accountIn reads the shard state down to one account, or to where it would be.
func accountIn(addr attestation.Address) func(*cell.Cell) error {
	return func(state *cell.Cell) error {
		var s tlb.ShardStateUnsplit
		if err := tlb.Parse(&s, state); err != nil {
			return err
		}
		_, _, err := s.Accounts.ShardAccounts.LoadValueExtra(accountKey(addr))
		if errors.Is(err, cell.ErrNoSuchKeyInDict) {
			return nil
		}
		return err
	}
}

// configIn reads the masterchain state down to config params, or all of them.
func configIn(params []int32) func(*cell.Cell) error {
	return func(state *cell.Cell) error {
		e, err := masterExtra(state)
		if err != nil {
			return err
		}
		if params == nil {
			return everything(e.ConfigParams.Config.Params.AsCell())
		}
		return readParams(e.ConfigParams.Config.Params, params...)
	}
}

// oldBlockIn reads the masterchain state down to its reference to an earlier block.
func oldBlockIn(seqno uint32) func(*cell.Cell) error {
	return func(state *cell.Cell) error {
		e, err := masterExtra(state)
		if err != nil {
			return err
		}
		var info tlb.McStateExtraBlockInfo
		if err := tlb.Parse(&info, e.Info); err != nil {
			return err
		}
		_, _, err = info.PrevBlocks.LoadValueExtraByIntKey(big.NewInt(int64(seqno)))
		return err
	}
}

// transactionsIn reads a block down to some of its transactions.
func transactionsIn(txs []transaction) func(*cell.Cell) error {
	return func(root *cell.Cell) error {
		b, err := blockExtra(root)
		if err != nil {
			return err
		}
		var all tlb.ShardAccountBlocks
		if err := tlb.Parse(&all, b.Extra.ShardAccountBlocks); err != nil {
			return err
		}
		for _, t := range txs {
			id := t.account.ID()
			if err := ton.CheckTransactionProof(t.cell.Hash(), t.lt, id[:], &all); err != nil {
				return err
			}
		}
		return nil
	}
}

// pathTo proves a state of b from b's id: the header, then the state.
func (b *block) pathTo(read func(*cell.Cell) error) ([]*cell.Cell, error) {
	h, err := prove(b.root, header)
	if err != nil {
		return nil, err
	}
	s, err := prove(b.state, read)
	return []*cell.Cell{h, s}, err
}

// maxLinks bounds one answer, so that clients meet incomplete proofs here too.
const maxLinks = 8

// blockProof links known to target as a liteserver does: back to a key block
// if known is none, then from key block to key block.
func (c *Chain) blockProof(known, target *block) (ton.PartialBlockProof, error) {
	p := ton.PartialBlockProof{From: known.id, To: target.id, Complete: true}
	at := known
	for at != target {
		if len(p.Steps) == maxLinks {
			p.To, p.Complete = at.id, false
			return p, nil
		}
		next, err := c.nextLink(at, target)
		if err != nil {
			return p, err
		}
		var link any
		if next.id.SeqNo > at.id.SeqNo {
			link, err = c.forward(at, next)
		} else {
			link, err = backward(at, next)
		}
		if err != nil {
			return p, err
		}
		p.Steps, at = append(p.Steps, link), next
	}
	return p, nil
}

func (c *Chain) nextLink(at, target *block) (*block, error) {
	if target.id.SeqNo < at.id.SeqNo {
		return target, nil
	}
	var before, after uint32
	for _, k := range c.keySeqs {
		switch {
		case k <= at.id.SeqNo:
			before = k
		case after == 0:
			after = k
		}
	}
	switch {
	case !at.key:
		return c.master(before)
	case after != 0 && after < target.id.SeqNo:
		return c.master(after)
	}
	return target, nil
}

func (c *Chain) forward(from, to *block) (any, error) {
	dest, err := prove(to.root, header)
	if err != nil {
		return nil, err
	}
	config, err := prove(from.root, keyConfig)
	if err != nil {
		return nil, err
	}
	sigs, err := c.signatures(to.id)
	return ton.BlockLinkForward{ToKeyBlock: to.key, From: from.id, To: to.id, DestProof: dest.ToBOC(), ConfigProof: config.ToBOC(), SignatureSet: sigs}, err
}

func backward(from, to *block) (any, error) {
	dest, err := prove(to.root, header)
	if err != nil {
		return nil, err
	}
	path, err := from.pathTo(oldBlockIn(to.id.SeqNo))
	if err != nil {
		return nil, err
	}
	return ton.BlockLinkBackward{ToKeyBlock: to.key, From: from.id, To: to.id, DestProof: dest.ToBOC(), Proof: path[0].ToBOC(), StateProof: path[1].ToBOC()}, nil
}
