package devchain

import (
	"bytes"
	"context"
	"time"

	"cocoon/attestation"

	"github.com/xssnick/tonutils-go/liteclient"
	"github.com/xssnick/tonutils-go/tl"
	"github.com/xssnick/tonutils-go/tlb"
	"github.com/xssnick/tonutils-go/ton"
	"github.com/xssnick/tonutils-go/tvm/cell"
)

// Error codes that liteservers use and clients act on.
const (
	codeNotFound   = 651  // the block is unknown or no longer kept
	codeTimeout    = 652  // the awaited block did not come
	codeNoLT       = -400 // the named transaction is not there
	codeNotActive  = -256 // the contract is not initialized
	codeProtocol   = 621  // not a query this server knows
	codeFailed     = 0
	serverVersion  = 0x101
	serverCaps     = 7
	maxWait        = 30 * time.Second
	maxTxsPerQuery = 16
)

func fail(code int32, text string) tl.Serializable { return ton.LSError{Code: code, Text: text} }

// errNoBlock answers queries about blocks that are not, or no longer, kept.
var errNoBlock = ton.LSError{Code: codeNotFound, Text: "block is not in db"}

// answer serves one query, which a wait for a masterchain block may precede.
func (c *Chain) answer(ctx context.Context, q any) tl.Serializable {
	if list, ok := q.([]tl.Serializable); ok && len(list) == 1 {
		q = list[0]
	}
	if lq, ok := q.(liteclient.LiteServerQuery); ok {
		q = lq.Data
	}
	if list, ok := q.([]tl.Serializable); ok {
		for _, x := range list[:len(list)-1] {
			w, ok := x.(ton.WaitMasterchainSeqno)
			if !ok {
				return fail(codeProtocol, "unexpected query prefix")
			}
			if !c.await(ctx, uint32(w.Seqno), time.Duration(w.Timeout)*time.Millisecond) {
				return fail(codeTimeout, "timeout")
			}
		}
		q = list[len(list)-1]
	}
	if m, ok := q.(ton.SendMessage); ok {
		if err := c.pushQuery(m); err != nil {
			return fail(codeFailed, err.Error())
		}
		return ton.SendMessageStatus{Status: 1}
	}
	r, err := c.queryLocked(q)
	if err == nil {
		return r
	}
	if ls, ok := err.(ton.LSError); ok {
		return ls
	}
	return fail(codeFailed, err.Error())
}

// queryLocked and pushQuery turn a panic over a client's bytes into an error.
func (c *Chain) queryLocked(q any) (r tl.Serializable, err error) {
	defer recoverTo(&err)
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.query(q)
}

func (c *Chain) pushQuery(m ton.SendMessage) (err error) {
	defer recoverTo(&err)
	return c.push(m.Body)
}

// await blocks until the head reaches seqno.
func (c *Chain) await(ctx context.Context, seqno uint32, limit time.Duration) bool {
	timer := time.NewTimer(min(limit, maxWait))
	defer timer.Stop()
	for {
		c.mu.RLock()
		head, changed := c.shownHead(), c.changed
		if c.faults.RelabelHead {
			head++
		}
		c.mu.RUnlock()
		if head >= seqno {
			return true
		}
		select {
		case <-changed:
		case <-timer.C:
			return false
		case <-ctx.Done():
			return false
		}
	}
}

func (c *Chain) shownHead() uint32 {
	if f := c.faults.FreezeHead; f != 0 && c.blocks[f] != nil {
		return f
	}
	return c.head
}

// query answers under the read lock.
func (c *Chain) query(q any) (tl.Serializable, error) {
	switch t := q.(type) {
	case ton.GetMasterchainInf:
		b := c.blocks[c.shownHead()].master
		return ton.MasterchainInfo{Last: c.headID(b), StateRootHash: b.state.Hash(), Init: c.zeroState()}, nil
	case ton.GetMasterchainInfoExt:
		b := c.blocks[c.shownHead()].master
		return ton.MasterchainInfoExt{Version: serverVersion, Capabilities: serverCaps, Last: c.headID(b), LastUTime: b.time, Now: c.blockTime(), StateRootHash: b.state.Hash(), Init: c.zeroState()}, nil
	case ton.GetTime:
		return ton.CurrentTime{Now: c.blockTime()}, nil
	case ton.GetVersion:
		return ton.Version{Version: serverVersion, Capabilities: serverCaps, Now: c.blockTime()}, nil
	case ton.GetAccountState:
		return c.accountState(t)
	case ton.RunSmcMethod:
		return c.runMethod(t)
	case ton.GetTransactions:
		return c.transactions(t)
	case ton.GetOneTransaction:
		return c.oneTransaction(t)
	case ton.LookupBlock:
		return c.lookupBlock(t)
	case ton.GetBlockData:
		b, err := c.find(t.ID)
		if err != nil {
			return nil, err
		}
		return ton.BlockData{ID: b.id, Payload: b.root.ToBOCWithOptions(blockBOC)}, nil
	case ton.GetBlockHeader:
		b, err := c.find(t.ID)
		if err != nil {
			return nil, err
		}
		return b.header()
	case ton.GetBlockProof:
		return c.getBlockProof(t)
	case ton.GetConfigAll:
		return c.config(t.BlockID, nil)
	case ton.GetConfigParams:
		return c.config(t.BlockID, append([]int32{}, t.Params...))
	case ton.GetAllShardsInfo:
		return c.allShards(t)
	case ton.GetShardInfo:
		return c.shardInfo(t)
	case ton.ListBlockTransactions:
		return c.listTransactions(t)
	case ton.ListBlockTransactionsExt:
		return c.listTransactionsExt(t)
	case ton.GetLibraries:
		return ton.LibraryResult{Result: []*ton.LibraryEntry{}}, nil
	}
	return nil, ton.LSError{Code: codeProtocol, Text: "unsupported query"}
}

func (c *Chain) headID(b *block) *ton.BlockIDExt {
	id := b.id.Copy()
	if c.faults.RelabelHead {
		id.SeqNo++
	}
	return id
}

func (c *Chain) zeroState() *ton.ZeroStateIDExt {
	id := c.blocks[1].master.id
	return &ton.ZeroStateIDExt{Workchain: masterchain, RootHash: id.RootHash, FileHash: id.FileHash}
}

// master is the masterchain block of a height that is still kept.
func (c *Chain) master(seqno uint32) (*block, error) {
	if h := c.blocks[seqno]; h != nil {
		return h.master, nil
	}
	return nil, errNoBlock
}

func (c *Chain) find(id *ton.BlockIDExt) (*block, error) {
	seqnos := []uint32{id.SeqNo}
	if c.faults.RelabelHead {
		seqnos = append(seqnos, id.SeqNo-1)
	}
	for _, n := range seqnos {
		h := c.blocks[n]
		if h == nil {
			continue
		}
		b := h.shard
		if id.Workchain == masterchain {
			b = h.master
		}
		if bytes.Equal(b.id.RootHash, id.RootHash) && bytes.Equal(b.id.FileHash, id.FileHash) && b.id.Shard == id.Shard {
			return b, nil
		}
	}
	return nil, errNoBlock
}

// view is one account at one masterchain block, with the way there.
type view struct {
	at         *height
	addr       attestation.Address
	account    *tlb.ShardAccount // nil: absent
	shardProof []*cell.Cell
	proof      []*cell.Cell
}

func (c *Chain) view(id *ton.BlockIDExt, acc ton.AccountID) (*view, error) {
	b, err := c.find(id)
	if err != nil {
		return nil, err
	}
	if b.id.Workchain != masterchain || acc.Workchain != 0 || len(acc.ID) != 32 {
		return nil, ton.LSError{Code: codeFailed, Text: "want a masterchain block and an account in workchain 0"}
	}
	v := &view{at: c.blocks[b.id.SeqNo], addr: attestation.NewAddress(acc.Workchain, [32]byte(acc.ID))}
	if v.shardProof, err = v.at.master.pathTo(shardsOf); err != nil {
		return nil, err
	}
	read := accountIn(v.addr)
	if c.faults.HideAccount {
		read = func(state *cell.Cell) error { return tlb.Parse(new(tlb.ShardStateUnsplit), state) }
	}
	if v.proof, err = v.at.shard.pathTo(read); err != nil {
		return nil, err
	}
	var state tlb.ShardStateUnsplit
	if err := tlb.Parse(&state, v.at.shard.state); err != nil {
		return nil, err
	}
	value, _, err := state.Accounts.ShardAccounts.LoadValueExtra(accountKey(v.addr))
	if err == cell.ErrNoSuchKeyInDict || c.faults.HideAccount {
		return v, nil
	}
	if err != nil {
		return nil, err
	}
	v.account = new(tlb.ShardAccount)
	return v, tlb.LoadFromCell(v.account, value)
}
