package devchain

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"testing"

	"github.com/xssnick/tonutils-go/address"
	"github.com/xssnick/tonutils-go/tlb"
	"github.com/xssnick/tonutils-go/ton"
	"github.com/xssnick/tonutils-go/ton/wallet"
)

func TestTonutilsClientReadsAndPays(t *testing.T) {
	c := open(t, Config{KeyBlockEvery: 4})
	run(t, c)
	api, ctx := connect(t, c)
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	w, err := wallet.FromPrivateKey(api, key, wallet.ConfigV5R1Final{NetworkGlobalID: c.GlobalID()})
	if err != nil {
		t.Fatal(err)
	}
	self, err := fromTON(w.WalletAddress())
	if err != nil {
		t.Fatal(err)
	}
	c.Mint(self, 10_000_000_000)
	head, err := api.WaitForBlock(c.Head().SeqNo + 2).GetMasterchainInfo(ctx)
	if err != nil {
		t.Fatal(err)
	}
	balance, err := w.GetBalance(ctx, head)
	if err != nil {
		t.Fatal(err)
	}
	if balance.Nano().Uint64() == 0 {
		t.Fatal("the minted coins are not there")
	}
	dst := address.NewAddress(0, 0, bytes.Repeat([]byte{0xaa}, 32)).Bounce(false)
	tx, mc, err := w.SendManyWaitTransaction(ctx, []*wallet.Message{wallet.SimpleMessageAutoBounce(dst, tlb.MustFromTON("1"), nil)})
	if err != nil {
		t.Fatal(err)
	}
	if tx.OutMsgCount != 1 {
		t.Fatalf("wallet transaction: got %d messages out, want 1", tx.OutMsgCount)
	}
	head, err = api.WaitForBlock(mc.SeqNo + 2).GetMasterchainInfo(ctx)
	if err != nil {
		t.Fatal(err)
	}
	acc, err := api.GetAccount(ctx, head, dst)
	if err != nil {
		t.Fatal(err)
	}
	if got := acc.State.Balance.Nano().Uint64(); got == 0 || got > 1_000_000_000 {
		t.Errorf("received: got %d nano, want about 1 coin", got)
	}
	list, err := api.ListTransactions(ctx, dst, 10, acc.LastTxLT, acc.LastTxHash)
	if err != nil || len(list) != 1 {
		t.Fatalf("transactions: got %d and %v, want 1", len(list), err)
	}
	res, err := api.RunGetMethod(ctx, head, w.WalletAddress(), "seqno")
	if err != nil {
		t.Fatal(err)
	}
	if got := res.MustInt(0).Uint64(); got != 1 {
		t.Errorf("seqno: got %d, want 1", got)
	}
	absent, err := api.GetAccount(ctx, head, address.NewAddress(0, 0, bytes.Repeat([]byte{0xee}, 32)))
	if err != nil || absent.IsActive {
		t.Errorf("absent account: got active %v and %v", absent, err)
	}
	// The chain keeps going through key blocks; each new head links to the trusted one.
	if _, err := api.WaitForBlock(head.SeqNo + 12).GetMasterchainInfo(ctx); err != nil {
		t.Fatal(err)
	}
	queries(t, api, ctx, head)
}

// queries asks what block explorers ask, each answer under its proof.
func queries(t *testing.T, api *ton.APIClient, ctx context.Context, head *ton.BlockIDExt) {
	t.Helper()
	shards, err := api.GetBlockShardsInfo(ctx, head)
	if err != nil || len(shards) != 1 {
		t.Fatalf("shards: got %v and %v, want one", shards, err)
	}
	if _, err := api.GetBlockHeader(ctx, shards[0]); err != nil {
		t.Error("header:", err)
	}
	seen := 0
	for n := head.SeqNo; n > 0; n-- {
		id, err := api.LookupBlock(ctx, 0, shards[0].Shard, n)
		if err != nil {
			t.Fatal("lookup:", err)
		}
		if _, err := api.GetBlockData(ctx, id); err != nil {
			t.Fatal("block data:", err)
		}
		txs, _, err := api.GetBlockTransactionsV2(ctx, id, 10)
		if err != nil {
			t.Fatal("block transactions:", err)
		}
		for _, x := range txs {
			tx, err := api.GetTransaction(ctx, id, address.NewAddress(0, 0, x.Account), x.LT)
			if err != nil || !bytes.Equal(tx.Hash, x.Hash) {
				t.Fatal("transaction:", err)
			}
			seen++
		}
	}
	if seen < 3 {
		t.Errorf("transactions in blocks: got %d, want the mint, the payment and its arrival", seen)
	}
	all, err := api.GetBlockchainConfig(ctx, head)
	if err != nil || all.Root == nil {
		t.Error("config:", err)
	}
	if _, err := api.GetBlockchainConfig(ctx, head, 19, 34); err != nil {
		t.Error("config params:", err)
	}
	if _, err := api.GetTime(ctx); err != nil {
		t.Error("time:", err)
	}
}
