package proxy_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"cocoon/proxy"
)

// TestLocalRules is DESIGN section 8.6: what a web page, a rebound name or
// another user could send.
func TestLocalRules(t *testing.T) {
	w := newWorld(t)
	k := w.worker(0)
	g := w.proxy(settings{proxy: func(c *proxy.Config) {
		c.AllowedOrigins = []string{"https://chat.example"}
		c.MaxBodyBytes = 4096
	}}, k.addr)
	header := func(k, v string) func(*http.Request) { return func(r *http.Request) { r.Header.Set(k, v) } }
	host := func(h string) func(*http.Request) { return func(r *http.Request) { r.Host = h } }
	good := chat(false, nil)
	for name, c := range map[string]struct {
		method, path string
		body         []byte
		edit         func(*http.Request)
		status       int
		code         string // empty: an answer
	}{
		"as an SDK does":           {"POST", "/v1/chat/completions", good, nil, 200, ""},
		"token as Anthropic's SDK": {"POST", "/v1/chat/completions", good, func(r *http.Request) { r.Header.Del("Authorization"); r.Header.Set("X-Api-Key", token) }, 200, ""},
		"charset":                  {"POST", "/v1/chat/completions", good, header("Content-Type", "application/json; charset=utf-8"), 200, ""},
		"localhost":                {"POST", "/v1/chat/completions", good, host("localhost:8787"), 200, ""},
		"127.0.0.2":                {"POST", "/v1/chat/completions", good, host("127.0.0.2"), 200, ""},
		"IPv6":                     {"POST", "/v1/chat/completions", good, host("[::1]:8787"), 200, ""},
		"an allowed origin":        {"POST", "/v1/chat/completions", good, header("Origin", "https://chat.example"), 200, ""},
		"no token":                 {"POST", "/v1/chat/completions", good, func(r *http.Request) { r.Header.Del("Authorization") }, 401, "invalid_api_key"},
		"an empty token":           {"POST", "/v1/chat/completions", good, header("Authorization", "Bearer "), 401, "invalid_api_key"},
		"a wrong token":            {"POST", "/v1/chat/completions", good, header("Authorization", "Bearer "+token+"x"), 401, "invalid_api_key"},
		"another scheme":           {"POST", "/v1/chat/completions", good, header("Authorization", "Basic "+token), 401, "invalid_api_key"},
		"health without a token":   {"GET", "/healthz", nil, func(r *http.Request) { r.Header.Del("Authorization") }, 401, "invalid_api_key"},
		"evidence without a token": {"GET", "/v1/attestation", nil, func(r *http.Request) { r.Header.Del("Authorization") }, 401, "invalid_api_key"},
		"unknown path, no token":   {"GET", "/secret", nil, func(r *http.Request) { r.Header.Del("Authorization") }, 401, "invalid_api_key"},
		"a rebound name":           {"POST", "/v1/chat/completions", good, host("evil.example:8787"), 403, "host_not_allowed"},
		"a name that begins well":  {"POST", "/v1/chat/completions", good, host("localhost.evil.example"), 403, "host_not_allowed"},
		"an address that does":     {"POST", "/v1/chat/completions", good, host("127.0.0.1.evil.example"), 403, "host_not_allowed"},
		"a LAN address":            {"POST", "/v1/chat/completions", good, host("192.168.0.7:8787"), 403, "host_not_allowed"},
		"any address":              {"POST", "/v1/chat/completions", good, host("0.0.0.0:8787"), 403, "host_not_allowed"},
		"a mapped address":         {"POST", "/v1/chat/completions", good, host("[::ffff:127.0.0.1]:8787"), 403, "host_not_allowed"},
		"a foreign origin":         {"POST", "/v1/chat/completions", good, header("Origin", "https://evil.example"), 403, "origin_not_allowed"},
		"no origin in particular":  {"POST", "/v1/chat/completions", good, header("Origin", "null"), 403, "origin_not_allowed"},
		"our own origin":           {"GET", "/v1/models", nil, header("Origin", "http://127.0.0.1:8787"), 403, "origin_not_allowed"},
		"a preflight":              {"OPTIONS", "/v1/chat/completions", nil, header("Origin", "https://evil.example"), 403, "origin_not_allowed"},
		"an allowed preflight":     {"OPTIONS", "/v1/chat/completions", nil, header("Origin", "https://chat.example"), 405, "method_not_allowed"},
		"a form":                   {"POST", "/v1/chat/completions", good, header("Content-Type", "application/x-www-form-urlencoded"), 415, "unsupported_media_type"},
		"plain text":               {"POST", "/v1/chat/completions", good, header("Content-Type", "text/plain"), 415, "unsupported_media_type"},
		"no content type":          {"POST", "/v1/chat/completions", good, func(r *http.Request) { r.Header.Del("Content-Type") }, 415, "unsupported_media_type"},
		"a long body":              {"POST", "/v1/chat/completions", bytes.Repeat([]byte(" "), 4097), nil, 413, "request_too_large"},
		"a long body in chunks":    {"POST", "/v1/chat/completions", bytes.Repeat([]byte(" "), 4097), func(r *http.Request) { r.ContentLength = -1 }, 413, "request_too_large"},
		"broken JSON":              {"POST", "/v1/chat/completions", []byte(`{"model":`), nil, 400, "invalid_json"},
		"a list":                   {"POST", "/v1/chat/completions", []byte(`[1]`), nil, 400, "invalid_json"},
		"two documents":            {"POST", "/v1/chat/completions", []byte(`{} {}`), nil, 400, "invalid_json"},
		"an empty body":            {"POST", "/v1/chat/completions", nil, nil, 400, "invalid_json"},
		"no model":                 {"POST", "/v1/chat/completions", []byte(`{"messages":[]}`), nil, 400, "missing_required_parameter"},
		"a model nobody has":       {"POST", "/v1/chat/completions", []byte(`{"model":"gpt-9","messages":[]}`), nil, 404, "model_not_found"},
		"a model that cannot be":   {"POST", "/v1/chat/completions", []byte(`{"model":"a b\n","messages":[]}`), nil, 404, "model_not_found"},
		"a negative ceiling":       {"POST", "/v1/chat/completions", chat(false, map[string]any{"max_tokens": -1}), nil, 400, "invalid_value"},
		"no choices":               {"POST", "/v1/chat/completions", chat(false, map[string]any{"n": 0}), nil, 400, "invalid_value"},
		"the wrong method":         {"GET", "/v1/chat/completions", nil, nil, 405, "method_not_allowed"},
		"deleting models":          {"DELETE", "/v1/models", nil, nil, 405, "method_not_allowed"},
		"an unknown path":          {"GET", "/v1/nothing", nil, nil, 404, "unknown_url"},
		"another API":              {"POST", "/v1/embeddings", good, nil, 404, "unknown_url"},
		"a receipt that is no id":  {"GET", "/v1/receipts/../../etc", nil, nil, 404, "unknown_url"},
	} {
		t.Run(name, func(t *testing.T) {
			sub := &gateway{w: &world{t: t}, url: g.url, http: g.http}
			r := sub.request(context.Background(), c.method, c.path, c.body, c.edit)
			if c.code != "" {
				wantFailure(t, r, c.status, c.code)
				return
			}
			if body := text(t, r); r.StatusCode != c.status || body != answer(3, false) {
				t.Errorf("got %d %s", r.StatusCode, body)
			}
			for k := range r.Header {
				if strings.HasPrefix(k, "Access-Control-") {
					t.Errorf("a CORS header: %s", k)
				}
			}
		})
	}
}

func TestConfigIsRefusedRatherThanWeakened(t *testing.T) {
	w := newWorld(t)
	k := w.worker(0)
	g := w.proxy(settings{}, k.addr)
	for name, spoil := range map[string]func(*proxy.Config){
		"no token":               func(c *proxy.Config) { c.Token = "" },
		"a short token":          func(c *proxy.Config) { c.Token = "short" },
		"no listener":            func(c *proxy.Config) { c.Listener.Close(); c.Listener = nil },
		"no router":              func(c *proxy.Config) { c.Router = nil },
		"no clock":               func(c *proxy.Config) { c.Now = nil },
		"hosts without TLS":      func(c *proxy.Config) { c.AllowedHosts = []string{"box.lan"} },
		"a LAN port without TLS": func(c *proxy.Config) { c.Listener = lan{c.Listener} },
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		c := proxy.Config{Listener: l, Router: g.router, Ledger: g.ledger, Token: token, Now: time.Now, Rand: rand.Reader, Logger: slog.New(slog.DiscardHandler)}
		spoil(&c)
		if err := proxy.Serve(t.Context(), c); err == nil {
			t.Errorf("%s: it served", name)
		}
	}
}

// lan is a listener that says it is on every interface.
type lan struct{ net.Listener }

func (lan) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4zero, Port: 1} }

func TestTLS(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "box"}, DNSNames: []string{"box.lan"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool.AddCert(leaf)
	w := newWorld(t)
	k := w.worker(0)
	g := w.proxy(settings{proxy: func(c *proxy.Config) {
		c.Listener = lan{c.Listener}
		c.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
		c.AllowedHosts = []string{"box.lan"}
	}}, k.addr)
	g.url = strings.Replace(g.url, "http:", "https:", 1)
	g.http.Transport.(*http.Transport).TLSClientConfig = &tls.Config{RootCAs: pool, ServerName: "box.lan"}
	r := g.request(t.Context(), "POST", "/v1/chat/completions", chat(true, nil), func(r *http.Request) { r.Host = "box.lan:8787" })
	if got := text(t, r); got != answer(3, true) {
		t.Errorf("got %d %q", r.StatusCode, got)
	}
	wantFailure(t, g.request(t.Context(), "GET", "/healthz", nil, func(r *http.Request) { r.Host = "other.lan" }), 403, "host_not_allowed")
}

// TestClientThatSaysNothingMore leaves bodies and connections half open.
func TestClientThatSaysNothingMore(t *testing.T) {
	w := soloWorld(t)
	k := w.worker(0)
	g := w.proxy(settings{proxy: func(c *proxy.Config) { c.Grace = time.Millisecond }}, k.addr)
	addr := strings.TrimPrefix(g.url, "http://")
	head := "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + token + "\r\nContent-Type: application/json\r\n"
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	// The body ends early: the client closes its side.
	if _, err := io.WriteString(c, head+"Content-Length: 100\r\n\r\n{\"model\":"); err != nil {
		t.Fatal(err)
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(c)
	if err != nil || !strings.Contains(string(b), "400") || !strings.Contains(string(b), "body_unreadable") {
		t.Errorf("half a body: got %q, %v", b, err)
	}
	// One sends half a header, and stays: it does not keep the proxy from ending.
	d, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if _, err := io.WriteString(d, "POST /v1/chat"); err != nil {
		t.Fatal(err)
	}
	if err := g.stop(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all goroutines to end", func() bool { return running("cocoon/proxy.", "net/http.(*conn)") == "" })
}

// TestStreamIsNotHeldBack reads each token before the next is made.
func TestStreamIsNotHeldBack(t *testing.T) {
	w := newWorld(t)
	k := w.worker(0)
	read := make(chan struct{})
	k.engine.script(say(20, func(_ context.Context, i int) error {
		if i > 0 {
			<-read
		}
		return nil
	}))
	g := w.proxy(settings{}, k.addr)
	r := g.post(chat(true, nil))
	buf := make([]byte, 0, 64<<10)
	part := make([]byte, 4096)
	for i := range 20 {
		for !strings.Contains(string(buf), event(word(i))) {
			n, err := r.Body.Read(part)
			buf = append(buf, part[:n]...)
			if err != nil && n == 0 {
				t.Fatalf("after %d tokens: %v", i, err)
			}
		}
		if i < 19 {
			read <- struct{}{}
		}
	}
}
