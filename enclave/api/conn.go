package api

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"cocoon/attestation/channel"
)

// ConnState is a worker's view of one client connection, the same for all its
// calls. It is safe for concurrent use.
type ConnState struct {
	credentials.CommonAuthInfo
	ekm      [32]byte
	epoch    any
	attested atomic.Bool
	attests  atomic.Int32 // answered
	conn     *guestConn
}

// AuthType makes ConnState gRPC's AuthInfo.
func (*ConnState) AuthType() string { return "cocoon-tls" }

// EKM is the connection's exporter value (channel.EKM).
func (s *ConnState) EKM() [32]byte { return s.ekm }

// Attested reports whether Attest succeeded on the connection.
func (s *ConnState) Attested() bool { return s.attested.Load() }

// Know says that the peer has shown a channel's key on the connection, which is
// from now on not closed to make room for strangers.
func (s *ConnState) Know() {
	if s.conn != nil {
		s.conn.know()
	}
}

// Epoch is the Identity.Epoch that the connection's handshake was made with:
// the keyset that Attest must answer for, and that its jobs pin.
func (s *ConnState) Epoch() any { return s.epoch }

// StateFromContext returns the state of the connection that a handler's call came on.
func StateFromContext(ctx context.Context) (*ConnState, error) {
	p, ok := peer.FromContext(ctx)
	if ok {
		if s, ok := p.AuthInfo.(*ConnState); ok && s != nil {
			return s, nil
		}
	}
	return nil, Refuse(codes.Unauthenticated, "connection.tls", "the call did not come on an attestable connection")
}

// EKMFromContext returns the exporter value of the connection that a handler's
// call came on.
func EKMFromContext(ctx context.Context) ([32]byte, error) {
	s, err := StateFromContext(ctx)
	if err != nil {
		return [32]byte{}, err
	}
	return s.ekm, nil
}

// Identity is what a handshake is made with.
type Identity struct {
	TLS   *tls.Config // channel.ServerTLS of the keyset's certificate
	Epoch any         // the worker's own, for ConnState.Epoch
}

// serverCreds makes TLS connections with a ConnState. current is asked at each
// handshake, so that a new keyset means a new connection.
type serverCreds struct {
	current func() Identity
	held    *connections
}

var errOneEnd = errors.New("these credentials are of the other end")

func (c serverCreds) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	id := c.current()
	if id.TLS == nil {
		return nil, nil, errors.New("no keyset to serve with")
	}
	guest, err := c.held.enter(raw)
	if err != nil {
		return nil, nil, err
	}
	conn, info, err := credentials.NewTLS(id.TLS).ServerHandshake(guest)
	if err != nil {
		guest.Close()
		return nil, nil, err
	}
	ekm, err := channel.EKM(info.(credentials.TLSInfo).State)
	if err != nil {
		conn.Close()
		return nil, nil, err
	}
	s := &ConnState{
		CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity},
		ekm:            ekm,
		epoch:          id.Epoch,
		conn:           guest,
	}
	guest.alarm = time.AfterFunc(attestTimeout, func() {
		if !s.Attested() {
			raw.Close()
		}
	})
	return conn, s, nil
}

func (serverCreds) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errOneEnd
}

func (serverCreds) OverrideServerName(string) error { return errOneEnd }

func (serverCreds) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

func (c serverCreds) Clone() credentials.TransportCredentials { return c }

// heldConn is the client's one TLS connection, already made. closed is closed
// with it.
type heldConn struct {
	*tls.Conn
	once   sync.Once
	closed chan struct{}
}

func (c *heldConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// clientCreds hands gRPC the connection as it is.
type clientCreds struct{}

type clientInfo struct{ credentials.CommonAuthInfo }

func (clientInfo) AuthType() string { return "cocoon-tls" }

func (clientCreds) ClientHandshake(_ context.Context, _ string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	if _, ok := raw.(*heldConn); !ok {
		return nil, nil, errors.New("not a connection of Dial")
	}
	return raw, clientInfo{credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}}, nil
}

func (clientCreds) ServerHandshake(net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errOneEnd
}

func (clientCreds) OverrideServerName(string) error { return errOneEnd }

func (clientCreds) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

func (c clientCreds) Clone() credentials.TransportCredentials { return c }
