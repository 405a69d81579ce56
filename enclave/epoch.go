package enclave

import (
	"context"
	"errors"
	"fmt"
	"time"

	"cocoon/attestation"
	"cocoon/attestation/auditlog"
	"cocoon/attestation/channel"
	"cocoon/enclave/api"
)

// epoch is one keyset with its keys and its cached bundle. It does not change
// once it is made, but for the keys' end.
type epoch struct {
	number   uint64
	keys     *channel.EpochKeys
	seen     *channel.Replay
	identity api.Identity
	keyset   []byte   // canonical CBOR
	digest   [32]byte // SHA-256 of keyset
	notAfter time.Time

	parts  attestation.Bundle // everything of a bundle but nonce and quote
	bundle []byte             // with the quote under the zero nonce
}

// newEpoch makes keys, has them attested, and logs both. The order is DESIGN
// section 3's: keyset without GPU fields, GPU evidence (there is none), keyset,
// quote. The bundle is at the host, and its digest in the log, before any
// client sees it.
func (s *server) newEpoch(ctx context.Context, number uint64) (*epoch, error) {
	keys, err := channel.NewEpochKeys(s.cfg.Rand)
	if err != nil {
		return nil, err
	}
	e := &epoch{number: number, keys: keys, seen: channel.NewReplay(replayJobs)}
	if err := s.attest(ctx, e); err != nil {
		keys.Destroy()
		return nil, fmt.Errorf("epoch %d: %w", number, err)
	}
	return e, nil
}

func (s *server) attest(ctx context.Context, e *epoch) error {
	bctx, cancel := context.WithTimeout(ctx, beaconTimeout)
	defer cancel()
	beacon, proof, err := s.cfg.Chain.Beacon(bctx)
	if err != nil {
		return fmt.Errorf("beacon: %w", err)
	}
	// Clients' clocks may be behind; the beacon says what it was made after.
	from := s.cfg.Now().Add(-min(clockSkew, s.cfg.EpochLength/20)).Truncate(time.Second)
	e.notAfter = from.Add(s.cfg.EpochLength)
	cert, spki, err := channel.NewCertificate(from.Add(-time.Hour), e.notAfter.Add(hpkeGrace+s.cfg.JobCeiling))
	if err != nil {
		return err
	}
	e.identity = api.Identity{TLS: channel.ServerTLS(cert), Epoch: e}
	k := attestation.Keyset{
		Version: attestation.KeysetVersion, WorkerID: s.cfg.Worker.WorkerID, BootID: s.bootID, Epoch: e.number,
		NotBefore: from.Unix(), NotAfter: e.notAfter.Unix(), Beacon: beacon, TLSSPKISHA256: spki,
		HPKEPublicKey: e.keys.HPKEPublicKey(), SigningPublicKey: e.keys.SigningPublicKey(), LogPublicKey: s.logKey,
		PayoutAddress: s.cfg.Worker.PayoutAddress, Models: s.cfg.Worker.Models, ConfigDigest: s.cfg.Worker.Digest(),
		GPUEvidenceDigest: attestation.GPUEvidenceDigest(nil),
	}
	e.keyset, e.digest = k.Encode(), k.Digest()
	e.parts = attestation.Bundle{
		Version: attestation.BundleVersion, Keyset: e.keyset, Config: s.cfg.Worker.Encode(), Release: s.cfg.Release.Manifest,
		ReleaseSignatures: s.cfg.Release.Signatures, PolicyFloors: s.cfg.Release.PolicyFloors, BeaconProof: proof,
	}
	if e.bundle, err = s.quote(ctx, e, [32]byte{}); err != nil {
		return err
	}
	return s.record(ctx, e)
}

// quote is a bundle whose CPU quote is made now, over the keyset and nonce.
func (s *server) quote(ctx context.Context, e *epoch, nonce [32]byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, quoteTimeout)
	defer cancel()
	cpu, err := s.cfg.Evidence.Quote(ctx, attestation.ReportData(e.keyset, nonce))
	if err != nil {
		return nil, fmt.Errorf("quote: %w", err)
	}
	b := e.parts
	b.Nonce, b.CPU = nonce, cpu
	raw := b.Encode()
	if len(raw) > attestation.MaxBundleBytes {
		return nil, fmt.Errorf("bundle: got %d bytes, want at most %d", len(raw), attestation.MaxBundleBytes)
	}
	return raw, nil
}

// errDurable is a log or a host's store that failed: no trying again mends it.
var errDurable = errors.New("what must be durable is not")

// record hands the epoch's bundle to the host and its digests to the log. It
// waits for a checkpoint over them: a worker that is killed can sign no more,
// and receipts under a keyset that no checkpoint covers would be worth nothing.
func (s *server) record(ctx context.Context, e *epoch) error {
	if err := s.cfg.Store.PutBundle(ctx, e.bundle); err != nil {
		return fmt.Errorf("%w: host store: bundle: %w", errDurable, err)
	}
	entry := auditlog.KeysetEntry{Epoch: e.number, Keyset: e.digest, Bundle: sha(e.bundle)}
	index, err := s.log.Append(ctx, entry)
	if err == nil {
		_, err = s.log.WaitCheckpoint(ctx, index)
	}
	if err != nil {
		return fmt.Errorf("%w: log: keyset: %w", errDurable, err)
	}
	return nil
}

// begin puts an epoch in use, and sees to its end.
func (s *server) begin(ctx context.Context, e *epoch) {
	s.live.Store(e.number, e)
	s.current.Store(e)
	s.background(func() error { return s.retire(ctx, e) })
	s.event("epoch.begun", "epoch", e.number)
}

// rotate makes a new epoch before the current one ends, until ctx ends. A
// failure of the chain or the machine is tried again: jobs go on under the keys that stand, and clients
// refuse a keyset that has expired.
func (s *server) rotate(ctx context.Context) error {
	retry := time.Second
	for {
		cur := s.current.Load()
		wait := cur.notAfter.Add(-s.lead()).Sub(s.cfg.Now())
		if retry > time.Second {
			wait = retry
		}
		if err := s.sleep(ctx, wait); err != nil {
			return nil
		}
		next, err := s.newEpoch(ctx, cur.number+1)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			if errors.Is(err, errDurable) {
				return err
			}
			retry = min(2*retry, 30*time.Second)
			s.event("epoch.failed", "epoch", cur.number+1, "error", err.Error())
			continue
		}
		retry = time.Second
		s.begin(ctx, next)
	}
}

// lead is how long before not_after the next epoch is made.
func (s *server) lead() time.Duration { return min(time.Minute, s.cfg.EpochLength/5) }

// retire ends an epoch's keys in time: HPKE 60 s after not_after, so that jobs
// sealed at the last moment open; the signing key when the last of those jobs
// must have ended. What it would sign after the closing leaf is void. The clock is
// the host's and may be set back, which lengthens no key's life: timers bound it.
func (s *server) retire(ctx context.Context, e *epoch) error {
	if s.sleep(ctx, e.notAfter.Add(hpkeGrace).Sub(s.cfg.Now())) == nil {
		e.keys.DestroyHPKE()
		e.seen.Close()
		rest := s.cfg.JobCeiling + 2*stopGrace
		_ = s.sleep(ctx, min(rest, e.notAfter.Add(hpkeGrace+rest).Sub(s.cfg.Now())))
	}
	if ctx.Err() != nil {
		return nil // the shutdown closes it, after its jobs
	}
	return s.closeEpoch(ctx, e)
}

// closeEpoch destroys an epoch's keys, then says so in the log, once.
func (s *server) closeEpoch(ctx context.Context, e *epoch) error {
	if _, ok := s.live.LoadAndDelete(e.number); !ok {
		return nil
	}
	e.keys.Destroy()
	if err := s.publish(ctx); err != nil { // receipts after the closing leaf are void
		return err
	}
	if _, err := s.log.Append(ctx, auditlog.EpochClosedEntry{Epoch: e.number}); err != nil {
		return fmt.Errorf("log: epoch closed: %w", err)
	}
	s.event("epoch.closed", "epoch", e.number)
	return nil
}
