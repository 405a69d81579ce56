// Command cocoon-worker is what runs inside the confidential VM: it makes
// keys, has the machine attest them, and serves sealed jobs on an engine.
//
// It reads one configuration file. Whatever that file may say is in the
// attested config document, so that a client sees it; the rest is where the
// host put things.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"

	"github.com/google/go-configfs-tsm/configfs/linuxtsm"

	"cocoon/attestation"
	"cocoon/contracts/lite"
	"cocoon/enclave"
	"cocoon/enclave/evidence"
	"cocoon/enclave/host"
)

const example = `
Example:
  cocoon-worker --config /run/cocoon/worker.toml
`

func main() {
	fs := flag.NewFlagSet("cocoon-worker", flag.ContinueOnError)
	path := fs.String("config", "/run/cocoon/worker.toml", "the worker's configuration `file`")
	fs.Usage = func() {
		fmt.Fprintln(os.Stderr, "Usage: cocoon-worker [--config FILE]")
		fs.PrintDefaults()
		fmt.Fprint(os.Stderr, example)
	}
	if err := fs.Parse(os.Args[1:]); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			os.Exit(0)
		}
		os.Exit(2)
	}
	if err := keepMemory(); err != nil {
		fmt.Fprintln(os.Stderr, "cocoon-worker: error:", err)
		os.Exit(1)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *path); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, "cocoon-worker: error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, path string) error {
	f, err := readConfig(path)
	if err != nil {
		return err
	}
	tsm, err := linuxtsm.MakeClient()
	if err != nil {
		return fmt.Errorf("no TDX or SEV-SNP guest: %w", err)
	}
	engine, err := f.engine(ctx)
	if err != nil {
		return err
	}
	worker, err := f.document(engine)
	if err != nil {
		return err
	}
	release, err := f.release()
	if err != nil {
		return err
	}
	ton, err := os.ReadFile(f.TONConfig)
	if err != nil {
		return err
	}
	chain, err := lite.Dial(ctx, lite.Config{GlobalConfigJSON: ton})
	if err != nil {
		return err
	}
	defer chain.Close()
	store, err := host.Open(f.Store)
	if err != nil {
		return err
	}
	defer store.Close()
	ln, err := net.Listen("tcp", f.Listen)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	return enclave.Serve(ctx, enclave.Config{
		Listener: ln, Worker: worker, Release: release, Chain: enclave.LiteChain(chain), Store: store, Engine: engine, Logger: log,
		Evidence: evidence.Guest{Client: tsm, Collateral: evidence.Folder{Dir: f.Collateral}},
		Ready: func(b enclave.Boot) {
			log.Info("serving", "addr", b.Addr.String(), "boot", b.Number, "log_id", attestation.Digest(b.LogID))
		},
	})
}
