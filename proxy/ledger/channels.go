package ledger

import (
	"context"
	"crypto/ed25519"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"time"

	"cocoon/attestation"
	"cocoon/contracts"
)

// ErrUnknownChannel is a channel that is not in the ledger.
var ErrUnknownChannel = errors.New("ledger: unknown channel")

// Channel is a payment channel of this client. Its key stays inside the ledger.
type Channel struct {
	Address  attestation.Address
	Init     contracts.ChannelInit
	GlobalID int32  // of the TON network
	Deposit  uint64 // nano that its opening sends
	Created  int64  // Unix seconds
	Closed   bool
}

// ChannelPlan is what a new channel is to be.
type ChannelPlan struct {
	WorkerID, Client, Payout, Redeemer attestation.Address
	CloseDelay                         uint32 // seconds
	GlobalID                           int32
	Deposit                            uint64 // nano
}

// AddChannel makes a client key and a nonce, and returns the channel once both
// are on disk: only then may money be sent to its address.
func (l *Ledger) AddChannel(p ChannelPlan) (Channel, error) {
	var seed, nonce [32]byte
	for _, b := range [][]byte{seed[:], nonce[:]} {
		if _, err := io.ReadFull(l.cfg.Rand, b); err != nil {
			return Channel{}, fmt.Errorf("ledger: channel: %w", err)
		}
	}
	if p.Deposit > maxAmount {
		return Channel{}, fmt.Errorf("ledger: channel: deposit: got %d nano, want at most %d", p.Deposit, uint64(maxAmount))
	}
	c := Channel{
		Init: contracts.ChannelInit{
			Nonce: nonce, WorkerID: p.WorkerID, ClientKey: [32]byte(ed25519.NewKeyFromSeed(seed[:]).Public().(ed25519.PublicKey)),
			Client: p.Client, Payout: p.Payout, Redeemer: p.Redeemer, CloseDelay: p.CloseDelay,
		},
		GlobalID: p.GlobalID, Deposit: p.Deposit, Created: l.cfg.Now().Unix(),
	}
	var err error
	if c.Address, err = c.Init.Address(); err != nil {
		return Channel{}, fmt.Errorf("ledger: %w", err)
	}
	err = l.commit.put(func(tx *sql.Tx) error {
		_, err := tx.Exec(`INSERT INTO channels (address, worker_id, seed, nonce, client, payout, redeemer, close_delay, global_id, deposit, created)
			VALUES (?,?,?,?,?,?,?,?,?,?,?)`, c.Address[:], p.WorkerID[:], seed[:], nonce[:], p.Client[:], p.Payout[:], p.Redeemer[:],
			p.CloseDelay, p.GlobalID, int64(p.Deposit), c.Created)
		return err
	}).wait()
	if err != nil {
		return Channel{}, fmt.Errorf("ledger: channel: %w", err)
	}
	return c, nil
}

// CloseChannel marks a channel as one that no job may use any more.
func (l *Ledger) CloseChannel(address attestation.Address) error {
	return l.commit.put(func(tx *sql.Tx) error {
		_, err := tx.Exec("UPDATE channels SET closed = 1 WHERE address = ?", address[:])
		return err
	}).wait()
}

// CountChannels counts the channels that were made since a time.
func (l *Ledger) CountChannels(ctx context.Context, since time.Time) (int, error) {
	var n int
	if err := l.read.QueryRowContext(ctx, "SELECT count(*) FROM channels WHERE created > ?", since.Unix()).Scan(&n); err != nil {
		return 0, fmt.Errorf("ledger: channels: %w", err)
	}
	return n, nil
}

// Channels lists all channels, oldest first.
func (l *Ledger) Channels(ctx context.Context) ([]Channel, error) {
	return queryChannels(ctx, l.read, "SELECT "+channelColumns+" FROM channels ORDER BY created, address")
}

// ChannelsTo lists the open channels to one worker, newest first.
func (l *Ledger) ChannelsTo(ctx context.Context, workerID attestation.Address) ([]Channel, error) {
	return queryChannels(ctx, l.read, "SELECT "+channelColumns+" FROM channels WHERE worker_id = ? AND closed = 0 ORDER BY created DESC, address", workerID[:])
}

const channelColumns = "address, worker_id, seed, nonce, client, payout, redeemer, close_delay, global_id, deposit, created, closed"

func queryChannels(ctx context.Context, db *sql.DB, query string, args ...any) ([]Channel, error) {
	rows, err := db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("ledger: channels: %w", err)
	}
	defer rows.Close()
	var out []Channel
	for rows.Next() {
		c, _, err := scanChannel(rows)
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, rows.Err()
}

// scanChannel reads a row and checks that the address is still that of its data.
func scanChannel(rows interface{ Scan(...any) error }) (Channel, ed25519.PrivateKey, error) {
	var c Channel
	var address, worker, seed, nonce, client, payout, redeemer []byte
	var deposit int64
	err := rows.Scan(&address, &worker, &seed, &nonce, &client, &payout, &redeemer, &c.Init.CloseDelay, &c.GlobalID, &deposit, &c.Created, &c.Closed)
	if err != nil {
		return c, nil, fmt.Errorf("ledger: channel: %w", err)
	}
	for _, f := range []struct {
		to   []byte
		from []byte
	}{
		{c.Address[:], address}, {c.Init.WorkerID[:], worker}, {c.Init.Nonce[:], nonce},
		{c.Init.Client[:], client}, {c.Init.Payout[:], payout}, {c.Init.Redeemer[:], redeemer},
	} {
		if len(f.from) != len(f.to) {
			return c, nil, fmt.Errorf("ledger: channel: a field has %d bytes, want %d: the file is damaged", len(f.from), len(f.to))
		}
		copy(f.to, f.from)
	}
	if len(seed) != ed25519.SeedSize {
		return c, nil, fmt.Errorf("ledger: channel: seed: got %d bytes, want %d: the file is damaged", len(seed), ed25519.SeedSize)
	}
	key := ed25519.NewKeyFromSeed(seed)
	c.Init.ClientKey = [32]byte(key.Public().(ed25519.PublicKey))
	c.Deposit = uint64(deposit)
	if want, err := c.Init.Address(); err != nil || want != c.Address {
		return c, nil, fmt.Errorf("ledger: channel %s: its key and parties deploy elsewhere: the file is damaged", c.Address)
	}
	return c, key, nil
}
