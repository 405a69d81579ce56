package proxy

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"time"
)

// Limits of one connection. They bound a client that sends or reads nothing,
// and no answer.
const (
	headerTimeout  = 10 * time.Second
	requestTimeout = 2 * time.Minute // header and body
	idleTimeout    = 2 * time.Minute
	writeTimeout   = 30 * time.Second // for one part of an answer to be taken
	maxHeaderBytes = 64 << 10
)

// receiptTimeout is how long a job that nobody waits for may take to show its
// receipt. Later ones are fetched with the next connection.
const receiptTimeout = 15 * time.Second

// Serve answers until ctx ends, then lets open requests finish for at most
// Grace, cancels the rest, takes their receipts and returns nil. Nothing of it
// runs afterwards. The router and the ledger stay their owner's to close.
func Serve(ctx context.Context, c Config) error {
	if c.Listener != nil {
		defer c.Listener.Close()
	}
	if err := c.complete(); err != nil {
		return err
	}
	base, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	s := &server{cfg: c, token: sha256.Sum256([]byte(c.Token)), salt: c.Ledger.CacheSalt(c.Token)}
	srv := &http.Server{
		Handler:           s,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       requestTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		BaseContext:       func(net.Listener) context.Context { return base },
		ErrorLog:          log.New(io.Discard, "", 0), // its texts may quote what a client sent
	}
	l := c.Listener
	if c.TLS != nil {
		t := c.TLS.Clone()
		t.MinVersion = max(t.MinVersion, tls.VersionTLS12)
		t.NextProtos = []string{"http/1.1"}
		l = tls.NewListener(l, t)
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	select {
	case err := <-served:
		cancel()
		s.open.Wait()
		return fmt.Errorf("proxy: %w", err)
	case <-ctx.Done():
	}
	grace, stop := context.WithTimeout(context.WithoutCancel(ctx), c.Grace)
	defer stop()
	err := srv.Shutdown(grace)
	cancel() // what is still open is cancelled, and its receipt awaited
	s.open.Wait()
	if errors.Is(err, context.DeadlineExceeded) {
		err = srv.Close()
	}
	<-served
	return err
}

// server is one proxy.
type server struct {
	cfg   Config
	token [32]byte // SHA-256
	salt  [32]byte // client's part of cache salts
	open  sync.WaitGroup
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.open.Add(1)
	defer s.open.Done()
	q := &exchange{s: s, w: w, r: r, began: s.cfg.Now()}
	defer q.end()
	if err := q.identify(); err != nil {
		q.fail(err)
		return
	}
	if err := s.guard(r); err != nil {
		q.fail(err)
		return
	}
	q.dispatch()
}

// exchange is one HTTP request and its answer.
type exchange struct {
	s     *server
	w     http.ResponseWriter
	r     *http.Request
	id    string
	began time.Time

	status int
	note   []any // for the log
}

func (q *exchange) identify() error {
	var b [16]byte
	if _, err := io.ReadFull(q.s.cfg.Rand, b[:]); err != nil {
		return fmt.Errorf("request id: %w", err)
	}
	q.id = fmt.Sprintf("req_%x", b)
	h := q.w.Header()
	h.Set("X-Request-Id", q.id)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	return nil
}

// end logs the exchange. A panic's text may quote the prompt: it is dropped.
func (q *exchange) end() {
	panicked := recover() != nil
	q.s.cfg.Logger.Info("request", append([]any{"id", q.id, "status", q.status, "panic", panicked,
		"ms", q.s.cfg.Now().Sub(q.began).Milliseconds()}, q.note...)...)
	if panicked {
		panic(http.ErrAbortHandler)
	}
}
