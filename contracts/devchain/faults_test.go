package devchain

import (
	"context"
	"testing"
	"time"

	"github.com/xssnick/tonutils-go/adnl"
	"github.com/xssnick/tonutils-go/liteclient"
	"github.com/xssnick/tonutils-go/tl"
	"github.com/xssnick/tonutils-go/ton"
)

func mine(t testing.TB, c *Chain, blocks int) {
	t.Helper()
	for range blocks {
		if err := c.Mine(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTonutilsClientSeesFaults(t *testing.T) {
	addr, init := contract(t)
	c := open(t, Config{Genesis: []GenesisAccount{{Address: addr, Balance: 1000, StateInit: init}}})
	mine(t, c, 2)
	api, ctx := connect(t, c)
	head, err := api.GetMasterchainInfo(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if acc, err := api.GetAccount(ctx, head, toTON(addr)); err != nil || !acc.IsActive {
		t.Fatalf("honest: got %+v and %v", acc, err)
	}
	c.SetFaults(Faults{LieAccount: true})
	if _, err := api.GetAccount(ctx, head, toTON(addr)); err == nil {
		t.Error("account lie: got no error")
	}
	mine(t, c, 1)
	c.SetFaults(Faults{CorruptSignature: true})
	if _, err := api.GetMasterchainInfo(ctx); err == nil {
		t.Error("corrupt signature: got no error")
	}
	c.SetFaults(Faults{FreezeHead: 2})
	if got, err := api.GetMasterchainInfo(ctx); err != nil || got.SeqNo != 2 {
		t.Errorf("frozen head: got %v and %v, want block 2 by a backward proof", got, err)
	}
	c.SetFaults(Faults{})
	if got, err := api.GetMasterchainInfo(ctx); err != nil || got.SeqNo != 4 {
		t.Errorf("honest again: got %v and %v, want block 4", got, err)
	}
}

func TestWaitEndsWithTheBlock(t *testing.T) {
	c := open(t, Config{})
	done := make(chan bool)
	go func() { done <- c.await(context.Background(), 3, time.Minute) }()
	mine(t, c, 2)
	if !<-done {
		t.Error("got a timeout, want block 3")
	}
	if c.await(context.Background(), 4, time.Millisecond) {
		t.Error("block 4: got it, want a timeout")
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if c.await(ctx, 4, time.Minute) {
		t.Error("ended context: got block 4")
	}
}

// FuzzQuery feeds what a client may send after the handshake.
func FuzzQuery(f *testing.F) {
	addr, init := contract(f)
	c := open(f, Config{Genesis: []GenesisAccount{{Address: addr, Balance: 1000, StateInit: init}}})
	mine(f, c, 2)
	id := addr.ID()
	acc := ton.AccountID{ID: id[:]}
	head, first := c.Head(), c.blocks[1].master.id
	for _, q := range []tl.Serializable{
		ton.GetMasterchainInf{}, ton.GetTime{}, ton.GetVersion{}, ton.GetMasterchainInfoExt{},
		ton.GetAccountState{ID: head, Account: acc},
		ton.RunSmcMethod{Mode: 7, ID: head, Account: acc, MethodID: 1, Params: []byte{}},
		ton.GetTransactions{Limit: 3, AccID: &acc, LT: 1, TxHash: make([]byte, 32)},
		ton.GetOneTransaction{ID: head, AccID: &acc, LT: 1},
		ton.LookupBlock{Mode: 1, ID: &ton.BlockInfoShort{Workchain: -1, Seqno: 2}},
		ton.LookupBlock{Mode: 2, LT: 5, ID: &ton.BlockInfoShort{Workchain: 0}},
		ton.GetBlockData{ID: head}, ton.GetBlockHeader{ID: head},
		ton.GetBlockProof{Mode: 1, KnownBlock: first, TargetBlock: head},
		ton.GetBlockProof{Mode: 1, KnownBlock: head, TargetBlock: first},
		ton.GetConfigAll{BlockID: head}, ton.GetConfigParams{BlockID: head, Params: []int32{19}},
		ton.GetAllShardsInfo{ID: head}, ton.GetShardInfo{ID: head},
		ton.ListBlockTransactions{ID: head, Mode: 39, Count: 5, WantProof: &ton.True{}},
		ton.ListBlockTransactionsExt{ID: head, Mode: 39, Count: 5, WantProof: &ton.True{}},
		ton.GetLibraries{}, ton.SendMessage{Body: []byte{1}},
	} {
		b, err := tl.Serialize(adnl.MessageQuery{ID: make([]byte, 32), Data: liteclient.LiteServerQuery{Data: q}}, true)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // nobody waits for blocks here
	f.Fuzz(func(t *testing.T, packet []byte) {
		msg, err := parseMessage(packet)
		if err != nil {
			return
		}
		q, ok := msg.(adnl.MessageQuery)
		if !ok {
			return
		}
		if _, err := tl.Serialize(adnl.MessageAnswer{ID: q.ID, Data: c.answer(ctx, q.Data)}, true); err != nil {
			t.Errorf("answer: %v", err)
		}
	})
}
