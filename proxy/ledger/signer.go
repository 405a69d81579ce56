package ledger

import (
	"crypto/ed25519"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"time"

	"cocoon/attestation"
	"cocoon/contracts"
	"cocoon/contracts/payout"
)

// orphanAge is how long a job that ended without a receipt keeps its
// allocation: a worker that lost its client settles the job within that time.
const orphanAge = 2 * time.Minute

// recentVouchers is how many signed vouchers a signer keeps at hand.
const recentVouchers = 256

// Signer signs for one channel. There is one per channel and ledger; it is
// safe for concurrent use.
type Signer struct {
	l   *Ledger
	ch  Channel
	key ed25519.PrivateKey

	mu     sync.Mutex
	limit  uint64   // nano: what the channel can pay
	top    *voucher // the highest so far, maybe not yet on disk; nil before the first
	recent []*voucher
	book   *book // nil before Begin

	restored bool // the ledger was lost or is old: jobs that it does not know may be billed
}

// voucher is one that was or will be signed once its write is on disk.
type voucher struct {
	contracts.Voucher
	logID [32]byte
	count uint64
	write *write // nil: it was read from disk

	once sync.Once
	raw  []byte
	err  error
}

// Credit is a voucher as a worker wants it: with what its head is over.
type Credit struct {
	Voucher    []byte // contracts.SignedVoucher in binary
	Cumulative uint64 // nano
	LogID      [32]byte
	Count      uint64
}

// Signer returns the channel's signer, the same one each time.
func (l *Ledger) Signer(address attestation.Address) (*Signer, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := l.signers[address]; s != nil {
		return s, nil
	}
	ch, key, err := scanChannel(l.read.QueryRow("SELECT "+channelColumns+" FROM channels WHERE address = ?", address[:]))
	if errors.Is(err, sql.ErrNoRows) {
		return nil, fmt.Errorf("%w: %s", ErrUnknownChannel, address)
	} else if err != nil {
		return nil, err
	}
	s := &Signer{l: l, ch: ch, key: key}
	if err := s.loadTop(); err != nil {
		return nil, fmt.Errorf("ledger: channel %s: vouchers: %w", address, err)
	}
	l.signers[address] = s
	return s, nil
}

func (s *Signer) loadTop() error {
	v := &voucher{Voucher: contracts.Voucher{GlobalID: s.ch.GlobalID, Channel: s.ch.Address}}
	var cumulative, count int64
	var head, logID []byte
	err := s.l.read.QueryRow("SELECT cumulative, head, log_id, count FROM vouchers WHERE channel = ? ORDER BY cumulative DESC, id DESC LIMIT 1",
		s.ch.Address[:]).Scan(&cumulative, &head, &logID, &count)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	} else if err != nil {
		return err
	}
	if len(head) != 32 || len(logID) != 32 {
		return fmt.Errorf("got a head of %d bytes and a log id of %d, want 32: the file is damaged", len(head), len(logID))
	}
	v.Cumulative, v.ReceiptsHead, v.logID, v.count = uint64(cumulative), [32]byte(head), [32]byte(logID), uint64(count)
	s.top = v
	s.remember(v)
	return nil
}

// Channel is the channel that the signer signs for.
func (s *Signer) Channel() Channel { return s.ch }

// Public is the channel's client key.
func (s *Signer) Public() ed25519.PublicKey { return s.key.Public().(ed25519.PublicKey) }

// Sign signs a message of the job channel, raw. It refuses messages of 32
// bytes, which is the length of what a voucher signs.
func (s *Signer) Sign(message []byte) ([]byte, error) {
	if len(message) <= 32 {
		return nil, fmt.Errorf("ledger: sign: got a message of %d bytes, want more than a voucher's hash", len(message))
	}
	return ed25519.Sign(s.key, message), nil
}

// SetLimit takes what the channel can pay, as it was proven: paid + balance -
// reserve, in nano. It is 0, and nothing can be allocated, until then.
func (s *Signer) SetLimit(nano uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limit = min(nano, maxAmount)
}

// Funds is what the channel can pay and what of it is spent or allocated, in nano.
func (s *Signer) Funds() (limit, used uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.book == nil {
		if s.top != nil {
			used = s.top.Cumulative
		}
		return s.limit, used
	}
	used, err := s.book.need([16]byte{}, 0)
	if err != nil {
		used = s.limit
	}
	return s.limit, used
}

// Highest is the largest cumulative amount that was ever signed or is about
// to be, in nano.
func (s *Signer) Highest() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.top == nil {
		return 0
	}
	return s.top.Cumulative
}

// Allocate opens a job that may cost ceiling nano, allocates nano of them, and
// returns a voucher that covers it and everything else that is open on the
// log. Voucher and job are on disk when Allocate returns; several calls may
// share one commit. It returns a *CreditError when the channel cannot pay,
// ErrLogEnded for another log than the one last begun, and a *BooksError once
// the worker's books differ.
func (s *Signer) Allocate(logID [32]byte, jobID [16]byte, nano, ceiling uint64) (Credit, error) {
	return s.credit(logID, jobID, openJob{nano: nano, ceiling: ceiling})
}

// Raise allocates nano in total to a job that is open. It never lowers what was
// allocated, and returns ErrJobEnded once the job's receipt was recorded.
func (s *Signer) Raise(logID [32]byte, jobID [16]byte, nano uint64) (Credit, error) {
	return s.credit(logID, jobID, openJob{nano: nano, live: true})
}

// credit opens j, or raises it if it is live.
func (s *Signer) credit(logID [32]byte, jobID [16]byte, j openJob) (Credit, error) {
	v, job, err := s.allocate(logID, jobID, j)
	if err != nil {
		return Credit{}, err
	}
	// Writes commit in order: with the job, the voucher is on disk.
	if err := job.wait(); err != nil {
		return Credit{}, err
	}
	raw, err := v.sign(s.key)
	return Credit{Voucher: raw, Cumulative: v.Cumulative, LogID: v.logID, Count: v.count}, err
}

func (s *Signer) allocate(logID [32]byte, jobID [16]byte, j openJob) (*voucher, *write, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.book
	switch {
	case b == nil || b.logID != logID:
		return nil, nil, ErrLogEnded
	case b.fault != nil:
		return nil, nil, b.fault
	}
	old, ok := b.jobs[jobID]
	switch {
	case j.live && !ok:
		return nil, nil, ErrJobEnded
	case !j.live && ok:
		return nil, nil, fmt.Errorf("job %x: opened twice", jobID)
	case j.live:
		j.nano, j.ceiling = max(j.nano, old.nano), old.ceiling
	}
	now := s.l.cfg.Now()
	for id, j := range b.jobs {
		if !j.live && now.Sub(j.since) > orphanAge {
			j.freed = true
			b.jobs[id] = j
		}
	}
	need, err := b.need(jobID, j.nano)
	if err != nil || need > s.limit {
		return nil, nil, &CreditError{s.ch.Address, need, s.limit}
	}
	j.live, j.since = true, now
	b.jobs[jobID] = j
	if s.top == nil || s.top.logID != logID || s.top.Cumulative < need {
		if err := s.raise(need); err != nil {
			return nil, nil, err
		}
	}
	job := s.l.commit.put(func(tx *sql.Tx) error {
		_, err := tx.Exec(`INSERT INTO jobs (job_id, channel, log_id, granted, ceiling, opened) VALUES (?,?,?,?,?,?)
			ON CONFLICT (job_id) DO UPDATE SET granted = excluded.granted`, jobID[:], s.ch.Address[:], logID[:], int64(j.nano), int64(min(j.ceiling, maxAmount)), now.Unix())
		return err
	})
	return s.top, job, nil
}

// raise makes a new top over at least need. It never falls below the old one,
// whatever log that was for. The caller holds mu.
func (s *Signer) raise(need uint64) error {
	if s.top != nil {
		need = max(need, s.top.Cumulative)
	}
	b := s.book
	count := b.tree.Count()
	head, err := b.tree.Head(b.logID, b.base, count)
	if err != nil {
		return err
	}
	v := &voucher{
		Voucher: contracts.Voucher{GlobalID: s.ch.GlobalID, Channel: s.ch.Address, Cumulative: need, ReceiptsHead: head},
		logID:   b.logID, count: count,
	}
	v.write = s.l.commit.put(v.insert)
	s.top = v
	s.remember(v)
	return nil
}

func (v *voucher) insert(tx *sql.Tx) error {
	_, err := tx.Exec("INSERT OR IGNORE INTO vouchers (channel, cumulative, head, log_id, count) VALUES (?,?,?,?,?)",
		v.Channel[:], int64(v.Cumulative), v.ReceiptsHead[:], v.logID[:], int64(v.count))
	return err
}

// sign may only be called once the voucher is on disk.
func (v *voucher) sign(key ed25519.PrivateKey) ([]byte, error) {
	v.once.Do(func() {
		var s contracts.SignedVoucher
		if s, v.err = contracts.SignVoucher(key, v.Voucher); v.err == nil {
			v.raw, v.err = s.MarshalBinary()
		}
	})
	return v.raw, v.err
}

// remember keeps v among the recent ones. The caller holds mu, or is alone.
func (s *Signer) remember(v *voucher) {
	if len(s.recent) >= 2*recentVouchers {
		s.recent = append([]*voucher(nil), s.recent[recentVouchers:]...)
	}
	s.recent = append(s.recent, v)
}

// Release says that the job will send nothing more, though no receipt came.
// What was allocated stays so until a receipt comes or the worker has long
// had the time to send one; a receipt may come still later.
func (s *Signer) Release(jobID [16]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.book == nil {
		return
	}
	if j, ok := s.book.jobs[jobID]; ok {
		j.live, j.since = false, s.l.cfg.Now()
		s.book.jobs[jobID] = j
	}
}

// Forget frees the allocation of a job that never reached the worker.
func (s *Signer) Forget(jobID [16]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.book != nil {
		s.dropJob(s.book, jobID)
	}
}

// dropJob ends a job's allocation. The caller holds mu.
func (s *Signer) dropJob(b *book, jobID [16]byte) {
	if _, ok := b.jobs[jobID]; !ok {
		return
	}
	delete(b.jobs, jobID)
	s.l.commit.put(func(tx *sql.Tx) error {
		_, err := tx.Exec("DELETE FROM jobs WHERE job_id = ?", jobID[:])
		return err
	})
}

// Recognise reads a voucher that a worker shows as this client's. It returns
// ErrForeignVoucher or *UnknownVoucherError if it is not one of the ledger's.
func (s *Signer) Recognise(raw []byte) (contracts.Voucher, error) {
	var v contracts.SignedVoucher
	if err := v.UnmarshalBinary(raw); err != nil {
		return contracts.Voucher{}, fmt.Errorf("%w: %w", ErrForeignVoucher, err)
	}
	s.mu.Lock()
	var known *voucher
	for i := len(s.recent) - 1; i >= 0; i-- {
		if r := s.recent[i]; r.Voucher == v.Voucher && (r.write == nil || isDone(r.write)) {
			known = r
			break
		}
	}
	s.mu.Unlock()
	if known != nil {
		if own, err := known.sign(s.key); err == nil && string(own) == string(raw) {
			return v.Voucher, nil // Ed25519 signs alike each time
		}
	}
	if err := v.Verify(s.ch.Init.ClientKey, s.ch.GlobalID, s.ch.Address); err != nil {
		return contracts.Voucher{}, fmt.Errorf("%w: %w", ErrForeignVoucher, err)
	}
	var n int
	err := s.l.read.QueryRow("SELECT count(*) FROM vouchers WHERE channel = ? AND cumulative = ? AND head = ?",
		s.ch.Address[:], int64(min(v.Voucher.Cumulative, maxAmount)), v.Voucher.ReceiptsHead[:]).Scan(&n)
	if err != nil {
		return contracts.Voucher{}, fmt.Errorf("ledger: vouchers: %w", err)
	}
	if n == 0 {
		return contracts.Voucher{}, &UnknownVoucherError{s.ch.Address, v.Voucher.Cumulative, s.Highest()}
	}
	return v.Voucher, nil
}

func isDone(w *write) bool {
	select {
	case <-w.done:
		return w.err == nil
	default:
		return false
	}
}

// Restore has receipts taken of jobs that the ledger has lost, as far as what
// was ever signed reaches. Only a user may ask for it.
func (s *Signer) Restore() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.restored = true
}

// Adopt takes over a voucher of this channel's key that the ledger has lost.
// Only a user who knows that no other copy of the ledger signs may ask for it.
func (s *Signer) Adopt(raw []byte) error {
	var v contracts.SignedVoucher
	if err := v.UnmarshalBinary(raw); err != nil {
		return fmt.Errorf("%w: %w", ErrForeignVoucher, err)
	}
	if err := v.Verify(s.ch.Init.ClientKey, s.ch.GlobalID, s.ch.Address); err != nil {
		return fmt.Errorf("%w: %w", ErrForeignVoucher, err)
	}
	if v.Voucher.Cumulative > maxAmount {
		return fmt.Errorf("voucher: cumulative: got %d nano, want at most %d", v.Voucher.Cumulative, uint64(maxAmount))
	}
	s.mu.Lock()
	s.restored = true
	n := &voucher{Voucher: v.Voucher}
	n.write = s.l.commit.put(n.insert)
	if s.top == nil || s.top.Cumulative < n.Cumulative {
		s.top = n
	}
	s.remember(n)
	s.mu.Unlock()
	return n.write.wait()
}

// need is payout-safe: it sums what is spent and open on the log, with the
// job's allocation taken as nano.
func (b *book) need(jobID [16]byte, nano uint64) (uint64, error) {
	sum, err := payout.Add(b.floor, b.settled)
	for id, j := range b.jobs {
		if err == nil && id != jobID && !j.freed {
			sum, err = payout.Add(sum, j.nano)
		}
	}
	if err == nil {
		sum, err = payout.Add(sum, nano)
	}
	return sum, err
}
