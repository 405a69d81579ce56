package api_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"cocoon/attestation"
	"cocoon/attestation/channel"
	"cocoon/attestation/softtee"
	"cocoon/enclave/api"
)

const model = "toy"

var start = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

// chain is a TON network that proves every beacon.
type chain struct{}

func (chain) VerifyBeacon(attestation.Beacon, []byte) (time.Time, error) { return start, nil }

// worker serves cocoon.v1 from a software machine: it attests, and answers a
// job with the body it was sent.
type worker struct {
	epoch   *channel.EpochKeys
	bundle  *attestation.Bundle
	keyset  *attestation.Keyset
	machine *softtee.Machine
	world   *softtee.World
	client  ed25519.PrivateKey // of the one channel it serves
	seen    *channel.Replay
	addr    string
	accepts atomic.Int32
	conns   chan net.Conn
	grpc    *grpc.Server
	fail    error // what GetEvidence fails with
	ended   chan error
}

var channelAddr = attestation.NewAddress(0, [32]byte{9})

func newWorker(t testing.TB) *worker {
	t.Helper()
	return newWorkerOf(t, func(g *grpc.Server, w *worker) { api.Register(g, w) })
}

// newWorkerOf lets another serve in its place.
func newWorkerOf(t testing.TB, register func(*grpc.Server, *worker)) *worker {
	t.Helper()
	w := &worker{seen: channel.NewReplay(1 << 16), conns: make(chan net.Conn, 64), ended: make(chan error, 4096)}
	var err error
	if w.epoch, err = channel.NewEpochKeys(rand.Reader); err != nil {
		t.Fatal(err)
	}
	if _, w.client, err = ed25519.GenerateKey(rand.Reader); err != nil {
		t.Fatal(err)
	}
	cert, spki, err := channel.NewCertificate(start, start.Add(10*time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	w.attest(t, spki)
	w.grpc = grpc.NewServer(api.ServerOptions(func() api.Identity {
		return api.Identity{TLS: channel.ServerTLS(cert), Epoch: "epoch 1"}
	})...)
	register(w.grpc, w)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.addr = l.Addr().String()
	served := make(chan struct{})
	go func() {
		defer close(served)
		w.grpc.Serve(counted{l, w})
	}()
	t.Cleanup(func() { w.grpc.Stop(); <-served })
	return w
}

// counted keeps the connections that a worker took.
type counted struct {
	net.Listener
	w *worker
}

func (c counted) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err == nil {
		c.w.accepts.Add(1)
		c.w.conns <- conn
	}
	return conn, err
}

func (w *worker) attest(t testing.TB, spki [32]byte) {
	t.Helper()
	var err error
	if w.world, err = softtee.New(start); err != nil {
		t.Fatal(err)
	}
	w.machine = w.world.Machine(attestation.TDX)
	worker, payout := attestation.NewAddress(0, [32]byte{1}), attestation.NewAddress(0, [32]byte{2})
	models := []attestation.Model{{Name: model, WeightsRoot: weights}}
	config := attestation.WorkerConfig{
		Version: attestation.ConfigVersion, WorkerID: worker, PayoutAddress: payout, Redeemer: payout,
		Models: models, Prices: []attestation.ModelPrice{{Model: model}}, Engine: attestation.EngineGGUF,
	}
	release := attestation.Release{Version: attestation.ReleaseVersion, Number: 1, Name: "r1", Launches: []attestation.Launch{w.machine.Launch()}}
	w.keyset = &attestation.Keyset{
		Version: attestation.KeysetVersion, WorkerID: worker, BootID: [32]byte{4}, Epoch: 1,
		NotBefore: start.Unix(), NotAfter: start.Add(10 * time.Minute).Unix(), Beacon: attestation.Beacon{Seqno: 5, RootHash: [32]byte{6}},
		TLSSPKISHA256: spki, HPKEPublicKey: w.epoch.HPKEPublicKey(), SigningPublicKey: w.epoch.SigningPublicKey(), LogPublicKey: [32]byte{8},
		PayoutAddress: payout, Models: models, ConfigDigest: config.Digest(), GPUEvidenceDigest: attestation.GPUEvidenceDigest(nil),
	}
	w.bundle = &attestation.Bundle{Version: attestation.BundleVersion, Keyset: w.keyset.Encode(), Config: config.Encode(), Release: release.Encode()}
	if w.bundle.CPU, err = w.machine.Quote(t.Context(), attestation.ReportData(w.bundle.Keyset, w.bundle.Nonce)); err != nil {
		t.Fatal(err)
	}
}

const weights = "gguf-sha256:0101010101010101010101010101010101010101010101010101010101010101"

// verify is what a client does with a bundle.
func (w *worker) verify(raw []byte, nonce [32]byte) (*attestation.Verified, error) {
	b, err := attestation.ParseBundle(raw)
	if err != nil {
		return nil, err
	}
	release, err := attestation.ParseRelease(w.bundle.Release)
	if err != nil {
		return nil, err
	}
	policy := &attestation.Policy{Registry: "none", Releases: []attestation.Digest{attestation.Digest(release.Digest())}, Models: map[string]string{model: weights}}
	v, err := w.world.Roots().Verifier(policy, chain{})
	if err != nil {
		return nil, err
	}
	record := &attestation.RecordView{WorkerID: w.keyset.WorkerID, Payout: w.keyset.PayoutAddress, PlatformID: w.machine.PlatformID(), Expiry: start.Add(time.Hour), ProvenAt: start}
	return v.Verify(b, attestation.Expect{Now: start.Add(time.Second), Nonce: nonce, WorkerID: w.keyset.WorkerID, Record: record}).Verified()
}

func (w *worker) Attest(ctx context.Context, q *api.AttestRequest) (*api.AttestResponse, error) {
	if q.Nonce == [32]byte{} {
		return nil, api.Refuse(codes.InvalidArgument, "attest.nonce", "got zeros")
	}
	ekm, err := api.EKMFromContext(ctx)
	if err != nil {
		return nil, err
	}
	sig, err := w.epoch.SignSession(q.Nonce, ekm, w.keyset.Digest())
	if err != nil {
		return nil, err
	}
	return &api.AttestResponse{Bundle: w.bundle.Encode(), Signature: sig}, nil
}

func (w *worker) GetReceipts(ctx context.Context, q *api.ReceiptsRequest) (*api.ReceiptsResponse, error) {
	s, err := api.StateFromContext(ctx)
	if err != nil {
		return nil, err
	}
	key := w.client.Public().(ed25519.PublicKey)
	if !ed25519.Verify(key, channel.ReceiptsMessage(s.EKM(), q.Channel), q.Signature[:]) {
		return nil, api.Refuse(codes.PermissionDenied, "receipts.signature", "not by the channel's client key")
	}
	return &api.ReceiptsResponse{LogID: q.LogID, Settled: 7, Count: 2, Receipts: [][]byte{{1}, {2}}, Highest: []byte(s.Epoch().(string))}, nil
}

func (w *worker) GetEvidence(context.Context, *api.EvidenceRequest) (*api.EvidenceResponse, error) {
	if w.fail != nil {
		return nil, w.fail
	}
	return &api.EvidenceResponse{Bundle: w.bundle.Encode()}, nil
}

func (w *worker) Run(s api.RunServer) error {
	err := w.run(s)
	w.ended <- err
	return err
}

func (w *worker) run(s api.RunServer) error {
	ekm, err := api.EKMFromContext(s.Context())
	if err != nil {
		return err
	}
	first, err := s.Recv()
	if err != nil {
		return err
	}
	key := func(a attestation.Address) (ed25519.PublicKey, error) {
		if a != channelAddr {
			return nil, errors.New("no such channel")
		}
		return w.client.Public().(ed25519.PublicKey), nil
	}
	j, err := w.epoch.Accept(first, ekm, w.keyset.Digest(), key, w.seen)
	if err != nil {
		return err
	}
	tick, ended := make(chan time.Time), make(chan struct{})
	defer close(ended)
	go func() { // a clock that is always ahead
		for {
			select {
			case tick <- time.Time{}:
			case <-ended:
				return
			}
		}
	}()
	p := channel.NewPacer(channel.PacerConfig{Shape: j.Shape(), Seal: j.AppendSeal, Send: s.Send, Tick: tick})
	paced := make(chan error, 1)
	go func() { paced <- p.Run(s.Context()) }()
	if err := p.Put(s.Context(), channel.Frame{Type: channel.FrameHello, Data: channel.Hello{Settled: 7}.Encode()}); err != nil {
		return err
	}
	if err := w.echo(s, j, p); err != nil {
		return err
	}
	if err := p.Put(s.Context(), channel.Frame{Type: channel.FrameReceipt, Last: true, Data: []byte("receipt")}); err != nil {
		return err
	}
	return <-paced
}

func (w *worker) echo(s api.RunServer, j *channel.ServerJob, p *channel.Pacer) error {
	body, done, n := j.Request().Body, j.Request().BodyDone, uint32(0)
	for {
		for len(body) > 0 {
			part := body[:min(len(body), 1<<10)]
			n++
			if err := p.PutData(s.Context(), n, part); err != nil {
				return err
			}
			body = body[len(part):]
		}
		if done {
			return nil
		}
		wire, err := s.Recv()
		if err != nil {
			return err
		}
		f, err := j.Open(wire)
		if err != nil {
			return err
		}
		if f.Type == channel.FrameCancel {
			return nil
		}
		body, done = f.Data, f.Last
	}
}

// client is one connection's client end.
type client struct {
	w    *worker
	conn *api.Conn
	v    *attestation.Verified
	hand channel.Handshake
	s    *channel.Session
}

func dial(t testing.TB, w *worker) *api.Conn {
	t.Helper()
	c, err := api.Dial(t.Context(), w.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func connect(t testing.TB, w *worker) *client {
	t.Helper()
	c := &client{w: w, conn: dial(t, w)}
	c.hand = channel.Handshake{EKM: c.conn.EKM, PeerSPKI: c.conn.PeerSPKI}
	rand.Read(c.hand.Nonce[:])
	r, err := c.conn.Client.Attest(t.Context(), &api.AttestRequest{Nonce: c.hand.Nonce})
	if err != nil {
		t.Fatal(err)
	}
	c.hand.Signature = r.Signature
	if c.v, err = w.verify(r.Bundle, c.hand.Nonce); err != nil {
		t.Fatal(err)
	}
	if c.s, err = channel.Open(c.v, c.hand, start.Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	return c
}

type signer struct{ ed25519.PrivateKey }

func (s signer) Public() ed25519.PublicKey {
	return s.PrivateKey.Public().(ed25519.PublicKey)
}
func (s signer) Sign(m []byte) ([]byte, error) { return ed25519.Sign(s.PrivateKey, m), nil }

func (c *client) params(shape channel.Shape, body []byte, done bool) channel.JobParams {
	p := channel.JobParams{
		Channel: channelAddr, Terms: channel.Terms{Model: model, PromptCeiling: 1 << 20, CompletionCeiling: 1 << 20, TotalCeiling: 1},
		Signer: signer{c.w.client}, Shape: shape,
		First: channel.Frame{Type: channel.FrameOpen, Data: channel.OpenRequest{Endpoint: "chat/completions", Shape: shape, Body: body, BodyDone: done}.Encode()},
	}
	rand.Read(p.JobID[:])
	return p
}

func (c *client) job(t testing.TB, p channel.JobParams) (*channel.Job, []byte) {
	t.Helper()
	j, raw, err := c.s.NewJob(start.Add(2*time.Second), p)
	if err != nil {
		t.Fatal(err)
	}
	return j, raw
}

// receive reads a whole answer.
func receive(s api.RunClient, j *channel.Job) ([]byte, error) {
	var answer, buf []byte
	for {
		wire, err := s.Recv()
		if err == io.EOF {
			return answer, j.End()
		}
		if err != nil {
			return answer, err
		}
		var f channel.Frame
		if buf, f, err = j.AppendOpenAnswer(buf[:0], wire); err != nil {
			return answer, err
		}
		if f.Type == channel.FrameData {
			_, b, err := channel.ParseData(f.Data)
			if err != nil {
				return answer, err
			}
			answer = append(answer, b...)
		}
	}
}
