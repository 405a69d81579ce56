package main

import (
	"context"
	"fmt"
	"time"

	"cocoon/attestation"
	"cocoon/contracts"
	"cocoon/contracts/lite"
	"cocoon/contracts/view"
)

func channelState(ctx context.Context, snap *lite.Snapshot, addr attestation.Address) (contracts.ChannelState, error) {
	s, _, _, err := view.Channel(ctx, snap, addr)
	return s, err
}

// bundleVerifier verifies a bundle as of a time in the past, against what the
// registry said then: its entries carry from when they held and when they were revoked.
func (f *auditFlags) bundleVerifier(ctx context.Context, snap *lite.Snapshot, registry, worker attestation.Address) (func(*attestation.Bundle, time.Time) *attestation.Result, error) {
	cfg := attestation.Config{Chain: snap.KeyBlocks()}
	var err error
	if cfg.Policy, err = readPolicy(f.policy); err != nil {
		return nil, err
	}
	if len(f.rebuilders) > 0 {
		if cfg.Policy == nil {
			cfg.Policy = new(attestation.Policy)
		}
		for _, k := range f.rebuilders {
			var d attestation.Digest
			if err := d.UnmarshalText([]byte(k)); err != nil {
				return nil, usageError(fmt.Errorf("--rebuilder: %w", err), "")
			}
			cfg.Policy.Rebuilders = append(cfg.Policy.Rebuilders, d)
		}
	}
	if f.roots != "" {
		cfg.CPU, err = testVerifiers(f.roots)
	} else {
		cfg.CPU, err = vendorVerifiers()
	}
	if err != nil {
		return nil, err
	}
	v, err := attestation.NewVerifier(cfg)
	if err != nil {
		return nil, err
	}
	reg, err := view.Registry(ctx, snap, registry)
	if err != nil {
		return nil, err
	}
	_, rec, err := view.Record(ctx, snap, worker)
	if err != nil {
		return nil, err
	}
	return asOf(v, worker, *reg, *rec, f.roots != ""), nil
}

// asOf verifies bundles as of their own time, years before reg and rec were proven.
func asOf(v *attestation.Verifier, worker attestation.Address, reg attestation.RegistryView, rec attestation.RecordView, test bool) func(*attestation.Bundle, time.Time) *attestation.Result {
	return func(b *attestation.Bundle, at time.Time) *attestation.Result {
		then, owner := reg, rec
		then.ProvenAt, owner.ProvenAt = at, at // else the newest proof would be the verifier's clock
		res := v.Verify(b, attestation.Expect{Now: at, WorkerID: worker, Registry: &then, Record: &owner})
		if test {
			return asTest(res)
		}
		return res
	}
}

// asTest accepts, for the report alone, evidence whose only fault is that
// software stands behind it. The result opens nothing: no channel takes it.
func asTest(r *attestation.Result) *attestation.Result {
	if r.Assurance != attestation.AssuranceTest || r.Verdict != attestation.NotAcceptable {
		return r
	}
	for _, c := range r.Checks {
		if c.Outcome != attestation.Pass && c.Name != "assurance.allowed" {
			return r
		}
	}
	shown := *r
	shown.Verdict = attestation.Accepted
	return &shown
}
