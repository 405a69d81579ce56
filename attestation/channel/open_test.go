package channel

import (
	"crypto/rand"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"cocoon/attestation"
	"cocoon/attestation/canonical"
)

func TestOpenRefusesOtherConnections(t *testing.T) {
	r := newRig(t)
	other, err := NewEpochKeys(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		change func(*Handshake)
		want   string
	}{
		{"another connection's EKM: a relayed session", func(h *Handshake) { h.EKM[0] ^= 1 }, "session.signature"},
		{"another nonce: a replayed session", func(h *Handshake) { h.Nonce[31] ^= 0x80 }, "session.signature"},
		{"another TLS key: a diverted connection", func(h *Handshake) { h.PeerSPKI[0] ^= 1 }, "session.spki"},
		{"a flipped signature bit", func(h *Handshake) { h.Signature[10] ^= 1 }, "session.signature"},
		{"no signature", func(h *Handshake) { h.Signature = [64]byte{} }, "session.signature"},
		{"another key's signature", func(h *Handshake) { h.Signature, _ = other.SignSession(h.Nonce, h.EKM, r.keyset.Digest()) }, "session.signature"},
		{"another keyset's signature", func(h *Handshake) { h.Signature, _ = r.epoch.SignSession(h.Nonce, h.EKM, [32]byte{1}) }, "session.signature"},
		{"no EKM", func(h *Handshake) { h.EKM = [32]byte{} }, "session.handshake"},
		{"no nonce", func(h *Handshake) { h.Nonce = [32]byte{} }, "session.handshake"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := r.handshake()
			tt.change(&h)
			s, err := r.open(h)
			if s != nil || err == nil {
				t.Fatalf("got session %v, want %s", s, tt.want)
			}
			if got := refusal(t, err); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
	if _, err := r.open(r.handshake()); err != nil {
		t.Errorf("the untouched handshake: %v", err)
	}
}

func TestZeroValuesRefuse(t *testing.T) {
	now := time.Now()
	if _, err := Open(nil, Handshake{}, now); !errors.Is(err, attestation.ErrNotVerified) {
		t.Errorf("Open(nil): got %v, want ErrNotVerified", err)
	}
	if _, err := Open(&attestation.Verified{}, Handshake{}, now); !errors.Is(err, attestation.ErrNotVerified) {
		t.Errorf("Open of the zero Verified: got %v, want ErrNotVerified", err)
	}
	r := newRig(t)
	for _, s := range []*Session{nil, {}, r.session} { // the last was made without a Verified
		if _, _, err := s.NewJob(now, r.params(ShapeOn)); err == nil {
			t.Errorf("NewJob of %v succeeded", s)
		} else if got := refusal(t, err); got != "job.session" {
			t.Errorf("NewJob: got %s, want job.session", got)
		}
		if err := s.Prepare([16]byte{1}); err == nil {
			t.Errorf("Prepare of %v succeeded", s)
		}
	}
	var j Job
	_, sealErr := j.Seal(Frame{Type: FrameCancel})
	_, openErr := j.OpenAnswer(make([]byte, WorkerTickBytes))
	var sj ServerJob
	_, sjSealErr := sj.Seal(Frame{Type: FrameHello})
	_, sjOpenErr := sj.Open(make([]byte, ClientTickBytes))
	var k EpochKeys
	_, signErr := k.SignSession([32]byte{1}, [32]byte{2}, [32]byte{3})
	for name, err := range map[string]error{
		"Job.Seal": sealErr, "Job.OpenAnswer": openErr, "Job.End": j.End(),
		"ServerJob.Seal": sjSealErr, "ServerJob.Open": sjOpenErr, "EpochKeys.SignSession": signErr,
	} {
		if err == nil {
			t.Errorf("%s of the zero value succeeded", name)
		}
	}
	_, raw := r.newJob(r.params(ShapeOn))
	if _, err := k.Accept(raw, r.ekm, r.keyset.Digest(), r.key, r.seen); err == nil {
		t.Error("Accept by zero keys succeeded")
	} else if got := refusal(t, err); got != "open.key-gone" {
		t.Errorf("Accept by zero keys: got %s, want open.key-gone", got)
	}
	for _, seen := range []*Replay{nil, {}, NewReplay(0)} {
		_, raw := r.newJob(r.params(ShapeOn))
		if _, err := r.epoch.Accept(raw, r.ekm, r.keyset.Digest(), r.key, seen); err == nil {
			t.Error("Accept without a replay set succeeded")
		} else if got := refusal(t, err); got != "open.full" {
			t.Errorf("Accept without a replay set: got %s, want open.full", got)
		}
	}
}

func TestAcceptRefusesByName(t *testing.T) {
	r := newRig(t)
	other := newRig(t)
	resign := func(o *jobOpen) {
		sig, _ := testSigner{r.client}.Sign(openMessage(o.KeysetDigest, o.JobID, o.Channel, o.Enc, o.Ciphertext, canonical.LP(o.Terms), r.ekm))
		copy(o.Signature[:], sig)
	}
	dear := func(o *jobOpen) {
		terms, err := ParseTerms(o.Terms)
		if err != nil {
			t.Fatal(err)
		}
		terms.Prices.Completion--
		o.Terms = canonical.MustMarshal(terms)
	}
	for _, tt := range []struct {
		name   string
		change func(*jobOpen)
		want   string
	}{
		{"flipped keyset digest", func(o *jobOpen) { o.KeysetDigest[0] ^= 1 }, "open.keyset"},
		{"flipped job id", func(o *jobOpen) { o.JobID[0] ^= 1 }, "open.signature"},
		{"flipped channel", func(o *jobOpen) { o.Channel[35] ^= 1 }, "open.channel"},
		{"flipped enc", func(o *jobOpen) { o.Enc[100] ^= 1 }, "open.signature"},
		{"flipped ciphertext", func(o *jobOpen) { o.Ciphertext[0] ^= 1 }, "open.signature"},
		{"flipped signature", func(o *jobOpen) { o.Signature[0] ^= 1 }, "open.signature"},
		{"other prices", dear, "open.signature"},
		{"other prices, signed: the seal was made under its own terms", func(o *jobOpen) { dear(o); resign(o) }, "open.sealed"},
		{"other job id, signed: the seal was made for its own", func(o *jobOpen) { o.JobID[0] ^= 1; resign(o) }, "open.sealed"},
		{"changed enc, signed", func(o *jobOpen) { o.Enc[100] ^= 1; resign(o) }, "open.sealed"},
		{"changed ciphertext, signed", func(o *jobOpen) { o.Ciphertext[0] ^= 1; resign(o) }, "open.sealed"},
		{"zero job id", func(o *jobOpen) { o.JobID = [16]byte{} }, "open.parse"},
		{"short enc", func(o *jobOpen) { o.Enc = o.Enc[1:] }, "open.parse"},
		{"empty ciphertext", func(o *jobOpen) { o.Ciphertext = nil }, "open.parse"},
		{"long ciphertext", func(o *jobOpen) { o.Ciphertext = make([]byte, MaxWireBytes+1) }, "open.parse"},
		{"no terms", func(o *jobOpen) { o.Terms = nil }, "open.parse"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, raw := r.newJob(r.params(ShapeOn))
			o, _, err := parseJobOpen(raw)
			if err != nil {
				t.Fatal(err)
			}
			tt.change(&o)
			_, err = r.accept(canonical.MustMarshal(o))
			if err == nil {
				t.Fatalf("accepted, want %s", tt.want)
			}
			if got := refusal(t, err); got != tt.want {
				t.Errorf("got %s (%v), want %s", got, err, tt.want)
			}
		})
	}

	refused := func(name, want string, err error) {
		t.Helper()
		if err == nil {
			t.Errorf("%s: accepted, want %s", name, want)
		} else if got := refusal(t, err); got != want {
			t.Errorf("%s: got %s (%v), want %s", name, got, err, want)
		}
	}
	_, raw := r.newJob(r.params(ShapeOn))
	_, err := r.epoch.Accept(raw, [32]byte{8}, r.keyset.Digest(), r.key, r.seen)
	refused("another connection", "open.signature", err)
	_, err = other.epoch.Accept(raw, r.ekm, other.keyset.Digest(), r.key, NewReplay(9))
	refused("another worker", "open.keyset", err)
	_, err = other.epoch.Accept(raw, r.ekm, r.keyset.Digest(), r.key, NewReplay(9))
	refused("a swapped HPKE key", "open.sealed", err)
	_, err = r.accept(append(raw[:len(raw):len(raw)], 0))
	refused("a trailing byte", "open.parse", err)
	_, err = r.accept(nil)
	refused("nothing", "open.parse", err)
	if _, err := r.accept(raw); err != nil {
		t.Fatalf("the untouched message: %v", err)
	}
	_, err = r.accept(raw)
	refused("a replay", "open.replay", err)

	r.epoch.DestroyHPKE()
	_, raw = r.newJob(r.params(ShapeOn))
	_, err = r.accept(raw)
	refused("after the key died", "open.key-gone", err)
	if _, err := r.epoch.SignSession([32]byte{1}, [32]byte{2}, [32]byte{3}); err != nil {
		t.Errorf("the signing key outlives the HPKE key: %v", err)
	}
	r.epoch.Destroy()
	if _, err := r.epoch.SignSession([32]byte{1}, [32]byte{2}, [32]byte{3}); !errors.Is(err, ErrDestroyed) {
		t.Errorf("a destroyed key: got %v, want ErrDestroyed", err)
	}
}

func TestReplayRefusesEitherHalfForever(t *testing.T) {
	r := NewReplay(3)
	step := func(job byte, enc string, want string) {
		t.Helper()
		err := r.add([16]byte{job}, []byte(enc))
		switch {
		case want == "" && err != nil:
			t.Errorf("job %d, enc %s: %v", job, enc, err)
		case want != "" && err == nil:
			t.Errorf("job %d, enc %s: taken, want %s", job, enc, want)
		case want != "":
			if got := refusal(t, err); got != want {
				t.Errorf("job %d, enc %s: got %s, want %s", job, enc, got, want)
			}
		}
	}
	step(1, "a", "")
	step(1, "b", "open.replay")
	step(2, "a", "open.replay")
	step(2, "b", "") // neither half of a refused pair was kept
	step(3, "c", "")
	step(4, "d", "open.full")
	step(1, "z", "open.replay")
	r.Close()
	step(5, "e", "open.full")
	step(1, "a", "open.full")
}

func TestJobParamsAreChecked(t *testing.T) {
	r := newRig(t)
	for _, tt := range []struct {
		name   string
		change func(*JobParams)
		want   string
	}{
		{"no job id", func(p *JobParams) { p.JobID = [16]byte{} }, "job.id"},
		{"no channel", func(p *JobParams) { p.Channel = attestation.Address{} }, "job.channel"},
		{"no signer", func(p *JobParams) { p.Signer = nil }, "job.signer"},
		{"no terms", func(p *JobParams) { p.Terms = Terms{} }, "job.terms"},
		{"a model that was not attested", func(p *JobParams) { p.Terms.Model = "other" }, "job.terms"},
		{"no prompt ceiling", func(p *JobParams) { p.Terms.PromptCeiling = 0 }, "job.terms"},
		{"another first frame", func(p *JobParams) { p.First.Type = FrameBody }, "job.first"},
		{"no request", func(p *JobParams) { p.First.Data = nil }, "job.first"},
		{"two shapes", func(p *JobParams) { p.Shape = ShapeOffUnpadded }, "job.first"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := r.params(ShapeOn)
			tt.change(&p)
			_, _, err := r.session.newJob(r.keyset, r.keyset.Digest(), p)
			if err == nil {
				t.Fatalf("opened, want %s", tt.want)
			}
			if got := refusal(t, err); got != tt.want {
				t.Errorf("got %s (%v), want %s", got, err, tt.want)
			}
		})
	}
}

func TestPreparedJobIsUsedOnce(t *testing.T) {
	r := newRig(t)
	digest := r.keyset.Digest()
	p := r.params(ShapeOn)
	if err := r.session.prepare(digest, p.JobID); err != nil {
		t.Fatal(err)
	}
	_, first := r.newJob(p)
	_, second := r.newJob(p) // the same job id by mistake: at least not the same keys
	a, _, err := parseJobOpen(first)
	if err != nil {
		t.Fatal(err)
	}
	b, _, err := parseJobOpen(second)
	if err != nil {
		t.Fatal(err)
	}
	if cmp.Equal(a.Enc, b.Enc) {
		t.Error("two jobs were sealed in one encapsulation")
	}
	if _, err := r.accept(first); err != nil {
		t.Errorf("a prepared job: %v", err)
	}
	if _, err := r.accept(second); err == nil {
		t.Error("a repeated job id was accepted")
	}
	var last error
	for i := byte(0); i <= MaxPrepared; i++ {
		last = r.session.prepare(digest, [16]byte{2, i})
	}
	if last == nil {
		t.Errorf("more than %d jobs were prepared", MaxPrepared)
	}
}
