package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"

	"cocoon/attestation"
	"cocoon/attestation/channel"
	"cocoon/proxy/local"
	"cocoon/proxy/route"
)

const proxyExample = "cocoon proxy --worker worker.example:7443 --ton-config global.config.json --registry 0:HEX --policy policy.toml --deposit 5000000000"

func runProxy(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	fs := flags("proxy", "--worker HOST:PORT --ton-config FILE --registry ADDR [flags]", proxyExample, stderr)
	var workers, origins repeated
	fs.Var(&workers, "worker", "a worker's `HOST:PORT`, optionally followed by =ADDR of its record; may be repeated")
	fs.Var(&origins, "allow-origin", "a web page's `origin` that may call; may be repeated")
	var (
		listen   = fs.String("listen", "127.0.0.1:8787", "the loopback `address` to serve on")
		dir      = fs.String("dir", defaultDir(), "the installation's `folder`: token, ledger, wallet key")
		config   = fs.String("ton-config", "", "the TON network's global config `file`")
		registry = fs.String("registry", "", "the registry's `address`; empty only with registry = \"none\" in the policy")
		policy   = fs.String("policy", "", "a TOML policy `file`: pinned rebuilders, releases, models")
		deposit  = fs.Uint64("deposit", 0, "`nano` to open a channel with where the ledger has none; 0 never opens one")
		maxSpend = fs.Uint64("max-spend", 0, "`nano` that one request may cost at most; 0 for no cap")
		maxPrice = fs.Uint64("max-price", 0, "`nano` that a million tokens of any kind may cost at most; 0 for no bound")
		shape    = fs.String("shape", "on", "`on or off`: off sends frames as they come, whose lengths and times leak text")
		restore  = fs.Bool("restore", false, "adopt own vouchers and receipts that the ledger has lost")
	)
	if err := parse(fs, args); err != nil {
		return err
	}
	if len(workers) == 0 || *config == "" {
		return usageError(errors.New("--worker and --ton-config are required"), proxyExample)
	}
	c := local.Config{Dir: *dir, Deposit: *deposit, MaxSpend: *maxSpend, MaxPrice: *maxPrice, Restore: *restore, Origins: origins}
	switch *shape {
	case "on":
	case "off":
		c.Shape = channel.ShapeOffUnpadded
	default:
		return usageError(fmt.Errorf("--shape: got %q, want on or off", *shape), "")
	}
	var err error
	if c.TONConfig, err = readFile("ton-config", *config, 1<<20); err != nil {
		return err
	}
	if *registry != "" {
		if c.Registry, err = attestation.ParseAddress(*registry); err != nil {
			return usageError(fmt.Errorf("--registry: %w", err), "")
		}
	}
	if c.Workers, err = endpoints(workers); err != nil {
		return err
	}
	p, err := readPolicy(*policy)
	if err != nil {
		return err
	}
	vendors, err := vendorVerifiers()
	if err != nil {
		return err
	}
	c.Verifier = func(chain attestation.ChainVerifier) (*attestation.Verifier, error) {
		return attestation.NewVerifier(attestation.Config{Policy: p, CPU: vendors, Chain: chain})
	}
	if c.Listener, err = net.Listen("tcp", *listen); err != nil {
		return &exitError{exitFailed, fmt.Errorf("--listen %s: %w", *listen, err), "another proxy may be running; give another --listen"}
	}
	addr := c.Listener.Addr().String()
	c.Logger = slog.New(slog.NewTextHandler(stderr, nil))
	fmt.Fprintf(stdout, "serving http://%s/v1, token in %s\n", addr, filepath.Join(*dir, "token"))
	c.Settled = func(list []route.Status) {
		for _, w := range list {
			fmt.Fprintf(stdout, "worker %s %s: %s %s\n", w.Endpoint, w.WorkerID, w.State, w.Reason)
		}
	}
	return local.Run(ctx, c)
}

// endpoints reads HOST:PORT or HOST:PORT=ADDR.
func endpoints(workers []string) ([]route.Endpoint, error) {
	var out []route.Endpoint
	for _, w := range workers {
		e := route.Endpoint{Address: w}
		for i := range w {
			if w[i] == '=' {
				id, err := attestation.ParseAddress(w[i+1:])
				if err != nil {
					return nil, usageError(fmt.Errorf("--worker: %w", err), "")
				}
				e = route.Endpoint{Address: w[:i], WorkerID: id}
				break
			}
		}
		if _, _, err := net.SplitHostPort(e.Address); err != nil {
			return nil, usageError(fmt.Errorf("--worker: got %q, want HOST:PORT", e.Address), "")
		}
		out = append(out, e)
	}
	return out, nil
}

func defaultDir() string {
	base, err := os.UserConfigDir()
	if err != nil {
		return "cocoon"
	}
	return filepath.Join(base, "cocoon")
}
