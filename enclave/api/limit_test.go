package api

import (
	"errors"
	"net"
	"testing"
)

// fakeConn knows whether it was closed.
type fakeConn struct {
	net.Conn
	closed bool
}

func (c *fakeConn) Close() error { c.closed = true; return nil }

func TestStrangersMakeRoomForOthers(t *testing.T) {
	c := &connections{max: 3}
	var raw []*fakeConn
	enter := func() (*guestConn, error) {
		raw = append(raw, &fakeConn{})
		return c.enter(raw[len(raw)-1])
	}
	var guests []*guestConn
	for range 3 {
		g, err := enter()
		if err != nil {
			t.Fatal(err)
		}
		guests = append(guests, g)
	}
	guests[0].know()
	guests[0].know()
	for i := range 5 { // a flood
		g, err := enter()
		if err != nil {
			t.Fatal(err)
		}
		guests = append(guests, g)
		if !raw[1+i].closed {
			t.Errorf("stranger %d did not make room", 1+i)
		}
	}
	if raw[0].closed {
		t.Errorf("a flood of strangers closed a known connection")
	}
	guests[1].know() // already gone
	for _, g := range guests[len(guests)-2:] {
		g.know()
	}
	if _, err := enter(); !errors.Is(err, errCrowded) {
		t.Errorf("among known ones: got %v, want %v", err, errCrowded)
	}
	for _, g := range guests { // twice, as gRPC may
		g.Close()
		g.Close()
	}
	if c.known != 0 || c.rest.Len() != 0 {
		t.Errorf("after all have closed: %d known and %d others are held", c.known, c.rest.Len())
	}
}
