package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"cocoon/attestation"
	"cocoon/attestation/auditlog"
)

// OpenForReading opens a ledger that another process may hold. It signs and
// writes nothing.
func OpenForReading(dir string) (*Ledger, error) {
	path := filepath.Join(dir, fileName)
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("ledger: %w", err)
	}
	l := &Ledger{signers: map[attestation.Address]*Signer{}}
	var err error
	if l.read, err = openSQLite(path, "_pragma=query_only(1)"); err != nil {
		return nil, fmt.Errorf("ledger: %w", err)
	}
	var b []byte
	if err := l.read.QueryRow("SELECT value FROM meta WHERE key = 'secret'").Scan(&b); err != nil || len(b) != len(l.secret) {
		l.read.Close()
		return nil, fmt.Errorf("ledger: master secret: got %d bytes: %v", len(b), err)
	}
	copy(l.secret[:], b)
	return l, nil
}

// CloseReading closes what OpenForReading opened.
func (l *Ledger) CloseReading() error { return l.read.Close() }

// Disclose writes every receipt for an auditor, with the keys that blind their
// commitments, and each channel's highest signed voucher. Whoever is given it
// learns counts, prices and times, and can test a guess of a prompt; nothing
// in it spends.
func (l *Ledger) Disclose(ctx context.Context, w *auditlog.DisclosureWriter) error {
	sections, err := l.sections(ctx)
	if err != nil {
		return err
	}
	for _, s := range sections {
		if err := w.Section(s); err != nil {
			return err
		}
		if err := l.discloseSection(ctx, w, s); err != nil {
			return err
		}
	}
	channels, err := l.Channels(ctx)
	if err != nil {
		return err
	}
	for _, ch := range channels {
		s, err := l.Signer(ch.Address)
		if err != nil {
			return err
		}
		if s.top == nil {
			continue
		}
		raw, err := s.top.sign(s.key) // it was read from disk
		if err != nil {
			return err
		}
		if err := w.Voucher(ch.Address, raw); err != nil {
			return err
		}
	}
	return w.Close()
}

func (l *Ledger) sections(ctx context.Context) ([]auditlog.Section, error) {
	rows, err := l.read.QueryContext(ctx, "SELECT channel, log_id, base FROM logs ORDER BY channel, seq")
	if err != nil {
		return nil, fmt.Errorf("ledger: logs: %w", err)
	}
	defer rows.Close()
	var out []auditlog.Section
	for rows.Next() {
		var channel, log, base []byte
		if err := rows.Scan(&channel, &log, &base); err != nil {
			return nil, err
		}
		if len(channel) != 36 || len(log) != 32 || len(base) != 32 {
			return nil, errors.New("ledger: logs: a field of another length")
		}
		out = append(out, auditlog.Section{Channel: attestation.Address(channel), LogID: [32]byte(log), Base: [32]byte(base)})
	}
	return out, rows.Err()
}

func (l *Ledger) discloseSection(ctx context.Context, w *auditlog.DisclosureWriter, s auditlog.Section) error {
	rows, err := l.read.QueryContext(ctx, "SELECT job_id, cose FROM receipts WHERE channel = ? AND log_id = ? ORDER BY idx", s.Channel[:], s.LogID[:])
	if err != nil {
		return fmt.Errorf("ledger: receipts: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var job []byte
		var cose sql.RawBytes
		if err := rows.Scan(&job, &cose); err != nil {
			return err
		}
		if len(job) != 16 {
			return fmt.Errorf("ledger: receipts: job id: got %d bytes, want 16", len(job))
		}
		key := l.BlindingKey([16]byte(job))
		if err := w.Receipt(auditlog.Disclosed{COSE: append([]byte(nil), cose...), BlindingKey: key[:]}); err != nil {
			return err
		}
	}
	return rows.Err()
}
