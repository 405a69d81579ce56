package channel

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"testing"

	"cocoon/attestation"
)

// rig is both ends of one connection, with a keyset that nobody attested:
// what only Open and NewJob ask of *attestation.Verified is left out.
type rig struct {
	t       testing.TB
	epoch   *EpochKeys
	keyset  *attestation.Keyset
	ekm     [32]byte
	session *Session
	client  ed25519.PrivateKey
	channel attestation.Address
	seen    *Replay
	jobs    byte
}

func newRig(t testing.TB) *rig {
	t.Helper()
	epoch, err := NewEpochKeys(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, client, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{
		t: t, epoch: epoch, ekm: [32]byte{7}, client: client,
		channel: attestation.NewAddress(0, [32]byte{9}), seen: NewReplay(1000),
		keyset: &attestation.Keyset{
			TLSSPKISHA256: [32]byte{5}, HPKEPublicKey: epoch.HPKEPublicKey(), SigningPublicKey: epoch.SigningPublicKey(),
			Models: []attestation.Model{{Name: "toy", WeightsRoot: attestation.Unmeasured}},
		},
	}
	r.session, err = r.open(r.handshake())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *rig) handshake() Handshake {
	h := Handshake{Nonce: [32]byte{3}, EKM: r.ekm, PeerSPKI: r.keyset.TLSSPKISHA256}
	var err error
	if h.Signature, err = r.epoch.SignSession(h.Nonce, h.EKM, r.keyset.Digest()); err != nil {
		r.t.Fatal(err)
	}
	return h
}

func (r *rig) open(h Handshake) (*Session, error) { return open(r.keyset, r.keyset.Digest(), nil, h) }

func (r *rig) params(shape Shape) JobParams {
	r.jobs++
	return JobParams{
		JobID:   [16]byte{1, r.jobs},
		Channel: r.channel,
		Terms:   Terms{Model: "toy", Prices: attestation.Prices{Prompt: 10, Completion: 20}, PromptCeiling: 1024, CompletionCeiling: 512, TotalCeiling: 99},
		Signer:  testSigner{r.client},
		First:   Frame{Type: FrameOpen, Data: OpenRequest{Endpoint: "chat/completions", Shape: shape, Body: []byte(`{"model":"toy"}`), BodyDone: true}.Encode()},
		Shape:   shape,
	}
}

func (r *rig) newJob(p JobParams) (*Job, []byte) {
	r.t.Helper()
	j, raw, err := r.session.newJob(r.keyset, r.keyset.Digest(), p)
	if err != nil {
		r.t.Fatal(err)
	}
	return j, raw
}

func (r *rig) accept(raw []byte) (*ServerJob, error) {
	return r.epoch.Accept(raw, r.ekm, r.keyset.Digest(), r.key, r.seen)
}

func (r *rig) key(a attestation.Address) (ed25519.PublicKey, error) {
	if a != r.channel {
		return nil, errors.New("no such channel")
	}
	return r.client.Public().(ed25519.PublicKey), nil
}

// pair is a job, open at both ends.
func (r *rig) pair(shape Shape) (*Job, *ServerJob) {
	r.t.Helper()
	j, raw := r.newJob(r.params(shape))
	s, err := r.accept(raw)
	if err != nil {
		r.t.Fatal(err)
	}
	return j, s
}

type testSigner struct{ key ed25519.PrivateKey }

func (s testSigner) Public() ed25519.PublicKey           { return s.key.Public().(ed25519.PublicKey) }
func (s testSigner) Sign(message []byte) ([]byte, error) { return ed25519.Sign(s.key, message), nil }

// refusal returns the name of the refusal that err is.
func refusal(t *testing.T, err error) string {
	t.Helper()
	var r *RefusedError
	var b *BrokenError
	switch {
	case errors.As(err, &r):
		return r.Name
	case errors.As(err, &b):
		return b.Name
	}
	t.Fatalf("got error %v, want a *RefusedError or *BrokenError", err)
	return ""
}
