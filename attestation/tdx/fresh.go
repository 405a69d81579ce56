package tdx

import (
	"fmt"
	"time"
)

// window is the time over which all that was used is valid.
type window struct{ from, until time.Time }

// piece is one thing with a validity of its own.
type piece struct {
	name        string
	from, until time.Time
	resigned    bool // Intel signs it anew often: the age limit applies
}

// pieces lists everything whose time matters: documents that Intel re-signs
// often have an age limit, the root's list and certificates their validity.
func pieces(c *collateral, l *crls, p *pck) []piece {
	ps := []piece{
		{"tcb info", c.tcb.IssueDate, c.tcb.NextUpdate, true},
		{"qe identity", c.qe.IssueDate, c.qe.NextUpdate, true},
		{"pck crl", l.pck.ThisUpdate, l.pck.NextUpdate, true},
		{"root ca crl", l.root.ThisUpdate, l.root.NextUpdate, false},
	}
	for _, x := range append(p.chain[:len(p.chain):len(p.chain)], c.signers...) {
		ps = append(ps, piece{"certificate " + x.Subject.CommonName, x.NotBefore, x.NotAfter, false})
	}
	return ps
}

// fresh joins the validity of all pieces, and returns an error for the first
// that is not valid at now. The window is of use with an error too.
func fresh(ps []piece, now time.Time, maxAge time.Duration) (window, error) {
	var w window
	var first error
	for _, p := range ps {
		until := p.until
		if p.resigned && p.from.Add(maxAge).Before(until) {
			until = p.from.Add(maxAge)
		}
		if p.from.After(w.from) {
			w.from = p.from
		}
		if w.until.IsZero() || until.Before(w.until) {
			w.until = until
		}
		if first != nil {
			continue
		}
		switch {
		case p.from.IsZero() || p.until.IsZero():
			first = fmt.Errorf("%s: has no validity", p.name)
		case now.Before(p.from):
			first = fmt.Errorf("%s: issued at %s, which is after %s", p.name, stamp(p.from), stamp(now))
		case now.After(p.until):
			first = fmt.Errorf("%s: expired at %s, before %s", p.name, stamp(p.until), stamp(now))
		case now.After(until):
			first = fmt.Errorf("%s: age: got %s at %s, want at most %s", p.name, now.Sub(p.from).Round(time.Second), stamp(now), maxAge)
		}
	}
	return w, first
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
