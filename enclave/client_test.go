package enclave_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"io"
	"testing"

	"cocoon/attestation"
	"cocoon/attestation/auditlog"
	"cocoon/attestation/channel"
	"cocoon/contracts"
	"cocoon/contracts/payout"
	"cocoon/enclave/api"
	"cocoon/enclave/engine"
)

// client is one channel's client on one attested connection.
type client struct {
	t        testing.TB
	w        *world
	key      ed25519.PrivateKey
	channel  attestation.Address
	conn     *api.Conn
	session  *channel.Session
	verified *attestation.Verified
	logID    [32]byte
	base     [32]byte // head of the base voucher
	spent    uint64   // nano counted as spent at boot, and settled since
	tree     auditlog.HeadTree
	shape    channel.Shape
}

// connect funds a channel with 10^9 nano and attests the worker.
func (w *world) connect(t testing.TB) *client {
	t.Helper()
	key, addr := w.fund(1e9)
	return w.connectAs(t, key, addr)
}

func (w *world) connectAs(t testing.TB, key ed25519.PrivateKey, addr attestation.Address) *client {
	t.Helper()
	c := &client{t: t, w: w, key: key, channel: addr, shape: channel.ShapeOffUnpadded}
	c.dial()
	c.attest()
	return c
}

func (c *client) Public() ed25519.PublicKey           { return c.key.Public().(ed25519.PublicKey) }
func (c *client) Sign(message []byte) ([]byte, error) { return ed25519.Sign(c.key, message), nil }

func (c *client) dial() {
	c.t.Helper()
	var err error
	if c.conn, err = api.Dial(c.t.Context(), c.w.addr); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { c.conn.Close() })
}

func random[T ~[16]byte | ~[32]byte](t testing.TB) (out T) {
	t.Helper()
	b := make([]byte, len(out))
	if _, err := io.ReadFull(rand.Reader, b); err != nil {
		t.Fatal(err)
	}
	return T(b)
}

// attest verifies the worker and opens the session.
func (c *client) attest() {
	c.t.Helper()
	nonce := random[[32]byte](c.t)
	r, err := c.conn.Client.Attest(c.t.Context(), &api.AttestRequest{Nonce: nonce})
	if err != nil {
		c.t.Fatal(err)
	}
	b, err := attestation.ParseBundle(r.Bundle)
	if err != nil {
		c.t.Fatal(err)
	}
	v, expect := c.w.verifier()
	expect.Nonce = nonce
	res := v.Verify(b, expect)
	if c.verified, err = res.Verified(); err != nil {
		c.t.Fatalf("%v\n%v", err, res.Checks)
	}
	if c.session, err = channel.Open(c.verified, channel.Handshake{Nonce: nonce, EKM: c.conn.EKM, PeerSPKI: c.conn.PeerSPKI, Signature: r.Signature}, c.w.clock.Now()); err != nil {
		c.t.Fatal(err)
	}
	c.logID = attestation.LogID(c.verified.Keyset().LogPublicKey)
}

// sign is a signed voucher's binary form.
func (c *client) sign(v contracts.Voucher) []byte {
	c.t.Helper()
	s, err := contracts.SignVoucher(c.key, v)
	if err != nil {
		c.t.Fatal(err)
	}
	raw, err := s.MarshalBinary()
	if err != nil {
		c.t.Fatal(err)
	}
	return raw
}

// voucher is for cumulative nano, over the receipts that c holds.
func (c *client) voucher(cumulative uint64) []byte {
	c.t.Helper()
	head, err := c.tree.Head(c.logID, c.base, c.tree.Count())
	if err != nil {
		c.t.Fatal(err)
	}
	return c.sign(contracts.Voucher{GlobalID: network, Channel: c.channel, Cumulative: cumulative, ReceiptsHead: head})
}

// params is a job as it should be, for a test to spoil.
type params struct {
	id      [16]byte
	terms   channel.Terms
	request channel.OpenRequest
	more    [][]byte // further parts of the body
}

const promptCeiling, completionCeiling = 1024, 600

// params pays for the prompt ceiling and the first window.
func (c *client) params(body []byte) params {
	c.t.Helper()
	total, err := payout.Ceiling(promptCeiling, completionCeiling, prices)
	if err != nil {
		c.t.Fatal(err)
	}
	return params{
		id:    random[[16]byte](c.t),
		terms: channel.Terms{Model: model, Prices: prices, PromptCeiling: promptCeiling, CompletionCeiling: completionCeiling, TotalCeiling: total},
		request: channel.OpenRequest{
			Endpoint: string(engine.ChatCompletions), Voucher: c.voucher(c.spent + windowCost(1)), LogID: c.logID, Count: c.tree.Count(),
			BlindKey: random[[32]byte](c.t), CacheSalt: [32]byte{0x5a}, Shape: c.shape, Body: body, BodyDone: true,
		},
	}
}

// windowCost is the prompt ceiling and n windows.
func windowCost(n uint64) uint64 { return promptCeiling + 2*min(n*256, completionCeiling) }

// run is a job under way.
type run struct {
	c      *client
	p      params
	job    *channel.Job
	stream api.RunClient
	opened []byte // the JobOpen message
	cancel context.CancelFunc

	hello  channel.Hello
	answer []byte
	tokens uint32
	fault  *channel.JobError
	cose   []byte
	r      auditlog.Receipt
}

// seal makes a job and its opening message.
func (c *client) seal(p params) (*channel.Job, []byte) {
	c.t.Helper()
	job, open, err := c.session.NewJob(c.w.clock.Now(), channel.JobParams{
		JobID: p.id, Channel: c.channel, Terms: p.terms, Signer: c, Shape: p.request.Shape,
		First: channel.Frame{Type: channel.FrameOpen, Data: p.request.Encode()},
	})
	if err != nil {
		c.t.Fatal(err)
	}
	return job, open
}

// begin opens a job and sends its body.
func (c *client) begin(p params) *run {
	c.t.Helper()
	job, open := c.seal(p)
	r := c.send(p, job, open)
	for i, part := range p.more {
		r.frame(channel.Frame{Type: channel.FrameBody, Last: i == len(p.more)-1, Data: part})
	}
	return r
}

// send passes a JobOpen message on, whoever sealed it.
func (c *client) send(p params, job *channel.Job, open []byte) *run {
	c.t.Helper()
	ctx, cancel := context.WithCancel(c.t.Context())
	c.t.Cleanup(cancel)
	s, err := c.conn.Client.Run(ctx)
	if err != nil {
		c.t.Fatal(err)
	}
	if err := s.Send(open); err != nil && !errors.Is(err, io.EOF) { // io.EOF: refused already, as Recv will tell
		c.t.Fatal(err)
	}
	return &run{c: c, p: p, job: job, stream: s, opened: open, cancel: cancel}
}

// frame seals and sends a client's frame.
func (r *run) frame(f channel.Frame) {
	r.c.t.Helper()
	wire, err := r.job.Seal(f)
	if err != nil {
		r.c.t.Fatal(err)
	}
	if err := r.stream.Send(wire); err != nil && !errors.Is(err, io.EOF) {
		r.c.t.Fatal(err)
	}
}

// pay sends a voucher.
func (r *run) pay(raw []byte) {
	r.c.t.Helper()
	u := channel.VoucherUpdate{Voucher: raw, LogID: r.c.logID, Count: r.c.tree.Count()}
	r.frame(channel.Frame{Type: channel.FrameVoucher, Data: u.Encode()})
}

// next takes one answer frame.
func (r *run) next() (channel.Frame, error) {
	r.c.t.Helper()
	wire, err := r.stream.Recv()
	if err != nil {
		return channel.Frame{}, err
	}
	f, err := r.job.OpenAnswer(wire)
	if err != nil {
		r.c.t.Fatal(err)
	}
	switch f.Type {
	case channel.FrameHello:
		r.hello, err = channel.ParseHello(f.Data)
	case channel.FrameData:
		var part []byte
		r.tokens, part, err = channel.ParseData(f.Data)
		r.answer = append(r.answer, part...)
	case channel.FrameError:
		var e channel.JobError
		e, err = channel.ParseJobError(f.Data)
		r.fault = &e
	case channel.FrameReceipt:
		r.cose = append([]byte(nil), f.Data...)
		r.r, err = auditlog.VerifyReceipt(r.cose, r.c.verified.Keyset().SigningPublicKey)
	}
	if err != nil {
		r.c.t.Fatal(err)
	}
	return f, nil
}

// until takes frames until that many tokens have come.
func (r *run) until(tokens uint32) {
	r.c.t.Helper()
	for r.tokens < tokens {
		f, err := r.next()
		if err != nil {
			r.c.t.Fatal(err)
		}
		if f.Last {
			r.c.t.Fatalf("the job ended after %d tokens: %v", r.tokens, r.fault)
		}
	}
}

// finish takes frames to the receipt, checks it, and gives it to the client's tree.
func (r *run) finish() auditlog.Receipt {
	r.c.t.Helper()
	for {
		f, err := r.next()
		if err != nil {
			r.c.t.Fatalf("%v (fault %v)", err, r.fault)
		}
		if f.Last {
			break
		}
	}
	if _, err := r.stream.Recv(); !errors.Is(err, io.EOF) {
		r.c.t.Errorf("after the receipt: got %v, want the end", err)
	}
	r.check()
	return r.r
}

// check holds the receipt against what the client asked for and got.
func (r *run) check() {
	r.c.t.Helper()
	cost, err := payout.Cost(r.r.Usage, r.p.terms.Prices)
	if err != nil || r.r.Cost != cost {
		r.c.t.Errorf("receipt: cost: got %d, want %d (%v)", r.r.Cost, cost, err)
	}
	if r.r.Cost > r.p.terms.TotalCeiling || r.r.Usage.Prompt > r.p.terms.PromptCeiling || r.r.Usage.Completion > r.p.terms.CompletionCeiling {
		r.c.t.Errorf("receipt: %+v exceeds the terms", r.r.Usage)
	}
	if want := r.c.tree.Append(r.cose); r.r.Index != want {
		r.c.t.Errorf("receipt: index: got %d, want %d", r.r.Index, want)
	}
	r.c.spent += r.r.Cost
	if r.r.JobID != r.p.id || r.r.Channel != r.c.channel || r.r.WorkerID != workerID || r.r.LogID != r.c.logID || r.r.KeysetDigest != r.c.verified.KeysetDigest() {
		r.c.t.Errorf("receipt: is of another job: %+v", r.r)
	}
	if want := auditlog.Commit(r.p.request.BlindKey, r.answer); r.r.ResponseCommitment != want {
		r.c.t.Errorf("receipt: response commitment is not to the %d bytes that came", len(r.answer))
	}
}

// receipts asks the worker where it stands.
func (c *client) receipts(from uint64) (*api.ReceiptsResponse, error) {
	sig, _ := c.Sign(channel.ReceiptsMessage(c.conn.EKM, c.channel))
	return c.conn.Client.GetReceipts(c.t.Context(), &api.ReceiptsRequest{Channel: c.channel, LogID: c.logID, From: from, Signature: [64]byte(sig)})
}

// wantRefusal fails unless err is a refusal of the call under that name.
func wantRefusal(t testing.TB, err error, name string) {
	t.Helper()
	var r *api.RefusalError
	if !errors.As(err, &r) || r.Name != name {
		t.Fatalf("got %v, want a refusal named %s", err, name)
	}
}
