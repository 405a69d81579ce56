package enclave

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"google.golang.org/grpc/codes"

	"cocoon/attestation"
	"cocoon/attestation/auditlog"
	"cocoon/attestation/channel"
	"cocoon/enclave/api"
	"cocoon/enclave/meter"
)

// connection is the call's connection and the epoch it pins.
func connection(ctx context.Context) (*epoch, [32]byte, error) {
	c, err := api.StateFromContext(ctx)
	if err != nil {
		return nil, [32]byte{}, err
	}
	e, ok := c.Epoch().(*epoch)
	if !ok || e == nil {
		return nil, [32]byte{}, api.Refuse(codes.Unauthenticated, "connection.epoch", "the connection has no keyset")
	}
	return e, c.EKM(), nil
}

// known keeps a connection whose peer has shown a channel's key from making
// room for strangers.
func known(ctx context.Context) {
	if c, err := api.StateFromContext(ctx); err == nil {
		c.Know()
	}
}

// Attest answers with the evidence of the connection's epoch.
func (s *server) Attest(ctx context.Context, q *api.AttestRequest) (*api.AttestResponse, error) {
	e, ekm, err := connection(ctx)
	if err != nil {
		return nil, err
	}
	if q.Nonce == [32]byte{} {
		return nil, api.Refuse(codes.InvalidArgument, "attest.nonce", "got zeros, want 32 random bytes")
	}
	bundle := e.bundle
	if q.Fresh {
		if bundle, err = s.freshBundle(ctx, e, ekm, q); err != nil {
			return nil, err
		}
	}
	sig, err := e.keys.SignSession(q.Nonce, ekm, e.digest)
	if err != nil {
		return nil, api.Refuse(codes.FailedPrecondition, "attest.epoch", "the connection's keys are gone: connect again")
	}
	return &api.AttestResponse{Bundle: bundle, Signature: sig}, nil
}

// freshBundle makes a quote over the client's nonce, which costs up to a
// second: for funded channels, and seldom.
func (s *server) freshBundle(ctx context.Context, e *epoch, ekm [32]byte, q *api.AttestRequest) ([]byte, error) {
	a, err := s.account(ctx, q.Channel)
	if err != nil {
		return nil, err
	}
	if !verifies(a, channel.FreshMessage(ekm, q.Nonce, q.Channel), q.Signature) {
		return nil, api.Refuse(codes.PermissionDenied, "fresh.signature", "not by the channel's client key over this connection and nonce")
	}
	known(ctx)
	done, err := s.fresh.begin(q.Channel, s.cfg.Now())
	if err != nil {
		return nil, err
	}
	defer done()
	b, err := s.quote(ctx, e, q.Nonce)
	if err != nil {
		s.event("quote.failed", "error", err.Error())
		return nil, api.Refuse(codes.Unavailable, "fresh.quote", "the machine gave no quote")
	}
	return b, nil
}

func verifies(a *meter.Account, message []byte, sig [64]byte) bool {
	key := a.ClientKey()
	return ed25519.Verify(key[:], message, sig[:])
}

// freshLimit bounds fresh quotes: one at a time, and one per channel in freshInterval.
type freshLimit struct {
	one  chan struct{}
	mu   *sync.Mutex
	last map[attestation.Address]time.Time // of channels with an account, so bounded
}

func newFreshLimit() freshLimit {
	return freshLimit{one: make(chan struct{}, 1), mu: new(sync.Mutex), last: map[attestation.Address]time.Time{}}
}

func (l freshLimit) begin(channel attestation.Address, now time.Time) (done func(), err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if last, ok := l.last[channel]; ok && now.Sub(last) < freshInterval {
		return nil, api.Refuse(codes.ResourceExhausted, "fresh.rate", fmt.Sprintf("one fresh quote in %s for a channel", freshInterval))
	}
	select {
	case l.one <- struct{}{}:
	default:
		return nil, api.Refuse(codes.ResourceExhausted, "fresh.busy", "another quote is being made")
	}
	l.last[channel] = now
	return func() { <-l.one }, nil
}

// GetEvidence returns a bundle that this worker made.
func (s *server) GetEvidence(ctx context.Context, q *api.EvidenceRequest) (*api.EvidenceResponse, error) {
	if cur := s.current.Load(); sha(cur.bundle) == q.Digest {
		return &api.EvidenceResponse{Bundle: cur.bundle}, nil
	}
	raw, err := s.cfg.Store.Bundle(ctx, q.Digest)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, api.Refuse(codes.NotFound, "evidence.absent", "no bundle of that digest")
	}
	if err != nil || sha(raw) != q.Digest {
		return nil, api.Refuse(codes.Unavailable, "evidence.store", "the host's store failed")
	}
	return &api.EvidenceResponse{Bundle: raw}, nil
}

// GetReceipts shows a channel's client where the worker stands with it.
func (s *server) GetReceipts(ctx context.Context, q *api.ReceiptsRequest) (*api.ReceiptsResponse, error) {
	_, ekm, err := connection(ctx)
	if err != nil {
		return nil, err
	}
	a, err := s.servedOrOpen(ctx, q.Channel)
	if err != nil {
		return nil, err
	}
	if !verifies(a, channel.ReceiptsMessage(ekm, q.Channel), q.Signature) {
		return nil, api.Refuse(codes.PermissionDenied, "receipts.signature", "not by the channel's client key over this connection")
	}
	known(ctx)
	if q.LogID != [32]byte{} && q.LogID != s.logID {
		return nil, api.Refuse(codes.NotFound, "receipts.log", fmt.Sprintf("got log %x, want %x: this boot keeps its own receipts alone", q.LogID[:8], s.logID[:8]))
	}
	st := a.Statement()
	if err := s.published(); err != nil { // what is stated can be read back
		return nil, err
	}
	if q.From > st.Count {
		return nil, api.Refuse(codes.InvalidArgument, "receipts.from", fmt.Sprintf("got %d, want at most %d", q.From, st.Count))
	}
	list, err := s.receiptsOf(ctx, q.Channel, q.From, min(st.Count, q.From+api.MaxReceipts))
	if err != nil {
		return nil, err
	}
	return &api.ReceiptsResponse{
		LogID: s.logID, Base: st.Base, BasePaid: st.BasePaid, Highest: st.Highest, Settled: st.Settled, Count: st.Count, Receipts: list,
	}, nil
}

// servedOrOpen is account, but a channel that was served in this boot shows its
// receipts also while it closes.
func (s *server) servedOrOpen(ctx context.Context, addr attestation.Address) (*meter.Account, error) {
	if a := s.meter.Account(addr); a != nil {
		return a, nil
	}
	return s.account(ctx, addr)
}

// receipts are the digests of this boot's receipts, which the host keeps.
type receipts struct {
	mu *sync.Mutex
	m  map[attestation.Address]map[uint64][32]byte
}

func newReceipts() receipts {
	return receipts{new(sync.Mutex), map[attestation.Address]map[uint64][32]byte{}}
}

func (r receipts) put(channel attestation.Address, index uint64, digest [32]byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.m[channel] == nil {
		r.m[channel] = map[uint64][32]byte{}
	}
	r.m[channel][index] = digest
}

func (r receipts) digest(channel attestation.Address, index uint64) [32]byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.m[channel][index]
}

// receiptsOf reads back receipts [from, to) from the host.
func (s *server) receiptsOf(ctx context.Context, channel attestation.Address, from, to uint64) ([][]byte, error) {
	var out [][]byte
	for i := from; i < to; i++ {
		cose, err := s.cfg.Store.Receipt(ctx, s.logID, channel, i)
		if err != nil || auditlog.ReceiptDigest(cose) != s.receipts.digest(channel, i) {
			s.event("receipt.lost", "index", i)
			return nil, api.Refuse(codes.Unavailable, "receipts.store", fmt.Sprintf("the host's store lost receipt %d", i))
		}
		out = append(out, cose)
	}
	return out, nil
}
