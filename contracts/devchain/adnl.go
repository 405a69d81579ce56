package devchain

import (
	"bytes"
	"context"
	"crypto/cipher"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/xssnick/tonutils-go/adnl"
	"github.com/xssnick/tonutils-go/adnl/keys"
	"github.com/xssnick/tonutils-go/liteclient"
	"github.com/xssnick/tonutils-go/tl"
)

// ADNL over TCP, server side (docs.ton.org, "ADNL TCP"). liteclient.Server is
// not used: it opens its own listener and cannot say which port it got.
const (
	handshakeTimeout = 10 * time.Second
	writeTimeout     = 7 * time.Second
	maxPacketBytes   = 1 << 20
	maxInFlight      = 64 // queries of one connection
)

// Server answers liteserver queries until it is closed.
type Server struct {
	chain  *Chain
	ln     net.Listener
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// Serve answers queries on ln, which it owns from now on.
func (c *Chain) Serve(ln net.Listener) *Server {
	s := &Server{chain: c, ln: ln}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.wg.Go(s.accept)
	return s
}

// Addr is where the server listens.
func (s *Server) Addr() net.Addr { return s.ln.Addr() }

// Close ends all connections and waits for their goroutines.
func (s *Server) Close() error {
	s.cancel()
	err := s.ln.Close()
	s.wg.Wait()
	return err
}

func (s *Server) accept() {
	for {
		conn, err := s.ln.Accept()
		if errors.Is(err, net.ErrClosed) || s.ctx.Err() != nil {
			return
		}
		if err != nil {
			continue
		}
		s.wg.Go(func() {
			ctx, cancel := context.WithCancel(s.ctx)
			defer context.AfterFunc(ctx, func() { conn.Close() })()
			defer conn.Close()
			defer cancel()
			// A broken or hostile connection ends alone; nobody is told.
			_ = s.serve(ctx, conn)
		})
	}
}

// session is one client's connection after its handshake.
type session struct {
	conn net.Conn
	in   cipher.Stream
	mu   sync.Mutex
	out  cipher.Stream
}

func (s *Server) serve(ctx context.Context, conn net.Conn) error {
	x, err := handshake(conn, s.chain.keys.liteserver)
	if err != nil {
		return err
	}
	if err := x.write(nil); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	slots := make(chan struct{}, maxInFlight)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for {
		packet, err := x.read()
		if err != nil {
			return err
		}
		msg, err := parseMessage(packet)
		if err != nil {
			return err
		}
		switch m := msg.(type) {
		case adnl.MessageQuery:
			slots <- struct{}{}
			wg.Go(func() {
				defer func() { <-slots }()
				if x.send(adnl.MessageAnswer{ID: m.ID, Data: s.chain.answer(ctx, m.Data)}) != nil {
					conn.Close()
				}
			})
		case liteclient.TCPPing:
			err = x.send(liteclient.TCPPong(m))
		case liteclient.TCPAuthenticate:
			err = x.send(liteclient.TCPAuthenticationNonce{Nonce: make([]byte, 32)})
		case liteclient.TCPAuthenticationComplete:
		default:
			err = fmt.Errorf("adnl: unexpected message %T", msg)
		}
		if err != nil {
			return err
		}
	}
}

// parseMessage reads one boxed TL object, and nothing after it.
func parseMessage(packet []byte) (msg any, err error) {
	defer recoverTo(&err)
	rest, err := tl.Parse(&msg, packet, true)
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("adnl: message: got %d bytes more", len(rest))
	}
	return msg, err
}

// handshake reads the client's 256 bytes: server key id, client key, checksum,
// then 160 bytes of session keys under the shared secret.
func handshake(conn net.Conn, key ed25519.PrivateKey) (*session, error) {
	var p [256]byte
	if err := conn.SetReadDeadline(time.Now().Add(handshakeTimeout)); err != nil {
		return nil, err
	}
	if _, err := io.ReadFull(conn, p[:]); err != nil {
		return nil, err
	}
	id, err := tl.Hash(keys.PublicKeyED25519{Key: key.Public().(ed25519.PublicKey)})
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(id, p[:32]) {
		return nil, errors.New("adnl: handshake names another server")
	}
	shared, err := keys.SharedKey(key, p[32:64])
	if err != nil {
		return nil, err
	}
	sum, session0 := p[64:96], p[96:]
	stream, err := keys.BuildSharedCipher(shared, sum)
	if err != nil {
		return nil, err
	}
	stream.XORKeyStream(session0, session0)
	if got := sha256.Sum256(session0); subtle.ConstantTimeCompare(got[:], sum) != 1 {
		return nil, errors.New("adnl: handshake checksum differs")
	}
	x := &session{conn: conn}
	if x.out, err = keys.NewCipherCtr(session0[:32], session0[64:80]); err != nil {
		return nil, err
	}
	if x.in, err = keys.NewCipherCtr(session0[32:64], session0[80:96]); err != nil {
		return nil, err
	}
	return x, conn.SetReadDeadline(time.Time{})
}

// read returns a packet's payload: u32 length ‖ 32-byte nonce ‖ payload ‖ SHA-256.
func (x *session) read() ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(x.conn, size[:]); err != nil {
		return nil, err
	}
	x.in.XORKeyStream(size[:], size[:])
	n := binary.LittleEndian.Uint32(size[:])
	if n < 64 || n > maxPacketBytes {
		return nil, fmt.Errorf("adnl: packet: got %d bytes, want 64 to %d", n, maxPacketBytes)
	}
	buf := make([]byte, n)
	if _, err := io.ReadFull(x.conn, buf); err != nil {
		return nil, err
	}
	x.in.XORKeyStream(buf, buf)
	body := buf[:n-32]
	if got := sha256.Sum256(body); !bytes.Equal(got[:], buf[n-32:]) {
		return nil, errors.New("adnl: packet checksum differs")
	}
	return body[32:], nil
}

func (x *session) send(msg tl.Serializable) error {
	b, err := tl.Serialize(msg, true)
	if err != nil {
		return err
	}
	return x.write(b)
}

func (x *session) write(payload []byte) error {
	buf := make([]byte, 36, 68+len(payload))
	binary.LittleEndian.PutUint32(buf, uint32(64+len(payload)))
	if _, err := rand.Read(buf[4:]); err != nil {
		return err
	}
	buf = append(buf, payload...)
	sum := sha256.Sum256(buf[4:])
	buf = append(buf, sum[:]...)
	x.mu.Lock()
	defer x.mu.Unlock()
	x.out.XORKeyStream(buf, buf)
	if err := x.conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	_, err := x.conn.Write(buf)
	return err
}
