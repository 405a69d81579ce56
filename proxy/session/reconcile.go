package session

import (
	"context"
	"errors"
	"fmt"
	"time"

	"cocoon/attestation"
	"cocoon/attestation/auditlog"
	"cocoon/attestation/channel"
	"cocoon/contracts/payout"
	"cocoon/enclave/api"
	"cocoon/proxy/ledger"
)

// reconcile fetches the receipts that this client does not hold, and compares:
// settled must be the sum of its receipts, and both vouchers its own (DESIGN
// section 5, Reconciling).
func (s *Session) reconcile(ctx context.Context, signer *ledger.Signer) error {
	address := signer.Channel().Address
	sig, err := signer.Sign(channel.ReceiptsMessage(s.conn.EKM, address))
	if err != nil {
		return err
	}
	for {
		from, _, err := signer.Held(s.logID)
		if err != nil {
			return err
		}
		r, err := s.conn.Client.GetReceipts(ctx, &api.ReceiptsRequest{Channel: address, LogID: s.logID, From: from, Signature: [64]byte(sig)})
		if err != nil {
			return fmt.Errorf("receipts: %w", err)
		}
		if r.LogID != s.logID {
			return misbehaves("receipts.log", fmt.Sprintf("%x", r.LogID[:8]), fmt.Sprintf("%x, the keyset's", s.logID[:8]))
		}
		if err := s.begin(ctx, signer, r); err != nil {
			return err
		}
		for _, cose := range r.Receipts {
			if err := s.recordOld(ctx, signer, cose); err != nil {
				return err
			}
		}
		if err := signer.Expect(s.logID, r.Count, r.Settled); err != nil {
			return err
		}
		held, _, err := signer.Held(s.logID)
		if err != nil {
			return err
		}
		if held >= r.Count {
			return nil
		}
		if len(r.Receipts) == 0 || held <= from {
			return misbehaves("receipts.withheld", fmt.Sprintf("%d of %d", held, r.Count), "all of them")
		}
	}
}

// begin takes the worker's vouchers as a basis, if they are this client's own.
func (s *Session) begin(ctx context.Context, signer *ledger.Signer, r *api.ReceiptsResponse) error {
	if s.cfg.Restore {
		signer.Restore()
	}
	for _, raw := range [][]byte{r.Base, r.Highest} {
		if len(raw) == 0 {
			continue
		}
		_, err := signer.Recognise(raw)
		var unknown *ledger.UnknownVoucherError
		if errors.As(err, &unknown) && s.cfg.Restore {
			err = signer.Adopt(raw)
		}
		if err != nil {
			return err
		}
	}
	if r.BasePaid > 0 {
		if err := s.checkPaid(ctx, signer, r); err != nil {
			return err
		}
	}
	if _, err := signer.Begin(s.logID, r.Base, r.BasePaid); err != nil {
		return err
	}
	s.mu.Lock()
	s.base = r.Base
	s.mu.Unlock()
	return nil
}

// checkPaid: what the worker counts as spent without a voucher, the chain must
// have paid.
func (s *Session) checkPaid(ctx context.Context, signer *ledger.Signer, r *api.ReceiptsResponse) error {
	if len(r.Base) != 0 {
		return misbehaves("receipts.base", "a base voucher and a base amount", "one of them")
	}
	paid, err := s.paid(ctx, signer.Channel().Address, r.BasePaid)
	if err != nil {
		return err
	}
	if r.BasePaid > paid {
		return misbehaves("receipts.base", fmt.Sprintf("%d nano", r.BasePaid), fmt.Sprintf("at most the %d that the chain has paid", paid))
	}
	if r.BasePaid > signer.Highest() && !s.cfg.Restore {
		// The chain paid a voucher of ours that this ledger never signed.
		return &ledger.UnknownVoucherError{Channel: signer.Channel().Address, Cumulative: r.BasePaid, Highest: signer.Highest()}
	}
	return nil
}

// paid is what the chain has paid. Where that is less than want it looks again
// for a little: the worker's liteservers may be a few blocks ahead of ours.
func (s *Session) paid(ctx context.Context, address attestation.Address, want uint64) (uint64, error) {
	wait := time.NewTicker(unprovenWait)
	defer wait.Stop()
	for left := paidTries; ; left-- {
		state, _, _, err := s.cfg.Chain.Channel(ctx, address)
		if err != nil || state.Paid >= want || left == 0 {
			return state.Paid, err
		}
		select {
		case <-wait.C:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// recordOld takes a receipt of a job whose stream this process does not hold:
// the connection broke, or the process was killed. Of its terms the
// ledger has kept the total ceiling, and checks it.
func (s *Session) recordOld(ctx context.Context, signer *ledger.Signer, cose []byte) error {
	r, err := auditlog.ParseReceipt(cose)
	if err != nil {
		return misbehaves("receipt.parse", err, "a receipt")
	}
	k, err := s.cfg.Ledger.Keyset(ctx, r.KeysetDigest)
	if err != nil {
		return err
	}
	switch {
	case k == nil && s.cfg.Restore:
		// The ledger was lost with the keysets it had verified. What hangs on
		// the signature is the unused credit of a channel that the user
		// asked to go on with.
	case k == nil:
		return misbehaves("receipt.keyset", fmt.Sprintf("%x", r.KeysetDigest[:8]), "a keyset that was verified")
	default:
		if _, err := auditlog.VerifyReceipt(cose, k.SigningPublicKey); err != nil {
			return misbehaves("receipt.signature", err, "one by the attested key")
		}
	}
	if r.WorkerID != s.WorkerID() || r.LogID != s.logID || r.Channel != signer.Channel().Address {
		return misbehaves("receipt.place", fmt.Sprintf("worker %s, log %x, channel %s", r.WorkerID, r.LogID[:8], r.Channel), "this worker's, log's and channel's")
	}
	if cost, err := payout.Cost(r.Usage, r.Prices); err != nil || cost != r.Cost {
		return misbehaves("receipt.cost", r.Cost, fmt.Sprintf("%d, counts times prices", cost))
	}
	return signer.Record(cose, r)
}
