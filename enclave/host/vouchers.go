package host

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"cocoon/attestation"
	"cocoon/contracts"
)

// PutVoucher keeps the channel's voucher if its cumulative amount is above the
// one held. An older one is no error, and changes nothing. Whose signature it
// carries was the worker's to verify.
func (s *Store) PutVoucher(ctx context.Context, channel attestation.Address, raw []byte) error {
	s.vouchers.Lock()
	defer s.vouchers.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	v, err := voucherOf(channel, raw)
	if err != nil {
		return fmt.Errorf("host store: %w", err)
	}
	path := filepath.Join("vouchers", hex.EncodeToString(channel[:]))
	held, err := s.voucher(path, channel)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err // damage is for the owner to see, not to write over
	}
	if err == nil {
		if h, _ := voucherOf(channel, held); v.Voucher.Cumulative <= h.Voucher.Cumulative {
			return nil
		}
	}
	return s.put(path, raw)
}

// Vouchers returns the highest voucher of every channel.
func (s *Store) Vouchers(ctx context.Context) (map[attestation.Address][]byte, error) {
	names, err := os.ReadDir(filepath.Join(s.dir, "vouchers"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("host store: %w", err)
	}
	all := make(map[attestation.Address][]byte, len(names))
	for _, n := range names {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if filepath.Ext(n.Name()) == ".tmp" {
			continue
		}
		path := filepath.Join("vouchers", n.Name())
		id, err := hex.DecodeString(n.Name())
		if err != nil || len(id) != 36 || hex.EncodeToString(id) != n.Name() {
			return nil, damaged(path, fmt.Errorf("name: want 72 lower-case hex digits"))
		}
		channel := attestation.Address(id)
		if all[channel], err = s.voucher(path, channel); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func (s *Store) voucher(path string, channel attestation.Address) ([]byte, error) {
	raw, err := s.get(path, contracts.SignedVoucherSize)
	if err != nil {
		return nil, err
	}
	if _, err := voucherOf(channel, raw); err != nil {
		return nil, damaged(path, err)
	}
	return raw, nil
}

func voucherOf(channel attestation.Address, raw []byte) (contracts.SignedVoucher, error) {
	var v contracts.SignedVoucher
	if err := v.UnmarshalBinary(raw); err != nil {
		return v, err
	}
	if v.Voucher.Channel != channel {
		return v, fmt.Errorf("voucher: channel: got %s, want %s", v.Voucher.Channel, channel)
	}
	return v, nil
}
