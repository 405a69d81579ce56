package local

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// Whoever may write to the folder chooses the network that is believed.
func TestFolderThatOthersMayWriteTo(t *testing.T) {
	for _, mode := range []os.FileMode{0o777, 0o770, 0o722} {
		dir := filepath.Join(t.TempDir(), "state")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		if err := Run(context.Background(), Config{Dir: dir, Listener: l}); err == nil || !strings.Contains(err.Error(), "mode") {
			t.Errorf("%04o: got %v, want it refused for its mode", mode, err)
		}
		if list, err := os.ReadDir(dir); err != nil || len(list) != 0 {
			t.Errorf("%04o: %d files were left in it, %v", mode, len(list), err)
		}
	}
}

func TestSecretsThatOthersMayRead(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, tokenName)
	if err := os.WriteFile(path, []byte("cocoon-of-somebody-else"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Token(dir); err == nil || !strings.Contains(err.Error(), "0600") {
		t.Errorf("got %v, want it refused for its mode", err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Token(dir); err == nil {
		t.Error("a folder passed for a token")
	}
}

// Two processes that start at once agree on one token and one wallet.
func TestSecretsAreMadeOnce(t *testing.T) {
	dir := t.TempDir()
	var wg sync.WaitGroup
	tokens, keys := make([]string, 8), make([]string, 8)
	for i := range tokens {
		wg.Go(func() {
			token, err := Token(dir)
			if err != nil {
				t.Error(err)
			}
			key, err := WalletKey(dir)
			if err != nil {
				t.Error(err)
			}
			tokens[i], keys[i] = token, string(key)
		})
	}
	wg.Wait()
	for i := range tokens {
		if tokens[i] != tokens[0] || keys[i] != keys[0] || len(tokens[i]) < 32 {
			t.Fatalf("process %d: got %q, want %q", i, tokens[i], tokens[0])
		}
	}
	for _, name := range []string{tokenName, walletName} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	if list, err := os.ReadDir(dir); err != nil || len(list) != 2 {
		t.Errorf("got %d files, %v, want 2", len(list), err)
	}
}
