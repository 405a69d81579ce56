package auditlog

import (
	"context"
	"iter"

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

// Section is one (channel, log id)'s receipts, as somebody disclosed them.
type Section struct {
	Channel attestation.Address
	LogID   [32]byte
	Base    [32]byte // the head of the voucher counted as spent at boot, else zeros
}

// Discloser is somebody who shows receipts: a client from its ledger, or a
// worker's owner from the host's store.
type Discloser interface {
	// Sections lists what is disclosed, in any order.
	Sections(ctx context.Context) ([]Section, error)
	// Receipts yields a section's COSE bytes in the order of their indices.
	Receipts(ctx context.Context, s Section) iter.Seq2[[]byte, error]
	// Vouchers yields signed vouchers of a channel in the caller's encoding.
	Vouchers(ctx context.Context, channel attestation.Address) ([][]byte, error)
}
