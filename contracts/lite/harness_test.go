package lite_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"cocoon/attestation"
	"cocoon/contracts/devchain"
	"cocoon/contracts/lite"
)

const globalID = -777

// network is a running devchain and its global config.
type network struct {
	chain  *devchain.Chain
	config []byte
}

// fixed makes a network's blocks the same in every process, as fuzzing wants:
// the keys that devchain finds in its folder, and the time.
func fixed(t testing.TB, cfg devchain.Config) devchain.Config {
	t.Helper()
	cfg.Dir = t.TempDir()
	if err := os.WriteFile(filepath.Join(cfg.Dir, "keys"), bytes.Repeat([]byte{7}, 64), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg.Now = func() time.Time { return time.Unix(1_800_000_000, 0) }
	return cfg
}

func start(t testing.TB, cfg devchain.Config) *network {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	cfg.GlobalID = globalID
	if cfg.BlockInterval == 0 {
		cfg.BlockInterval = 5 * time.Millisecond
	}
	if cfg.IdleInterval == 0 {
		cfg.IdleInterval = 20 * time.Millisecond
	}
	chain, err := devchain.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { chain.Close() })
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := chain.Serve(ln)
	t.Cleanup(func() { srv.Close() })
	raw, err := chain.GlobalConfig(srv.Addr())
	if err != nil {
		t.Fatal(err)
	}
	return &network{chain: chain, config: raw}
}

// run mines until the test ends.
func (n *network) run(t testing.TB) *network {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.chain.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return n
}

func (n *network) mine(t testing.TB, blocks int) {
	t.Helper()
	for range blocks {
		if err := n.chain.Mine(); err != nil {
			t.Fatal(err)
		}
	}
}

func (n *network) dial(t testing.TB, trustFile string) (*lite.Client, context.Context) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	c, err := lite.Dial(ctx, lite.Config{GlobalConfigJSON: n.config, TrustFile: trustFile})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c, ctx
}

func (n *network) trust(t testing.TB) lite.KeyBlocks {
	t.Helper()
	k, err := lite.ConfigKeyBlocks(n.config)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func testKey(seed byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
}

// rich is a wallet that the genesis gave coins to.
func rich(t testing.TB, seed byte, nano uint64) (ed25519.PrivateKey, devchain.GenesisAccount) {
	t.Helper()
	key := testKey(seed)
	addr, err := lite.WalletAddress(key.Public().(ed25519.PublicKey), globalID)
	if err != nil {
		t.Fatal(err)
	}
	return key, devchain.GenesisAccount{Address: addr, Balance: nano}
}

func somebody(b byte) attestation.Address {
	return attestation.NewAddress(0, [32]byte(bytes.Repeat([]byte{b}, 32)))
}
