package refusals

import (
	"bytes"
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"cocoon/attestation"
	"cocoon/attestation/channel"
	"cocoon/enclave/api"
)

// relay ends TLS between a client and a worker, and passes Attest on as spoil
// leaves it. It counts what else it was sent, which must be nothing.
type relay struct {
	addr   string // its own
	worker string
	spoil  func(q *api.AttestRequest, r *api.AttestResponse) // nil passes all as it is
	got    atomic.Int64
}

// relayTo runs one until the test's end.
func relayTo(t testing.TB, n *network, worker string) *relay {
	t.Helper()
	r := &relay{worker: worker}
	cert, _, err := channel.NewCertificate(n.clock.Now(), n.clock.Now())
	must(t, err)
	r.addr = serveGRPC(t, api.Identity{TLS: channel.ServerTLS(cert), Epoch: r}, r)
	return r
}

// serveGRPC serves w until the test's end, and returns where.
func serveGRPC(t testing.TB, id api.Identity, w api.WorkerServer) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	g := grpc.NewServer(api.ServerOptions(func() api.Identity { return id })...)
	api.Register(g, w)
	done := make(chan error, 1)
	go func() { done <- g.Serve(ln) }()
	t.Cleanup(func() { g.Stop(); <-done })
	return ln.Addr().String()
}

func (r *relay) Attest(ctx context.Context, q *api.AttestRequest) (*api.AttestResponse, error) {
	conn, err := api.Dial(ctx, r.worker)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	a, err := conn.Client.Attest(ctx, q)
	if err == nil && r.spoil != nil {
		r.spoil(q, a)
	}
	return a, err
}

func (r *relay) Run(api.RunServer) error { r.got.Add(1); return errRelay }

func (r *relay) GetReceipts(context.Context, *api.ReceiptsRequest) (*api.ReceiptsResponse, error) {
	r.got.Add(1)
	return nil, errRelay
}

func (r *relay) GetEvidence(context.Context, *api.EvidenceRequest) (*api.EvidenceResponse, error) {
	r.got.Add(1)
	return nil, errRelay
}

var errRelay = api.Refuse(codes.Unavailable, "relay", "not passed on")

// edit makes a spoil of a change to the parsed bundle.
func edit(f func(*attestation.Bundle)) func(*api.AttestRequest, *api.AttestResponse) {
	return func(_ *api.AttestRequest, r *api.AttestResponse) {
		b := sure(attestation.ParseBundle(r.Bundle))
		f(b)
		r.Bundle = b.Encode()
	}
}

// wire is a relay of bytes, which cannot see into TLS.
type wire struct {
	addr string

	mu    sync.Mutex
	up    spoiler // of what the client sends; nil passes
	down  spoiler // of what the worker sends; nil passes
	conns []net.Conn
	group sync.WaitGroup
}

// spoiler makes something else of the bytes that came; last is what was passed
// on before them.
type spoiler = func(last, b []byte) []byte

// wireTo runs one until the test's end.
func wireTo(t testing.TB, worker string) *wire {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	w := &wire{addr: ln.Addr().String()}
	w.group.Go(func() {
		for {
			from, err := ln.Accept()
			if err != nil {
				return
			}
			to, err := net.Dial("tcp", worker)
			if err != nil {
				from.Close()
				continue
			}
			w.mu.Lock()
			w.conns = append(w.conns, from, to)
			w.mu.Unlock()
			w.group.Go(func() { w.pump(to, from, func() spoiler { return w.up }) })
			w.group.Go(func() { w.pump(from, to, func() spoiler { return w.down }) })
		}
	})
	t.Cleanup(func() {
		ln.Close()
		w.cut()
		w.group.Wait()
	})
	return w
}

func (w *wire) pump(to, from net.Conn, spoil func() spoiler) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 32<<10)
	var last []byte
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		b := buf[:n]
		w.mu.Lock()
		f := spoil()
		w.mu.Unlock()
		if f != nil {
			b = f(last, b)
		}
		last = bytes.Clone(b)
		if _, err := to.Write(b); err != nil {
			return
		}
	}
}

func (w *wire) spoil(up, down spoiler) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.up, w.down = up, down
}

// cut ends every connection.
func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.conns {
		c.Close()
	}
}

// sure is for what cannot fail, where a test cannot be failed either.
func sure[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
