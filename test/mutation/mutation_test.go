//go:build slow

package mutation

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"cocoon/attestation"
)

// The one function through which every check is recorded, and what it becomes.
const (
	original = "func (r *Report) add(c Check) {\n"
	mutant   = original + `	if c.Name == os.Getenv("COCOON_DISABLED_CHECK") {
		c.Outcome = Pass
	}
`
)

// TestEveryCheckIsMissed: with any one named check always passing, the suites
// that own the evidence of refusal fail. Without a mutation they pass.
func TestEveryCheckIsMissed(t *testing.T) {
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	source := filepath.Join(root, "attestation", "check.go")
	b, err := os.ReadFile(source)
	if err != nil {
		t.Fatal(err)
	}
	s := string(b)
	if strings.Count(s, original) != 1 {
		t.Fatalf("%s: the function to mutate is gone; every check must go through one function", source)
	}
	s = strings.Replace(s, original, mutant, 1)
	s = strings.Replace(s, "import (\n", "import (\n\t\"os\"\n", 1)
	dir := t.TempDir()
	changed := filepath.Join(dir, "check.go")
	if err := os.WriteFile(changed, []byte(s), 0o600); err != nil {
		t.Fatal(err)
	}
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {source: changed}})
	if err != nil {
		t.Fatal(err)
	}
	overlayFile := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(overlayFile, overlay, 0o600); err != nil {
		t.Fatal(err)
	}
	suites := map[string]string{}
	for _, pkg := range []string{"tdx", "softtee"} {
		bin := filepath.Join(dir, pkg+".test")
		cmd := exec.Command("go", "test", "-c", "-overlay", overlayFile, "-o", bin, "./attestation/"+pkg)
		cmd.Dir = root
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build the %s suite: %v\n%s", pkg, err, out)
		}
		suites[pkg] = bin
	}
	run := func(pkg, check string) (bool, string) {
		cmd := exec.Command(suites[pkg], "-test.run", "Refuses")
		cmd.Dir = filepath.Join(root, "attestation", pkg)
		cmd.Env = append(os.Environ(), "COCOON_DISABLED_CHECK="+check)
		out, err := cmd.CombinedOutput()
		return err == nil, string(out)
	}
	for pkg := range suites {
		if ok, out := run(pkg, ""); !ok || strings.Contains(out, "no tests to run") {
			t.Fatalf("the %s suite does not pass, or runs nothing, without a mutation:\n%s", pkg, out)
		}
	}
	for _, n := range attestation.Names() {
		pkg := "softtee"
		if n.TEE == attestation.TDX {
			pkg = "tdx"
		}
		t.Run(n.Name, func(t *testing.T) {
			ok, out := run(pkg, n.Name)
			if ok {
				t.Errorf("with %s disabled, the suite of attestation/%s still passes", n.Name, pkg)
				return
			}
			if i := strings.Index(out, "--- FAIL"); i >= 0 {
				line, _, _ := strings.Cut(out[i:], "\n")
				t.Log(line)
			}
		})
	}
}
