package lite

import (
	"context"
	"errors"
	"fmt"
	"time"

	"cocoon/attestation/canonical"
)

// MaxBeaconBytes bounds a beacon's proof.
const MaxBeaconBytes = 256 << 10

// beaconVersion counts the forms of a beacon's proof: another form is another number.
const beaconVersion = 1

// beaconProof is a beacon's proof in canonical CBOR.
type beaconProof struct {
	Version uint64 `cbor:"version"`
	Link    link   `cbor:"link"`
}

// ErrNoTrust says that a trust store is empty, which trusts nothing.
var ErrNoTrust = errors.New("no key block is trusted")

// Beacon returns the newest masterchain block with the proof that VerifyBeacon
// takes: a nonce that nobody could know before t.
func (c *Client) Beacon(ctx context.Context) (seqno uint32, rootHash [32]byte, proof []byte, t time.Time, err error) {
	h, l, err := c.head(ctx)
	if err != nil {
		return 0, [32]byte{}, nil, time.Time{}, err
	}
	proof, err = canonical.Marshal(beaconProof{Version: beaconVersion, Link: l})
	if err == nil && len(proof) > MaxBeaconBytes {
		err = fmt.Errorf("beacon: proof: got %d bytes, want at most %d", len(proof), MaxBeaconBytes)
	}
	return h.Seqno, h.RootHash, proof, h.Time, err
}

// VerifyBeacon proves offline that a masterchain block exists, and returns the
// time its validators gave it. The proof must start at the newest trusted key
// block before it.
func VerifyBeacon(seqno uint32, rootHash [32]byte, proof []byte, trust KeyBlocks) (time.Time, error) {
	if len(trust.ids) == 0 {
		return time.Time{}, fmt.Errorf("beacon: %w", ErrNoTrust)
	}
	var p beaconProof
	if err := canonical.Unmarshal("beacon", proof, MaxBeaconBytes, &p); err != nil {
		return time.Time{}, err
	}
	if p.Version != beaconVersion {
		return time.Time{}, fmt.Errorf("beacon: version: got %d, want %d", p.Version, beaconVersion)
	}
	if p.Link.To.Seqno != seqno || p.Link.To.RootHash != rootHash {
		return time.Time{}, fmt.Errorf("beacon: proof: got block %s, want %d:%x", p.Link.To, seqno, rootHash)
	}
	h, err := p.Link.verify(trust)
	if err != nil {
		return time.Time{}, fmt.Errorf("beacon: %w", err)
	}
	return h.Time, nil
}
