// Command cocoon is what developers and auditors run: a local proxy that sends
// prompts only to verified workers, and the tools that check what it relied on.
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
)

// Exit codes. A script can act on them; the text says why.
const (
	exitOK            = 0
	exitFailed        = 1
	exitUsage         = 2
	exitNotAuthentic  = 3
	exitNotAcceptable = 4
	exitNetwork       = 5
	exitDoesNotAddUp  = 6
)

// exitError ends the program with a code, after an error and a hint.
type exitError struct {
	code int
	err  error
	hint string
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

// errPrinted is a failure whose report is already on standard output.
var errPrinted = errors.New("reported")

// command is one subcommand.
type command struct {
	name, summary string
	run           func(ctx context.Context, args []string, stdout, stderr io.Writer) error
}

func commands() []command {
	return []command{
		{"proxy", "serve the OpenAI API on loopback, to verified workers alone", runProxy},
		{"verify", "check evidence, and say why it is or is not accepted", runVerify},
		{"audit", "replay a worker's log and its payouts, offline", runAudit},
		{"policy", "show the policy in force", runPolicy},
		{"receipts", "list the proxy's receipts, or export them for an auditor", runReceipts},
		{"version", "print what this program was built from", runVersion},
	}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	stdout, stderr = plain{stdout}, plain{stderr}
	if len(args) == 0 || args[0] == "help" || args[0] == "-h" || args[0] == "--help" {
		help(stderr)
		if len(args) == 0 {
			return exitUsage
		}
		return exitOK
	}
	for _, c := range commands() {
		if c.name == args[0] {
			return report(c.run(ctx, args[1:], stdout, stderr), stderr)
		}
	}
	fmt.Fprintf(stderr, "cocoon: error: no command %q\n", args[0])
	help(stderr)
	return exitUsage
}

func report(err error, stderr io.Writer) int {
	var e *exitError
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, flag.ErrHelp):
		return exitOK
	case errors.As(err, &e):
		if !errors.Is(e.err, errPrinted) {
			fmt.Fprintln(stderr, "cocoon: error:", e.err)
		}
		if e.hint != "" {
			fmt.Fprintln(stderr, "cocoon: hint:", e.hint)
		}
		return e.code
	}
	fmt.Fprintln(stderr, "cocoon: error:", err)
	return exitFailed
}

func help(w io.Writer) {
	fmt.Fprint(w, "Usage: cocoon COMMAND [flags]\n\n")
	for _, c := range commands() {
		fmt.Fprintf(w, "  %-10s %s\n", c.name, c.summary)
	}
	fmt.Fprint(w, `
cocoon COMMAND -h explains a command. Exit codes: 0 ok, 1 failed, 2 usage,
3 not authentic, 4 not acceptable, 5 network, 6 does not add up.

Example:
  cocoon verify --bundle bundle.cbor --explain
`)
}

// flags makes a command's flag set, whose usage ends in a working example.
func flags(name, args, example string, stderr io.Writer) *flag.FlagSet {
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.Usage = func() {
		fmt.Fprintf(stderr, "Usage: cocoon %s %s\n\n", name, args)
		fs.PrintDefaults()
		fmt.Fprintf(stderr, "\nExample:\n  %s\n", example)
	}
	return fs
}

// parse parses args and refuses leftovers.
func parse(fs *flag.FlagSet, args []string) error {
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return &exitError{code: exitUsage, err: errPrinted}
	}
	if fs.NArg() > 0 {
		return usageError(fmt.Errorf("unexpected argument %q", fs.Arg(0)), "cocoon "+fs.Name()+" -h explains the flags")
	}
	return nil
}

func usageError(err error, hint string) error { return &exitError{exitUsage, err, hint} }

// networkError marks what may go away by itself.
func networkError(err error) error {
	return &exitError{exitNetwork, err, "check that the network's liteservers can be reached"}
}
