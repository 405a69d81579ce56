package e2e

// The commands under test are built by exec, which go test's cache cannot see.
// These imports, and the reading of cmd in TestMain, make a change to what the
// commands are made of run the tests again.
import (
	"io/fs"
	"os"
	"path/filepath"

	_ "cocoon/attestation/auditlog"
	_ "cocoon/attestation/softtee"
	_ "cocoon/contracts/devchain"
	_ "cocoon/contracts/redeem"
	_ "cocoon/enclave"
	_ "cocoon/enclave/engine/openaihttp"
	_ "cocoon/enclave/engine/seed"
	_ "cocoon/enclave/evidence"
	_ "cocoon/enclave/host"
	_ "cocoon/proxy/local"
)

// readCommands opens every source of the commands.
func readCommands() error {
	return filepath.WalkDir(filepath.Join("..", "..", "cmd"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && filepath.Ext(path) == ".go" {
			_, err = os.ReadFile(path)
		}
		return err
	})
}
