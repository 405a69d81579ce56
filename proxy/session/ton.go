package session

import (
	"context"
	"fmt"
	"time"

	"cocoon/attestation"
	"cocoon/contracts"
	"cocoon/contracts/lite"
	"cocoon/contracts/payout"
	"cocoon/contracts/view"
)

// LiteChain is a Chain over a liteserver client. A zero registry is a client
// that does without one.
func LiteChain(c *lite.Client, registry attestation.Address) Chain { return liteChain{c, registry} }

type liteChain struct {
	c        *lite.Client
	registry attestation.Address
}

func (l liteChain) Registry(ctx context.Context) (*attestation.RegistryView, error) {
	if l.registry.IsZero() {
		return nil, nil
	}
	return view.Registry(ctx, l.c, l.registry)
}

func (l liteChain) Record(ctx context.Context, id attestation.Address) (contracts.WorkerRecord, time.Time, error) {
	r, v, err := view.Record(ctx, l.c, id)
	if err != nil {
		return r, time.Time{}, err
	}
	return r, v.ProvenAt, nil
}

func (l liteChain) Channel(ctx context.Context, address attestation.Address) (contracts.ChannelState, uint64, time.Time, error) {
	return view.Channel(ctx, l.c, address)
}

func (l liteChain) GlobalID(ctx context.Context) (int32, error) { return l.c.GlobalID(ctx) }

// WalletOpener opens channels with a wallet's coins.
func WalletOpener(w *lite.Wallet) Opener { return walletOpener{w} }

type walletOpener struct{ w *lite.Wallet }

func (o walletOpener) Client() attestation.Address { return o.w.Address() }

func (o walletOpener) OpenChannel(ctx context.Context, init contracts.ChannelInit, deposit uint64) error {
	state, err := init.StateInit()
	if err != nil {
		return err
	}
	amount, err := payout.Add(deposit, contracts.Reserve+contracts.DeployFee)
	if err != nil {
		return fmt.Errorf("deposit: %w", err)
	}
	_, err = o.w.Deploy(ctx, state, amount, contracts.TopUpBody())
	return err
}
