package devchain

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// keysName holds two Ed25519 seeds of 32 bytes: the validator's, then the
// liteserver's. Mode 0600.
const keysName = "keys"

type keyring struct {
	validator, liteserver ed25519.PrivateKey
}

// loadKeys reads the folder's keys, or makes them once.
func loadKeys(dir string) (keyring, error) {
	path := filepath.Join(dir, keysName)
	seeds, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		seeds, err = makeKeys(dir, path)
	}
	if err != nil {
		return keyring{}, fmt.Errorf("devchain: keys: %w", err)
	}
	if len(seeds) != 2*ed25519.SeedSize {
		return keyring{}, fmt.Errorf("devchain: keys: got %d bytes, want %d", len(seeds), 2*ed25519.SeedSize)
	}
	return keyring{
		validator:  ed25519.NewKeyFromSeed(seeds[:ed25519.SeedSize]),
		liteserver: ed25519.NewKeyFromSeed(seeds[ed25519.SeedSize:]),
	}, nil
}

// makeKeys writes beside and renames, so that a crash leaves no half a file.
func makeKeys(dir, path string) ([]byte, error) {
	seeds := make([]byte, 2*ed25519.SeedSize)
	if _, err := rand.Read(seeds); err != nil {
		return nil, err
	}
	tmp, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	_, err = tmp.Write(seeds)
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return nil, err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return nil, err
	}
	return seeds, syncDir(dir)
}

func (k keyring) public() ed25519.PublicKey { return k.validator.Public().(ed25519.PublicKey) }
