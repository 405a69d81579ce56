package api

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/mem"

	"cocoon/attestation/channel"
)

// Conn is one TLS connection to a worker that nothing is known about yet:
// its owner calls Client.Attest, verifies, and opens a channel.Session with EKM
// and PeerSPKI. It dies with its TLS connection.
type Conn struct {
	EKM      [32]byte // of the TLS connection (channel.EKM)
	PeerSPKI [32]byte // SHA-256 of the key that the peer proved to hold
	Client   *Client

	cc   *grpc.ClientConn
	held *heldConn
}

// Dialer makes connections. Its zero value dials TCP directly and reads no
// proxy from the environment.
type Dialer struct {
	DialContext func(ctx context.Context, network, addr string) (net.Conn, error)
}

// Dial connects to addr ("host:port") directly.
func Dial(ctx context.Context, addr string) (*Conn, error) { return Dialer{}.Dial(ctx, addr) }

// Dial connects to addr ("host:port"): one TLS handshake, no retry. ctx bounds
// the connecting only.
func (d Dialer) Dial(ctx context.Context, addr string) (*Conn, error) {
	dial := d.DialContext
	if dial == nil {
		dial = (&net.Dialer{}).DialContext
	}
	raw, err := dial(ctx, "tcp", addr)
	if err != nil {
		return nil, unreachable(addr, err)
	}
	c, err := connect(ctx, raw, addr)
	if err != nil {
		raw.Close()
		return nil, unreachable(addr, err)
	}
	return c, nil
}

func unreachable(addr string, err error) error {
	return fmt.Errorf("worker %s: %w: %w", addr, &RefusalError{codes.Unavailable, "connection.dial", "not reached"}, err)
}

func connect(ctx context.Context, raw net.Conn, addr string) (*Conn, error) {
	tc := tls.Client(raw, channel.ClientTLS())
	if err := tc.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	c := &Conn{held: &heldConn{Conn: tc, closed: make(chan struct{})}}
	var err error
	if c.EKM, err = channel.EKM(tc.ConnectionState()); err != nil {
		return nil, err
	}
	if c.PeerSPKI, err = channel.SPKI(tc.ConnectionState()); err != nil {
		return nil, err
	}
	var used atomic.Bool
	once := func(context.Context, string) (net.Conn, error) {
		if used.Swap(true) {
			return nil, fmt.Errorf("the connection is gone: dial and attest again")
		}
		return c.held, nil
	}
	c.cc, err = grpc.NewClient("passthrough:///"+addr, append(DialOptions(), grpc.WithContextDialer(once))...)
	if err != nil {
		return nil, err
	}
	c.Client = NewClient(c.cc)
	if err := c.ready(ctx); err != nil {
		c.Close()
		return nil, err
	}
	go func() {
		<-c.held.closed
		c.cc.Close()
	}()
	return c, nil
}

// ready waits until the peer has spoken HTTP/2.
func (c *Conn) ready(ctx context.Context) error {
	c.cc.Connect()
	for {
		s := c.cc.GetState()
		switch s {
		case connectivity.Ready:
			return nil
		case connectivity.TransientFailure, connectivity.Shutdown:
			return fmt.Errorf("the peer does not speak HTTP/2")
		}
		if !c.cc.WaitForStateChange(ctx, s) {
			return ctx.Err()
		}
	}
}

// Done is closed when the connection is dead.
func (c *Conn) Done() <-chan struct{} { return c.held.closed }

// Close ends the connection and every call on it.
func (c *Conn) Close() error {
	err := c.cc.Close()
	c.held.Close()
	return err
}

// DialOptions are a client's options: no retries, no service config, no proxy,
// static windows, bounded messages. The credentials take no connection but one
// that Dial has made.
func DialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithTransportCredentials(clientCreds{}),
		grpc.WithDefaultCallOptions(
			grpc.ForceCodecV2(codec{mem.DefaultBufferPool()}),
			grpc.MaxCallRecvMsgSize(MaxResponseBytes),
			grpc.MaxCallSendMsgSize(MaxRequestBytes),
		),
		grpc.WithStaticStreamWindowSize(streamWindow),
		grpc.WithStaticConnWindowSize(connWindow),
		grpc.WithReadBufferSize(ioBuffer),
		grpc.WithWriteBufferSize(ioBuffer),
		grpc.WithMaxHeaderListSize(maxHeaderBytes),
		grpc.WithDisableRetry(),
		grpc.WithDisableServiceConfig(),
		grpc.WithDisableHealthCheck(),
		grpc.WithNoProxy(),
		grpc.WithIdleTimeout(0),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 10 * time.Second, PermitWithoutStream: true}),
	}
}
