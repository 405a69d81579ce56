package auditlog

import (
	"bytes"
	"cmp"
	"iter"
	"slices"
)

// read feeds a section's receipts to the goroutines that verify, in chunks.
func (r *replay) read(l *logState, c *cursor, size int) {
	defer close(c.chunks)
	ch := &chunk{log: l, sec: c.sec, done: make(chan struct{})}
	send := func() bool {
		if len(ch.in) == 0 {
			return true
		}
		select {
		case r.jobs <- ch:
		case <-r.ctx.Done():
			return false
		}
		return r.hand(c, ch)
	}
	for it, err := range c.sec.merged(r) {
		if err != nil {
			if send() {
				r.hand(c, &chunk{err: err})
			}
			return
		}
		if ch.in = append(ch.in, it); len(ch.in) == size {
			if !send() {
				return
			}
			ch = &chunk{log: l, sec: c.sec, done: make(chan struct{})}
		}
	}
	send()
}

func (r *replay) hand(c *cursor, ch *chunk) bool {
	select {
	case c.chunks <- ch:
		return true
	case <-r.ctx.Done():
		return false
	}
}

// merged yields a section's receipts in the order of their indices, from
// everybody who shows it.
func (s *section) merged(r *replay) iter.Seq2[item, error] {
	return func(yield func(item, error) bool) {
		if len(s.shown) == 1 {
			for d, err := range s.shown[0].by.Receipts(r.ctx, s.shown[0].sec) {
				if !yield(item{cose: d.COSE}, err) || err != nil {
					return
				}
			}
			return
		}
		var views []*view
		for _, o := range s.shown {
			next, stop := iter.Pull2(o.by.Receipts(r.ctx, o.sec))
			defer stop()
			views = append(views, &view{pull: next})
		}
		for {
			var err error
			if views, err = advance(views); err != nil {
				yield(item{}, err)
				return
			}
			if len(views) == 0 {
				return
			}
			first := slices.MinFunc(views, func(a, b *view) int { return cmp.Compare(a.index, b.index) })
			it := item{cose: first.cose}
			for _, v := range views {
				if v.index == first.index {
					it.conflict = it.conflict || !bytes.Equal(v.cose, it.cose)
					v.full = false
				}
			}
			if !yield(it, nil) {
				return
			}
		}
	}
}

// view is one discloser's next receipt.
type view struct {
	pull  func() (Disclosed, error, bool)
	full  bool
	cose  []byte
	index uint64 // by its own word, or following the one before
}

// advance fills every view and drops those that came to their end.
func advance(views []*view) ([]*view, error) {
	var rest []*view
	for _, v := range views {
		if !v.full {
			d, err, ok := v.pull()
			if err != nil {
				return nil, err
			}
			if !ok {
				continue
			}
			if r, err := ParseReceipt(d.COSE); err == nil {
				v.index = r.Index
			} else if v.cose != nil {
				v.index++
			}
			v.cose, v.full = d.COSE, true
		}
		rest = append(rest, v)
	}
	return rest, nil
}
