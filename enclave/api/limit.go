package api

import (
	"container/list"
	"errors"
	"net"
	"sync"
	"time"
)

// Bounds on connections.
const (
	maxConnections = 1024             // at once, those in their handshake included
	attestTimeout  = 30 * time.Second // from the first byte to a successful Attest
	maxAttests     = 32               // answered on one connection: each carries a bundle
)

var errCrowded = errors.New("no room for another connection")

// connections bounds what strangers can make a server hold. When it is full,
// whoever came first of those who have not shown a channel's key makes room:
// a flood of strangers drives out strangers, and no client who pays.
type connections struct {
	max int

	mu    sync.Mutex
	known int
	rest  list.List // *guestConn that are not known, oldest first
}

// guestConn is one connection that the server took.
type guestConn struct {
	net.Conn
	c     *connections
	alarm *time.Timer

	// Guarded by c.mu.
	place  *list.Element // nil once known or gone
	known  bool
	closed bool
}

// enter takes a connection in.
func (c *connections) enter(raw net.Conn) (*guestConn, error) {
	g := &guestConn{Conn: raw, c: c}
	c.mu.Lock()
	var out *guestConn
	if c.known+c.rest.Len() >= c.max {
		first := c.rest.Front()
		if first == nil {
			c.mu.Unlock()
			return nil, errCrowded
		}
		out = first.Value.(*guestConn)
		out.forget()
	}
	g.place = c.rest.PushBack(g)
	c.mu.Unlock()
	if out != nil {
		out.Conn.Close()
	}
	return g, nil
}

// forget is called with c.mu held.
func (g *guestConn) forget() {
	switch {
	case g.known && !g.closed:
		g.c.known--
	case g.place != nil:
		g.c.rest.Remove(g.place)
		g.place = nil
	}
	g.closed = true
}

// know keeps the connection from having to make room.
func (g *guestConn) know() {
	g.c.mu.Lock()
	defer g.c.mu.Unlock()
	if g.place == nil {
		return
	}
	g.c.rest.Remove(g.place)
	g.place = nil
	g.known = true
	g.c.known++
}

// Close closes the connection and gives its place back.
func (g *guestConn) Close() error {
	g.c.mu.Lock()
	g.forget()
	g.c.mu.Unlock()
	if g.alarm != nil {
		g.alarm.Stop()
	}
	return g.Conn.Close()
}
