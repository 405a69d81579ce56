// Package host keeps what a worker hands out of its VM, and serves its log.
//
// It promises that a Put that returned is on disk, that a voucher is never
// replaced by a smaller one, and that what it reads back is bounded and whole
// or an error that names the file. It protects nothing from the machine's
// owner, who is the payee: whatever it holds is believed inside the VM only as
// far as signatures and digests bear it out.
package host

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"cocoon/attestation"
	"cocoon/attestation/auditlog"
)

// ErrLocked is a store that another process holds.
var ErrLocked = errors.New("open in another process")

// Store is a folder:
//
//	logs/<log id>/                            C2SP tlog-tiles: checkpoint, tile/...
//	bundles/<sha-256>.cbor
//	receipts/<log id>/<channel>/receipts      from index 0 on, each after its length (u64 big-endian)
//	receipts/<log id>/<channel>/base          the head of the voucher counted as spent at boot; absent for zeros
//	vouchers/<channel>                        the highest signed voucher
//	boots/<number>.cbor
//
// Ids are lower-case hex: 64 digits for a digest, 72 for a channel (workchain,
// then account). One process at a time holds a store; its methods are safe for
// concurrent use.
type Store struct {
	dir  string
	lock *os.File

	vouchers sync.Mutex // a voucher is compared and written under it
	boots    sync.Mutex
	receipts sections
}

// Open opens or makes the store in dir, and locks it.
func Open(dir string) (*Store, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("host store: %w", err)
	}
	s := &Store{dir: dir}
	if err := s.makeDir(dir); err != nil {
		return nil, fmt.Errorf("host store: %w", err)
	}
	if s.lock, err = lock(dir); err != nil {
		return nil, err
	}
	return s, nil
}

// Close releases the lock.
func (s *Store) Close() error { return s.lock.Close() }

// LogDir is the folder for a log's tiles, for writer.Config.
func (s *Store) LogDir(logID [32]byte) string {
	return filepath.Join(s.dir, "logs", hex.EncodeToString(logID[:]))
}

// PutBundle keeps a bundle under its digest.
func (s *Store) PutBundle(ctx context.Context, raw []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	b, err := attestation.ParseBundle(raw)
	if err != nil {
		return fmt.Errorf("host store: %w", err)
	}
	path := bundlePath(b.Digest())
	if _, err := s.get(path, attestation.MaxBundleBytes); err == nil {
		return nil // named by its digest: the same
	}
	return s.put(path, raw)
}

// Bundle returns the bundle of that digest. A missing one is fs.ErrNotExist.
func (s *Store) Bundle(ctx context.Context, digest [32]byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	path := bundlePath(digest)
	raw, err := s.get(path, attestation.MaxBundleBytes)
	if err != nil {
		return nil, err
	}
	if b, err := attestation.ParseBundle(raw); err != nil {
		return nil, damaged(path, err)
	} else if got := b.Digest(); got != digest {
		return nil, damaged(path, fmt.Errorf("SHA-256: got %x, want %x", got, digest))
	}
	return raw, nil
}

func bundlePath(digest [32]byte) string {
	return filepath.Join("bundles", hex.EncodeToString(digest[:])+".cbor")
}

// PutBase keeps the head of the voucher counted as spent at boot, for auditors.
func (s *Store) PutBase(ctx context.Context, logID [32]byte, channel attestation.Address, base [32]byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.put(filepath.Join(sectionPath(logID, channel), "base"), []byte(hex.EncodeToString(base[:])+"\n"))
}

func sectionPath(logID [32]byte, channel attestation.Address) string {
	return filepath.Join("receipts", hex.EncodeToString(logID[:]), hex.EncodeToString(channel[:]))
}

// PutBoot keeps a boot record. Its number must be one above the last.
func (s *Store) PutBoot(ctx context.Context, b auditlog.Boot) error {
	s.boots.Lock()
	defer s.boots.Unlock()
	raw := b.Encode()
	if _, err := auditlog.ParseBoot(raw); err != nil {
		return fmt.Errorf("host store: %w", err)
	}
	last, _, err := s.LastBoot(ctx)
	if err != nil {
		return err
	}
	if b.Number != last.Number+1 {
		return fmt.Errorf("host store: boot: number: got %d, want %d", b.Number, last.Number+1)
	}
	return s.put(bootPath(b.Number), raw)
}

// LastBoot returns the newest boot record, and whether there is one.
func (s *Store) LastBoot(ctx context.Context) (auditlog.Boot, bool, error) {
	if err := ctx.Err(); err != nil {
		return auditlog.Boot{}, false, err
	}
	names, err := os.ReadDir(filepath.Join(s.dir, "boots"))
	if errors.Is(err, fs.ErrNotExist) {
		return auditlog.Boot{}, false, nil
	}
	if err != nil {
		return auditlog.Boot{}, false, fmt.Errorf("host store: %w", err)
	}
	last := uint64(0)
	for _, n := range names {
		if number, ok := bootNumber(n.Name()); ok {
			last = max(last, number)
		}
	}
	if last == 0 {
		return auditlog.Boot{}, false, nil
	}
	raw, err := s.get(bootPath(last), auditlog.MaxBootBytes)
	if err != nil {
		return auditlog.Boot{}, false, err
	}
	b, err := auditlog.ParseBoot(raw)
	if err == nil && b.Number != last {
		err = fmt.Errorf("number: got %d, want %d", b.Number, last)
	}
	if err != nil {
		return auditlog.Boot{}, false, damaged(bootPath(last), err)
	}
	return b, true, nil
}

// Predecessor is the first entry of the next boot's log: the last boot's
// checkpoint as the store holds it, under that boot's key; zeros if there was
// no boot.
func (s *Store) Predecessor(ctx context.Context) (auditlog.PredecessorEntry, error) {
	b, ok, err := s.LastBoot(ctx)
	if err != nil || !ok {
		return auditlog.PredecessorEntry{}, err
	}
	id := b.LogID()
	path := filepath.Join("logs", hex.EncodeToString(id[:]), "checkpoint")
	raw, err := s.get(path, auditlog.MaxCheckpointBytes)
	if errors.Is(err, fs.ErrNotExist) { // the boot ended before its log began
		return auditlog.PredecessorEntry{LogID: id}, nil
	}
	if err != nil {
		return auditlog.PredecessorEntry{}, err
	}
	c, err := auditlog.ParseCheckpoint(raw, b.LogPublicKey)
	if err != nil {
		return auditlog.PredecessorEntry{}, damaged(path, err)
	}
	return auditlog.PredecessorEntry{LogID: id, Size: c.Size, Root: c.Root}, nil
}

func bootPath(number uint64) string {
	return filepath.Join("boots", strconv.FormatUint(number, 10)+".cbor")
}

func bootNumber(name string) (uint64, bool) {
	digits, ok := strings.CutSuffix(name, ".cbor")
	n, err := strconv.ParseUint(digits, 10, 64)
	return n, ok && err == nil && n > 0 && strconv.FormatUint(n, 10) == digits
}
