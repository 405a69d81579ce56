package refusals

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"sync"
	"testing"
	"time"

	"cocoon/attestation"
	"cocoon/attestation/auditlog"
	"cocoon/attestation/channel"
	"cocoon/contracts"
	"cocoon/contracts/payout"
	"cocoon/contracts/view"
	"cocoon/enclave/api"
)

// rogue is a worker with a record and attested keys, which verifies like any
// other, and breaks the rules that a test wants broken. Left alone it keeps
// them. It is what a stolen signing key or a broken image could do.
type rogue struct {
	n       *network
	id      attestation.Address
	addr    string
	keys    *channel.EpochKeys
	logKey  ed25519.PrivateKey
	logID   [32]byte
	keyset  attestation.Keyset
	digest  [32]byte
	bundle  []byte
	seen    *channel.Replay
	signing crypto.Signer // of receipts; the attested key

	// What is broken; nil for nothing.
	attest    func(q *api.AttestRequest, ekm [32]byte, r *api.AttestResponse)
	hello     func(*channel.Hello)
	statement func(*api.ReceiptsResponse)
	play      func(*rogueJob) error // instead of a plain answer

	mu    sync.Mutex
	cond  *sync.Cond // a voucher came
	ran   int
	books map[attestation.Address]*rogueBook
}

// rogueBook is one channel's.
type rogueBook struct {
	receipts [][]byte
	settled  uint64
	highest  contracts.SignedVoucher
	raw      []byte // of highest
}

// rogue starts one.
func (n *network) rogue(t testing.TB) *rogue {
	t.Helper()
	w := &rogue{n: n, logKey: newKey(t), seen: channel.NewReplay(channel.DefaultReplayJobs), books: map[attestation.Address]*rogueBook{}}
	w.cond = sync.NewCond(&w.mu)
	m := n.publish(t, &w.id, setup{tee: attestation.TDX})
	var err error
	w.keys, err = channel.NewEpochKeys(rand.Reader)
	must(t, err)
	w.signing = w.keys
	w.logID = attestation.LogID([32]byte(public(w.logKey)))
	config := attestation.WorkerConfig{
		Version: attestation.ConfigVersion, WorkerID: w.id, PayoutAddress: n.host.Address(), Redeemer: n.host.Address(),
		Models: []attestation.Model{toyModel}, Prices: []attestation.ModelPrice{{Model: model, Min: prices}}, Engine: attestation.EngineGGUF,
	}
	seqno, root, proof, _, err := n.hostTON.Beacon(t.Context())
	must(t, err)
	now := n.clock.Now()
	cert, spki, err := channel.NewCertificate(now, now.Add(time.Hour))
	must(t, err)
	w.keyset = attestation.Keyset{
		Version: attestation.KeysetVersion, WorkerID: w.id, BootID: random[[32]byte](t), Epoch: 1,
		NotBefore: now.Unix(), NotAfter: now.Add(attestation.MaxEpoch).Unix(), Beacon: attestation.Beacon{Seqno: seqno, RootHash: root}, TLSSPKISHA256: spki,
		HPKEPublicKey: w.keys.HPKEPublicKey(), SigningPublicKey: w.keys.SigningPublicKey(), LogPublicKey: [32]byte(public(w.logKey)),
		PayoutAddress: n.host.Address(), Models: config.Models, ConfigDigest: config.Digest(), GPUEvidenceDigest: attestation.GPUEvidenceDigest(nil),
	}
	w.digest = w.keyset.Digest()
	b := attestation.Bundle{
		Version: attestation.BundleVersion, Keyset: w.keyset.Encode(), Config: config.Encode(), Release: n.release.Encode(), BeaconProof: proof, PolicyFloors: [][]byte{floor},
		ReleaseSignatures: []attestation.ReleaseSignature{attestation.SignRelease(n.tee.RebuilderKey(), n.release.Encode())},
	}
	b.CPU, err = m.Quote(t.Context(), attestation.ReportData(b.Keyset, b.Nonce))
	must(t, err)
	w.bundle = b.Encode()
	w.addr = serveGRPC(t, api.Identity{TLS: channel.ServerTLS(cert), Epoch: w}, w)
	return w
}

func (w *rogue) signSession(nonce, ekm [32]byte) [64]byte {
	return sure(w.keys.SignSession(nonce, ekm, w.digest))
}

// jobs is how many it was sent.
func (w *rogue) jobs() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.ran
}

func (w *rogue) book(a attestation.Address) *rogueBook {
	if w.books[a] == nil {
		w.books[a] = &rogueBook{}
	}
	return w.books[a]
}

// best is the highest voucher it was given for a channel.
func (w *rogue) best(a attestation.Address) contracts.SignedVoucher {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.book(a).highest
}

// take keeps a voucher if it is higher.
func (w *rogue) take(a attestation.Address, raw []byte) {
	var v contracts.SignedVoucher
	if v.UnmarshalBinary(raw) != nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if b := w.book(a); v.Voucher.Cumulative > b.highest.Voucher.Cumulative {
		b.highest, b.raw = v, append([]byte(nil), raw...)
		w.cond.Broadcast()
	}
}

// awaitVoucher waits until it holds one for so many nano.
func (w *rogue) awaitVoucher(t testing.TB, a attestation.Address, nano uint64) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	awaitOn(t, w.cond, "a voucher", func() bool { return w.book(a).highest.Voucher.Cumulative >= nano })
}

func (w *rogue) Attest(ctx context.Context, q *api.AttestRequest) (*api.AttestResponse, error) {
	ekm, err := api.EKMFromContext(ctx)
	if err != nil {
		return nil, err
	}
	r := &api.AttestResponse{Bundle: w.bundle, Signature: w.signSession(q.Nonce, ekm)}
	if w.attest != nil {
		w.attest(q, ekm, r)
	}
	return r, nil
}

func (w *rogue) GetEvidence(context.Context, *api.EvidenceRequest) (*api.EvidenceResponse, error) {
	return &api.EvidenceResponse{Bundle: w.bundle}, nil
}

func (w *rogue) GetReceipts(_ context.Context, q *api.ReceiptsRequest) (*api.ReceiptsResponse, error) {
	w.mu.Lock()
	b := *w.book(q.Channel)
	w.mu.Unlock()
	r := &api.ReceiptsResponse{LogID: w.logID, Highest: b.raw, Settled: b.settled, Count: uint64(len(b.receipts))}
	if q.From < uint64(len(b.receipts)) {
		r.Receipts = b.receipts[q.From:]
	}
	if w.statement != nil {
		w.statement(r)
	}
	return r, nil
}

func (w *rogue) Run(s api.RunServer) error {
	ekm, err := api.EKMFromContext(s.Context())
	if err != nil {
		return err
	}
	open, err := s.Recv()
	if err != nil {
		return err
	}
	sealed, err := w.keys.Accept(open, ekm, w.digest, func(a attestation.Address) (ed25519.PublicKey, error) {
		state, _, _, err := view.Channel(s.Context(), w.n.hostTON, a)
		return state.Init.ClientKey[:], err
	}, w.seen)
	if err != nil {
		return err
	}
	w.mu.Lock()
	w.ran++
	w.mu.Unlock()
	w.take(sealed.Channel(), sealed.Request().Voucher)
	j := &rogueJob{w: w, sealed: sealed, stream: s}
	go j.listen()
	if w.play != nil {
		return w.play(j)
	}
	return j.plain(nil)
}

// rogueJob is a job that a rogue runs.
type rogueJob struct {
	w      *rogue
	sealed *channel.ServerJob
	stream api.RunServer
	answer []byte
	tokens uint64
}

// listen takes vouchers until the client hangs up.
func (j *rogueJob) listen() {
	for {
		wire, err := j.stream.Recv()
		if err != nil {
			return
		}
		f, err := j.sealed.Open(wire)
		if err != nil {
			return
		}
		if u, err := channel.ParseVoucherUpdate(f.Data); f.Type == channel.FrameVoucher && err == nil {
			j.w.take(j.sealed.Channel(), u.Voucher)
		}
	}
}

// seal seals the next answer frame without sending it.
func (j *rogueJob) seal(f channel.Frame) []byte {
	return sure(j.sealed.Seal(f))
}

func (j *rogueJob) send(f channel.Frame) error { return j.stream.Send(j.seal(f)) }

// hello is frame 0, with the book as it stands.
func (j *rogueJob) hello() channel.Frame {
	j.w.mu.Lock()
	b := *j.w.book(j.sealed.Channel())
	j.w.mu.Unlock()
	h := channel.Hello{Highest: b.raw, Settled: b.settled, Count: uint64(len(b.receipts))}
	if j.w.hello != nil {
		j.w.hello(&h)
	}
	return channel.Frame{Type: channel.FrameHello, Data: h.Encode()}
}

// word is the next token.
func (j *rogueJob) word(s string) channel.Frame {
	j.tokens++
	j.answer = append(j.answer, s...)
	return channel.Frame{Type: channel.FrameData, Data: channel.AppendData(nil, uint32(j.tokens), []byte(s))}
}

// receipt is an honest one, but for what edit changes.
func (j *rogueJob) receipt(edit func(*auditlog.Receipt)) channel.Frame {
	j.w.mu.Lock()
	defer j.w.mu.Unlock()
	b := j.w.book(j.sealed.Channel())
	q, now := j.sealed.Request(), j.w.n.clock.Now().UnixMilli()
	r := auditlog.Receipt{
		Version: auditlog.ReceiptVersion, JobID: j.sealed.JobID(), Channel: j.sealed.Channel(), WorkerID: j.w.id, LogID: j.w.logID,
		Index: uint64(len(b.receipts)), KeysetDigest: j.w.digest, Model: toyModel,
		RequestCommitment: auditlog.Commit(q.BlindKey, q.Body), ResponseCommitment: auditlog.Commit(q.BlindKey, j.answer),
		Usage: attestation.Usage{Prompt: promptTokens, Completion: j.tokens}, Prices: j.sealed.Terms().Prices,
		Started: now, Finished: now, FinishReason: "stop", Status: auditlog.StatusOK,
	}
	r.Cost = cost(r)
	if edit != nil {
		edit(&r)
	}
	cose := sure(auditlog.SignReceipt(j.w.signing, r))
	b.receipts, b.settled = append(b.receipts, cose), b.settled+r.Cost
	return channel.Frame{Type: channel.FrameReceipt, Last: true, Data: cose}
}

// cost is counts times prices.
func cost(r auditlog.Receipt) uint64 {
	return sure(payout.Cost(r.Usage, r.Prices))
}

// plain answers like a real worker, with a receipt that edit may change.
func (j *rogueJob) plain(edit func(*auditlog.Receipt)) error {
	frames := []channel.Frame{j.hello(), j.word("one "), j.word("two "), j.word("three ")}
	var err error
	for _, f := range append(frames, j.receipt(edit)) {
		err = errors.Join(err, j.send(f))
	}
	return err
}
