// Package local runs the proxy of one installation, out of one folder.
//
// The folder, of mode 0700 when it is made here, holds the token that every request must carry, the
// ledger, the wallet's key and the newest proven TON block. It promises that
// none of them leaves it, that each secret is in a file of mode 0600, and that
// no other user may write to the folder: who could, would choose the network it
// believes. Who can read the secrets can spend its channels.
package local

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"cocoon/attestation"
	"cocoon/attestation/channel"
	"cocoon/contracts/lite"
	"cocoon/proxy"
	"cocoon/proxy/ledger"
	"cocoon/proxy/route"
	"cocoon/proxy/session"
)

// Names of the files in an installation's folder.
const (
	tokenName  = "token"
	walletName = "wallet.seed"
	trustName  = "trust.cbor"
	ledgerName = "ledger"
)

// Config is one installation's proxy.
type Config struct {
	Dir       string // made with mode 0700 if it is not there
	Listener  net.Listener
	TONConfig []byte              // the network's global config; its init block is trusted
	Registry  attestation.Address // zero: the policy must do without one
	Workers   []route.Endpoint

	// Verifier makes the verifier of workers, proving beacons with chain.
	Verifier func(chain attestation.ChainVerifier) (*attestation.Verifier, error)

	Deposit   uint64        // nano, for a channel that must be opened; 0: only channels of the ledger are used
	MaxSpend  uint64        // nano per request, 0 for no cap
	MaxPrice  uint64        // nano per million tokens of any kind, 0 for no bound
	MaxTokens uint64        // completion ceiling of a request that sets none; 0 for proxy.DefaultMaxTokens
	Shape     channel.Shape // the zero value pads and paces
	Restore   bool          // adopt own vouchers and receipts that the ledger has lost
	Origins   []string      // web pages that may call
	Logger    *slog.Logger
	Settled   func([]route.Status) // called once every worker was tried; may be nil
}

// Run serves until ctx ends.
func Run(ctx context.Context, c Config) error {
	defer c.Listener.Close()
	if err := ownDir(c.Dir); err != nil {
		return err
	}
	token, err := Token(c.Dir)
	if err != nil {
		return err
	}
	led, err := ledger.Open(ledger.Config{Dir: filepath.Join(c.Dir, ledgerName), Now: time.Now, Rand: rand.Reader})
	if err != nil {
		return err
	}
	defer led.Close()
	ton, err := lite.Dial(ctx, lite.Config{GlobalConfigJSON: c.TONConfig, TrustFile: filepath.Join(c.Dir, trustName)})
	if err != nil {
		return err
	}
	defer ton.Close()
	verifier, err := c.Verifier(ton)
	if err != nil {
		return err
	}
	sc := session.Config{
		Verifier: verifier, Ledger: led, Chain: session.LiteChain(ton, c.Registry), Deposit: c.Deposit,
		MaxPrice: c.MaxPrice, MaxOpenings: 2*len(c.Workers) + 2,
		Shape: c.Shape, Restore: c.Restore, Now: time.Now, Rand: rand.Reader,
	}
	if c.Deposit > 0 {
		key, err := WalletKey(c.Dir)
		if err != nil {
			return err
		}
		w, err := lite.NewWallet(ctx, ton, key)
		if err != nil {
			return err
		}
		sc.Opener = session.WalletOpener(w)
	}
	router, err := route.New(route.Config{Session: sc, Workers: c.Workers, Logger: c.Logger})
	if err != nil {
		return err
	}
	defer router.Close()
	if c.Settled != nil {
		settled := make(chan struct{})
		defer func() { <-settled }()
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		go func() {
			defer close(settled)
			if list := router.Settle(ctx); ctx.Err() == nil {
				c.Settled(list)
			}
		}()
	}
	return proxy.Serve(ctx, proxy.Config{
		Listener: c.Listener, Router: router, Ledger: led, Token: token, AllowedOrigins: c.Origins,
		MaxSpendPerRequest: c.MaxSpend, MaxTokens: c.MaxTokens, Now: time.Now, Rand: rand.Reader, Logger: c.Logger,
	})
}

// ownDir makes the folder, and refuses one that another user may write to.
func ownDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if got := info.Mode().Perm(); got&0o022 != 0 {
		return fmt.Errorf("%s: mode: got %04o, want no writing by others", dir, got)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("%s: owner: got user %d, want %d, who runs this", dir, st.Uid, os.Geteuid())
	}
	return nil
}

// Token reads or makes the installation's token.
func Token(dir string) (string, error) {
	b, err := secret(filepath.Join(dir, tokenName), func() []byte {
		var raw [24]byte
		rand.Read(raw[:])
		return []byte("cocoon-" + hex.EncodeToString(raw[:]))
	})
	return string(b), err
}

// WalletKey reads or makes the installation's wallet key.
func WalletKey(dir string) (ed25519.PrivateKey, error) {
	path := filepath.Join(dir, walletName)
	seed, err := secret(path, func() []byte {
		b := make([]byte, ed25519.SeedSize)
		rand.Read(b)
		return b
	})
	if err != nil {
		return nil, err
	}
	if len(seed) != ed25519.SeedSize {
		return nil, fmt.Errorf("%s: got %d bytes, want %d", path, len(seed), ed25519.SeedSize)
	}
	return ed25519.NewKeyFromSeed(seed), nil
}

// secret reads a small file of mode 0600, or makes it durably.
func secret(path string, make func() []byte) ([]byte, error) {
	b, err := readSecret(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return b, err
	}
	b = make()
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*") // mode 0600
	if err != nil {
		return nil, err
	}
	defer os.Remove(f.Name())
	if _, err = f.Write(b); err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Link(f.Name(), path) // never over one that is there
	}
	if errors.Is(err, fs.ErrExist) {
		return readSecret(path) // another process was first
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return b, d.Sync()
}

// maxSecretBytes bounds a secret file.
const maxSecretBytes = 4 << 10

// readSecret reads a file that nobody else may read. What is judged is what
// was opened, whatever the name points to later.
func readSecret(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s: want a plain file", path)
	case info.Mode().Perm()&0o077 != 0:
		return nil, fmt.Errorf("%s: mode: got %04o, want 0600", path, info.Mode().Perm())
	case info.Size() > maxSecretBytes:
		return nil, fmt.Errorf("%s: size: got %d bytes, want at most %d", path, info.Size(), maxSecretBytes)
	}
	return io.ReadAll(io.LimitReader(f, maxSecretBytes))
}
