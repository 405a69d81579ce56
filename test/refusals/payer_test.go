package refusals

import (
	"context"
	"crypto/ed25519"
	"errors"
	"io"
	"testing"
	"time"

	"cocoon/attestation"
	"cocoon/attestation/auditlog"
	"cocoon/attestation/channel"
	"cocoon/contracts"
	"cocoon/contracts/lite"
	"cocoon/contracts/payout"
	"cocoon/contracts/view"
	"cocoon/enclave/api"
	"cocoon/enclave/engine"
)

// payer is a client that does whatever a test wants: it holds a channel's key,
// and seals, signs and sends what it is told to.
type payer struct {
	t       testing.TB
	n       *network
	w       *worker
	key     ed25519.PrivateKey
	channel attestation.Address

	conn     *api.Conn
	session  *channel.Session
	verified *attestation.Verified
	logID    [32]byte
	tree     auditlog.HeadTree
	spent    uint64 // nano, over the receipts in tree
}

// payer opens a channel with so many nano above its reserve, and attests w.
func (w *worker) payer(t testing.TB, deposit uint64) *payer {
	t.Helper()
	return w.payerWith(t, deposit, nil)
}

// payerWith spoils the channel's initial data first.
func (w *worker) payerWith(t testing.TB, deposit uint64, spoil func(*contracts.ChannelInit)) *payer {
	t.Helper()
	p := &payer{t: t, n: w.n, w: w, key: newKey(t)}
	init := contracts.ChannelInit{
		Nonce: random[[32]byte](t), WorkerID: w.id, ClientKey: [32]byte(public(p.key)), Client: w.n.client.Address(),
		Payout: w.n.host.Address(), Redeemer: w.n.host.Address(), CloseDelay: contracts.CloseDelay,
	}
	if spoil != nil {
		spoil(&init)
	}
	state, err := init.StateInit()
	must(t, err)
	p.channel, err = w.n.client.Deploy(t.Context(), state, deposit+contracts.Reserve+contracts.DeployFee, contracts.TopUpBody())
	must(t, err)
	p.dial()
	return p
}

func (p *payer) Public() ed25519.PublicKey           { return public(p.key) }
func (p *payer) Sign(message []byte) ([]byte, error) { return ed25519.Sign(p.key, message), nil }

// dial makes a connection and attests the worker on it.
func (p *payer) dial() {
	p.t.Helper()
	conn, err := api.Dial(p.t.Context(), p.w.addr)
	must(p.t, err)
	p.conn = conn
	p.t.Cleanup(func() { conn.Close() })
	nonce := random[[32]byte](p.t)
	r, err := p.conn.Client.Attest(p.t.Context(), &api.AttestRequest{Nonce: nonce})
	must(p.t, err)
	b, err := attestation.ParseBundle(r.Bundle)
	must(p.t, err)
	v, err := p.n.tee.Roots().Verifier(p.n.policy(), p.n.clientTON)
	must(p.t, err)
	expect := attestation.Expect{Now: p.n.clock.Now(), Nonce: nonce, WorkerID: p.w.id}
	expect.Registry, err = view.Registry(p.t.Context(), p.n.clientTON, p.n.registry)
	must(p.t, err)
	_, expect.Record, err = view.Record(p.t.Context(), p.n.clientTON, p.w.id)
	must(p.t, err)
	p.verified, err = v.Verify(b, expect).Verified()
	must(p.t, err)
	p.session, err = channel.Open(p.verified, channel.Handshake{Nonce: nonce, EKM: p.conn.EKM, PeerSPKI: p.conn.PeerSPKI, Signature: r.Signature}, p.n.clock.Now())
	must(p.t, err)
	p.logID = attestation.LogID(p.verified.Keyset().LogPublicKey)
}

// reconnect is the same payer on another connection.
func (p *payer) reconnect() *payer {
	p.t.Helper()
	q := *p
	q.dial()
	return &q
}

// standing is where the worker says it stands with the payer.
func (p *payer) standing() standing {
	p.t.Helper()
	return ask(p.t, p.conn, p, p.channel)
}

// purse is everything of the payer's that must not move.
type purse struct {
	settled, credited uint64 // by the worker
	stored            uint64 // by the worker's host
	paid, balance     uint64 // on the chain
}

func (p *payer) purse() purse {
	p.t.Helper()
	st := p.standing()
	u := purse{settled: st.settled, credited: st.credited, stored: p.w.held(p.t, p.channel)}
	u.paid, u.balance = p.n.onChain(p.t, p.channel)
	return u
}

// head is over the receipts that the payer holds.
func (p *payer) head() [32]byte {
	p.t.Helper()
	h, err := p.tree.Head(p.logID, [32]byte{}, p.tree.Count())
	must(p.t, err)
	return h
}

// voucher is a good one for so many nano in all.
func (p *payer) voucher(cumulative uint64) contracts.Voucher {
	p.t.Helper()
	return contracts.Voucher{GlobalID: globalID, Channel: p.channel, Cumulative: cumulative, ReceiptsHead: p.head()}
}

func (p *payer) signVoucher(v contracts.Voucher) contracts.SignedVoucher {
	p.t.Helper()
	s, err := contracts.SignVoucher(p.key, v)
	must(p.t, err)
	return s
}

func (p *payer) raw(v contracts.Voucher) []byte {
	p.t.Helper()
	s := p.signVoucher(v)
	b, err := s.MarshalBinary()
	must(p.t, err)
	return b
}

// params is a job as it should be, for a test to spoil.
type params struct {
	id      [16]byte
	terms   channel.Terms
	request channel.OpenRequest
}

func (p *payer) params(body []byte) params {
	p.t.Helper()
	total, err := payout.Ceiling(promptCeiling, completionCeiling, prices)
	must(p.t, err)
	return params{
		id:    random[[16]byte](p.t),
		terms: channel.Terms{Model: model, Prices: prices, PromptCeiling: promptCeiling, CompletionCeiling: completionCeiling, TotalCeiling: total},
		request: channel.OpenRequest{
			Endpoint: string(engine.ChatCompletions), Voucher: p.raw(p.voucher(p.spent + opening)), LogID: p.logID, Count: p.tree.Count(),
			BlindKey: random[[32]byte](p.t), Shape: channel.ShapeOffUnpadded, Body: body, BodyDone: len(body) > 0,
		},
	}
}

func (p *payer) jobParams(j params) channel.JobParams {
	return channel.JobParams{
		JobID: j.id, Channel: p.channel, Terms: j.terms, Signer: p, Shape: j.request.Shape,
		First: channel.Frame{Type: channel.FrameOpen, Data: j.request.Encode()},
	}
}

// seal makes a job and the message that opens it. The payer's own clock is
// whatever its evidence needs.
func (p *payer) seal(j params) (*channel.Job, []byte) {
	p.t.Helper()
	job, open, err := p.session.NewJob(p.verified.Expires().Add(-time.Second), p.jobParams(j))
	must(p.t, err)
	return job, open
}

// sendRaw opens a stream with bytes, whoever sealed them, and returns how the call ended.
func (p *payer) sendRaw(open []byte) error {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	s, err := p.conn.Client.Run(ctx)
	must(p.t, err)
	must(p.t, s.Send(open))
	for err == nil {
		_, err = s.Recv()
	}
	return err
}

// job is one of the payer's under way.
type job struct {
	p      *payer
	params params
	sealed *channel.Job
	open   []byte
	stream api.RunClient

	hello  channel.Hello
	answer string
	tokens uint32
	fault  *channel.JobError
	cose   []byte
}

// begin opens a job.
func (p *payer) begin(j params) *job {
	p.t.Helper()
	sealed, open := p.seal(j)
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	p.t.Cleanup(cancel)
	s, err := p.conn.Client.Run(ctx)
	must(p.t, err)
	must(p.t, s.Send(open))
	return &job{p: p, params: j, sealed: sealed, open: open, stream: s}
}

// frame seals the next client frame, and sends it.
func (j *job) frame(f channel.Frame) {
	j.p.t.Helper()
	j.wire(j.seal(f))
}

func (j *job) seal(f channel.Frame) []byte {
	j.p.t.Helper()
	wire, err := j.sealed.Seal(f)
	must(j.p.t, err)
	return wire
}

// wire sends bytes. A worker that has hung up says why in Recv.
func (j *job) wire(b []byte) { _ = j.stream.Send(b) }

// pay sends a voucher.
func (j *job) pay(v contracts.Voucher) {
	j.p.t.Helper()
	u := channel.VoucherUpdate{Voucher: j.p.raw(v), LogID: j.p.logID, Count: j.p.tree.Count()}
	j.frame(channel.Frame{Type: channel.FrameVoucher, Data: u.Encode()})
}

// next takes one answer frame.
func (j *job) next() (channel.Frame, error) {
	j.p.t.Helper()
	wire, err := j.stream.Recv()
	if err != nil {
		return channel.Frame{}, err
	}
	f, err := j.sealed.OpenAnswer(wire)
	must(j.p.t, err)
	switch f.Type {
	case channel.FrameHello:
		j.hello, err = channel.ParseHello(f.Data)
	case channel.FrameData:
		var part []byte
		j.tokens, part, err = channel.ParseData(f.Data)
		j.answer += string(part)
	case channel.FrameError:
		var e channel.JobError
		e, err = channel.ParseJobError(f.Data)
		j.fault = &e
	case channel.FrameReceipt:
		j.cose = append([]byte(nil), f.Data...)
	}
	must(j.p.t, err)
	return f, nil
}

// until takes frames until so many tokens have come.
func (j *job) until(tokens uint32) {
	j.p.t.Helper()
	for j.tokens < tokens {
		f, err := j.next()
		must(j.p.t, err)
		if f.Last {
			j.p.t.Fatalf("the job ended after %d tokens: %v", j.tokens, j.fault)
		}
	}
}

// finish takes the job to its receipt.
func (j *job) finish() auditlog.Receipt {
	j.p.t.Helper()
	for {
		f, err := j.next()
		must(j.p.t, err)
		if f.Last {
			break
		}
	}
	if _, err := j.stream.Recv(); !errors.Is(err, io.EOF) {
		j.p.t.Errorf("after the receipt: got %v, want the end", err)
	}
	return j.p.book(j.cose)
}

// book adds a receipt to the payer's tree.
func (p *payer) book(cose []byte) auditlog.Receipt {
	p.t.Helper()
	r, err := auditlog.VerifyReceipt(cose, p.verified.Keyset().SigningPublicKey)
	must(p.t, err)
	if want := p.tree.Append(cose); r.Index != want {
		p.t.Errorf("receipt: index: got %d, want %d", r.Index, want)
	}
	p.spent += r.Cost
	return r
}

// killed takes frames until the call fails, wants a refusal of that name, and
// returns the receipt, which GetReceipts shows.
func (j *job) killed(name string) auditlog.Receipt {
	j.p.t.Helper()
	var err error
	for err == nil {
		_, err = j.next()
	}
	wantRefusal(j.p.t, err, name)
	return j.p.fetch()
}

// fetch asks for the one receipt that the payer lacks.
func (p *payer) fetch() auditlog.Receipt {
	p.t.Helper()
	sig, err := p.Sign(channel.ReceiptsMessage(p.conn.EKM, p.channel))
	must(p.t, err)
	r, err := p.conn.Client.GetReceipts(p.t.Context(), &api.ReceiptsRequest{Channel: p.channel, LogID: p.logID, From: p.tree.Count(), Signature: [64]byte(sig)})
	must(p.t, err)
	if len(r.Receipts) != 1 {
		p.t.Fatalf("got %d receipts from %d on, want 1", len(r.Receipts), p.tree.Count())
	}
	return p.book(r.Receipts[0])
}

// redeem sends a voucher to the payer's channel, as the worker's host would.
func (p *payer) redeem(from *lite.Wallet, v contracts.SignedVoucher) error {
	p.t.Helper()
	body, err := contracts.RedeemBody(v)
	must(p.t, err)
	return from.Send(p.t.Context(), []lite.Message{{To: p.channel, Amount: contracts.RedeemFee, Body: body, Bounce: true}})
}

// wantRefusal fails unless err is a refusal of the call under that name.
func wantRefusal(t testing.TB, err error, name string) {
	t.Helper()
	var r *api.RefusalError
	if !errors.As(err, &r) || r.Name != name {
		t.Fatalf("got %v, want a refusal named %s", err, name)
	}
}
