package channel

import (
	"crypto/ed25519"
	"crypto/hpke"
	"errors"
	"fmt"
	"sync"
	"time"

	"cocoon/attestation"
)

// Handshake is what one TLS connection proved, and the worker's signature
// about it.
type Handshake struct {
	Nonce     [32]byte // random, as sent with Attest
	EKM       [32]byte // of the connection (EKM)
	PeerSPKI  [32]byte // of the connection (SPKI)
	Signature [64]byte // over attestation.SessionMessage, from Attest's answer
}

// Session is one TLS connection to one attested worker. Only Open makes one,
// and its zero value makes no jobs. It is safe for concurrent use.
type Session struct {
	v    *attestation.Verified
	key  hpke.PublicKey
	hand Handshake

	mu       sync.Mutex
	prepared map[[16]byte]encapsulation
}

// Open checks that this very connection ends at the attested worker, and is
// the only way to a Session. It fails with a *RefusedError.
func Open(v *attestation.Verified, h Handshake, now time.Time) (*Session, error) {
	if err := v.Current(now); err != nil {
		return nil, &RefusedError{"session.verified", err}
	}
	return open(v.Keyset(), v.KeysetDigest(), v, h)
}

// open is Open without the question whether the keyset was verified.
func open(k *attestation.Keyset, digest [32]byte, v *attestation.Verified, h Handshake) (*Session, error) {
	zero := [32]byte{}
	if h.Nonce == zero || h.EKM == zero {
		return nil, refuse("session.handshake", "nonce and ekm: got zeros")
	}
	if h.PeerSPKI != k.TLSSPKISHA256 {
		return nil, refuse("session.spki", "tls key: got %x, want the keyset's %x", h.PeerSPKI, k.TLSSPKISHA256)
	}
	if !ed25519.Verify(k.SigningPublicKey[:], attestation.SessionMessage(h.Nonce, h.EKM, digest), h.Signature[:]) {
		return nil, refuse("session.signature", "not by the attested key over this connection and nonce")
	}
	kem, _, _ := suite()
	pub, err := kem.NewPublicKey(k.HPKEPublicKey)
	if err != nil {
		return nil, &RefusedError{"session.hpke-key", err}
	}
	return &Session{v: v, key: pub, hand: h, prepared: make(map[[16]byte]encapsulation)}, nil
}

// Verified is what the session rests on; nil for the zero Session.
func (s *Session) Verified() *attestation.Verified { return s.v }

// EKM is the exporter value of the session's connection, which the messages
// that channel client keys sign are bound to.
func (s *Session) EKM() [32]byte { return s.hand.EKM }

// Signer is a channel's client key. It signs raw messages, never prehashed.
type Signer interface {
	Public() ed25519.PublicKey
	Sign(message []byte) ([]byte, error)
}

// JobParams is what a job is opened with.
type JobParams struct {
	JobID   [16]byte // random, never used before, also not for a retry
	Channel attestation.Address
	Terms   Terms
	Signer  Signer // the channel's client key
	First   Frame  // FrameOpen with an OpenRequest; NewJob sets Last to its BodyDone
	Shape   Shape  // equal to the OpenRequest's
}

// NewJob seals the opening frame and returns the job and its JobOpen message,
// the first on the wire. It fails with a *RefusedError; job.verified means that
// the evidence has expired and a new connection must be attested.
func (s *Session) NewJob(now time.Time, p JobParams) (*Job, []byte, error) {
	if s == nil || s.v == nil || s.key == nil {
		return nil, nil, &RefusedError{"job.session", errors.New("no session was opened")}
	}
	if err := s.v.Current(now); err != nil {
		return nil, nil, &RefusedError{"job.verified", err}
	}
	return s.newJob(s.v.Keyset(), s.v.KeysetDigest(), p)
}

func (s *Session) newJob(k *attestation.Keyset, digest [32]byte, p JobParams) (*Job, []byte, error) {
	first, err := p.check(k)
	if err != nil {
		return nil, nil, err
	}
	e, err := s.take(digest, p.JobID)
	if err != nil {
		return nil, nil, &RefusedError{"job.seal", err}
	}
	j := &Job{id: p.JobID, shape: p.Shape, encapsulation: e}
	raw, err := j.open(p, first, digest, s.hand.EKM)
	if err != nil {
		return nil, nil, err
	}
	return j, raw, nil
}

// check returns the opening frame as it will be sealed.
func (p JobParams) check(k *attestation.Keyset) (Frame, error) {
	if err := p.Terms.Check(); err != nil {
		return Frame{}, &RefusedError{"job.terms", err}
	}
	attested := false
	for _, m := range k.Models {
		attested = attested || m.Name == p.Terms.Model
	}
	switch {
	case !attested:
		return Frame{}, refuse("job.terms", "model: got %q, want one of the keyset's %d", p.Terms.Model, len(k.Models))
	case p.JobID == [16]byte{}:
		return Frame{}, refuse("job.id", "job id: got zeros")
	case p.Channel.IsZero():
		return Frame{}, refuse("job.channel", "channel: got zeros")
	case p.Signer == nil:
		return Frame{}, refuse("job.signer", "no client key was given")
	case p.First.Type != FrameOpen:
		return Frame{}, refuse("job.first", "type: got %s, want %s", p.First.Type, FrameOpen)
	}
	req, err := ParseOpenRequest(p.First.Data)
	if err != nil {
		return Frame{}, &RefusedError{"job.first", err}
	}
	if req.Shape != p.Shape {
		return Frame{}, &RefusedError{"job.first", fmt.Errorf("shape: the request says %s, the job %s", req.Shape, p.Shape)}
	}
	return Frame{Type: FrameOpen, Last: req.BodyDone, Data: p.First.Data}, nil
}
