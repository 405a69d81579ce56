package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"cocoon/attestation"
)

// ErrNoReceipt is a job without a receipt in the ledger.
var ErrNoReceipt = errors.New("ledger: no such receipt")

// StoredReceipt is a receipt as it was verified and recorded.
type StoredReceipt struct {
	Channel  attestation.Address
	LogID    [32]byte
	Index    uint64
	JobID    [16]byte
	Cost     uint64 // nano
	Model    string
	Status   string
	Finished int64  // Unix milliseconds
	COSE     []byte // auditlog.ParseReceipt reads it
}

// Query selects receipts; zero fields select everything.
type Query struct {
	Channel attestation.Address
	LogID   [32]byte
	Model   string
	Since   int64 // Unix milliseconds, by when the job finished
	Limit   int   // 0 for 1000
}

const receiptColumns = "channel, log_id, idx, job_id, cost, model, status, finished, cose"

// Receipts lists receipts by channel, log and index.
func (l *Ledger) Receipts(ctx context.Context, q Query) ([]StoredReceipt, error) {
	where, args := " WHERE finished >= ?", []any{q.Since}
	if !q.Channel.IsZero() {
		where, args = where+" AND channel = ?", append(args, q.Channel[:])
	}
	if q.LogID != [32]byte{} {
		where, args = where+" AND log_id = ?", append(args, q.LogID[:])
	}
	if q.Model != "" {
		where, args = where+" AND model = ?", append(args, q.Model)
	}
	if q.Limit <= 0 {
		q.Limit = 1000
	}
	rows, err := l.read.QueryContext(ctx, "SELECT "+receiptColumns+" FROM receipts"+where+" ORDER BY channel, log_id, idx LIMIT ?", append(args, q.Limit)...)
	if err != nil {
		return nil, fmt.Errorf("ledger: receipts: %w", err)
	}
	defer rows.Close()
	var out []StoredReceipt
	for rows.Next() {
		r, err := scanReceipt(rows)
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, rows.Err()
}

// Receipt finds a job's receipt, or returns ErrNoReceipt.
func (l *Ledger) Receipt(ctx context.Context, jobID [16]byte) (StoredReceipt, error) {
	r, err := scanReceipt(l.read.QueryRowContext(ctx, "SELECT "+receiptColumns+" FROM receipts WHERE job_id = ? LIMIT 1", jobID[:]))
	if errors.Is(err, sql.ErrNoRows) {
		return r, ErrNoReceipt
	}
	return r, err
}

func scanReceipt(row interface{ Scan(...any) error }) (StoredReceipt, error) {
	var r StoredReceipt
	var channel, logID, jobID []byte
	var idx, cost int64
	if err := row.Scan(&channel, &logID, &idx, &jobID, &cost, &r.Model, &r.Status, &r.Finished, &r.COSE); err != nil {
		return r, fmt.Errorf("ledger: receipt: %w", err)
	}
	if len(channel) != len(r.Channel) || len(logID) != 32 || len(jobID) != 16 {
		return r, fmt.Errorf("ledger: receipt: got ids of %d, %d and %d bytes: the file is damaged", len(channel), len(logID), len(jobID))
	}
	r.Channel, r.LogID, r.JobID = attestation.Address(channel), [32]byte(logID), [16]byte(jobID)
	r.Index, r.Cost = uint64(idx), uint64(cost)
	return r, nil
}

// AddKeyset keeps a keyset that was verified, before any job is sealed to it.
func (l *Ledger) AddKeyset(digest [32]byte, keyset []byte) error {
	return l.commit.put(func(tx *sql.Tx) error {
		_, err := tx.Exec("INSERT OR IGNORE INTO keysets (digest, keyset) VALUES (?,?)", digest[:], keyset)
		return err
	}).wait()
}

// Keyset returns a keyset that was verified once, or nil if there is none.
func (l *Ledger) Keyset(ctx context.Context, digest [32]byte) (*attestation.Keyset, error) {
	var raw []byte
	err := l.read.QueryRowContext(ctx, "SELECT keyset FROM keysets WHERE digest = ?", digest[:]).Scan(&raw)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("ledger: keyset: %w", err)
	}
	return attestation.ParseKeyset(raw)
}
