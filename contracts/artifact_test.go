package contracts_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/xssnick/tonutils-go/tvm/cell"

	"cocoon/contracts"
)

const tolkVersion = "1.3.0"

type artifact struct {
	TolkVersion string `json:"tolkVersion"`
	CodeHashHex string `json:"codeHashHex"`
	CodeBoc64   string `json:"codeBoc64"`
	Sources     []struct {
		File   string `json:"file"`
		SHA256 string `json:"sha256"`
	} `json:"sources"`
}

// The code that the program carries, the committed artifact, the pinned hash and the source on disk are one.
func TestArtifacts(t *testing.T) {
	for name, c := range map[string]struct {
		code *cell.Cell
		hash string
	}{
		"channel":  {contracts.ChannelCode(), contracts.ChannelCodeHash},
		"registry": {contracts.RegistryCode(), contracts.RegistryCodeHash},
		"worker":   {contracts.WorkerCode(), contracts.WorkerCodeHash},
	} {
		t.Run(name, func(t *testing.T) {
			var a artifact
			dec := json.NewDecoder(bytes.NewReader(must(os.ReadFile(filepath.Join("build", name+".json")))))
			dec.DisallowUnknownFields()
			if err := dec.Decode(&a); err != nil {
				t.Fatal(err)
			}
			boc, err := base64.StdEncoding.DecodeString(a.CodeBoc64)
			if err != nil {
				t.Fatal(err)
			}
			built := must(cell.FromBOC(boc))
			for what, got := range map[string]string{
				"codeHashHex": a.CodeHashHex, "hash of codeBoc64": hex.EncodeToString(built.Hash()),
				"hash of the embedded code": hex.EncodeToString(c.code.Hash()),
			} {
				if got != c.hash {
					t.Errorf("%s: got %s, want %s", what, got, c.hash)
				}
			}
			if a.TolkVersion != tolkVersion {
				t.Errorf("tolk: got %s, want %s", a.TolkVersion, tolkVersion)
			}
			if len(a.Sources) != 1 || a.Sources[0].File != name+".tolk" {
				t.Fatalf("sources: got %v, want %s.tolk alone", a.Sources, name)
			}
			sum := sha256.Sum256(must(os.ReadFile(filepath.Join("tolk", name+".tolk"))))
			if got := hex.EncodeToString(sum[:]); got != a.Sources[0].SHA256 {
				t.Errorf("%s.tolk: got SHA-256 %s, the artifact was compiled from %s: run tolk/build.sh", name, got, a.Sources[0].SHA256)
			}
		})
	}
}

// The pinned compiler, installed by npm ci in tolk/, makes the committed artifacts from the sources.
func TestRecompile(t *testing.T) {
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("SKIPPED: node is not installed, so the contracts were not compiled again")
	}
	if _, err := os.Stat("tolk/node_modules/@ton/tolk-js/package.json"); err != nil {
		t.Skip("SKIPPED: tolk-js is not installed (npm ci in contracts/tolk), so the contracts were not compiled again")
	}
	out := t.TempDir()
	cmd := exec.CommandContext(t.Context(), node, "build.mjs", out)
	cmd.Dir = "tolk"
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build.mjs: %v\n%s", err, b)
	}
	for _, name := range []string{"channel.json", "registry.json", "worker.json"} {
		got, want := must(os.ReadFile(filepath.Join(out, name))), must(os.ReadFile(filepath.Join("build", name)))
		if !bytes.Equal(got, want) {
			t.Errorf("%s: the compiler made another artifact than the committed one", name)
		}
	}
}
