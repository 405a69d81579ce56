package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"

	"cocoon/attestation"
	"cocoon/attestation/softtee"
	"cocoon/contracts/lite"
	"cocoon/proxy/local"
	"cocoon/proxy/route"
)

// deposit is what a client puts into its channel, in nano.
const deposit = 200 * ton

// roleProxy is the developer's machine.
func roleProxy(ctx context.Context, a roleArgs) error {
	ln, err := net.Listen("tcp", a.listen)
	if err != nil {
		return err
	}
	config, err := os.ReadFile(a.d.tonConfig())
	if err != nil {
		return err
	}
	pub, err := os.ReadFile(a.d.roots())
	if err != nil {
		return err
	}
	roots, err := softtee.LoadPublic(pub)
	if err != nil {
		return err
	}
	dir := a.d.client(a.name)
	if a.name == "default" {
		if err := a.d.giveWallet(dir); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	err = local.Run(ctx, local.Config{
		Dir: dir, Listener: ln, TONConfig: config, Registry: a.n.Registry, Deposit: deposit, Logger: a.log,
		Workers: []route.Endpoint{{Address: a.n.WorkerAddr, WorkerID: a.n.WorkerID}},
		Verifier: func(chain attestation.ChainVerifier) (*attestation.Verifier, error) {
			return roots.Verifier(a.n.policy(), chain)
		},
		Settled: func(workers []route.Status) {
			for _, w := range workers {
				if w.State != route.Ready {
					cancel(fmt.Errorf("worker %s is %s: %s", w.Endpoint, w.State, w.Reason))
					return
				}
			}
			a.ready()
		},
	})
	if cause := context.Cause(ctx); err == nil && !errors.Is(cause, context.Canceled) {
		err = cause
	}
	return err
}

// policy is a developer's: the strict default, with the rebuilder they trust.
func (n *network) policy() *attestation.Policy {
	p := &attestation.Policy{Rebuilders: []attestation.Digest{n.Rebuilder}}
	for _, m := range n.Models {
		if m.WeightsRoot == attestation.Unmeasured {
			if p.Models == nil {
				p.Models = map[string]string{}
			}
			p.Models[m.Name] = attestation.Unmeasured // --engine-url was this user's own choice
		}
	}
	return p
}

// giveWallet hands the first client the key that the genesis gave coins to.
func (d layout) giveWallet(dir string) error {
	key, err := d.key("client-default")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	path := filepath.Join(dir, "wallet.seed")
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	return writeFile(path, key.Seed(), 0o600)
}

// connect runs one more client of a running network, with a wallet and a
// channel of its own.
func connect(ctx context.Context, opt options, stdout, stderr io.Writer) error {
	if opt.dir == "" {
		return errors.New("connect: --dir is required")
	}
	if opt.name == "default" || opt.name == "" || opt.name == "." || opt.name == ".." || filepath.Base(opt.name) != opt.name {
		return fmt.Errorf("connect: --name: got %q, want a plain name other than default", opt.name)
	}
	if !opt.listenGiven {
		opt.listen = "127.0.0.1:0"
	}
	dir, err := filepath.Abs(opt.dir)
	if err != nil {
		return err
	}
	var err2 error
	if opt.listen, err2 = portIsFree(opt.listen); err2 != nil {
		return err2
	}
	a := roleArgs{d: layout(dir), n: new(network), listen: opt.listen, name: opt.name, log: roleLog("connect", stderr)}
	if err := readJSON(a.d.network(), a.n); err != nil {
		return err
	}
	if err := fundClient(ctx, a); err != nil {
		return err
	}
	a.ready = func() error {
		_, err := fmt.Fprintf(stdout, "base_url http://%s/v1\ntoken_file %s\n", opt.listen, filepath.Join(a.d.client(a.name), "token"))
		return err
	}
	return roleProxy(ctx, a)
}

// fundClient gives a new client's wallet coins from the first one's.
func fundClient(ctx context.Context, a roleArgs) error {
	dir := a.d.client(a.name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	key, err := local.WalletKey(dir)
	if err != nil {
		return err
	}
	c, err := dialChain(ctx, a, "")
	if err != nil {
		return err
	}
	defer c.Close()
	addr, err := lite.WalletAddress(key.Public().(ed25519.PublicKey), a.n.GlobalID)
	if err != nil {
		return err
	}
	have, err := c.Account(ctx, addr)
	if err != nil || have.Balance > deposit+ton {
		return err
	}
	rich, err := a.d.key("registry-owner")
	if err != nil {
		return err
	}
	w, err := lite.NewWallet(ctx, c, rich)
	if err != nil {
		return err
	}
	return w.Send(ctx, []lite.Message{{To: addr, Amount: deposit + 10*ton}})
}
