package bench

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"testing"
	"time"
)

// path is one way to an engine. hops are what it costs.
type path struct {
	name  string
	url   string // of the completions route
	token string
	hops  []*process
}

type plainArgs struct {
	Next string // host:port
	CA   string // PEM of the next hop's certificate
	Key  string // of the own one
}

// plain starts the shape that the system is compared with.
func plain(tb testing.TB, engine *process) *path {
	tb.Helper()
	cert, key, err := selfSigned()
	if err != nil {
		tb.Fatal(err)
	}
	back := start(tb, "plain-back", plainArgs{Next: engine.addr, CA: cert, Key: key})
	front := start(tb, "plain-front", plainArgs{Next: back.addr, CA: cert})
	return &path{name: "plain", url: "http://" + front.addr + "/v1/chat/completions", hops: []*process{front, back}}
}

// reverse is the standard library's proxy with what it needs to be right and
// fast here: without full duplex it cuts answers short when the engine answers
// at once, and without idle connections it dials for each request.
func reverse(target *url.URL, transport *http.Transport) http.Handler {
	transport.MaxIdleConnsPerHost, transport.MaxIdleConns = 256, 256
	transport.IdleConnTimeout = time.Minute
	transport.DisableCompression = true
	p := &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport:     transport,
		FlushInterval: -1,
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := http.NewResponseController(w).EnableFullDuplex(); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		p.ServeHTTP(w, r)
	})
}

func serve(c *child, h http.Handler, conf *tls.Config) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	addr := l.Addr().String()
	if conf != nil {
		l = tls.NewListener(l, conf)
	}
	srv := &http.Server{Handler: h, ErrorLog: log.New(io.Discard, "", 0)}
	go func() { <-c.ctx.Done(); srv.Close() }()
	c.ready(addr)
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func plainBackRole(c *child) error {
	var a plainArgs
	if err := c.args(&a); err != nil {
		return err
	}
	cert, err := tls.X509KeyPair([]byte(a.CA), []byte(a.Key))
	if err != nil {
		return err
	}
	conf := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13, NextProtos: []string{"http/1.1"}}
	return serve(c, reverse(&url.URL{Scheme: "http", Host: a.Next}, &http.Transport{}), conf)
}

func plainFrontRole(c *child) error {
	var a plainArgs
	if err := c.args(&a); err != nil {
		return err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(a.CA)) {
		return errors.New("no certificate of the back hop")
	}
	conf := &tls.Config{RootCAs: pool, ServerName: "127.0.0.1", MinVersion: tls.VersionTLS13, NextProtos: []string{"http/1.1"}}
	return serve(c, reverse(&url.URL{Scheme: "https", Host: a.Next}, &http.Transport{TLSClientConfig: conf}), nil)
}

// selfSigned borrows httptest's certificate for 127.0.0.1.
func selfSigned() (cert, key string, err error) {
	s := httptest.NewTLSServer(http.NotFoundHandler())
	defer s.Close()
	c := s.TLS.Certificates[0]
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		return "", "", err
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), nil
}
