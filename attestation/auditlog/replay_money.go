package auditlog

import (
	"bytes"
	"cmp"
	"fmt"
	"math"
	"math/bits"
	"slices"

	"github.com/transparency-dev/merkle/rfc6962"

	"cocoon/attestation"
)

// channel is what is known of one channel's money.
type channel struct {
	sums      Sums
	anchors   []*anchorState
	byHead    map[Hash][]*anchorState
	bases     map[Hash]bool // claimed by sections; true once a voucher with that head is known
	disclosed bool          // some section is of it
	partial   bool          // some section does not claim to be whole, or is not
	signer    bool          // its vouchers are shown by their signer
}

type anchorState struct {
	Anchor
	matched bool
}

func (r *replay) channel(a attestation.Address) *channel {
	c := r.channels[a]
	if c == nil {
		c = &channel{sums: Sums{Channel: a}, byHead: make(map[Hash][]*anchorState), bases: make(map[Hash]bool)}
		r.channels[a] = c
	}
	return c
}

func (c *channel) addAnchor(a Anchor) {
	s := &anchorState{Anchor: a}
	c.anchors = append(c.anchors, s)
	c.byHead[a.Head] = append(c.byHead[a.Head], s)
	c.sums.Vouchers = max(c.sums.Vouchers, a.Cumulative)
}

// watches reports whether anybody waits for a head of this channel.
func (c *channel) watches() bool { return len(c.byHead) > 0 || len(c.bases) > 0 }

// head compares a recomputed head with what was redeemed and what later boots
// counted as spent. covered is the size of the newest checkpoint that the
// receipts under it name; settled, the sum of their costs.
func (r *replay) head(l *logState, c *channel, head Hash, covered, settled uint64) {
	if _, ok := c.bases[head]; ok {
		c.bases[head] = true
	}
	for _, a := range c.byHead[head] {
		if a.matched {
			continue
		}
		a.matched = true
		l.covers = append(l.covers, cover{a.Time, covered})
		if settled > a.Cumulative {
			r.find(Finding{Name: "anchor.settled", Log: hexID(l.id), Channel: c.sums.Channel.String(), Subject: a.name(), Got: fmt.Sprintf("%d redeemed", a.Cumulative), Want: fmt.Sprintf("at least %d, which was settled", settled)})
		}
	}
}

func (a *anchorState) name() string {
	return fmt.Sprintf("redemption of %d at %d", a.Cumulative, a.Time.Unix())
}

// anchorsWithoutReceipts matches vouchers that were redeemed before any job of
// a boot was settled, whose channel then has no section in that log.
func (r *replay) anchorsWithoutReceipts() {
	empty := Hash(rfc6962.DefaultHasher.EmptyRoot())
	for _, c := range r.sorted() {
		bases := []Hash{{}}
		for _, a := range c.anchors {
			bases = append(bases, a.Head)
		}
		for b := range c.bases {
			bases = append(bases, b)
		}
		for _, a := range c.anchors {
			for _, l := range r.logs {
				for _, b := range bases {
					if !a.matched && Head(l.id, b, 0, empty) == a.Head {
						r.head(l, c, a.Head, 0, 0)
					}
				}
			}
		}
	}
}

func (r *replay) sorted() []*channel {
	var all []*channel
	for _, c := range r.channels {
		slices.SortStableFunc(c.anchors, func(a, b *anchorState) int {
			return cmp.Or(a.Time.Compare(b.Time), cmp.Compare(a.Cumulative, b.Cumulative), cmp.Compare(a.Paid, b.Paid), bytes.Compare(a.Head[:], b.Head[:]))
		})
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b *channel) int { return bytes.Compare(a.sums.Channel[:], b.sums.Channel[:]) })
	return all
}

// money closes each channel's account.
func (r *replay) money() {
	for _, c := range r.sorted() {
		s := &c.sums
		f := Finding{Channel: s.Channel.String()}
		s.Anchors = uint64(len(c.anchors))
		s.Whole = c.disclosed && !c.partial
		claimed := s.Whole
		for _, a := range c.anchors {
			s.Payouts = add(s.Payouts, a.Paid)
			if s.Payouts > a.Cumulative {
				f := f
				f.Name, f.Subject, f.Got, f.Want = "anchor.paid", a.name(), fmt.Sprintf("%d paid so far", s.Payouts), fmt.Sprintf("at most %d", a.Cumulative)
				r.find(f)
			}
			if a.matched {
				s.Matched++
				continue
			}
			s.Whole = false
			f := f
			f.Name, f.Subject, f.Got = "anchor.head", a.name(), hexID(a.Head)
			if claimed {
				f.Want = "a head of the receipts, which are said to be all there are"
				r.find(f)
			} else {
				f.Reason = "not a head of what was disclosed"
				r.skip(f)
			}
		}
		r.checkBases(c)
		if s.Payouts > s.Vouchers {
			f := f
			f.Name, f.Got, f.Want = "channel.payouts", fmt.Sprint(s.Payouts), fmt.Sprintf("at most %d", s.Vouchers)
			r.find(f)
		}
		if s.Settled > s.Vouchers {
			f := f
			f.Name, f.Got, f.Want = "channel.vouchers", fmt.Sprintf("%d settled", s.Settled), fmt.Sprintf("at most %d", s.Vouchers)
			switch {
			case !s.Whole:
				f.Reason = "the channel is not wholly disclosed"
				r.skip(f)
			case !c.signer:
				f.Reason = "the host's vouchers may lag, and the client shows none"
				r.skip(f)
			default:
				r.find(f)
			}
		}
		s.Unused = s.Vouchers - min(s.Vouchers, s.Settled)
		r.Channels = append(r.Channels, *s)
	}
}

func (r *replay) checkBases(c *channel) {
	var unknown []Hash
	for b, known := range c.bases {
		if !known && c.byHead[b] == nil {
			unknown = append(unknown, b)
		}
	}
	slices.SortFunc(unknown, func(a, b Hash) int { return bytes.Compare(a[:], b[:]) })
	for _, b := range unknown {
		c.sums.Whole = false
		r.skip(Finding{Name: "channel.base", Channel: c.sums.Channel.String(), Got: hexID(b), Reason: "the head of no voucher that can be recomputed from what was disclosed"})
	}
}

// add adds amounts and stops at the largest.
func add(a, b uint64) uint64 {
	sum, carry := bits.Add64(a, b, 0)
	if carry != 0 {
		return math.MaxUint64
	}
	return sum
}
