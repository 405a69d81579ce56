package devchain

import (
	"context"
	"encoding/json"
	"net"
	"testing"
	"time"

	"github.com/xssnick/tonutils-go/liteclient"
	"github.com/xssnick/tonutils-go/ton"
)

// clock is a chain's time that a test moves.
type clock struct{ t time.Time }

func (c *clock) now() time.Time { return c.t }

func open(t testing.TB, cfg Config) *Chain {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	if cfg.GlobalID == 0 {
		cfg.GlobalID = -777
	}
	if cfg.BlockInterval == 0 {
		cfg.BlockInterval = 10 * time.Millisecond
	}
	if cfg.IdleInterval == 0 {
		cfg.IdleInterval = 30 * time.Millisecond
	}
	c, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// run mines in the background until the test ends.
func run(t testing.TB, c *Chain) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// connect is tonutils-go's own client, as strict as it gets, over real TCP.
func connect(t testing.TB, c *Chain) (*ton.APIClient, context.Context) {
	t.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := c.Serve(ln)
	t.Cleanup(func() { srv.Close() })
	raw, err := c.GlobalConfig(srv.Addr())
	if err != nil {
		t.Fatal(err)
	}
	var cfg liteclient.GlobalConfig
	if err := json.Unmarshal(raw, &cfg); err != nil {
		t.Fatal(err)
	}
	pool := liteclient.NewConnectionPool()
	t.Cleanup(pool.Stop)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	if err := pool.AddConnectionsFromConfig(ctx, &cfg); err != nil {
		t.Fatal(err)
	}
	api := ton.NewAPIClient(pool, ton.ProofCheckPolicySecure)
	api.SetTrustedBlockFromConfig(&cfg)
	return api, ctx
}
