// Package test holds what spans packages: the arrows between them, end-to-end
// runs, faults and benchmarks.
package test

import (
	"os/exec"
	"strings"
	"testing"
)

// deps lists what a package and its dependencies import, without their tests.
func deps(t *testing.T, pkg string) []string {
	t.Helper()
	out, err := exec.Command("go", "list", "-deps", pkg).Output()
	if err != nil {
		t.Fatalf("go list -deps %s: %v", pkg, err)
	}
	return strings.Fields(string(out))
}

func list(t *testing.T, pattern string) []string {
	t.Helper()
	out, err := exec.Command("go", "list", pattern).Output()
	if err != nil {
		t.Fatalf("go list %s: %v", pattern, err)
	}
	return strings.Fields(string(out))
}

func within(path, pkg string) bool { return path == pkg || strings.HasPrefix(path, pkg+"/") }

// What a development network alone may link: software vendors, the local chain, the toy model.
var development = []string{"cocoon/attestation/softtee", "cocoon/contracts/devchain", "cocoon/enclave/engine/seed"}

func TestProductionBinariesLinkNoDevelopmentCode(t *testing.T) {
	for _, bin := range []string{"cocoon/cmd/cocoon", "cocoon/cmd/cocoon-worker"} {
		for _, d := range deps(t, bin) {
			for _, dev := range development {
				if within(d, dev) {
					t.Errorf("%s links %s", bin, d)
				}
			}
		}
	}
	found := map[string]bool{}
	for _, d := range deps(t, "cocoon/cmd/cocoon-devnet") {
		found[d] = true
	}
	for _, dev := range development {
		if !found[dev] {
			t.Errorf("cmd/cocoon-devnet does not link %s, so this test would not notice it elsewhere", dev)
		}
	}
}

// A client that accepts test assurance needs a permission that softtee alone hands out.
func TestOnlySoftteeGrantsTestAssurance(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", "{{.ImportPath}}: {{join .Imports \" \"}}", "cocoon/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	allowed := map[string]bool{"cocoon/attestation": true, "cocoon/attestation/softtee": true}
	seen := 0
	for _, l := range strings.Split(strings.TrimSpace(string(out)), "\n") {
		pkg, imports, _ := strings.Cut(l, ": ")
		if strings.Contains(" "+imports+" ", " cocoon/attestation/internal/testtrust ") {
			seen++
			if !allowed[pkg] {
				t.Errorf("%s imports testtrust", pkg)
			}
		}
	}
	if seen == 0 {
		t.Error("nothing imports testtrust: this test looks in the wrong place")
	}
}

func TestArrowsPointOneWay(t *testing.T) {
	rules := []struct{ from, to string }{
		{"cocoon/attestation", "cocoon/enclave"}, {"cocoon/attestation", "cocoon/proxy"}, {"cocoon/attestation", "cocoon/contracts"},
		{"cocoon/contracts", "cocoon/enclave"}, {"cocoon/contracts", "cocoon/proxy"},
		{"cocoon/enclave", "cocoon/proxy"},
		{"cocoon/proxy", "cocoon/enclave/engine"}, {"cocoon/proxy", "cocoon/enclave/meter"},
	}
	for _, top := range []string{"attestation", "contracts", "enclave", "proxy"} {
		for _, pkg := range list(t, "cocoon/"+top+"/...") {
			for _, d := range deps(t, pkg) {
				for _, r := range rules {
					if within(pkg, r.from) && within(d, r.to) {
						t.Errorf("%s imports %s", pkg, d)
					}
				}
				if within(d, "cocoon/cmd") || within(d, "cocoon/test") {
					t.Errorf("%s imports %s", pkg, d)
				}
				for _, dev := range development {
					if within(d, dev) && !within(pkg, dev) {
						t.Errorf("%s links %s outside of tests", pkg, d)
					}
				}
			}
		}
	}
}

// An auditor links no code that writes logs, and package attestation no vendor and no network.
func TestVerifiersStaySmall(t *testing.T) {
	for _, d := range deps(t, "cocoon/attestation/auditlog") {
		if within(d, "cocoon/attestation/auditlog/writer") || within(d, "github.com/transparency-dev/tessera") {
			t.Errorf("auditlog links the writer: %s", d)
		}
	}
	for _, d := range deps(t, "cocoon/attestation") {
		for _, vendor := range []string{"github.com/google/go-tdx-guest", "github.com/google/go-sev-guest", "net/http", "google.golang.org/grpc"} {
			if within(d, vendor) {
				t.Errorf("attestation links %s", d)
			}
		}
	}
}
