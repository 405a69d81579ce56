package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"cocoon/attestation"
	"cocoon/contracts/lite"
	"cocoon/contracts/view"
)

const verifyExample = "cocoon verify --bundle bundle.cbor --ton-config global.config.json --registry 0:HEX --explain"

func runVerify(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	fs := flags("verify", "--bundle FILE | --tdx QUOTE --collateral FILE | --snp REPORT --vcek PEM --ask PEM [flags]", verifyExample, stderr)
	var (
		bundle   = fs.String("bundle", "", "the evidence bundle's `file`, as GET /v1/attestation and the log hold it")
		quote    quoteFlags
		policy   = fs.String("policy", "", "a TOML policy `file`")
		at       = fs.String("at", "", "verify as of this `time` (RFC 3339) instead of now")
		nonce    = fs.String("nonce", "", "the nonce that was sent with Attest, in `hex`; the quote must be over it")
		worker   = fs.String("worker-id", "", "the worker's record `address`; its platform and payout are compared")
		config   = fs.String("ton-config", "", "the TON network's global config `file`, to prove the beacon and read the registry")
		registry = fs.String("registry", "", "the registry's `address`")
		roots    = fs.String("test-roots", "", "trust the software roots in this PEM `file`; the verdict is never better than not acceptable")
		explain  = fs.Bool("explain", false, "print every check with what its PASS proves")
		asJSON   = fs.Bool("json", false, "print the result as JSON")
	)
	quote.register(fs)
	if err := parse(fs, args); err != nil {
		return err
	}
	if n := quote.count(*bundle); n != 1 {
		return usageError(fmt.Errorf("--bundle, --tdx, --snp: got %d of them, want one", n), verifyExample)
	}
	if *bundle == "" {
		return verifyQuote(quote, *at, *policy, *roots, *explain, *asJSON, stdout)
	}
	raw, err := readFile("bundle", *bundle, attestation.MaxBundleBytes)
	if err != nil {
		return err
	}
	b, err := attestation.ParseBundle(raw)
	if err != nil {
		return &exitError{code: exitNotAuthentic, err: err}
	}
	expect, chain, err := gather(ctx, *at, *nonce, *worker, *config, *registry)
	if err != nil {
		return err
	}
	v, err := newVerifier(*policy, *roots, chain)
	if err != nil {
		return err
	}
	return printResult(v.Verify(b, expect), *explain, *asJSON, stdout)
}

// newVerifier verifies under the vendors' roots, or software roots for showing.
func newVerifier(policy, testRoots string, chain attestation.ChainVerifier) (*attestation.Verifier, error) {
	cfg := attestation.Config{Chain: chain}
	var err error
	if cfg.Policy, err = readPolicy(policy); err != nil {
		return nil, err
	}
	if testRoots != "" {
		cfg.CPU, err = testVerifiers(testRoots)
	} else {
		cfg.CPU, err = vendorVerifiers()
	}
	if err != nil {
		return nil, err
	}
	return attestation.NewVerifier(cfg)
}

func parseAt(at string) (time.Time, error) {
	if at == "" {
		return time.Now(), nil
	}
	t, err := time.Parse(time.RFC3339, at)
	if err != nil {
		return t, usageError(fmt.Errorf("--at: got %q, want a time such as 2026-06-25T00:00:00Z", at), "")
	}
	return t, nil
}

// gather gathers what the bundle is compared with.
func gather(ctx context.Context, at, nonce, worker, config, registry string) (e attestation.Expect, chain attestation.ChainVerifier, err error) {
	if e.Now, err = parseAt(at); err != nil {
		return e, nil, err
	}
	if nonce != "" {
		n, err := hex.DecodeString(nonce)
		if err != nil || len(n) != 32 {
			return e, nil, usageError(fmt.Errorf("--nonce: got %d characters, want 64 hex digits", len(nonce)), "")
		}
		e.Nonce, e.Fresh = [32]byte(n), true
	}
	if worker != "" {
		if e.WorkerID, err = attestation.ParseAddress(worker); err != nil {
			return e, nil, usageError(fmt.Errorf("--worker-id: %w", err), "")
		}
	}
	if config == "" {
		return e, nil, nil
	}
	if registry == "" && worker == "" {
		// Nothing to read: the beacon is proven against the config alone.
		b, err := readFile("ton-config", config, 1<<20)
		if err != nil {
			return e, nil, err
		}
		k, err := lite.ConfigKeyBlocks(b)
		return e, k, err
	}
	c, err := dial(ctx, config, "")
	if err != nil {
		return e, nil, err
	}
	defer c.Close()
	if registry != "" {
		addr, err := attestation.ParseAddress(registry)
		if err != nil {
			return e, nil, usageError(fmt.Errorf("--registry: %w", err), "")
		}
		if e.Registry, err = view.Registry(ctx, c, addr); err != nil {
			return e, nil, networkError(err)
		}
	}
	if !e.WorkerID.IsZero() {
		if _, e.Record, err = view.Record(ctx, c, e.WorkerID); err != nil {
			return e, nil, networkError(err)
		}
	}
	return e, c.KeyBlocks(), nil
}

func printResult(r *attestation.Result, explain, asJSON bool, w io.Writer) error {
	switch {
	case asJSON:
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		if err := enc.Encode(r); err != nil {
			return err
		}
	default:
		docs := map[string]string{}
		for _, n := range attestation.Names() {
			docs[n.Name] = n.Doc
		}
		fmt.Fprintf(w, "verdict %s\nassurance %s\ncomplete %t\n", r.Verdict, r.Assurance, r.Complete)
		for _, c := range r.Checks {
			if !explain && c.Outcome == attestation.Pass {
				continue
			}
			fmt.Fprintln(w, c)
			if explain {
				fmt.Fprintf(w, "     %s\n", docs[c.Name])
			}
		}
	}
	switch r.Verdict {
	case attestation.Accepted:
		return nil
	case attestation.NotAcceptable:
		return &exitError{code: exitNotAcceptable, err: errPrinted}
	}
	return &exitError{code: exitNotAuthentic, err: errPrinted}
}
