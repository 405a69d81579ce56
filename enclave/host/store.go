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
	"errors"

	"cocoon/attestation"
	"cocoon/attestation/auditlog"
)

// Store is a folder:
//
//	logs/<log id>/                      C2SP tlog-tiles: checkpoint, tile/...
//	bundles/<sha-256>.cbor
//	receipts/<log id>/<channel>/<index>.cose
//	receipts/<log id>/<channel>/base    the head of the voucher counted as spent at boot, absent for zeros
//	vouchers/<channel>                  the highest signed voucher
//	boots/<number>.cbor
//
// Ids are lower-case hex. One process at a time may hold it for writing.
type Store struct{}

// Open opens or makes the store in dir, and locks it.
func Open(dir string) (*Store, error) { return nil, errors.New("host store: not complete") }

// Close releases the lock.
func (s *Store) Close() error { return nil }

// LogDir is the folder for a log's tiles.
func (s *Store) LogDir(logID [32]byte) string { return "" }

// PutVoucher keeps the channel's voucher if its cumulative amount is above the one held.
// An older one is no error.
func (s *Store) PutVoucher(ctx context.Context, channel attestation.Address, raw []byte) error {
	return errors.New("host store: not complete")
}

// Vouchers returns the highest voucher of every channel.
func (s *Store) Vouchers(ctx context.Context) (map[attestation.Address][]byte, error) {
	return nil, errors.New("host store: not complete")
}

// PutBundle keeps a bundle under its digest.
func (s *Store) PutBundle(ctx context.Context, raw []byte) error {
	return errors.New("host store: not complete")
}

// Bundle returns the bundle of that digest.
func (s *Store) Bundle(ctx context.Context, digest [32]byte) ([]byte, error) {
	return nil, errors.New("host store: not complete")
}

// PutReceipt keeps a receipt under its (log id, channel, index).
func (s *Store) PutReceipt(ctx context.Context, logID [32]byte, channel attestation.Address, index uint64, cose []byte) error {
	return errors.New("host store: not complete")
}

// PutBase keeps the head of the voucher counted as spent at boot, for auditors.
func (s *Store) PutBase(ctx context.Context, logID [32]byte, channel attestation.Address, base [32]byte) error {
	return errors.New("host store: not complete")
}

// PutBoot keeps a boot record. Its number must be one above the last.
func (s *Store) PutBoot(ctx context.Context, b auditlog.Boot) error {
	return errors.New("host store: not complete")
}

// LastBoot returns the newest boot record, and whether there is one.
func (s *Store) LastBoot(ctx context.Context) (auditlog.Boot, bool, error) {
	return auditlog.Boot{}, false, errors.New("host store: not complete")
}

// Predecessor is the first entry of the next boot's log: the last boot's
// checkpoint as the store holds it, verified; zeros if there was no boot.
func (s *Store) Predecessor(ctx context.Context) (auditlog.PredecessorEntry, error) {
	return auditlog.PredecessorEntry{}, errors.New("host store: not complete")
}
