package proxy_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"cocoon/attestation"
	"cocoon/attestation/auditlog"
	"cocoon/attestation/channel"
	"cocoon/contracts"
	"cocoon/contracts/payout"
	"cocoon/enclave/api"
	"cocoon/proxy/route"
)

// liar is a worker whose evidence is sound and whose conduct a test decides.
type liar struct {
	w        *world
	id       attestation.Address
	keys     *channel.EpochKeys
	log      ed25519.PrivateKey
	logID    [32]byte
	digest   [32]byte
	bundle   []byte
	identity api.Identity
	seen     *channel.Replay
	addr     string

	hello    func(*channel.Hello)
	receipt  func(*auditlog.Receipt)
	tokens   func(i int) uint32                                       // the count that data frame i states
	frames   func(send func(wire []byte) error, wires [][]byte) error // sends the answer's frames
	signer   ed25519.PrivateKey                                       // nil: the attested key
	accounts func(*api.ReceiptsResponse)
	failure  *channel.JobError   // in the answer's place
	refuses  attestation.Address // a channel that it no longer serves

	mu      sync.Mutex
	settled uint64
	tree    auditlog.HeadTree
	highest []byte
	cose    [][]byte
}

// liar starts one.
func (w *world) liar() *liar {
	w.t.Helper()
	l := &liar{w: w, id: attestation.NewAddress(0, [32]byte{6}), seen: channel.NewReplay(100)}
	var err error
	if l.keys, err = channel.NewEpochKeys(rand.Reader); err != nil {
		w.t.Fatal(err)
	}
	if _, l.log, err = ed25519.GenerateKey(rand.Reader); err != nil {
		w.t.Fatal(err)
	}
	machine := w.tee.MachineAt(attestation.TDX, 9)
	pay := attestation.NewAddress(0, [32]byte{7})
	w.chain.records[l.id] = contracts.WorkerRecord{
		Endpoint: "unused:1", Payout: pay, PlatformID: machine.PlatformID(), Expiry: uint32(time.Now().Add(time.Hour).Unix()),
		Prices: []contracts.ModelPrice{{Model: contracts.ModelNameHash(model), Prices: prices}},
	}
	cert, spki, err := channel.NewCertificate(time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
	if err != nil {
		w.t.Fatal(err)
	}
	l.identity = api.Identity{TLS: channel.ServerTLS(cert)}
	config := attestation.WorkerConfig{
		Version: attestation.ConfigVersion, WorkerID: l.id, PayoutAddress: pay, Redeemer: pay,
		Models: []attestation.Model{toyModel}, Prices: []attestation.ModelPrice{{Model: model, Min: prices}}, Engine: attestation.EngineGGUF,
	}
	logPub := [32]byte(l.log.Public().(ed25519.PublicKey))
	l.logID = attestation.LogID(logPub)
	k := attestation.Keyset{
		Version: attestation.KeysetVersion, WorkerID: l.id, BootID: [32]byte{1}, Epoch: 1, NotBefore: time.Now().Unix() - 1, NotAfter: time.Now().Unix() + 300,
		Beacon: attestation.Beacon{Seqno: 7, RootHash: [32]byte{7}}, TLSSPKISHA256: spki, HPKEPublicKey: l.keys.HPKEPublicKey(),
		SigningPublicKey: l.keys.SigningPublicKey(), LogPublicKey: logPub, PayoutAddress: pay, Models: config.Models, ConfigDigest: config.Digest(),
		GPUEvidenceDigest: attestation.GPUEvidenceDigest(nil),
	}
	l.digest = k.Digest()
	cpu, err := machine.Quote(w.t.Context(), attestation.ReportData(k.Encode(), [32]byte{}))
	if err != nil {
		w.t.Fatal(err)
	}
	b := attestation.Bundle{
		Version: attestation.BundleVersion, Keyset: k.Encode(), Config: config.Encode(), CPU: cpu, Release: w.release.Encode(),
		ReleaseSignatures: []attestation.ReleaseSignature{attestation.SignRelease(w.tee.RebuilderKey(), w.release.Encode())}, BeaconProof: []byte("proof"),
	}
	l.bundle = b.Encode()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	l.addr = ln.Addr().String()
	g := grpc.NewServer(api.ServerOptions(func() api.Identity { return l.identity })...)
	api.Register(g, l)
	ended := make(chan struct{})
	go func() { defer close(ended); g.Serve(ln) }()
	w.t.Cleanup(func() { g.Stop(); <-ended })
	return l
}

func (l *liar) Attest(ctx context.Context, q *api.AttestRequest) (*api.AttestResponse, error) {
	ekm, err := api.EKMFromContext(ctx)
	if err != nil {
		return nil, err
	}
	sig, err := l.keys.SignSession(q.Nonce, ekm, l.digest)
	return &api.AttestResponse{Bundle: l.bundle, Signature: sig}, err
}

func (l *liar) GetEvidence(context.Context, *api.EvidenceRequest) (*api.EvidenceResponse, error) {
	return &api.EvidenceResponse{Bundle: l.bundle}, nil
}

func (l *liar) GetReceipts(_ context.Context, q *api.ReceiptsRequest) (*api.ReceiptsResponse, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := &api.ReceiptsResponse{LogID: l.logID, Highest: l.highest, Settled: l.settled, Count: l.tree.Count(), Receipts: l.cose[q.From:]}
	if l.accounts != nil {
		l.accounts(r)
	}
	return r, nil
}

func (l *liar) Run(s api.RunServer) error {
	ekm, err := api.EKMFromContext(s.Context())
	if err != nil {
		return err
	}
	open, err := s.Recv()
	if err != nil {
		return err
	}
	j, err := l.keys.Accept(open, ekm, l.digest, func(a attestation.Address) (ed25519.PublicKey, error) {
		if a == l.refuses {
			return nil, api.Refuse(codes.PermissionDenied, "channel.refused", "closed")
		}
		v, err := l.w.chain.channel(a)
		return v.State.Init.ClientKey[:], err
	}, l.seen)
	if err != nil {
		return err
	}
	var wires [][]byte
	for _, f := range l.answer(j) {
		wire, err := j.Seal(f)
		if err != nil {
			return err
		}
		wires = append(wires, wire)
	}
	if l.frames != nil {
		return l.frames(s.Send, wires)
	}
	for _, wire := range wires {
		if err := s.Send(wire); err != nil {
			return err
		}
	}
	return nil
}

// answer is an honest answer of three tokens, but for what the test changed.
func (l *liar) answer(j *channel.ServerJob) []channel.Frame {
	l.mu.Lock()
	defer l.mu.Unlock()
	req := j.Request()
	l.highest = req.Voucher
	h := channel.Hello{Highest: l.highest, Settled: l.settled, Count: l.tree.Count()}
	if l.hello != nil {
		l.hello(&h)
	}
	frames := []channel.Frame{{Type: channel.FrameHello, Data: h.Encode()}}
	said := auditlog.NewCommitment(req.BlindKey)
	for i, part := range []string{event(word(0)), event(word(1)), event(word(2)), done} {
		n := uint32(min(i+1, 3))
		if l.tokens != nil {
			n = l.tokens(i)
		}
		said.Write([]byte(part))
		frames = append(frames, channel.Frame{Type: channel.FrameData, Data: channel.AppendData(nil, n, []byte(part))})
	}
	if l.failure != nil {
		frames = append(frames[:1], channel.Frame{Type: channel.FrameError, Data: l.failure.Encode()})
	}
	r := auditlog.Receipt{
		Version: auditlog.ReceiptVersion, JobID: j.JobID(), Channel: j.Channel(), WorkerID: l.id, LogID: l.logID, Index: l.tree.Count(),
		KeysetDigest: l.digest, Model: toyModel, RequestCommitment: auditlog.Commit(req.BlindKey, req.Body), ResponseCommitment: [32]byte(said.Sum(nil)),
		Usage: attestation.Usage{Prompt: 10, Completion: 3}, Prices: j.Terms().Prices, Started: 1, Finished: 2, FinishReason: "stop", Status: auditlog.StatusOK,
	}
	r.Cost, _ = payout.Cost(r.Usage, r.Prices)
	if l.receipt != nil {
		l.receipt(&r)
	}
	var cose []byte
	var err error
	if l.signer != nil {
		cose, err = auditlog.SignReceipt(l.signer, r)
	} else {
		cose, err = auditlog.SignReceipt(l.keys, r)
	}
	if err != nil {
		panic(err)
	}
	l.tree.Append(cose)
	l.settled += r.Cost
	l.cose = append(l.cose, cose)
	return append(frames, channel.Frame{Type: channel.FrameReceipt, Last: true, Data: cose})
}

// forget begins accounts anew, for another channel.
func (l *liar) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tree, l.settled, l.highest, l.cose = auditlog.HeadTree{}, 0, nil, nil
}

// billedAs sets counts and the cost that goes with them.
func billedAs(u attestation.Usage) func(*auditlog.Receipt) {
	return func(r *auditlog.Receipt) { r.Usage = u; r.Cost, _ = payout.Cost(u, r.Prices) }
}

func TestWorkerThatLies(t *testing.T) {
	_, other, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := contracts.SignVoucher(other, contracts.Voucher{GlobalID: network, Cumulative: 1e6})
	if err != nil {
		t.Fatal(err)
	}
	foreignRaw, err := foreign.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	strange, err := auditlog.SignCheckpoint(other, auditlog.Checkpoint{LogID: attestation.LogID([32]byte(other.Public().(ed25519.PublicKey)))})
	if err != nil {
		t.Fatal(err)
	}
	receipt := func(f func(*auditlog.Receipt)) func(*liar) { return func(l *liar) { l.receipt = f } }
	for name, c := range map[string]struct {
		lie    func(*liar)
		reason string // what the worker is benched for
	}{
		"a cost that is not counts times prices": {receipt(func(r *auditlog.Receipt) { r.Cost++ }), "receipt.cost"},
		"a lower cost, too":                      {receipt(func(r *auditlog.Receipt) { r.Cost-- }), "receipt.cost"},
		"other prices":                           {receipt(func(r *auditlog.Receipt) { r.Prices.Prompt *= 2; r.Cost, _ = payout.Cost(r.Usage, r.Prices) }), "receipt.prices"},
		"more prompt than the ceiling":           {receipt(billedAs(attestation.Usage{Prompt: 257, Completion: 3})), "receipt.prompt"},
		"more answer than the ceiling":           {receipt(billedAs(attestation.Usage{Prompt: 10, Completion: 51})), "receipt.completion"},
		"another job":                            {receipt(func(r *auditlog.Receipt) { r.JobID[0] ^= 1 }), "receipt.job"},
		"another channel":                        {receipt(func(r *auditlog.Receipt) { r.Channel[9] ^= 1 }), "receipt.channel"},
		"another worker":                         {receipt(func(r *auditlog.Receipt) { r.WorkerID[9] ^= 1 }), "receipt.worker"},
		"another log":                            {receipt(func(r *auditlog.Receipt) { r.LogID[9] ^= 1 }), "receipt.log"},
		"another keyset":                         {receipt(func(r *auditlog.Receipt) { r.KeysetDigest[9] ^= 1 }), "receipt.keyset"},
		"another model":                          {receipt(func(r *auditlog.Receipt) { r.Model.WeightsRoot = attestation.Unmeasured }), "receipt.model"},
		"another request":                        {receipt(func(r *auditlog.Receipt) { r.RequestCommitment[0] ^= 1 }), "receipt.request"},
		"another answer":                         {receipt(func(r *auditlog.Receipt) { r.ResponseCommitment[0] ^= 1 }), "receipt.response"},
		"an error without an error":              {receipt(func(r *auditlog.Receipt) { r.Status = auditlog.StatusError }), "receipt.status"},
		"another log's checkpoint":               {receipt(func(r *auditlog.Receipt) { r.Checkpoint = strange }), "receipt.checkpoint"},
		"another signer":                         {func(l *liar) { l.signer = other }, "receipt.signature"},
		"a settled sum that is not ours":         {func(l *liar) { l.hello = func(h *channel.Hello) { h.Settled++ } }, "settled"},
		"a base that it did not state before":    {func(l *liar) { l.hello = func(h *channel.Hello) { h.Base = h.Highest } }, "hello.base"},
		"a voucher that is not ours":             {func(l *liar) { l.hello = func(h *channel.Hello) { h.Highest = foreignRaw } }, "voucher"},
		"tokens that run backwards":              {func(l *liar) { l.tokens = func(i int) uint32 { return uint32(3 - i) } }, "answer.tokens"},
		"tokens beyond the ceiling":              {func(l *liar) { l.tokens = func(int) uint32 { return 51 } }, "answer.tokens"},
		"frames in another order": {func(l *liar) {
			l.frames = func(send func([]byte) error, w [][]byte) error {
				return sendAll(send, w[0], w[2], w[1], w[3], w[4], w[5])
			}
		}, "answer.sequence"},
		"a frame twice": {func(l *liar) {
			l.frames = func(send func([]byte) error, w [][]byte) error { return sendAll(send, w[0], w[1], w[1]) }
		}, "answer.sequence"},
		"a frame left out": {func(l *liar) {
			l.frames = func(send func([]byte) error, w [][]byte) error { return sendAll(send, w[0], w[1], w[3], w[4], w[5]) }
		}, "answer.sequence"},
		"the end cut off": {func(l *liar) {
			l.frames = func(send func([]byte) error, w [][]byte) error { return sendAll(send, w[:5]...) }
		}, ""},
		"a foreign base at the start": {func(l *liar) { l.accounts = func(r *api.ReceiptsResponse) { r.Base = foreignRaw } }, "voucher"},
		"receipts withheld":           {func(l *liar) { l.accounts = func(r *api.ReceiptsResponse) { r.Count = 3 } }, "receipts.withheld"},
		"spent without a voucher":     {func(l *liar) { l.accounts = func(r *api.ReceiptsResponse) { r.BasePaid = 5 } }, "receipts.base"},
		"a job that was never asked for": {func(l *liar) {
			l.accounts = func(r *api.ReceiptsResponse) {
				fake := auditlog.Receipt{
					Version: auditlog.ReceiptVersion, JobID: [16]byte{1}, Channel: l.anyChannel(), WorkerID: l.id, LogID: l.logID, KeysetDigest: l.digest, Model: toyModel,
					Usage: attestation.Usage{Prompt: 1000}, Prices: prices, Cost: 1000, Started: 1, Finished: 2, Status: auditlog.StatusOK,
				}
				cose, err := auditlog.SignReceipt(l.keys, fake)
				if err != nil {
					panic(err)
				}
				r.Receipts, r.Count, r.Settled = [][]byte{cose}, 1, 1000
			}
		}, "receipt 0"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			l := w.liar()
			c.lie(l)
			g := w.proxy(settings{}, l.addr)
			r := g.post(chat(true, map[string]any{"max_tokens": 50}))
			body := text(t, r)
			if strings.HasSuffix(body, "\n\n") && !strings.Contains(body, `data: {"error":`) || r.StatusCode == http.StatusOK && r.Trailer.Get("X-Cocoon-Receipt") != "" {
				t.Errorf("it passed for a whole answer: %d %q", r.StatusCode, body)
			}
			s := g.router.Workers()[0]
			if c.reason == "" {
				if s.State == route.Benched {
					t.Errorf("benched for %s", s.Reason)
				}
				return
			}
			if s.State != route.Benched || !strings.Contains(s.Reason, c.reason) {
				t.Errorf("got %s for %q, want it benched for %s", s.State, s.Reason, c.reason)
			}
			if message := wantFailure(t, g.post(chat(true, nil)), 503, "no_verified_worker"); !strings.Contains(message, c.reason) {
				t.Errorf("got %q, want it to name %s", message, c.reason)
			}
			if list := g.receipts(); len(list) != 0 {
				t.Errorf("the receipt was recorded: %+v", list)
			}
		})
	}
}

func sendAll(send func([]byte) error, wires ...[]byte) error {
	for _, w := range wires {
		if err := send(w); err != nil {
			return err
		}
	}
	return nil
}

// anyChannel is the one channel there is.
func (l *liar) anyChannel() attestation.Address {
	l.w.chain.mu.Lock()
	defer l.w.chain.mu.Unlock()
	for a := range l.w.chain.channels {
		return a
	}
	return attestation.Address{}
}

// TestHonestLiar shows that the lies are what TestWorkerThatLies finds.
func TestHonestLiar(t *testing.T) {
	w := newWorld(t)
	l := w.liar()
	g := w.proxy(settings{}, l.addr)
	for range 3 {
		r := g.post(chat(true, map[string]any{"max_tokens": 50}))
		if got := text(t, r); got != answer(3, true) || r.Trailer.Get("X-Cocoon-Cost") != "16" {
			t.Errorf("got %d %q", r.StatusCode, got)
		}
	}
	// The same receipt for two jobs is found by its index.
	first := l.cose[0]
	l.receipt = func(r *auditlog.Receipt) {
		old, err := auditlog.ParseReceipt(first)
		if err != nil {
			panic(err)
		}
		r.Index = old.Index
	}
	if body := text(t, g.post(chat(true, map[string]any{"max_tokens": 50}))); !strings.Contains(body, "worker_misbehaved") {
		t.Errorf("an index used twice: got %q", body)
	}
	if sha256.Sum256(g.receipts()[0].COSE) != sha256.Sum256(first) {
		t.Error("the first receipt was replaced")
	}
}
