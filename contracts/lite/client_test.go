package lite_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cocoon/contracts/devchain"
	"cocoon/contracts/lite"
)

func TestDialFailsClosedWithoutInitBlock(t *testing.T) {
	n := start(t, devchain.Config{})
	for name, change := range map[string]func(doc map[string]any){
		"no root hash": func(doc map[string]any) {
			doc["validator"].(map[string]any)["init_block"].(map[string]any)["root_hash"] = ""
		},
		"no init block": func(doc map[string]any) { delete(doc["validator"].(map[string]any), "init_block") },
		"no validator":  func(doc map[string]any) { delete(doc, "validator") },
	} {
		var doc map[string]any
		if err := json.Unmarshal(n.config, &doc); err != nil {
			t.Fatal(err)
		}
		change(doc)
		raw, err := json.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		if c, err := lite.Dial(t.Context(), lite.Config{GlobalConfigJSON: raw}); err == nil {
			c.Close()
			t.Errorf("%s: got no error", name)
		}
		if _, err := lite.ConfigKeyBlocks(raw); err == nil {
			t.Errorf("%s: trust: got no error", name)
		}
	}
}

func TestClientCatchesALyingLiteserver(t *testing.T) {
	_, funds := rich(t, 1, coin)
	for name, tc := range map[string]struct {
		faults devchain.Faults
		want   string // in the error
	}{
		"signature":      {devchain.Faults{CorruptSignature: true}, "incorrect signature"},
		"balance":        {devchain.Faults{LieAccount: true}, "state: hash"},
		"hidden account": {devchain.Faults{HideAccount: true}, "special cells"},
		"relabeled head": {devchain.Faults{RelabelHead: true}, "header: seqno"},
	} {
		t.Run(name, func(t *testing.T) {
			n := start(t, devchain.Config{Genesis: []devchain.GenesisAccount{funds}})
			n.mine(t, 3)
			c, ctx := n.dial(t, "")
			n.chain.SetFaults(tc.faults)
			if a, err := c.Account(ctx, funds.Address); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %+v and %v, want an error about %q", a, err, tc.want)
			}
			n.chain.SetFaults(devchain.Faults{})
			if a, err := c.Account(ctx, funds.Address); err != nil || a.Balance != coin {
				t.Errorf("honest again: got %d and %v, want %d", a.Balance, err, coin)
			}
		})
	}
}

func TestHeadNeverGoesBack(t *testing.T) {
	n := start(t, devchain.Config{KeyBlockEvery: 3})
	n.mine(t, 6)
	file := filepath.Join(t.TempDir(), "trust.json")
	c, ctx := n.dial(t, file)
	head, err := c.Head(ctx)
	if err != nil {
		t.Fatal(err)
	}
	n.chain.SetFaults(devchain.Faults{FreezeHead: 4})
	if again, err := c.Head(ctx); err != nil || again != head {
		t.Errorf("while the liteserver lags: got %v and %v, want %v", again, err, head)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	// A restart remembers what was proven, and believes nothing older.
	c2, ctx2 := n.dial(t, file)
	if _, err := c2.Head(ctx2); !errors.Is(err, lite.ErrStale) {
		t.Errorf("after a restart: got %v, want %v", err, lite.ErrStale)
	}
	n.chain.SetFaults(devchain.Faults{})
	if again, err := c2.Head(ctx2); err != nil || again != head {
		t.Errorf("caught up: got %v and %v, want %v", again, err, head)
	}
	if got := len(c2.KeyBlocks().List()); got != 3 {
		t.Errorf("key blocks: got %d, want 1, 3 and 6", got)
	}
}

func TestTrustFileOfAnotherNetwork(t *testing.T) {
	file := filepath.Join(t.TempDir(), "trust.json")
	one, two := start(t, devchain.Config{}), start(t, devchain.Config{})
	c, ctx := one.dial(t, file)
	if _, err := c.Head(ctx); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if c, err := lite.Dial(ctx, lite.Config{GlobalConfigJSON: two.config, TrustFile: file}); err == nil {
		c.Close()
		t.Error("got no error")
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, bytes.Replace(raw, []byte(`"version":1`), []byte(`"version":2`), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	if c, err := lite.Dial(ctx, lite.Config{GlobalConfigJSON: one.config, TrustFile: file}); err == nil {
		c.Close()
		t.Error("another version: got no error")
	}
}

func TestClientReadsGenesis(t *testing.T) {
	_, funds := rich(t, 1, coin)
	born := time.Date(2027, 1, 2, 3, 4, 5, 0, time.UTC)
	n := start(t, devchain.Config{Genesis: []devchain.GenesisAccount{funds}, Now: func() time.Time { return born }})
	c, ctx := n.dial(t, "")
	if id, err := c.GlobalID(ctx); err != nil || id != globalID {
		t.Errorf("global id: got %d and %v, want %d", id, err, globalID)
	}
	head, err := c.Head(ctx)
	if err != nil || !head.Time.Equal(born) || head.Seqno != 1 {
		t.Errorf("head: got %+v and %v, want block 1 of %s", head, err, born)
	}
	a, err := c.Account(ctx, funds.Address)
	if err != nil || !a.Exists || a.Active || a.Balance != coin || a.LastLT != 0 {
		t.Errorf("funded account: got %+v and %v", a, err)
	}
	if txs, err := c.Transactions(ctx, funds.Address, 0); err != nil || len(txs) != 0 {
		t.Errorf("its transactions: got %d and %v, want none", len(txs), err)
	}
	none, err := c.Account(ctx, somebody(9))
	if err != nil || none.Exists {
		t.Errorf("nobody's account: got %+v and %v, want a proven absence", none, err)
	}
}

func TestLongHistory(t *testing.T) {
	n := start(t, devchain.Config{})
	for range 40 {
		n.chain.Mint(somebody(3), 1_000_000)
	}
	n.mine(t, 2)
	c, ctx := n.dial(t, "")
	txs, err := c.Transactions(ctx, somebody(3), 0)
	if err != nil || len(txs) != 40 {
		t.Fatalf("got %d and %v, want 40", len(txs), err)
	}
	for i := 1; i < len(txs); i++ {
		if txs[i].LT <= txs[i-1].LT {
			t.Fatalf("transaction %d: logical time %d after %d", i, txs[i].LT, txs[i-1].LT)
		}
	}
}

func TestCallsEndWithTheirContext(t *testing.T) {
	n := start(t, devchain.Config{})
	c, _ := n.dial(t, "")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := c.Head(ctx); err == nil {
		t.Error("got no error")
	}
}
