package refusals

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"path/filepath"
	"testing"
	"time"

	"cocoon/attestation"
	"cocoon/attestation/auditlog"
	"cocoon/attestation/channel"
	"cocoon/contracts"
	"cocoon/enclave/api"
	"cocoon/enclave/engine"
	"cocoon/proxy/ledger"
	"cocoon/proxy/session"
)

const promptCeiling, completionCeiling = 1024, 600

// opening is what a job's first voucher covers beyond what is spent: the
// prompt ceiling and one window.
const opening = promptCeiling + 2*256

// client is an honest one: proxy/session over proxy/ledger, with a wallet.
type client struct {
	n      *network
	dir    string
	ledger *ledger.Ledger
	cfg    session.Config
}

func (n *network) newClient(t testing.TB) *client {
	t.Helper()
	c := &client{n: n, dir: filepath.Join(t.TempDir(), "ledger")}
	v, err := n.tee.Roots().Verifier(n.policy(), n.clientTON)
	must(t, err)
	c.cfg = session.Config{
		Verifier: v, Chain: session.LiteChain(n.clientTON, n.registry), Opener: session.WalletOpener(n.client), Deposit: deposit,
		Shape: channel.ShapeOffUnpadded, Now: n.clock.Now, Rand: rand.Reader,
	}
	c.open(t)
	t.Cleanup(func() { c.ledger.Close() })
	return c
}

// policy is a developer's: the strict default, with the rebuilder they trust.
func (n *network) policy() *attestation.Policy {
	return &attestation.Policy{Rebuilders: []attestation.Digest{attestation.Digest(public(n.tee.RebuilderKey()))}}
}

func (c *client) open(t testing.TB) {
	t.Helper()
	var err error
	c.ledger, err = ledger.Open(ledger.Config{Dir: c.dir, Now: c.n.clock.Now, Rand: rand.Reader})
	must(t, err)
	c.cfg.Ledger = c.ledger
}

// connect verifies a worker. It fails the test if the worker is refused.
func (c *client) connect(t testing.TB, addr string, id attestation.Address) *session.Session {
	t.Helper()
	s, err := session.Connect(t.Context(), &c.cfg, addr, id)
	if err != nil {
		var refused *session.NotVerifiedError
		if errors.As(err, &refused) && refused.Result != nil {
			t.Logf("%v", refused.Result.Checks)
		}
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// funded is connect with a channel.
func (c *client) funded(t testing.TB, addr string, id attestation.Address) *session.Session {
	t.Helper()
	s := c.connect(t, addr, id)
	must(t, s.Fund(t.Context()))
	return s
}

func request() *session.Request {
	return &session.Request{
		Endpoint: string(engine.ChatCompletions), Model: model, Body: chat("hello"),
		PromptCeiling: promptCeiling, CompletionCeiling: completionCeiling,
	}
}

// chat is a body with one message.
func chat(content string) []byte {
	b, err := json.Marshal(map[string]any{"model": model, "stream": true, "messages": []map[string]string{{"role": "user", "content": content}}})
	if err != nil {
		panic(err)
	}
	return b
}

// outcome is how a job ended at an honest client.
type outcome struct {
	answer  string
	receipt *auditlog.Receipt
	err     error // nil: the answer is whole and receipted
}

// run does one job on a funded session.
func run(ctx context.Context, s *session.Session) outcome {
	j, err := s.Start(ctx, request())
	if err != nil {
		return outcome{err: err}
	}
	return drain(j)
}

// drain takes a job's answer to its end.
func drain(j *session.Job) (o outcome) {
	defer j.Close()
	defer time.AfterFunc(patience, func() { j.Abort(errors.New("out of patience")) }).Stop()
	for {
		part, err := j.Next()
		if err != nil {
			o.receipt = j.Receipt()
			if !errors.Is(err, io.EOF) {
				o.err = err
			}
			return o
		}
		o.answer += string(part)
	}
}

// serves fails unless the worker serves an honest client a plain job, and bills
// exactly that. It makes a new client, with a channel of its own.
func (w *worker) serves(t testing.TB) {
	t.Helper()
	c := w.n.newClient(t)
	s := c.funded(t, w.addr, w.id)
	before := c.money(t, s)
	o := run(t.Context(), s)
	if o.err != nil || o.answer != plainAnswer || o.receipt == nil || o.receipt.Cost != plainCost {
		t.Fatalf("an honest job afterwards: got %q, %+v, %v", o.answer, o.receipt, o.err)
	}
	after := c.money(t, s)
	want := money{signed: before.signed + opening, booked: before.booked + plainCost, paid: before.paid, balance: before.balance}
	if after != want {
		t.Fatalf("an honest job afterwards: money: got %+v, want %+v", after, want)
	}
	s.Close()
}

// money is where a client stands with one channel, in nano.
type money struct {
	signed  uint64 // the highest voucher that its key has signed
	booked  uint64 // over the receipts it accepted
	paid    uint64 // on the chain
	balance uint64 // on the chain
}

// money is of the channel that pays for the session's jobs.
func (c *client) money(t testing.TB, s *session.Session) (m money) {
	t.Helper()
	addr, _, _, ok := s.Channel()
	if !ok {
		t.Fatal("the session has no channel")
	}
	return c.moneyOf(t, addr)
}

func (c *client) moneyOf(t testing.TB, addr attestation.Address) (m money) {
	t.Helper()
	must(t, c.ledger.Flush(t.Context()))
	signer, err := c.ledger.Signer(addr)
	must(t, err)
	m.signed = signer.Highest()
	list, err := c.ledger.Receipts(t.Context(), ledger.Query{Channel: addr})
	must(t, err)
	for _, r := range list {
		m.booked += r.Cost
	}
	m.paid, m.balance = c.n.onChain(t, addr)
	return m
}

// channels are the addresses of all the client's channels.
func (c *client) channels(t testing.TB) []attestation.Address {
	t.Helper()
	list, err := c.ledger.Channels(t.Context())
	must(t, err)
	var out []attestation.Address
	for _, ch := range list {
		out = append(out, ch.Address)
	}
	return out
}

// statement asks the worker where it stands with a client's channel.
func (c *client) statement(t testing.TB, addr string, ch attestation.Address) standing {
	t.Helper()
	signer, err := c.ledger.Signer(ch)
	must(t, err)
	conn, err := api.Dial(t.Context(), addr)
	must(t, err)
	defer conn.Close()
	_, err = conn.Client.Attest(t.Context(), &api.AttestRequest{Nonce: random[[32]byte](t)})
	must(t, err)
	return ask(t, conn, signer, ch)
}

// standing is where a worker says it stands with a channel, in nano.
type standing struct {
	settled  uint64 // over its receipts
	credited uint64 // the highest voucher it holds
	receipts uint64
}

// ask gets it over an attested connection.
func ask(t testing.TB, conn *api.Conn, key channel.Signer, ch attestation.Address) standing {
	t.Helper()
	sig, err := key.Sign(channel.ReceiptsMessage(conn.EKM, ch))
	must(t, err)
	r, err := conn.Client.GetReceipts(t.Context(), &api.ReceiptsRequest{Channel: ch, Signature: [64]byte(sig)})
	must(t, err)
	st := standing{settled: r.Settled, receipts: r.Count}
	if len(r.Highest) > 0 {
		var v contracts.SignedVoucher
		must(t, v.UnmarshalBinary(r.Highest))
		st.credited = v.Voucher.Cumulative
	}
	return st
}
