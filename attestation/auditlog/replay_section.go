package auditlog

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
)

// section is a (channel, log id) and everybody who shows its receipts.
type section struct {
	Section
	ch    *channel
	shown []shown
}

// shown is one discloser's view of a section.
type shown struct {
	by  Discloser
	sec Section
}

// cursor walks one section while its log's leaves go by.
type cursor struct {
	sec       *section
	chunks    chan *chunk // verified or about to be, in order
	unmatched int         // receipts read whose leaf has not come by
	next      uint64      // the index that comes next
	gap       bool        // receipts are missing: heads can no longer be recomputed
	tree      frontier
	covered   uint64 // size of the newest sound checkpoint that was named
}

// pendingReceipt waits for its leaf.
type pendingReceipt struct {
	cur    *cursor
	digest Hash
	index  uint64
	cost   uint64 // as settled: 0 if the receipt is not sound
	keyset *keysetState
	named  uint64 // size of the checkpoint it names
	ended  int64  // Unix milliseconds, by its own word
}

// sectionReplay matches one log's leaves with its sections.
type sectionReplay struct {
	*replay
	log     *logState
	cursors []*cursor
	pending map[Hash]*pendingReceipt
	window  int
	found   uint64
	newest  uint64 // size of the newest checkpoint that a receipt in the log names
}

// replaySections checks every receipt disclosed of a log.
func (r *replay) replaySections(l *logState, sections []*section) {
	s := &sectionReplay{replay: r, log: l, pending: make(map[Hash]*pendingReceipt)}
	share := max(r.ahead/max(len(sections), 1), 32)
	s.window = share / 2
	size := max(min(share/8, 256), 4)
	for _, sec := range sections {
		c := &cursor{sec: sec, chunks: make(chan *chunk, max(share/2/size, 1))}
		s.cursors = append(s.cursors, c)
		r.running.Go(func() { r.read(l, c, size) })
		s.head(c)
	}
	if len(sections) > 0 {
		s.match()
	}
	sum := &r.Logs[l.summary]
	sum.Found = s.found
	if sum.Found < sum.Receipts {
		r.skip(Finding{Name: "receipt.undisclosed", Log: hexID(l.id), Got: fmt.Sprintf("%d receipts", sum.Found), Want: fmt.Sprintf("%d, as many as leaves", sum.Receipts)})
	}
}

// match reads the leaves again. Receipts lie in the log in about the order of
// their indices, so a window per section finds them; what it misses is looked
// for in one more pass.
func (s *sectionReplay) match() {
	for _, c := range s.cursors {
		s.fill(c, s.window)
	}
	s.pass()
	more := len(s.pending) > 0
	for _, c := range s.cursors {
		before := c.unmatched
		s.fill(c, int(^uint(0)>>1))
		more = more || c.unmatched != before
	}
	if more {
		s.pass()
	}
	var left []*pendingReceipt
	for _, p := range s.pending {
		left = append(left, p)
	}
	slices.SortFunc(left, func(a, b *pendingReceipt) int {
		return cmp.Or(compareSections(a.cur.sec, b.cur.sec), cmp.Compare(a.index, b.index), bytes.Compare(a.digest[:], b.digest[:]))
	})
	for _, p := range left {
		s.unlogged(p)
	}
}

func (s *sectionReplay) pass() {
	err := readLeaves(s.ctx, s.src, s.log.cp, func(leaf uint64, raw []byte) error {
		e, err := ParseEntry(raw)
		if err != nil {
			return nil // reported when the log was read first
		}
		if re, ok := e.(ReceiptEntry); ok {
			if p := s.pending[re.Digest]; p != nil {
				delete(s.pending, re.Digest)
				s.logged(p, leaf)
			}
		}
		return nil
	})
	if err != nil {
		s.find(Finding{Name: "log.tree", Log: hexID(s.log.id), Reason: "read again: " + err.Error()})
	}
}

// logged takes note of the leaf of a receipt.
func (s *sectionReplay) logged(p *pendingReceipt, leaf uint64) {
	s.found++
	s.newest = max(s.newest, p.named)
	p.cur.unmatched--
	if k := p.keyset; k != nil && k.leaf > leaf {
		f := s.about(p.cur, p.index)
		f.Name, f.Got, f.Want = "receipt.keyset", fmt.Sprintf("keyset at leaf %d", k.leaf), fmt.Sprintf("before the receipt's leaf %d", leaf)
		s.void(p, f)
	}
	if k := p.keyset; k != nil && k.closed != 0 && k.closed < leaf {
		f := s.about(p.cur, p.index)
		f.Name, f.Got, f.Want = "receipt.void", fmt.Sprintf("leaf %d", leaf), fmt.Sprintf("before epoch %d closed at leaf %d", k.Epoch, k.closed)
		s.void(p, f)
	}
	if p.named > leaf {
		f := s.about(p.cur, p.index)
		f.Name, f.Got, f.Want = "receipt.checkpoint", fmt.Sprintf("size %d", p.named), fmt.Sprintf("at most %d, the receipt's own leaf", leaf)
		s.find(f)
	}
	if p.cur.unmatched < s.window {
		s.fill(p.cur, s.window)
	}
}

// void reports a receipt that counts for nothing.
func (s *sectionReplay) void(p *pendingReceipt, f Finding) {
	s.find(f)
	p.cur.sec.ch.sums.Settled -= p.cost
	p.cost = 0
}

// unlogged reports a receipt that the log does not hold.
func (s *sectionReplay) unlogged(p *pendingReceipt) {
	f := s.about(p.cur, p.index)
	f.Name, f.Reason = "receipt.leaf", fmt.Sprintf("digest %x is not in the log", p.digest)
	if s.cutOff(p) {
		f.Reason += ", which nothing shows to have gone on after it"
		s.skip(f)
		return
	}
	s.void(p, f)
}

// cutOff reports whether the log may have ended before a checkpoint could
// cover a receipt, as it does when its VM dies, or when it still runs. A
// receipt in the log names an earlier checkpoint than the last, so one that is
// cut off names none older than any of those do; and an epoch that was closed,
// or a keyset made a minute later, shows that the log went on.
func (s *sectionReplay) cutOff(p *pendingReceipt) bool {
	if p.keyset == nil || p.keyset.closed != 0 || p.named < s.newest {
		return false
	}
	for _, k := range s.log.keysets {
		if k.NotBefore*1000 > p.ended+60_000 {
			return false
		}
	}
	return true
}

func (s *sectionReplay) about(c *cursor, index uint64) Finding {
	return Finding{Log: hexID(s.log.id), Channel: c.sec.Channel.String(), Subject: fmt.Sprintf("receipt %d", index)}
}

// fill takes in receipts until so many wait for their leaves.
func (s *sectionReplay) fill(c *cursor, want int) {
	for c.unmatched < want {
		var ch *chunk
		var ok bool
		select {
		case ch, ok = <-c.chunks:
		case <-s.ctx.Done():
		}
		if !ok {
			return
		}
		if ch.err != nil {
			c.gap = true
			c.sec.ch.partial = true
			f := s.about(c, c.next)
			f.Name, f.Reason = "disclosure.read", ch.err.Error()
			s.find(f)
			continue
		}
		select {
		case <-ch.done:
		case <-s.ctx.Done():
			return
		}
		for i := range ch.out {
			s.take(c, &ch.out[i])
		}
	}
}

// take makes the checks that need the receipts before this one.
func (s *sectionReplay) take(c *cursor, r *checked) {
	ch := c.sec.ch
	ch.sums.Receipts++
	index := c.next
	if r.parsed {
		index = r.index
		s.index(c, r.index)
	}
	s.report(c, index, r)
	p := &pendingReceipt{cur: c, digest: r.digest, index: index, keyset: r.keyset, ended: r.finished}
	if r.named != nil {
		p.named = r.named.Size
		if s.agrees(c, index, r.named) {
			c.covered = max(c.covered, p.named)
		}
	}
	if len(r.faults) == 0 {
		if sum := add(ch.sums.Settled, r.cost); sum-ch.sums.Settled == r.cost {
			ch.sums.Settled, p.cost = sum, r.cost
		} else {
			f := s.about(c, index)
			f.Name, f.Got, f.Want = "receipt.cost", fmt.Sprint(r.cost), "a sum that fits 64 bits"
			s.find(f)
		}
	}
	if r.keyset != nil {
		r.keyset.receipts++
	}
	c.next = index + 1
	if !c.gap {
		c.tree.append(r.leafHash)
		s.head(c)
	}
	if s.pending[r.digest] != nil {
		f := s.about(c, index)
		f.Name, f.Reason = "receipt.duplicate", "the same receipt is disclosed twice"
		s.void(p, f)
		return
	}
	s.pending[r.digest] = p
	c.unmatched++
}

// report passes on what was found out about a receipt by itself.
func (s *sectionReplay) report(c *cursor, index uint64, r *checked) {
	if r.conflict {
		f := s.about(c, index)
		f.Name, f.Reason = "receipt.conflict", "disclosures show different receipts at this index"
		s.find(f)
	}
	for _, fault := range r.faults {
		f := s.about(c, index)
		f.Name, f.Got, f.Want, f.Reason = fault.Name, fault.Got, fault.Want, fault.Reason
		s.find(f)
	}
}

// agrees compares the checkpoint that a receipt names with the log. Receipts
// come by in the order of time, so most name the one that was asked about last.
func (s *sectionReplay) agrees(c *cursor, index uint64, n *named) bool {
	if root, ok := s.log.roots[n.Size]; ok && root == n.Root {
		return true
	}
	return s.checkpoint(s.log, n.Checkpoint, n.raw, s.about(c, index))
}

// index checks that indices count up from 0. Receipts that are left out are a
// fault only of a section that claims to be whole.
func (s *sectionReplay) index(c *cursor, index uint64) {
	if index == c.next {
		return
	}
	f := s.about(c, index)
	f.Name, f.Got, f.Want = "receipt.index", fmt.Sprint(index), fmt.Sprint(c.next)
	c.sec.ch.partial = true
	if index > c.next && !c.sec.Whole {
		f.Reason = "receipts before it were not disclosed"
		s.skip(f)
	} else {
		s.find(f)
	}
	c.gap = true
}

// head recomputes receipts_head at this count and asks whether anybody redeemed it.
func (s *sectionReplay) head(c *cursor) {
	if c.gap || !c.sec.ch.watches() {
		return
	}
	head := Head(s.log.id, c.sec.Base, c.tree.size, c.tree.root())
	s.replay.head(s.log, c.sec.ch, head, c.covered, c.sec.ch.sums.Settled)
}
