package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"

	"cocoon/contracts/devchain"
)

// serveChain runs the chain of a folder on ln until ctx ends, and writes the
// global config that TON clients read.
func serveChain(ctx context.Context, dir string, globalID int32, genesis []devchain.GenesisAccount, ln net.Listener, config string, ready func() error) error {
	c, err := devchain.Open(devchain.Config{Dir: dir, GlobalID: globalID, Genesis: genesis})
	if err != nil {
		ln.Close()
		return err
	}
	defer c.Close()
	s := c.Serve(ln)
	defer s.Close()
	b, err := c.GlobalConfig(s.Addr())
	if err != nil {
		return err
	}
	if err := writeFile(config, b, 0o644); err != nil {
		return err
	}
	if err := ready(); err != nil {
		return err
	}
	return c.Run(ctx)
}

// chainAlone is `cocoon-devnet chain`.
func chainAlone(ctx context.Context, opt options, stdout, stderr io.Writer) error {
	if opt.dir == "" {
		return errors.New("chain: --dir is required")
	}
	if err := os.MkdirAll(opt.dir, 0o700); err != nil {
		return err
	}
	d := layout(opt.dir)
	if !opt.listenGiven {
		opt.listen = "127.0.0.1:0"
	}
	key, err := d.soleKey("faucet")
	if err != nil {
		return err
	}
	const globalID = -7777
	faucet, err := walletAddress(key, globalID)
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", opt.listen)
	if err != nil {
		return err
	}
	return serveChain(ctx, d.chain(), globalID, []devchain.GenesisAccount{{Address: faucet, Balance: 1_000_000 * ton}}, ln, d.tonConfig(), func() error {
		fmt.Fprintf(stdout, "ton_config %s\nglobal_id %d\nfaucet %s\nfaucet_key %s\n", d.tonConfig(), globalID, faucet, filepath.Join(string(d), "keys", "faucet.seed"))
		return nil
	})
}
