package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"cocoon/attestation"
)

// layout is where a network's folder keeps what.
type layout string

func (d layout) path(elem ...string) string {
	return filepath.Join(append([]string{string(d)}, elem...)...)
}

func (d layout) devnetJSON() string { return d.path("devnet.json") }
func (d layout) network() string    { return d.path("network.json") }
func (d layout) tonConfig() string  { return d.path("ton.config.json") }
func (d layout) chain() string      { return d.path("chain") }
func (d layout) world() string      { return d.path("keys", "vendor-world.cbor") }
func (d layout) roots() string      { return d.path("roots.cbor") }
func (d layout) testRoots() string  { return d.path("test-roots.pem") }
func (d layout) hostStore() string  { return d.path("host") }
func (d layout) client(name string) string {
	return d.path("clients", name)
}

// network is what the roles agree on. It is written once, when the folder is new.
type network struct {
	GlobalID     int32               `json:"global_id"`
	Registry     attestation.Address `json:"registry"`
	RegistryData string              `json:"registry_state_init"` // base64 BOC, for the genesis
	WorkerID     attestation.Address `json:"worker_id"`
	WorkerNonce  attestation.Digest  `json:"worker_nonce"`
	Payout       attestation.Address `json:"payout"`
	Client       attestation.Address `json:"client"`
	TEE          attestation.TEE     `json:"tee"`
	Models       []modelFile         `json:"models"`
	EngineURL    string              `json:"engine_url,omitempty"`
	ChainAddr    string              `json:"chain_addr"`  // 127.0.0.1:port, chosen free once
	WorkerAddr   string              `json:"worker_addr"` // likewise
	HostAddr     string              `json:"host_addr"`   // likewise
	Release      []byte              `json:"release"`
	Signatures   []byte              `json:"release_signatures"` // CBOR
	Rebuilder    attestation.Digest  `json:"rebuilder"`
}

// modelFile is a loaded model. File is empty for the embedded toy.
type modelFile struct {
	attestation.Model
	File string `json:"file,omitempty"`
}

// devnet is devnet.json, for whoever drives the network.
type devnet struct {
	BaseURL   string         `json:"base_url"`
	TokenFile string         `json:"token_file"`
	PIDs      map[string]int `json:"pids"`
	TONConfig string         `json:"ton_config"`
	Registry  string         `json:"registry"`
	Log       string         `json:"log"`
	LogURL    string         `json:"log_url"`
	Worker    string         `json:"worker"`     // HOST:PORT
	WorkerID  string         `json:"worker_id"`  // its record
	TestRoots string         `json:"test_roots"` // public certificates of the software vendors
	Rebuilder string         `json:"rebuilder"`  // the key that vouches for the release
	GlobalID  int32          `json:"global_id"`
	Dir       string         `json:"dir"`
}

// writeFile replaces a file as a whole: a reader sees the old or the new one.
func writeFile(path string, b []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if _, err = f.Write(b); err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return os.Rename(f.Name(), path)
}

func writeJSON(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(path, append(b, '\n'), 0o644)
}

func readJSON(path string, v any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// key reads or makes an Ed25519 key whose seed is a file of mode 0600.
func (d layout) key(name string) (ed25519.PrivateKey, error) {
	path := d.path("keys", name+".seed")
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		b = make([]byte, ed25519.SeedSize)
		rand.Read(b)
		err = writeFile(path, b, 0o600)
	}
	if err != nil {
		return nil, err
	}
	if len(b) != ed25519.SeedSize {
		return nil, fmt.Errorf("%s: got %d bytes, want %d", path, len(b), ed25519.SeedSize)
	}
	return ed25519.NewKeyFromSeed(b), nil
}

// soleKey is key in a folder that is not a network's.
func (d layout) soleKey(name string) (ed25519.PrivateKey, error) {
	if err := os.MkdirAll(d.path("keys"), 0o700); err != nil {
		return nil, err
	}
	return d.key(name)
}
