package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strings"

	"cocoon/attestation"
	"cocoon/attestation/sevsnp"
	"cocoon/attestation/tdx"
	"cocoon/contracts/lite"
)

// readFile reads a file a user named, bounded.
func readFile(flag, path string, max int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("--%s: %w", flag, err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("--%s: %w", flag, err)
	}
	if st.Size() > max {
		return nil, fmt.Errorf("--%s: %s: got %d bytes, want at most %d", flag, path, st.Size(), max)
	}
	b := make([]byte, st.Size())
	if _, err := f.ReadAt(b, 0); err != nil && len(b) > 0 {
		return nil, fmt.Errorf("--%s: %s: %w", flag, path, err)
	}
	return b, nil
}

// readPolicy reads a policy file; without one the strict default is in force.
func readPolicy(path string) (*attestation.Policy, error) {
	if path == "" {
		return nil, nil
	}
	b, err := readFile("policy", path, attestation.MaxPolicyBytes)
	if err != nil {
		return nil, err
	}
	return attestation.ParsePolicy(b)
}

// vendorVerifiers trust Intel's and AMD's own roots.
func vendorVerifiers() ([]attestation.CPUVerifier, error) {
	amd, err := sevsnp.New()
	if err != nil {
		return nil, err
	}
	return []attestation.CPUVerifier{tdx.New(), amd}, nil
}

// testVerifiers trust the software roots in a PEM file instead. What they
// verify has assurance "test", which nothing in this program accepts: it can
// be shown and audited, and never be given a key.
func testVerifiers(path string) ([]attestation.CPUVerifier, error) {
	b, err := readFile("test-roots", path, 1<<20)
	if err != nil {
		return nil, err
	}
	intel, amd, n := x509.NewCertPool(), sevsnp.Roots{}, 0
	for len(bytes.TrimSpace(b)) > 0 {
		var block *pem.Block
		if block, b = pem.Decode(b); block == nil || block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("--test-roots: %s: want PEM certificates only", path)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("--test-roots: %s: %w", path, err)
		}
		if line, ok := strings.CutPrefix(c.Subject.CommonName, "ARK-"); ok {
			amd[line] = append(amd[line], c)
		} else {
			intel.AddCert(c)
		}
		n++
	}
	if n == 0 {
		return nil, fmt.Errorf("--test-roots: %s: no certificate", path)
	}
	return []attestation.CPUVerifier{tdx.NewWithRootsUnsafe(intel), sevsnp.NewWithRootsUnsafe(amd)}, nil
}

// dial connects to the TON network that a global config describes.
func dial(ctx context.Context, configFile, trustFile string) (*lite.Client, error) {
	if configFile == "" {
		return nil, usageError(errors.New("--ton-config is required"), "TON publishes its global.config.json; the devnet writes ton.config.json")
	}
	b, err := readFile("ton-config", configFile, 1<<20)
	if err != nil {
		return nil, err
	}
	c, err := lite.Dial(ctx, lite.Config{GlobalConfigJSON: b, TrustFile: trustFile})
	if err != nil {
		return nil, networkError(err)
	}
	return c, nil
}
