// Package redeem turns the vouchers that a worker's host holds into payouts.
//
// It promises that a channel is redeemed once enough has been earned to be
// worth the fee, and, whatever the sum, once its client has started to close
// it, before the window ends. It holds a wallet that pays fees; the money
// itself can only go to the payout address that the channel names, so who runs
// this with another key takes nothing.
package redeem

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"cocoon/attestation"
	"cocoon/contracts"
	"cocoon/contracts/lite"
	"cocoon/contracts/view"
)

// Vouchers returns the highest signed voucher held for each channel, in
// contracts.SignedVoucher's binary form.
type Vouchers interface {
	Vouchers(ctx context.Context) (map[attestation.Address][]byte, error)
}

// Sender sends messages and confirms that each was executed. lite.Wallet does.
type Sender interface {
	Address() attestation.Address
	Send(ctx context.Context, msgs []lite.Message) error
}

// Config says what to redeem, from where, and when it is worth it.
type Config struct {
	Vouchers  Vouchers
	Accounts  view.Accounts
	Sender    Sender // redeems the channels whose payout or redeemer it is
	Threshold uint64 // nano earned and not redeemed that are worth a fee; zero is 10 redeem fees
	Logger    *slog.Logger
}

// perSend bounds the redeems of one external message: a V5R1 wallet takes 255.
const perSend = 200

// Due is one channel's redeem that is worth sending.
type Due struct {
	Channel attestation.Address
	Voucher contracts.SignedVoucher
	Amount  uint64 // nano that will move
	Closing bool   // the client has started to close
}

// List finds what is due now, what the window of a close threatens first, then
// the largest. A channel that cannot be read, or would refuse the voucher and
// keep a fee each time, is logged and left for the next time.
func List(ctx context.Context, c Config) ([]Due, error) {
	held, err := c.Vouchers.Vouchers(ctx)
	if err != nil {
		return nil, err
	}
	threshold := c.Threshold
	if threshold == 0 {
		threshold = 10 * contracts.RedeemFee
	}
	var due []Due
	for addr, raw := range held {
		d, err := look(ctx, c, addr, raw)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil {
			c.Logger.Warn("redeem.skipped", "channel", addr.String(), "error", err)
			continue
		}
		if d.Amount >= threshold || d.Closing && d.Amount > contracts.RedeemFee {
			due = append(due, d)
		}
	}
	slices.SortFunc(due, func(a, b Due) int {
		if a.Closing != b.Closing {
			if a.Closing {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(b.Amount, a.Amount), bytes.Compare(a.Channel[:], b.Channel[:]))
	})
	return due, nil
}

func look(ctx context.Context, c Config, addr attestation.Address, raw []byte) (Due, error) {
	var v contracts.SignedVoucher
	if err := v.UnmarshalBinary(raw); err != nil {
		return Due{}, err
	}
	if v.Voucher.Channel != addr {
		return Due{}, fmt.Errorf("voucher: channel: got %s, want %s", v.Voucher.Channel, addr)
	}
	s, balance, _, err := view.Channel(ctx, c.Accounts, addr)
	if err != nil {
		return Due{}, err
	}
	if from := c.Sender.Address(); from != s.Init.Payout && from != s.Init.Redeemer {
		return Due{}, fmt.Errorf("sender: got %s, want the payout %s or the redeemer %s", from, s.Init.Payout, s.Init.Redeemer)
	}
	if err := v.Verify(s.Init.ClientKey, v.Voucher.GlobalID, addr); err != nil {
		return Due{}, err
	}
	d := Due{Channel: addr, Voucher: v, Closing: s.CloseAt != 0}
	if !s.Closed && v.Voucher.Cumulative > s.Paid {
		d.Amount = min(v.Voucher.Cumulative-s.Paid, s.Available(balance))
	}
	return d, nil
}

// Once redeems what is due, and returns it.
func Once(ctx context.Context, c Config) ([]Due, error) {
	due, err := List(ctx, c)
	if err != nil {
		return nil, err
	}
	var errs []error
	for start := 0; start < len(due); start += perSend {
		var msgs []lite.Message
		for _, d := range due[start:min(start+perSend, len(due))] {
			body, err := contracts.RedeemBody(d.Voucher)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			msgs = append(msgs, lite.Message{To: d.Channel, Amount: contracts.RedeemFee, Body: body, Bounce: true})
		}
		if err := c.Sender.Send(ctx, msgs); err != nil {
			errs = append(errs, err)
			continue
		}
		for _, d := range due[start:min(start+perSend, len(due))] {
			c.Logger.Info("redeem.done", "channel", d.Channel.String(), "nano", d.Amount, "cumulative", d.Voucher.Voucher.Cumulative)
		}
	}
	return due, errors.Join(errs...)
}

// Run redeems at every tick until ctx ends. The caller owns the ticker; a tick
// must come well within a channel's close window of 24 hours.
func Run(ctx context.Context, c Config, tick <-chan time.Time) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick:
			if _, err := Once(ctx, c); err != nil && ctx.Err() == nil {
				c.Logger.Error("redeem.failed", "error", err)
			}
		}
	}
}
