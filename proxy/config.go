package proxy

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"time"

	"cocoon/proxy/ledger"
	"cocoon/proxy/route"
)

// Defaults of a Config's tuning.
const (
	DefaultMaxBodyBytes = 32 << 20
	DefaultMaxTokens    = 4096
	DefaultAttempts     = 3
	DefaultGrace        = 10 * time.Second
)

// leastToken is the shortest token taken, in bytes.
const leastToken = 16

// Config is what Serve needs. Router, Ledger, Token, Listener, Now, Rand and
// Logger are required; a missing one is an error, never a weaker check.
type Config struct {
	Listener net.Listener // taken over: Serve closes it
	Router   *route.Router
	Ledger   *ledger.Ledger
	Token    string      // of this installation; every request must carry it
	TLS      *tls.Config // required when Listener is not on loopback

	AllowedOrigins []string // of web pages that may call; no CORS header is ever sent
	AllowedHosts   []string // Host names besides loopback ones; only with TLS

	MaxSpendPerRequest uint64        // nano, all attempts together; 0 sets no cap
	MaxBodyBytes       int64         // 0 for DefaultMaxBodyBytes
	MaxTokens          uint64        // completion ceiling of a request that sets none; 0 for DefaultMaxTokens
	Attempts           int           // workers tried for one request; 0 for DefaultAttempts
	Grace              time.Duration // for open requests at shutdown; 0 for DefaultGrace

	Now    func() time.Time
	Rand   io.Reader
	Logger *slog.Logger // ids, counts and error names, never content
}

func (c *Config) complete() error {
	switch {
	case c.Listener == nil:
		return errors.New("proxy: listener: got none")
	case c.Router == nil || c.Ledger == nil:
		return errors.New("proxy: config: want router and ledger")
	case len(c.Token) < leastToken:
		return fmt.Errorf("proxy: token: got %d bytes, want at least %d", len(c.Token), leastToken)
	case c.Now == nil || c.Rand == nil || c.Logger == nil:
		return errors.New("proxy: config: want now, rand and logger")
	case len(c.AllowedHosts) > 0 && c.TLS == nil:
		return errors.New("proxy: allowed hosts: want TLS with them")
	}
	if c.TLS == nil && !isLoopback(c.Listener.Addr()) {
		return fmt.Errorf("proxy: listener: %s is not a loopback address: want TLS there", c.Listener.Addr())
	}
	if c.MaxBodyBytes <= 0 {
		c.MaxBodyBytes = DefaultMaxBodyBytes
	}
	if c.MaxTokens == 0 {
		c.MaxTokens = DefaultMaxTokens
	}
	if c.Attempts <= 0 {
		c.Attempts = DefaultAttempts
	}
	if c.Grace <= 0 {
		c.Grace = DefaultGrace
	}
	return nil
}

func isLoopback(a net.Addr) bool {
	if a.Network() == "unix" {
		return true
	}
	t, ok := a.(*net.TCPAddr)
	return ok && t.IP.IsLoopback()
}
