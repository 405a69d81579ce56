// Command cocoon-devnet runs a whole Cocoon network on one machine: a TON
// chain, a worker behind a software vendor's attestation, its host, and the
// proxy that a developer points an SDK at. Each role is its own process.
//
// The software vendor and the chain secure nothing: they stand where hardware
// and mainnet stand in production, behind the same interfaces.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"cocoon/attestation"
)

const usage = `Usage:
  cocoon-devnet [--dir D] [--listen A] [--model GGUF]... [--engine-url URL] [--tee tdx|snp] [--ask TEXT]
  cocoon-devnet connect --dir D [--listen A] [--name NAME]
  cocoon-devnet chain --dir D [--listen A]

Without a command it brings up a network, writes devnet.json into the folder
when it is ready, and runs until it is interrupted. A folder is kept and can be
started again; without --dir a new one is made and removed at the end.
  connect  runs one more client of the network in --dir, with its own channel
  chain    runs a TON chain alone

Example:
  cocoon-devnet --ask "What is the capital of Hungary?"

Flags:
`

// options are the command line's.
type options struct {
	dir, listen, ask, engineURL, name string
	listenGiven, teeGiven             bool
	models                            stringList
	tee                               attestation.TEE
}

type stringList []string

func (l *stringList) String() string { return fmt.Sprint([]string(*l)) }

// Set appends: the flag may be repeated.
func (l *stringList) Set(s string) error {
	*l = append(*l, s)
	return nil
}

// errUsage ends the program with status 2 after the usage was printed.
var errUsage = errors.New("usage")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(withGoRun(ctx), os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case errors.Is(err, errUsage), errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case err != nil && !errors.Is(err, context.Canceled):
		fmt.Fprintln(os.Stderr, "cocoon-devnet: error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	command := "up"
	if len(args) > 0 && (args[0] == "connect" || args[0] == "chain" || args[0] == "role") {
		command, args = args[0], args[1:]
	}
	if command == "role" {
		return runRole(withParent(ctx, os.Stdin), args, stdout, stderr)
	}
	opt := options{tee: attestation.TDX}
	fs := flag.NewFlagSet("cocoon-devnet", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.Usage = func() { fmt.Fprint(stderr, usage); fs.PrintDefaults() }
	fs.StringVar(&opt.dir, "dir", "", "the network's `folder`; made if it is not there")
	fs.StringVar(&opt.listen, "listen", "127.0.0.1:8787", "`address` of the HTTP API, or of the liteserver for chain")
	fs.StringVar(&opt.ask, "ask", "", "ask this `text`, print the answer, and end")
	fs.Var(&opt.models, "model", "serve this GGUF `file` instead of the embedded toy; may be repeated")
	fs.StringVar(&opt.engineURL, "engine-url", "", "serve the models of the OpenAI-compatible engine at this `URL`, unmeasured")
	fs.StringVar(&opt.name, "name", "second", "connect: this client's `name` in the folder")
	tee := fs.String("tee", string(opt.tee), "the worker's TEE, `tdx or snp`")
	if err := fs.Parse(args); err != nil {
		return errUsage
	}
	if fs.NArg() > 0 {
		fmt.Fprintf(stderr, "cocoon-devnet: error: unexpected argument %q\n", fs.Arg(0))
		fs.Usage()
		return errUsage
	}
	fs.Visit(func(f *flag.Flag) {
		opt.listenGiven = opt.listenGiven || f.Name == "listen"
		opt.teeGiven = opt.teeGiven || f.Name == "tee"
	})
	opt.tee = attestation.TEE(*tee)
	if opt.tee != attestation.TDX && opt.tee != attestation.SNP {
		return fmt.Errorf("--tee: got %q, want tdx or snp", *tee)
	}
	if opt.engineURL != "" && len(opt.models) > 0 {
		return errors.New("--model and --engine-url: give one of them")
	}
	switch command {
	case "chain":
		return chainAlone(ctx, opt, stdout, stderr)
	case "connect":
		return connect(ctx, opt, stdout, stderr)
	}
	return up(ctx, opt, stdout, stderr)
}
