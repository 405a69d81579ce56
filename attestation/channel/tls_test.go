package channel

import (
	"crypto/tls"
	"errors"
	"net"
	"testing"
	"time"
)

// handshake runs both ends and returns their states.
func handshake(t *testing.T, server, client *tls.Config) (s, c tls.ConnectionState, err error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	b, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	a, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	srv, cl := tls.Server(a, server), tls.Client(b, client)
	done := make(chan error, 1)
	go func() {
		err := srv.Handshake()
		if err != nil {
			a.Close()
		}
		done <- err
	}()
	cerr := cl.Handshake()
	if cerr != nil {
		b.Close()
	}
	if serr := <-done; serr != nil || cerr != nil {
		return s, c, errors.Join(serr, cerr)
	}
	return srv.ConnectionState(), cl.ConnectionState(), nil
}

func certificate(t *testing.T) (tls.Certificate, [32]byte) {
	t.Helper()
	cert, spki, err := NewCertificate(time.Unix(1e9, 0), time.Unix(1e9+600, 0))
	if err != nil {
		t.Fatal(err)
	}
	return cert, spki
}

func TestBothEndsOfAConnectionAgree(t *testing.T) {
	cert, spki := certificate(t)
	s, c, err := handshake(t, ServerTLS(cert), ClientTLS())
	if err != nil {
		t.Fatal(err)
	}
	se, err := EKM(s)
	if err != nil {
		t.Fatal(err)
	}
	ce, err := EKM(c)
	if err != nil {
		t.Fatal(err)
	}
	if se != ce || se == [32]byte{} {
		t.Errorf("EKM: worker %x, client %x", se, ce)
	}
	if got, err := SPKI(c); err != nil || got != spki {
		t.Errorf("SPKI: got %x (%v), want %x", got, err, spki)
	}
	if s.DidResume || c.DidResume {
		t.Error("a session was resumed")
	}
	_, again, err := handshake(t, ServerTLS(cert), ClientTLS())
	if err != nil {
		t.Fatal(err)
	}
	if e, err := EKM(again); err != nil || e == ce {
		t.Errorf("another connection: EKM %x (%v), want one of its own", e, err)
	}
}

func TestWeakerHandshakesAreRefused(t *testing.T) {
	cert, _ := certificate(t)
	for _, tt := range []struct {
		name   string
		change func(server, client *tls.Config)
	}{
		{"client without the hybrid group", func(_, c *tls.Config) { c.CurvePreferences = []tls.CurveID{tls.X25519} }},
		{"server without the hybrid group", func(s, _ *tls.Config) { s.CurvePreferences = []tls.CurveID{tls.X25519} }},
		{"client of TLS 1.2", func(_, c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 }},
		{"server of TLS 1.2", func(s, _ *tls.Config) { s.MinVersion, s.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 }},
		{"client without h2", func(_, c *tls.Config) { c.NextProtos = nil }},
		{"client of another protocol", func(_, c *tls.Config) { c.NextProtos = []string{"http/1.1"} }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, c := ServerTLS(cert), ClientTLS()
			tt.change(s, c)
			if _, _, err := handshake(t, s, c); err == nil {
				t.Error("the handshake succeeded")
			}
		})
	}
	if _, err := EKM(tls.ConnectionState{}); err == nil {
		t.Error("EKM of no connection")
	}
	if _, err := SPKI(tls.ConnectionState{}); err == nil {
		t.Error("SPKI of no certificate")
	}
}
