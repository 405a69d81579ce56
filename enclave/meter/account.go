package meter

import (
	"errors"
	"fmt"
	"sync"

	"cocoon/attestation"
	"cocoon/attestation/auditlog"
	"cocoon/contracts"
)

// Opening is what is known of a channel when this boot first serves it.
type Opening struct {
	Channel   attestation.Address
	ClientKey [32]byte
	Limit     uint64 // nano: paid + proven balance - reserve
	Paid      uint64 // nano: what the chain has proven as paid
	// Stored is the highest voucher that the host kept from earlier boots in
	// its binary form, empty if there is none. All of max(Stored, Paid)
	// counts as spent.
	Stored []byte
}

// Account is one channel's money in this boot. It is safe for concurrent use.
type Account struct {
	cfg     Config
	channel attestation.Address
	key     [32]byte

	// Fixed at boot.
	base        uint64                   // nano, counted as spent
	baseHead    [32]byte                 // zeros without a base voucher
	baseVoucher *contracts.SignedVoucher // nil: the chain had paid more than the host's voucher says, or nothing

	mu       sync.Mutex
	limit    uint64
	highest  *contracts.SignedVoucher // starts as the base voucher
	flushed  uint64                   // cumulative of the voucher the host holds durably
	settled  uint64                   // over the receipts of this log
	reserved uint64                   // over open jobs
	jobs     int
	tree     auditlog.HeadTree
	changed  chan struct{}

	// Receipts that were handed on to log and host, without a gap: what may be shown.
	durable        uint64
	durableSettled uint64
	unwritten      map[uint64]uint64 // index -> cost, from durable on
	written        map[uint64]bool
}

// Open returns a channel's account, making it if this boot has not seen the
// channel. What was counted as spent does not change afterwards, though the
// chain's paid amount will; the limit does, through SetLimit.
//
// A stored voucher that the channel would not pay is an error: the host's
// store is damaged, and guessing would sell work twice or give it away.
func (m *Meter) Open(o Opening) (*Account, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if a := m.accounts[o.Channel]; a != nil {
		return a, nil
	}
	if len(m.accounts) >= m.cfg.MaxChannels {
		return nil, refuse(LimitChannels, len(m.accounts)+1, fmt.Sprintf("at most %d", m.cfg.MaxChannels))
	}
	a := &Account{
		cfg: m.cfg, channel: o.Channel, key: o.ClientKey, base: o.Paid, limit: o.Limit,
		changed: make(chan struct{}), unwritten: map[uint64]uint64{}, written: map[uint64]bool{},
	}
	if len(o.Stored) != 0 {
		v, err := a.verify(o.Stored)
		if err != nil {
			return nil, fmt.Errorf("stored voucher: %w", err)
		}
		if v.Voucher.Cumulative >= o.Paid {
			a.base, a.baseHead, a.baseVoucher = v.Voucher.Cumulative, v.Voucher.ReceiptsHead, v
			a.highest, a.flushed = v, v.Voucher.Cumulative
		}
	}
	m.accounts[o.Channel] = a
	return a, nil
}

// Channel is the account's address on TON.
func (a *Account) Channel() attestation.Address { return a.channel }

// ClientKey is the channel's client key.
func (a *Account) ClientKey() [32]byte { return a.key }

// SetLimit takes a newly proven paid + balance - reserve, in nano.
func (a *Account) SetLimit(limit uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.limit = limit
	a.wake()
}

// Credit takes a voucher in its binary form, whose head states what its signer
// holds as this channel's count receipts of log logID. An older voucher is no
// error and changes nothing. Every error is a *Refusal.
func (a *Account) Credit(raw []byte, logID [32]byte, count uint64) error {
	v, err := a.verify(raw)
	if err != nil {
		return err
	}
	if logID != a.cfg.LogID {
		return refuse(VoucherLog, fmt.Sprintf("%x", logID[:8]), fmt.Sprintf("%x", a.cfg.LogID[:8]))
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.highest != nil && v.Voucher.Cumulative <= a.highest.Voucher.Cumulative {
		return nil
	}
	head, err := a.tree.Head(a.cfg.LogID, a.baseHead, count)
	if err != nil {
		return refuse(VoucherHead, fmt.Sprintf("a head over %d receipts", count), fmt.Sprintf("at most %d", a.tree.Count()))
	}
	if v.Voucher.ReceiptsHead != head {
		return refuse(VoucherHead, fmt.Sprintf("%x at count %d", v.Voucher.ReceiptsHead[:8], count), fmt.Sprintf("%x", head[:8]))
	}
	if v.Voucher.Cumulative > a.limit {
		return refuse(VoucherBalance, v.Voucher.Cumulative, fmt.Sprintf("at most %d, which the channel can pay", a.limit))
	}
	a.highest = v
	a.wake()
	return nil
}

// verify reads a voucher and checks that the channel would take it.
func (a *Account) verify(raw []byte) (*contracts.SignedVoucher, error) {
	var v contracts.SignedVoucher
	if err := v.UnmarshalBinary(raw); err != nil {
		return nil, &Refusal{VoucherParse, err.Error(), "a signed voucher"}
	}
	err := v.Verify(a.key, a.cfg.GlobalID, a.channel)
	var mismatch *contracts.VoucherMismatchError
	switch {
	case err == nil:
		return &v, nil
	case errors.As(err, &mismatch) && mismatch.Field == "channel":
		return nil, &Refusal{VoucherChannel, mismatch.Got, mismatch.Want}
	case errors.As(err, &mismatch):
		return nil, &Refusal{VoucherNetwork, mismatch.Field + " " + mismatch.Got, mismatch.Want}
	}
	return nil, &Refusal{VoucherSignature, err.Error(), "one by the channel's client key"}
}

// wake lets every waiting job look again. The caller holds mu.
func (a *Account) wake() {
	close(a.changed)
	a.changed = make(chan struct{})
}

// credit is how much may be spent over the channel's life. The caller holds mu.
func (a *Account) credit() uint64 {
	c := a.base
	if a.highest != nil {
		c = max(c, a.highest.Voucher.Cumulative)
	}
	return min(c, a.limit)
}

// BaseHead is the head of the voucher counted as spent at boot, else zeros.
func (a *Account) BaseHead() [32]byte { return a.baseHead }

// Statement is what the worker holds of a channel, for its client to compare.
type Statement struct {
	Highest  []byte // binary voucher; empty before the first
	Base     []byte // binary voucher counted as spent at boot; empty if none
	BasePaid uint64 // nano counted as spent at boot where Base is empty
	Settled  uint64 // nano, over the first Count receipts of this log
	Count    uint64 // receipts that may be shown
}

// Statement counts the receipts that may be shown, in one consistent view.
func (a *Account) Statement() Statement {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := Statement{Highest: binary(a.highest), Base: binary(a.baseVoucher), Settled: a.durableSettled, Count: a.durable}
	if a.baseVoucher == nil {
		s.BasePaid = a.base
	}
	return s
}

// Unflushed returns the highest voucher if the host does not hold it yet, else
// nil, and its cumulative amount for Flushed.
func (a *Account) Unflushed() (raw []byte, cumulative uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.highest == nil || a.highest.Voucher.Cumulative <= a.flushed {
		return nil, 0
	}
	return binary(a.highest), a.highest.Voucher.Cumulative
}

// Flushed says that the host holds a voucher of that cumulative amount durably.
func (a *Account) Flushed(cumulative uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.flushed = max(a.flushed, cumulative)
}

func binary(v *contracts.SignedVoucher) []byte {
	if v == nil {
		return nil
	}
	b, err := v.MarshalBinary()
	if err != nil {
		panic(err) // documented never to fail
	}
	return b
}

// Published says that the receipt at index is on its way to the log and the
// host, so that it may be shown.
func (a *Account) Published(index uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.written[index] = true
	for a.written[a.durable] {
		a.durableSettled += a.unwritten[a.durable]
		delete(a.written, a.durable)
		delete(a.unwritten, a.durable)
		a.durable++
	}
}
