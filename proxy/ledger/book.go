package ledger

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"cocoon/attestation/auditlog"
	"cocoon/contracts/payout"
)

// maxEarly bounds what may wait for receipts before it, and statements about
// counts not reached yet.
const maxEarly = 4096

// book is the channel's account with one log of the worker: one boot.
type book struct {
	logID   [32]byte
	base    [32]byte // head of the voucher counted as spent at boot, or zeros
	floor   uint64   // nano spent before this log
	settled uint64   // nano, all receipts of this log
	tree    auditlog.HeadTree
	digests [][32]byte // of each receipt
	sums    []uint64   // sums[i] is settled after i receipts
	jobs    map[[16]byte]openJob
	early   map[uint64]early
	expects map[uint64]uint64 // settled, by a count not reached yet
	fault   error
}

// openJob is one that may still be billed.
type openJob struct {
	nano    uint64 // allocated
	ceiling uint64 // nano that its terms allow in total; no receipt may exceed what was allocated
	live    bool   // a call in this process may still raise it
	freed   bool   // its allocation is counted no more
	since   time.Time
}

type early struct {
	cose []byte
	r    auditlog.Receipt
}

// Begin starts or goes on with the worker's log: base is the voucher that the
// worker counts as spent at its boot (binary, empty for none), paid the nano
// that it counts instead because the chain had paid them. It returns how many receipts of the log
// the ledger holds. A log that another has followed is a *BooksError.
//
// What counts as spent before a new log is the largest of base, paid, and what
// this client's own receipts of earlier logs add up to: a worker that lost a
// voucher in a crash is paid for the work it receipted.
func (s *Signer) Begin(logID [32]byte, base []byte, paid uint64) (count uint64, err error) {
	var head [32]byte
	spent := paid
	if len(base) != 0 {
		v, err := s.Recognise(base)
		if err != nil {
			return 0, fmt.Errorf("base: %w", err)
		}
		head, spent = v.ReceiptsHead, max(paid, v.Cumulative)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if b := s.book; b != nil && b.logID == logID {
		if b.base != head {
			return 0, s.books("base", fmt.Sprintf("%x", head[:8]), fmt.Sprintf("%x", b.base[:8]))
		}
		return b.tree.Count(), b.fault
	}
	if err := s.l.Flush(context.Background()); err != nil {
		return 0, err
	}
	b, err := s.loadBook(logID, head, spent)
	if err != nil {
		return 0, err
	}
	s.book = b
	return b.tree.Count(), nil
}

func (s *Signer) books(field, got, want string) error {
	return &BooksError{s.ch.Address, field, got, want}
}

// loadBook reads a log's book from disk, or begins it. The caller holds mu,
// and everything is flushed.
func (s *Signer) loadBook(logID, head [32]byte, spent uint64) (*book, error) {
	b := &book{logID: logID, base: head, sums: []uint64{0}, jobs: map[[16]byte]openJob{}, early: map[uint64]early{}, expects: map[uint64]uint64{}}
	last, err := s.lastLog()
	if err != nil {
		return nil, err
	}
	var seq int64
	var stored []byte
	var floor int64
	err = s.l.read.QueryRow("SELECT seq, base, floor FROM logs WHERE channel = ? AND log_id = ?", s.ch.Address[:], logID[:]).Scan(&seq, &stored, &floor)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		b.floor = max(spent, last.floor+last.settled)
		s.beginLog(b, last.seq+1)
		return b, nil
	case err != nil:
		return nil, fmt.Errorf("ledger: logs: %w", err)
	case seq < last.seq:
		return nil, s.books("log id", fmt.Sprintf("%x, an earlier boot's", logID[:8]), fmt.Sprintf("%x or a new one", last.id))
	case string(stored) != string(head[:]):
		return nil, s.books("base", fmt.Sprintf("%x", head[:8]), fmt.Sprintf("%.8x", stored))
	}
	b.floor = uint64(floor)
	return b, s.loadReceipts(b)
}

type logRow struct {
	id             []byte
	seq            int64
	floor, settled uint64
}

// lastLog is the log that was begun last, with the sum of its receipts.
func (s *Signer) lastLog() (logRow, error) {
	var r logRow
	var floor, settled int64
	err := s.l.read.QueryRow(`SELECT substr(l.log_id, 1, 8), l.seq, l.floor,
		(SELECT coalesce(sum(r.cost), 0) FROM receipts r WHERE r.channel = l.channel AND r.log_id = l.log_id)
		FROM logs l WHERE l.channel = ? ORDER BY l.seq DESC LIMIT 1`, s.ch.Address[:]).Scan(&r.id, &r.seq, &floor, &settled)
	if errors.Is(err, sql.ErrNoRows) {
		return logRow{}, nil
	} else if err != nil {
		return logRow{}, fmt.Errorf("ledger: logs: %w", err)
	}
	r.floor, r.settled = uint64(floor), uint64(settled)
	return r, nil
}

// beginLog writes a new log, and ends the jobs of those before it: they can be
// billed by nobody.
func (s *Signer) beginLog(b *book, seq int64) {
	s.l.commit.put(func(tx *sql.Tx) error {
		if _, err := tx.Exec("DELETE FROM jobs WHERE channel = ? AND log_id <> ?", s.ch.Address[:], b.logID[:]); err != nil {
			return err
		}
		_, err := tx.Exec("INSERT INTO logs (channel, log_id, seq, base, floor) VALUES (?,?,?,?,?)", s.ch.Address[:], b.logID[:], seq, b.base[:], int64(b.floor))
		return err
	})
}

func (s *Signer) loadReceipts(b *book) error {
	rows, err := s.l.read.Query("SELECT idx, cost, cose FROM receipts WHERE channel = ? AND log_id = ? ORDER BY idx", s.ch.Address[:], b.logID[:])
	if err != nil {
		return fmt.Errorf("ledger: receipts: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var idx, cost int64
		var cose []byte
		if err := rows.Scan(&idx, &cost, &cose); err != nil {
			return fmt.Errorf("ledger: receipts: %w", err)
		}
		if uint64(idx) != b.tree.Count() {
			return fmt.Errorf("ledger: receipts: got index %d, want %d: the file is damaged", idx, b.tree.Count())
		}
		if err := b.append(cose, uint64(cost)); err != nil {
			return fmt.Errorf("ledger: receipts: %w", err)
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("ledger: receipts: %w", err)
	}
	jobs, err := s.l.read.Query("SELECT job_id, granted, ceiling FROM jobs WHERE channel = ? AND log_id = ?", s.ch.Address[:], b.logID[:])
	if err != nil {
		return fmt.Errorf("ledger: jobs: %w", err)
	}
	defer jobs.Close()
	for jobs.Next() {
		var id []byte
		var granted, ceiling int64
		if err := jobs.Scan(&id, &granted, &ceiling); err != nil || len(id) != 16 {
			return fmt.Errorf("ledger: jobs: id of %d bytes: %w", len(id), err)
		}
		b.jobs[[16]byte(id)] = openJob{nano: uint64(granted), ceiling: uint64(ceiling), since: s.l.cfg.Now()}
	}
	return jobs.Err()
}

func (b *book) append(cose []byte, cost uint64) error {
	settled, err := payout.Add(b.settled, cost)
	if err != nil || settled > maxAmount {
		return fmt.Errorf("settled: %w", payout.ErrOverflow)
	}
	b.settled = settled
	b.tree.Append(cose)
	b.digests = append(b.digests, sha256.Sum256(cose))
	b.sums = append(b.sums, settled)
	return nil
}

// Record takes a receipt that its caller has verified, in any order; one that
// comes before those it follows waits for them. Taking it twice is no error.
// Another receipt under the same index, one for a job that was not opened or
// beyond what was allocated to it, and books that differ once the gap is
// closed, are a *BooksError, after which nothing more is signed for the log.
// After Restore the jobs are not known, and all receipts together may not
// exceed what was ever signed.
// The receipt is on disk before the next voucher that covers it.
func (s *Signer) Record(cose []byte, r auditlog.Receipt) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.Channel != s.ch.Address {
		return s.books("receipt", r.Channel.String(), "one of this channel")
	}
	b := s.book
	if b == nil || b.logID != r.LogID {
		return ErrLogEnded
	}
	if b.fault == nil {
		b.fault = s.record(b, append([]byte(nil), cose...), r)
	}
	return b.fault
}

func (s *Signer) record(b *book, cose []byte, r auditlog.Receipt) error {
	n := b.tree.Count()
	if r.Index < n {
		if got := sha256.Sum256(cose); got != b.digests[r.Index] {
			return s.books(fmt.Sprintf("receipt %d", r.Index), fmt.Sprintf("%x", got[:8]), fmt.Sprintf("%x, which it signed before", b.digests[r.Index][:8]))
		}
		return nil
	}
	if e, ok := b.early[r.Index]; ok {
		if string(e.cose) != string(cose) {
			return s.books(fmt.Sprintf("receipt %d", r.Index), "two different ones", "one")
		}
		return nil
	}
	if len(b.early) >= maxEarly {
		return s.books("receipts", fmt.Sprintf("%d without those before them", len(b.early)), "none left out")
	}
	if j, ok := b.jobs[r.JobID]; !s.restored && (!ok || r.Cost > j.nano) {
		return s.books(fmt.Sprintf("receipt %d", r.Index), fmt.Sprintf("%d nano for job %x", r.Cost, r.JobID), fmt.Sprintf("at most the %d that it was granted", j.nano))
	}
	b.early[r.Index] = early{cose, r}
	s.dropJob(b, r.JobID)
	for {
		n := b.tree.Count()
		e, ok := b.early[n]
		if !ok {
			return nil
		}
		delete(b.early, n)
		if err := b.append(e.cose, e.r.Cost); err != nil {
			return s.books("settled", err.Error(), "an amount")
		}
		if spent, err := payout.Add(b.floor, b.settled); s.restored && e.r.Cost > 0 && (err != nil || s.top == nil || spent > s.top.Cumulative) {
			return s.books("settled", fmt.Sprint(spent), "at most what was ever signed")
		}
		s.insertReceipt(e)
		if err := s.met(b, n+1); err != nil {
			return err
		}
	}
}

func (s *Signer) insertReceipt(e early) {
	r := e.r
	s.l.commit.put(func(tx *sql.Tx) error {
		_, err := tx.Exec("INSERT INTO receipts (channel, log_id, idx, job_id, cost, model, status, finished, cose) VALUES (?,?,?,?,?,?,?,?,?)",
			r.Channel[:], r.LogID[:], int64(r.Index), r.JobID[:], int64(r.Cost), r.Model.Name, string(r.Status), r.Finished, e.cose)
		return err
	})
}

// met compares with what the worker said of that count.
func (s *Signer) met(b *book, count uint64) error {
	want, ok := b.expects[count]
	delete(b.expects, count)
	if ok && want != b.sums[count] {
		return s.books(fmt.Sprintf("settled after %d receipts", count), fmt.Sprint(want), fmt.Sprint(b.sums[count]))
	}
	return nil
}

// Expect takes the worker's statement that its first count receipts of the log
// add up to settled nano. If the ledger holds them all it compares at once,
// else as soon as it does.
func (s *Signer) Expect(logID [32]byte, count, settled uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.book
	switch {
	case b == nil || b.logID != logID:
		return ErrLogEnded
	case b.fault != nil:
		return b.fault
	}
	if count > b.tree.Count() && len(b.expects) >= maxEarly {
		b.fault = s.books("count", fmt.Sprint(count), "receipts for what was stated before")
		return b.fault
	}
	if old, ok := b.expects[count]; ok && old != settled {
		b.fault = s.books(fmt.Sprintf("settled after %d receipts", count), fmt.Sprint(settled), fmt.Sprint(old))
		return b.fault
	}
	b.expects[count] = settled
	if count <= b.tree.Count() {
		b.fault = s.met(b, count)
	}
	return b.fault
}

// Held is how many receipts of the log the ledger holds without a gap, and
// whether the worker has shown or stated more than that.
func (s *Signer) Held(logID [32]byte) (count uint64, more bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b := s.book; b != nil && b.logID == logID {
		return b.tree.Count(), len(b.early)+len(b.expects) > 0, nil
	}
	var n int64
	err = s.l.read.QueryRow("SELECT count(*) FROM receipts WHERE channel = ? AND log_id = ?", s.ch.Address[:], logID[:]).Scan(&n)
	if err != nil {
		return 0, false, fmt.Errorf("ledger: receipts: %w", err)
	}
	return uint64(n), false, nil
}
