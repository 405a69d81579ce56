package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sort"
	"sync"
	"time"

	"cocoon/attestation"
	"cocoon/attestation/channel"
	"cocoon/contracts"
	"cocoon/contracts/view"
	"cocoon/enclave/api"
	"cocoon/proxy/ledger"
)

// Session is one TLS connection to a verified worker. It is safe for
// concurrent use. When the connection dies, so does the session; a new one
// attests again.
type Session struct {
	cfg      *Config
	endpoint string
	conn     *api.Conn
	sealed   *channel.Session
	verified *attestation.Verified
	result   *attestation.Result
	bundle   []byte
	record   contracts.WorkerRecord
	logID    [32]byte
	began    time.Time     // before verification; its monotonic reading runs whatever the clock does
	lifetime time.Duration // from then on

	mu     sync.Mutex
	signer *ledger.Signer // nil before Fund
	base   []byte         // the voucher that the worker counts as spent at its boot
	live   int            // open jobs
	spare  [][16]byte     // ids of jobs that are prepared
	retire bool           // close when the last job ends
	proven time.Time      // when the channel's state was last asked for
	named  []byte         // a checkpoint that was verified
}

// Connect dials a worker and verifies it. A zero workerID takes the worker that
// answers, which must then prove to be the one in its own record. It returns a
// *NotVerifiedError if the evidence is refused.
func Connect(ctx context.Context, cfg *Config, endpoint string, workerID attestation.Address) (*Session, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	conn, err := cfg.Dialer.Dial(ctx, endpoint)
	if err != nil {
		return nil, err
	}
	s := &Session{cfg: cfg, endpoint: endpoint, conn: conn, began: cfg.Now()}
	if err := s.attest(ctx, workerID); err != nil {
		conn.Close()
		return nil, err
	}
	return s, nil
}

func (s *Session) attest(ctx context.Context, workerID attestation.Address) error {
	var nonce [32]byte
	if _, err := io.ReadFull(s.cfg.Rand, nonce[:]); err != nil {
		return fmt.Errorf("nonce: %w", err)
	}
	resp, err := s.conn.Client.Attest(ctx, &api.AttestRequest{Nonce: nonce})
	if err != nil {
		return fmt.Errorf("worker %s: attest: %w", s.endpoint, err)
	}
	if err := s.verify(ctx, resp.Bundle, nonce, workerID); err != nil {
		return err
	}
	hand := channel.Handshake{Nonce: nonce, EKM: s.conn.EKM, PeerSPKI: s.conn.PeerSPKI, Signature: resp.Signature}
	if s.sealed, err = channel.Open(s.verified, hand, s.cfg.Now()); err != nil {
		return &NotVerifiedError{s.WorkerID(), s.result, s.bundle, err}
	}
	s.prepare()
	// Receipts hang from the keyset, so it is kept before any job is sealed to it.
	return s.cfg.Ledger.AddKeyset(s.verified.KeysetDigest(), s.verified.KeysetBytes())
}

func (s *Session) verify(ctx context.Context, raw []byte, nonce [32]byte, workerID attestation.Address) error {
	refused := func(err error) error { return &NotVerifiedError{workerID, s.result, raw, err} }
	b, err := attestation.ParseBundle(raw)
	if err != nil {
		return refused(err)
	}
	if workerID.IsZero() {
		k, err := attestation.ParseKeyset(b.Keyset)
		if err != nil {
			return refused(err)
		}
		workerID = k.WorkerID
	}
	expect := attestation.Expect{Now: s.cfg.Now(), Nonce: nonce, WorkerID: workerID}
	if expect.Registry, err = s.cfg.Chain.Registry(ctx); err != nil {
		return fmt.Errorf("registry: %w", err)
	}
	record, provenAt, err := s.cfg.Chain.Record(ctx, workerID)
	switch {
	case errors.Is(err, view.ErrAbsent): // verification says what is missing
	case err != nil:
		return fmt.Errorf("worker record %s: %w", workerID, err)
	default:
		view := record.View(workerID, provenAt)
		expect.Record, s.record = &view, record
	}
	s.result = s.cfg.Verifier.Verify(b, expect)
	v, err := s.result.Verified()
	if err != nil {
		return refused(err)
	}
	s.verified, s.bundle, s.logID = v, raw, attestation.LogID(v.Keyset().LogPublicKey)
	s.lifetime = validity(v, s.began)
	return nil
}

// validity is how long v stays current from now on. Where the caller's clock is
// slow that is less than its distance to Expires.
func validity(v *attestation.Verified, now time.Time) time.Duration {
	const step = time.Millisecond
	most := int(max(v.Expires().Sub(now), 0)/step) + 1
	n := sort.Search(most, func(i int) bool { return v.Current(now.Add(time.Duration(i)*step)) != nil })
	return time.Duration(max(n-1, 0)) * step
}

// Left is how long jobs may be started.
func (s *Session) Left() time.Duration { return s.lifetime - s.cfg.Now().Sub(s.began) }

// Endpoint is where the session was dialled.
func (s *Session) Endpoint() string { return s.endpoint }

// WorkerID is the worker's record on TON.
func (s *Session) WorkerID() attestation.Address { return s.verified.Keyset().WorkerID }

// Verified is what the session rests on.
func (s *Session) Verified() *attestation.Verified { return s.verified }

// Evidence is the verification's result, check by check, and the bundle it was
// made on. The caller must not change them.
func (s *Session) Evidence() (*attestation.Result, []byte) { return s.result, s.bundle }

// Done is closed when the connection is dead.
func (s *Session) Done() <-chan struct{} { return s.conn.Done() }

// Usable returns nil while new jobs may be started.
func (s *Session) Usable() error {
	select {
	case <-s.conn.Done():
		return fmt.Errorf("%w: the connection is gone", errUnreached)
	default:
	}
	if s.Left() <= 0 { // also where the clock was set back since
		return fmt.Errorf("%w: its evidence was good for %s", attestation.ErrNotVerified, s.lifetime)
	}
	return s.verified.Current(s.cfg.Now())
}

// Price is what the worker's record asks for a model that its keyset attests.
// It is false, too, for one that asks more than MaxPrice.
func (s *Session) Price(model string) (attestation.Prices, bool) {
	if _, ok := s.model(model); !ok {
		return attestation.Prices{}, false
	}
	p, ok := s.record.Price(model)
	return p, ok && !s.dear(p)
}

// TooDear reports whether the worker has the model, and asks more than MaxPrice.
func (s *Session) TooDear(model string) bool {
	_, has := s.model(model)
	p, priced := s.record.Price(model)
	return has && priced && s.dear(p)
}

func (s *Session) dear(p attestation.Prices) bool {
	return s.cfg.MaxPrice > 0 && max(p.Prompt, p.Cached, p.Completion, p.Reasoning) > s.cfg.MaxPrice
}

func (s *Session) model(name string) (attestation.Model, bool) {
	for _, m := range s.verified.Keyset().Models {
		if m.Name == name {
			return m, true
		}
	}
	return attestation.Model{}, false
}

// Retire lets open jobs end and then closes the connection. No job may be
// started afterwards.
func (s *Session) Retire() {
	s.mu.Lock()
	s.retire = true
	idle := s.live == 0
	s.mu.Unlock()
	if idle {
		s.conn.Close()
	}
}

// Close ends the connection and every job on it.
func (s *Session) Close() error { return s.conn.Close() }

// enter counts a job in; leave counts it out.
func (s *Session) enter() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.retire {
		return fmt.Errorf("%w: the session is retired", errUnreached)
	}
	s.live++
	return nil
}

func (s *Session) leave() {
	s.mu.Lock()
	s.live--
	idle := s.retire && s.live == 0
	s.mu.Unlock()
	if idle {
		s.conn.Close()
	}
}
