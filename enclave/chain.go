package enclave

import (
	"context"
	"time"

	"cocoon/attestation"
	"cocoon/contracts"
	"cocoon/contracts/lite"
	"cocoon/contracts/view"
)

// Chain is what a worker asks of TON. Everything it returns was proven.
type Chain interface {
	// GlobalID is the network's, which vouchers must name.
	GlobalID(ctx context.Context) (int32, error)
	// Beacon is a recent masterchain block with its proof for a bundle.
	Beacon(ctx context.Context) (attestation.Beacon, []byte, error)
	// Channel is a channel's latest proven state. It fails if no channel's
	// code and data stand at the address.
	Channel(ctx context.Context, addr attestation.Address) (ChannelView, error)
}

// ChannelView is a channel as one block proved it.
type ChannelView struct {
	State    contracts.ChannelState
	Balance  uint64    // nano, the account's
	ProvenAt time.Time // generation time of the block
}

// LiteChain is a Chain over a liteserver client.
func LiteChain(c *lite.Client) Chain { return liteChain{c} }

type liteChain struct{ c *lite.Client }

func (l liteChain) GlobalID(ctx context.Context) (int32, error) { return l.c.GlobalID(ctx) }

func (l liteChain) Beacon(ctx context.Context) (attestation.Beacon, []byte, error) {
	seqno, root, proof, _, err := l.c.Beacon(ctx)
	return attestation.Beacon{Seqno: seqno, RootHash: root}, proof, err
}

func (l liteChain) Channel(ctx context.Context, addr attestation.Address) (ChannelView, error) {
	s, balance, at, err := view.Channel(ctx, l.c, addr)
	return ChannelView{State: s, Balance: balance, ProvenAt: at}, err
}
