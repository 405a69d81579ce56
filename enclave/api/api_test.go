package api_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"runtime"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"cocoon/attestation"
	"cocoon/attestation/channel"
	"cocoon/enclave/api"
)

// refused is the refusal that err is.
func refused(t *testing.T, err error) *api.RefusalError {
	t.Helper()
	var r *api.RefusalError
	if !errors.As(err, &r) {
		t.Fatalf("got error %v, want a *RefusalError", err)
	}
	return r
}

func TestJobFromEndToEnd(t *testing.T) {
	w := newWorker(t)
	c := connect(t, w)
	if c.v.Assurance() != attestation.AssuranceTest {
		t.Errorf("assurance: got %s, want test", c.v.Assurance())
	}
	for _, shape := range []channel.Shape{channel.ShapeOn, channel.ShapeOffUnpadded} {
		for _, size := range []int{1, 10_000, channel.MaxOpenBody} {
			first := bytes.Repeat([]byte("p"), size)
			more := bytes.Repeat([]byte("q"), 300)
			j, raw := c.job(t, c.params(shape, first, false))
			s, err := c.conn.Client.Run(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Send(raw); err != nil {
				t.Fatal(err)
			}
			wire, err := j.Seal(channel.Frame{Type: channel.FrameBody, Data: more, Last: true})
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Send(wire); err != nil {
				t.Fatal(err)
			}
			clear(wire) // Send has taken its copy
			got, err := receive(s, j)
			if err != nil {
				t.Fatalf("shape %s, %d bytes: %v", shape, size, err)
			}
			if !bytes.Equal(got, append(first, more...)) || !j.Done() {
				t.Errorf("shape %s, %d bytes: got %d bytes back, done %t", shape, size, len(got), j.Done())
			}
		}
	}
	q := &api.ReceiptsRequest{Channel: channelAddr, LogID: [32]byte{3}}
	copy(q.Signature[:], ed25519.Sign(w.client, channel.ReceiptsMessage(c.conn.EKM, q.Channel)))
	r, err := c.conn.Client.GetReceipts(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	if r.LogID != q.LogID || r.Settled != 7 || len(r.Receipts) != 2 || string(r.Highest) != "epoch 1" {
		t.Errorf("receipts: got %+v", r)
	}
	e, err := c.conn.Client.GetEvidence(t.Context(), &api.EvidenceRequest{Digest: w.bundle.Digest()})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(e.Bundle, w.bundle.Encode()) {
		t.Error("the bundle did not arrive")
	}
}

func TestNothingBeforeAttest(t *testing.T) {
	w := newWorker(t)
	conn := dial(t, w)
	calls := map[string]func() error{
		"GetReceipts": func() error { _, err := conn.Client.GetReceipts(t.Context(), &api.ReceiptsRequest{}); return err },
		"GetEvidence": func() error { _, err := conn.Client.GetEvidence(t.Context(), &api.EvidenceRequest{}); return err },
		"Run": func() error {
			s, err := conn.Client.Run(t.Context())
			if err != nil {
				return err
			}
			_, err = s.Recv()
			return err
		},
	}
	all := func(when string) {
		t.Helper()
		for name, call := range calls {
			if r := refused(t, call()); r.Name != "attest.first" || !r.AttestAgain() || r.Retryable() {
				t.Errorf("%s %s: got %v (%s), want attest.first", name, when, r, r.Code)
			}
		}
	}
	all("before Attest")
	_, err := conn.Client.Attest(t.Context(), &api.AttestRequest{})
	if r := refused(t, err); r.Name != "attest.nonce" || r.Code != codes.InvalidArgument {
		t.Errorf("Attest without a nonce: got %v", r)
	}
	all("after a failed Attest")
	connect(t, w) // another connection's success is its own
	all("after another connection's Attest")
	select {
	case err := <-w.ended:
		t.Errorf("a job reached the worker: %v", err)
	default:
	}
}

func TestSessionsAndJobsStayOnTheirConnection(t *testing.T) {
	w := newWorker(t)
	a, b := connect(t, w), connect(t, w)
	if a.conn.EKM == b.conn.EKM {
		t.Fatal("two connections have one EKM")
	}
	relayed := a.hand
	relayed.EKM = b.conn.EKM
	if _, err := channel.Open(a.v, relayed, start); err == nil {
		t.Error("a session signature opened a session on another connection")
	}
	send := func(c *client, raw []byte) error {
		s, err := c.conn.Client.Run(t.Context())
		if err != nil {
			return err
		}
		if err := s.Send(raw); err != nil {
			return err
		}
		for {
			if _, err := s.Recv(); err == io.EOF {
				return nil
			} else if err != nil {
				return err
			}
		}
	}
	_, raw := a.job(t, a.params(channel.ShapeOn, []byte("x"), true))
	if r := refused(t, send(b, raw)); r.Name != "open.signature" || r.Code != codes.PermissionDenied {
		t.Errorf("on another connection: got %v (%s)", r, r.Code)
	}
	if err := send(a, raw); err != nil {
		t.Errorf("on its own: %v", err)
	}
	if r := refused(t, send(a, raw)); r.Name != "open.replay" || r.Code != codes.AlreadyExists {
		t.Errorf("again: got %v (%s)", r, r.Code)
	}
	if r := refused(t, send(a, []byte("junk"))); r.Name != "open.parse" || r.Code != codes.InvalidArgument {
		t.Errorf("junk: got %v (%s)", r, r.Code)
	}
	if r := refused(t, send(a, make([]byte, api.MaxRequestBytes+1))); r.Code != codes.ResourceExhausted {
		t.Errorf("too long: got %v (%s)", r, r.Code)
	}
}

func TestExpiredEvidenceOpensNoJob(t *testing.T) {
	c := connect(t, newWorker(t))
	at := c.v.Expires()
	_, _, err := c.s.NewJob(at, c.params(channel.ShapeOn, []byte("x"), true))
	var r *channel.RefusedError
	if !errors.As(err, &r) || r.Name != "job.verified" || !errors.Is(err, attestation.ErrNotVerified) {
		t.Errorf("NewJob at expiry: got %v, want job.verified", err)
	}
	if _, err := channel.Open(c.v, c.hand, at); !errors.As(err, &r) || r.Name != "session.verified" {
		t.Errorf("Open at expiry: got %v, want session.verified", err)
	}
	if _, _, err := c.s.NewJob(at.Add(-time.Second), c.params(channel.ShapeOn, []byte("x"), true)); err != nil {
		t.Errorf("NewJob before expiry: %v", err)
	}
}

func TestADeadConnectionStaysDead(t *testing.T) {
	w := newWorker(t)
	c := connect(t, w)
	j, raw := c.job(t, c.params(channel.ShapeOffUnpadded, []byte("x"), false))
	s, err := c.conn.Client.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Send(raw); err != nil {
		t.Fatal(err)
	}
	wire, err := s.Recv()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := j.OpenAnswer(wire); err != nil {
		t.Fatal(err)
	}
	(<-w.conns).Close() // the network fails
	<-c.conn.Done()
	if _, err := receive(s, j); err == nil {
		t.Error("a broken answer passed for whole")
	}
	if err := j.End(); err == nil {
		t.Error("a truncated job ended well")
	}
	if err := <-w.ended; err == nil {
		t.Error("the worker saw no end")
	}
	for range 3 {
		_, err := c.conn.Client.Attest(t.Context(), &api.AttestRequest{Nonce: [32]byte{1}})
		if r := refused(t, err); !r.Retryable() && r.Code != codes.Canceled {
			t.Errorf("a call on the dead connection: got %v (%s)", r, r.Code)
		}
	}
	if n := w.accepts.Load(); n != 1 {
		t.Errorf("the client dialled %d times, want 1", n)
	}
}

func TestCancelReachesTheWorker(t *testing.T) {
	w := newWorker(t)
	c := connect(t, w)
	_, raw := c.job(t, c.params(channel.ShapeOffUnpadded, []byte("x"), false))
	ctx, cancel := context.WithCancel(t.Context())
	s, err := c.conn.Client.Run(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Send(raw); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Recv(); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-w.ended; err == nil {
		t.Error("the worker saw no cancel")
	}
	if _, err := c.conn.Client.GetEvidence(t.Context(), &api.EvidenceRequest{}); err != nil {
		t.Errorf("the connection after a cancelled job: %v", err)
	}
}

func TestErrorsTravelByName(t *testing.T) {
	w := newWorker(t)
	c := connect(t, w)
	for _, tt := range []struct {
		name string
		err  error
		want api.RefusalError
	}{
		{"refusal", api.Refuse(codes.Unavailable, "worker.draining", "going down"), api.RefusalError{codes.Unavailable, "worker.draining", "going down"}},
		{"the worker's own text stays there", errors.New("secret path /x"), api.RefusalError{codes.Internal, "internal", "the worker failed"}},
		{"full", &channel.RefusedError{Name: "open.full", Err: errors.New("9 jobs")}, api.RefusalError{codes.ResourceExhausted, "open.full", "9 jobs"}},
		{"another keyset", &channel.RefusedError{Name: "open.keyset"}, api.RefusalError{codes.FailedPrecondition, "open.keyset", "refused"}},
		{"broken", &channel.BrokenError{Name: "frames.sequence", Err: errors.New("lost")}, api.RefusalError{codes.Aborted, "frames.sequence", "lost"}},
		{"deadline", context.DeadlineExceeded, api.RefusalError{codes.DeadlineExceeded, "deadline", "the call took too long"}},
		{"terminal codes", api.Refuse(codes.Internal, "x", "a\x1b[31mb\nc"), api.RefusalError{codes.Internal, "x", "a?[31mb?c"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w.fail = tt.err
			_, err := c.conn.Client.GetEvidence(t.Context(), &api.EvidenceRequest{})
			if r := refused(t, err); *r != tt.want {
				t.Errorf("got %+v, want %+v", *r, tt.want)
			}
		})
	}
}

func TestDialRefusesOtherPeers(t *testing.T) {
	cert, _, err := channel.NewCertificate(start, start.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name  string
		serve func(net.Conn)
	}{
		{"plain text", func(c net.Conn) { io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n"); c.Close() }},
		{"closed at once", func(c net.Conn) { c.Close() }},
		{"TLS without HTTP/2", func(c net.Conn) {
			tc := tls.Server(c, channel.ServerTLS(cert))
			io.WriteString(tc, "hello, this is not a settings frame")
			tc.Close()
		}},
		{"TLS of a classical group", func(c net.Conn) {
			cfg := channel.ServerTLS(cert)
			cfg.CurvePreferences = []tls.CurveID{tls.X25519}
			tls.Server(c, cfg).Handshake()
			c.Close()
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			go func() {
				if c, err := l.Accept(); err == nil {
					tt.serve(c)
				}
			}()
			c, err := api.Dial(t.Context(), l.Addr().String())
			if err == nil {
				c.Close()
				t.Fatal("connected")
			}
			if r := refused(t, err); r.Name != "connection.dial" || !r.Retryable() {
				t.Errorf("got %v (%s)", r, r.Code)
			}
		})
	}
}

func TestDialEndsWithItsContext(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	d := api.Dialer{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		cancel()
		return c, err
	}}
	if _, err := d.Dial(ctx, l.Addr().String()); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
}

func TestAWorkerWithoutAKeysetTakesNobody(t *testing.T) {
	g := grpc.NewServer(api.ServerOptions(func() api.Identity { return api.Identity{} })...)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		g.Serve(l)
	}()
	defer func() { g.Stop(); <-served }()
	if _, err := api.Dial(t.Context(), l.Addr().String()); err == nil {
		t.Error("connected")
	}
	if _, err := api.EKMFromContext(t.Context()); err == nil {
		t.Error("an EKM of no connection")
	}
}

func TestNothingIsLeftOfAClosedConnection(t *testing.T) {
	w := newWorker(t)
	before := runtime.NumGoroutine()
	for range 3 {
		c := connect(t, w)
		j, raw := c.job(t, c.params(channel.ShapeOffUnpadded, []byte("x"), true))
		s, err := c.conn.Client.Run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Send(raw); err != nil {
			t.Fatal(err)
		}
		if _, err := receive(s, j); err != nil {
			t.Fatal(err)
		}
		c.conn.Close()
		<-c.conn.Done()
	}
	for deadline := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("got %d goroutines, want %d as before", runtime.NumGoroutine(), before)
		}
	}
}

// A bundle is large and costs its asker nothing.
func TestAConnectionAttestsSoOften(t *testing.T) {
	w := newWorker(t)
	c, err := api.Dial(t.Context(), w.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for n := range 100 {
		_, err = c.Client.Attest(t.Context(), &api.AttestRequest{Nonce: [32]byte{1}})
		if err != nil {
			if n < 16 {
				t.Errorf("refused after %d", n)
			}
			break
		}
	}
	var r *api.RefusalError
	if !errors.As(err, &r) || r.Name != "attest.again" || !r.AttestAgain() {
		t.Errorf("got %v, want attest.again", err)
	}
}
