package refusals

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"slices"
	"testing"
	"time"

	"cocoon/attestation"
	"cocoon/attestation/channel"
	"cocoon/attestation/softtee"
	"cocoon/contracts"
	"cocoon/contracts/lite"
	"cocoon/enclave"
	"cocoon/enclave/api"
	"cocoon/proxy/session"
)

// Evidence that is real, and of something else than what was asked for.
func TestEvidenceOfAnother(t *testing.T) {
	n := newNetwork(t)
	w, other := n.worker(t, setup{}), n.worker(t, setup{})
	r := relayTo(t, n, w.addr)
	c := n.newClient(t)
	second, err := api.Dial(t.Context(), other.addr)
	must(t, err)
	defer second.Close()

	t.Run("another worker's bundle", func(t *testing.T) {
		r.spoil = func(q *api.AttestRequest, a *api.AttestResponse) {
			*a = *sure(second.Client.Attest(context.Background(), q))
		}
		c.refused(t, r.addr, w.id, "binding.worker", other.id.String())
	})
	t.Run("another worker's bundle, where any worker would do", func(t *testing.T) {
		// It verifies, but the connection does not end at that worker.
		c.refused(t, r.addr, attestation.Address{}, "session.spki", "tls key")
	})
	t.Run("another worker answers", func(t *testing.T) {
		c.refused(t, other.addr, w.id, "binding.worker", w.id.String())
	})
	t.Run("a bundle of another nonce", func(t *testing.T) {
		// A fresh quote over the relay's own nonce, bought with a channel of its own.
		p := w.payer(t, deposit)
		nonce := random[[32]byte](t)
		sig, err := p.Sign(channel.FreshMessage(p.conn.EKM, nonce, p.channel))
		must(t, err)
		fresh, err := p.conn.Client.Attest(t.Context(), &api.AttestRequest{Nonce: nonce, Fresh: true, Channel: p.channel, Signature: [64]byte(sig)})
		must(t, err)
		before := p.standing()
		r.spoil = func(_ *api.AttestRequest, a *api.AttestResponse) { *a = *fresh }
		c.refused(t, r.addr, w.id, "binding.nonce", "zeros, or the nonce that was sent")
		// Renaming the nonce breaks the quote.
		r.spoil = func(q *api.AttestRequest, a *api.AttestResponse) {
			*a = *fresh
			edit(func(b *attestation.Bundle) { b.Nonce = q.Nonce })(q, a)
		}
		c.refused(t, r.addr, w.id, "binding.report-data", "")
		if after := p.standing(); after != before {
			t.Errorf("the relay's channel: got %+v, want %+v", after, before)
		}
	})
	t.Run("a swapped HPKE key", func(t *testing.T) {
		keys := sure(channel.NewEpochKeys(rand.Reader))
		r.spoil = edit(func(b *attestation.Bundle) {
			k := sure(attestation.ParseKeyset(b.Keyset))
			k.HPKEPublicKey = keys.HPKEPublicKey()
			b.Keyset = k.Encode()
		})
		c.refused(t, r.addr, w.id, "binding.report-data", "")
	})
	t.Run("all keys swapped, under a software vendor of the relay's own", func(t *testing.T) {
		m := sure(softtee.New(start)).Machine(attestation.TDX)
		keys := sure(channel.NewEpochKeys(rand.Reader))
		r.spoil = edit(func(b *attestation.Bundle) {
			k := sure(attestation.ParseKeyset(b.Keyset))
			k.HPKEPublicKey, k.SigningPublicKey = keys.HPKEPublicKey(), keys.SigningPublicKey()
			b.Keyset = k.Encode()
			b.CPU = sure(m.Quote(context.Background(), attestation.ReportData(b.Keyset, b.Nonce)))
		})
		c.refused(t, r.addr, w.id, "tdx.root", "")
	})
	t.Run("the bundle as it is, from a connection that ends elsewhere", func(t *testing.T) {
		r.spoil = nil
		c.refused(t, r.addr, w.id, "session.spki", "tls key")
	})
	if got := r.got.Load(); got != 0 {
		t.Errorf("the relay was sent %d calls after Attest", got)
	}
	w.serves(t)
	other.serves(t)
}

// Workers that run what their clients did not agree to.
func TestUnacceptableWorkers(t *testing.T) {
	twins := []attestation.Model{{Name: "a", WeightsRoot: weights(0xa1)}, {Name: "b", WeightsRoot: weights(0xb1)}}
	doubled := []attestation.Model{{Name: "c", WeightsRoot: weights(0xc1)}, {Name: "c", WeightsRoot: weights(0xc2)}}
	n := newNetwork(t, append(slices.Clone(twins), doubled...)...)
	good := n.worker(t, setup{})
	c := n.newClient(t)
	manifest := func(f func(*attestation.Release)) func(*enclave.Config) {
		return func(cfg *enclave.Config) {
			r := n.release
			f(&r)
			cfg.Release.Manifest = r.Encode()
			cfg.Release.Signatures = []attestation.ReleaseSignature{attestation.SignRelease(n.tee.RebuilderKey(), cfg.Release.Manifest)}
		}
	}
	for _, row := range []struct {
		name, check, text string
		set               setup
	}{
		{"a debug TD", "tdx.debug-off", "", setup{at: func(m *softtee.Machine) { m.TDX.Debug = true }}},
		{"a debug SNP guest", "snp.debug-off", "", setup{tee: attestation.SNP, at: func(m *softtee.Machine) {
			m.SNP = func(g *softtee.SNPGuest, _ *softtee.SNPCRL) { g.Policy |= 1 << 19 }
		}}},
		{"a revoked chip", "snp.crl", "", setup{tee: attestation.SNP, at: func(m *softtee.Machine) {
			m.SNP = func(_ *softtee.SNPGuest, l *softtee.SNPCRL) { l.RevokeVCEK = true }
		}}},
		{"a platform out of date", "tdx.tcb", "OutOfDate", setup{at: func(m *softtee.Machine) { m.TDX.TCBStatus = "OutOfDate" }}},
		{"another image than the release's", "image.measurement", "", setup{at: func(m *softtee.Machine) {
			m.TDX.TD = func(td *softtee.TD) { td.RTMR[1][0] ^= 1 }
		}}},
		{"a release not in the registry", "image.allowed", "is not in force in the registry", setup{config: manifest(func(r *attestation.Release) { r.Name = "r2-patched" })}},
		{"a release in the registry under another number", "image.allowed", "is not in force in the registry", setup{config: manifest(func(r *attestation.Release) { r.Number = 3 })}},
		{"a release without a rebuilder's signature", "image.allowed", "no signature by any of 1 pinned rebuilders", setup{config: func(cfg *enclave.Config) { cfg.Release.Signatures = nil }}},
		{"a release signed by a rebuilder nobody pinned", "image.allowed", "no signature by any of 1 pinned rebuilders", setup{config: func(cfg *enclave.Config) {
			cfg.Release.Signatures = []attestation.ReleaseSignature{attestation.SignRelease(newKey(t), cfg.Release.Manifest)}
		}}},
		{"a policy floor kept back", "registry.policy-floor", "document not given", setup{config: func(cfg *enclave.Config) { cfg.Release.PolicyFloors = nil }}},
		{"a release below the registry's policy floor", "image.allowed", "", setup{config: manifest(func(r *attestation.Release) { r.Number = 1 })}},
		{"two models' roots swapped", "model.weights", "is not in force in the registry", setup{models: []attestation.Model{
			{Name: "a", WeightsRoot: twins[1].WeightsRoot}, {Name: "b", WeightsRoot: twins[0].WeightsRoot},
		}}},
		{"two roots for one model's name", "model.weights", "2 roots for one name", setup{models: doubled[:1]}},
		{"a model that nothing measures", "model.weights", "unmeasured", setup{models: []attestation.Model{{Name: model, WeightsRoot: attestation.Unmeasured}}}},
		{"another machine than the record's", "binding.platform", "", setup{record: func(r *contracts.WorkerRecord) { r.PlatformID[0] ^= 1 }}},
		{"another payout than the record's", "binding.payout", "", setup{record: func(r *contracts.WorkerRecord) { r.Payout = n.client.Address() }}},
		{"a record that ran out", "binding.platform", "which runs to", setup{record: func(r *contracts.WorkerRecord) { r.Expiry = uint32(start.Unix()) }}},
	} {
		t.Run(row.name, func(t *testing.T) {
			w := n.worker(t, row.set)
			c.refused(t, w.addr, w.id, row.check, row.text)
			if got := w.engine.count(); got != 0 {
				t.Errorf("the engine ran %d jobs", got)
			}
			good.serves(t)
		})
	}
	t.Run("two models with their own roots are served", func(t *testing.T) {
		w := n.worker(t, setup{models: twins})
		c.connect(t, w.addr, w.id).Close()
	})
}

// A release that its registry revokes is refused from then on, and what was
// verified before serves no longer than its evidence.
func TestRevokedRelease(t *testing.T) {
	n := newNetwork(t)
	w := n.worker(t, setup{})
	w.serves(t)
	must(t, n.host.Send(t.Context(), []lite.Message{{To: n.registry, Amount: contracts.RegistryFee, Body: contracts.RevokeBody(n.release.Digest()), Bounce: true}}))
	n.newClient(t).refused(t, w.addr, w.id, "image.allowed", "is not in force in the registry")
}

// A worker that has no record at all is not one that a network knows.
func TestWorkerWithoutARecord(t *testing.T) {
	n := newNetwork(t)
	good := n.worker(t, setup{})
	stranger := attestation.NewAddress(0, [32]byte{0x57})
	w := n.worker(t, setup{config: func(cfg *enclave.Config) { cfg.Worker.WorkerID = stranger }})
	n.newClient(t).refused(t, w.addr, stranger, "binding.platform", "no worker record given")
	good.serves(t)
}

// The session's signature is over this connection and this nonce.
func TestReplayedSession(t *testing.T) {
	n := newNetwork(t)
	good := n.worker(t, setup{})
	w := n.rogue(t)
	c := n.newClient(t)
	must(t, c.connect(t, w.addr, w.id).Close()) // it is a worker like others so far
	// What the worker answered on another connection.
	conn, err := api.Dial(t.Context(), w.addr)
	must(t, err)
	first, err := conn.Client.Attest(t.Context(), &api.AttestRequest{Nonce: random[[32]byte](t)})
	must(t, err)
	must(t, conn.Close())
	for _, row := range []struct {
		name  string
		check string
		spoil func(q *api.AttestRequest, ekm [32]byte, r *api.AttestResponse)
	}{
		{"a session replayed on another connection", "session.signature", func(_ *api.AttestRequest, _ [32]byte, r *api.AttestResponse) {
			*r = *first
		}},
		{"a session of another nonce", "session.signature", func(q *api.AttestRequest, ekm [32]byte, r *api.AttestResponse) {
			r.Signature = w.signSession(random[[32]byte](t), ekm)
		}},
		{"a session of another connection's exporter", "session.signature", func(q *api.AttestRequest, ekm [32]byte, r *api.AttestResponse) {
			r.Signature = w.signSession(q.Nonce, random[[32]byte](t))
		}},
		{"a session signed by the log key", "session.signature", func(q *api.AttestRequest, ekm [32]byte, r *api.AttestResponse) {
			r.Signature = [64]byte(ed25519.Sign(w.logKey, attestation.SessionMessage(q.Nonce, ekm, w.digest)))
		}},
		{"a flipped bit in the session's signature", "session.signature", func(q *api.AttestRequest, ekm [32]byte, r *api.AttestResponse) {
			r.Signature[9] ^= 1
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			w.attest = row.spoil
			c.refused(t, w.addr, w.id, row.check, "not by the attested key over this connection and nonce")
			if got := w.jobs(); got != 0 {
				t.Errorf("it was sent %d jobs", got)
			}
		})
	}
	good.serves(t)
}

// Keys whose epoch is over open nothing, at either end.
func TestExpiredEpoch(t *testing.T) {
	n := newNetwork(t)
	w := n.worker(t, setup{})
	c := n.newClient(t)
	s := c.funded(t, w.addr, w.id)
	p := w.payer(t, deposit)
	before, pBefore := c.money(t, s), p.standing()
	old := p.params(chat("x"))
	_, sealed := p.seal(old)
	_, later := p.seal(p.params(chat("y")))

	n.clock.await(t, 8*time.Minute+30*time.Second, 1) // until the next epoch is to be made
	n.advance(10 * time.Minute)                       // past not_after
	w.events.await(t, "epoch.begun", 2)

	t.Run("an expired epoch: the client starts no job", func(t *testing.T) {
		if err := s.Usable(); !errors.Is(err, attestation.ErrNotVerified) {
			t.Errorf("Usable: got %v", err)
		}
		j, err := s.Start(t.Context(), request())
		if j != nil || !errors.Is(err, attestation.ErrNotVerified) || !session.ConnectAgain(err) {
			t.Errorf("Start: got %v, want %v", err, attestation.ErrNotVerified)
		}
		if after := c.money(t, s); after != before {
			t.Errorf("money: got %+v, want %+v", after, before)
		}
	})
	t.Run("an expired epoch: the sealed channel makes no job", func(t *testing.T) {
		_, _, err := p.session.NewJob(n.clock.Now(), p.jobParams(p.params(chat("x"))))
		var refused *channel.RefusedError
		if !errors.As(err, &refused) || refused.Name != "job.verified" {
			t.Errorf("got %v, want a refusal named job.verified", err)
		}
	})
	t.Run("an expired epoch: the worker takes no job for an old keyset", func(t *testing.T) {
		fresh := p.reconnect()
		wantRefusal(t, fresh.sendRaw(sealed), "open.keyset")
	})
	t.Run("an expired epoch: its keys are gone", func(t *testing.T) {
		n.advance(time.Minute)
		n.clock.await(t, 9*time.Minute+32*time.Second, 1) // the HPKE key is gone, the signing key not yet
		wantRefusal(t, p.sendRaw(later), "open.key-gone")
	})
	if after := p.standing(); after != pBefore {
		t.Errorf("the payer's standing: got %+v, want %+v", after, pBefore)
	}
	w.serves(t)
}
