package lite_test

import (
	"errors"
	"testing"
	"time"

	"cocoon/contracts/devchain"
	"cocoon/contracts/lite"

	"github.com/xssnick/tonutils-go/tlb"
	"github.com/xssnick/tonutils-go/tvm/cell"
)

const coin = 1_000_000_000

func TestWalletPaysManyTimesInARow(t *testing.T) {
	key, funds := rich(t, 1, 10*coin)
	n := start(t, devchain.Config{Genesis: []devchain.GenesisAccount{funds}}).run(t)
	c, ctx := n.dial(t, "")
	w, err := lite.NewWallet(ctx, c, key)
	if err != nil {
		t.Fatal(err)
	}
	if w.Address() != funds.Address {
		t.Fatalf("wallet: got %s, want %s", w.Address(), funds.Address)
	}
	for i := range 4 {
		if err := w.Send(ctx, []lite.Message{{To: somebody(7), Amount: coin}, {To: somebody(8), Amount: coin / 2}}); err != nil {
			t.Fatalf("send %d: %v", i, err)
		}
	}
	for addr, want := range map[byte]uint64{7: 4 * coin, 8: 2 * coin} {
		a, err := c.Account(ctx, somebody(addr))
		if err != nil {
			t.Fatal(err)
		}
		if a.Balance > want || a.Balance < want-coin/1000 {
			t.Errorf("account %d: got %d nano, want %d less fees", addr, a.Balance, want)
		}
		txs, err := c.Transactions(ctx, somebody(addr), 0)
		if err != nil || len(txs) != 4 {
			t.Fatalf("transactions: got %d and %v, want 4", len(txs), err)
		}
		later, err := c.Transactions(ctx, somebody(addr), txs[1].LT)
		if err != nil || len(later) != 2 || later[0].Hash != txs[2].Hash {
			t.Errorf("transactions after the second: got %d and %v, want the last 2", len(later), err)
		}
		for _, tx := range txs {
			if tx.In == nil || tx.In.From != w.Address() || !tx.Skipped || tx.Bounced {
				t.Errorf("transaction: got %+v, want a plain transfer from the wallet", tx)
			}
		}
	}
}

func TestSendSurvivesLossAndRepetition(t *testing.T) {
	for name, f := range map[string]devchain.Faults{
		"lost":     {DropExternals: 1},
		"repeated": {DuplicateExternals: true},
	} {
		t.Run(name, func(t *testing.T) {
			key, funds := rich(t, 1, 10*coin)
			n := start(t, devchain.Config{Genesis: []devchain.GenesisAccount{funds}}).run(t)
			c, ctx := n.dial(t, "")
			w, err := lite.NewWallet(ctx, c, key)
			if err != nil {
				t.Fatal(err)
			}
			n.chain.SetFaults(f)
			for range 2 {
				if err := w.Send(ctx, []lite.Message{{To: somebody(7), Amount: coin}}); err != nil {
					t.Fatal(err)
				}
			}
			txs, err := c.Transactions(ctx, somebody(7), 0)
			if err != nil || len(txs) != 2 {
				t.Errorf("payments: got %d and %v, want 2", len(txs), err)
			}
		})
	}
}

func TestSendSaysWhatWentWrong(t *testing.T) {
	key, funds := rich(t, 1, 2*coin)
	n := start(t, devchain.Config{Genesis: []devchain.GenesisAccount{funds}}).run(t)
	c, ctx := n.dial(t, "")
	w, err := lite.NewWallet(ctx, c, key)
	if err != nil {
		t.Fatal(err)
	}
	var refused *lite.RefusedError
	if err := w.Send(ctx, []lite.Message{{To: somebody(7), Amount: 100 * coin}}); !errors.As(err, &refused) || refused.To != w.Address() {
		t.Errorf("more than it has: got %v, want a refusal by the wallet", err)
	}
	if err := w.Send(ctx, []lite.Message{{To: somebody(7), Amount: coin / 10, Bounce: true}}); !errors.As(err, &refused) || refused.To != somebody(7) {
		t.Errorf("to nobody, bounceable: got %v, want a refusal by the destination", err)
	}
	// THROW 42 as code: every message fails.
	init := &tlb.StateInit{Code: cell.BeginCell().MustStoreUInt(0xf22a, 16).EndCell(), Data: cell.BeginCell().EndCell()}
	if _, err := w.Deploy(ctx, init, coin/10, nil); !errors.As(err, &refused) || refused.ExitCode != 42 {
		t.Errorf("a contract that throws 42: got %v, want exit code 42", err)
	}
	n.chain.SetFaults(devchain.Faults{DropExternals: 1 << 30})
	w.Validity = time.Second
	if err := w.Send(ctx, []lite.Message{{To: somebody(9), Amount: 1}}); !errors.Is(err, lite.ErrExpired) {
		t.Errorf("never delivered: got %v, want %v", err, lite.ErrExpired)
	}
}

func TestDeployedContractIsProven(t *testing.T) {
	key, funds := rich(t, 1, 2*coin)
	n := start(t, devchain.Config{Genesis: []devchain.GenesisAccount{funds}}).run(t)
	c, ctx := n.dial(t, "")
	w, err := lite.NewWallet(ctx, c, key)
	if err != nil {
		t.Fatal(err)
	}
	// Empty code accepts every message and does nothing.
	init := &tlb.StateInit{Code: cell.BeginCell().EndCell(), Data: cell.BeginCell().MustStoreUInt(77, 32).EndCell()}
	addr, err := w.Deploy(ctx, init, coin/10, nil)
	if err != nil {
		t.Fatal(err)
	}
	a, err := c.Account(ctx, addr)
	if err != nil {
		t.Fatal(err)
	}
	if !a.Active || a.Data.HashKey() != init.Data.HashKey() || a.Code.HashKey() != init.Code.HashKey() {
		t.Errorf("account: got %+v, want the deployed code and data", a)
	}
}
