package auditlog

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"strconv"

	"cocoon/attestation"
)

// Source is where an auditor reads a worker's logs and bundles from. Nothing
// it returns is believed. A missing object is an error that is fs.ErrNotExist.
type Source interface {
	// Boots lists the boots in the order of their numbers.
	Boots(ctx context.Context) ([]Boot, error)
	// Checkpoint is the log's latest signed checkpoint.
	Checkpoint(ctx context.Context, logID [32]byte) ([]byte, error)
	// ReadTile returns an object of C2SP tlog-tiles, such as "tile/0/x001/067.p/12" or "tile/entries/000".
	ReadTile(ctx context.Context, logID [32]byte, path string) ([]byte, error)
	// Bundle returns the bundle of that SHA-256.
	Bundle(ctx context.Context, digest [32]byte) ([]byte, error)
}

// Section is one (channel, log id)'s receipts, as somebody discloses them.
type Section struct {
	Channel attestation.Address `cbor:"channel"`
	LogID   [32]byte            `cbor:"log_id"`
	Base    [32]byte            `cbor:"base"`  // the head of the voucher counted as spent at boot, else zeros
	Whole   bool                `cbor:"whole"` // the discloser says that there are no others
}

// Disclosed is one receipt and, from a client, the key that blinds its commitments.
type Disclosed struct {
	COSE        []byte
	BlindingKey []byte // 32 bytes, or none
}

// Discloser is somebody who shows receipts: a client from its ledger, or a
// worker's owner from the host's store.
type Discloser interface {
	// Sections lists what is disclosed, in any order, each section once.
	Sections(ctx context.Context) ([]Section, error)
	// Receipts yields a section's receipts in the order of their indices.
	Receipts(ctx context.Context, s Section) iter.Seq2[Disclosed, error]
	// Channels lists the channels that vouchers are shown of.
	Channels(ctx context.Context) ([]attestation.Address, error)
	// Vouchers returns signed vouchers of a channel, in contracts.SignedVoucher's encoding.
	Vouchers(ctx context.Context, channel attestation.Address) ([][]byte, error)
	// Signer reports whether the vouchers are shown by whoever signs them. A
	// worker's host gets them on a timer, so that its highest may not be the highest.
	Signer() bool
}

// Bounds of what a source returns.
const (
	maxTileBytes    = 256 * 32
	maxEntriesBytes = 256 * (2 + MaxEntryBytes)
	maxBoots        = 1 << 17
)

// objects reads a store's public layout through get, which bounds size.
type objects struct {
	get func(ctx context.Context, path string, max int) ([]byte, error)
}

func (o objects) Boots(ctx context.Context) ([]Boot, error) {
	var boots []Boot
	for n := uint64(1); ; n++ {
		path := "boots/" + strconv.FormatUint(n, 10) + ".cbor"
		raw, err := o.get(ctx, path, MaxBootBytes)
		if errors.Is(err, fs.ErrNotExist) {
			return boots, nil
		}
		if err != nil {
			return nil, err
		}
		b, err := ParseBoot(raw)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		if b.Number != n {
			return nil, fmt.Errorf("%s: number: got %d, want %d", path, b.Number, n)
		}
		if boots = append(boots, b); len(boots) > maxBoots {
			return nil, fmt.Errorf("boots: got more than %d", maxBoots)
		}
	}
}

func (o objects) Checkpoint(ctx context.Context, logID [32]byte) ([]byte, error) {
	return o.get(ctx, logPath(logID)+"checkpoint", MaxCheckpointBytes)
}

func (o objects) ReadTile(ctx context.Context, logID [32]byte, path string) ([]byte, error) {
	return o.get(ctx, logPath(logID)+path, maxEntriesBytes)
}

func (o objects) Bundle(ctx context.Context, digest [32]byte) ([]byte, error) {
	return o.get(ctx, "bundles/"+hex.EncodeToString(digest[:])+".cbor", attestation.MaxBundleBytes)
}

func logPath(logID [32]byte) string { return "logs/" + hex.EncodeToString(logID[:]) + "/" }
