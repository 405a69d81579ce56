// Package view reads a network's contracts as proxies and workers need them:
// from proven account states, with code hash and address checked, and with the
// time of the block that proves them.
//
// It promises that nothing it returns rests on a liteserver's word. It does
// not cache: how fresh a state must be is its caller's policy.
package view

import (
	"context"
	"errors"
	"fmt"
	"time"

	"cocoon/attestation"
	"cocoon/contracts"
	"cocoon/contracts/lite"
)

// ErrAbsent says that an account is proven not to be an active contract.
var ErrAbsent = errors.New("no active contract at the address")

// Accounts proves account states. lite.Client and lite.Snapshot do.
type Accounts interface {
	Account(ctx context.Context, addr attestation.Address) (lite.Account, error)
}

func active(ctx context.Context, src Accounts, what string, addr attestation.Address) (lite.Account, error) {
	a, err := src.Account(ctx, addr)
	if err != nil {
		return lite.Account{}, fmt.Errorf("%s %s: %w", what, addr, err)
	}
	if !a.Active {
		return lite.Account{}, fmt.Errorf("%s %s: %w", what, addr, ErrAbsent)
	}
	return a, nil
}

// Registry reads the registry at addr.
func Registry(ctx context.Context, src Accounts, addr attestation.Address) (*attestation.RegistryView, error) {
	a, err := active(ctx, src, "registry", addr)
	if err != nil {
		return nil, err
	}
	s, err := contracts.ParseRegistry(a.Code, a.Data)
	if err != nil {
		return nil, fmt.Errorf("registry %s: %w", addr, err)
	}
	v := s.View(addr, a.At.Time)
	return &v, nil
}

// Record reads a worker's record.
func Record(ctx context.Context, src Accounts, id attestation.Address) (contracts.WorkerRecord, *attestation.RecordView, error) {
	a, err := active(ctx, src, "worker record", id)
	if err != nil {
		return contracts.WorkerRecord{}, nil, err
	}
	s, err := contracts.ParseWorker(id, a.Code, a.Data)
	if err != nil {
		return contracts.WorkerRecord{}, nil, fmt.Errorf("worker record %s: %w", id, err)
	}
	if s.Record == nil {
		return contracts.WorkerRecord{}, nil, fmt.Errorf("worker record %s: its owner has not filled it", id)
	}
	v := s.Record.View(id, a.At.Time)
	return *s.Record, &v, nil
}

// Channel reads a payment channel, its balance in nano, and when both were proven.
func Channel(ctx context.Context, src Accounts, addr attestation.Address) (contracts.ChannelState, uint64, time.Time, error) {
	a, err := active(ctx, src, "channel", addr)
	if err != nil {
		return contracts.ChannelState{}, 0, time.Time{}, err
	}
	s, err := contracts.ParseChannel(addr, a.Code, a.Data)
	if err != nil {
		return contracts.ChannelState{}, 0, time.Time{}, fmt.Errorf("channel %s: %w", addr, err)
	}
	return s, a.Balance, a.At.Time, nil
}
