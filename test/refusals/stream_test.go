package refusals

import (
	"errors"
	"io"
	"slices"
	"testing"
	"time"

	"cocoon/attestation/auditlog"
	"cocoon/attestation/channel"
	"cocoon/proxy/session"
)

// A sealed request opens one job, on the connection it was signed for.
func TestReplayedRequest(t *testing.T) {
	n := newNetwork(t)
	w := n.worker(t, setup{})
	for _, row := range []struct {
		name, check string
		send        func(t *testing.T, p *payer, open []byte) error
	}{
		{"a replayed sealed request", "open.replay", func(_ *testing.T, p *payer, open []byte) error { return p.sendRaw(open) }},
		{"a sealed request replayed on another connection", "open.signature", func(_ *testing.T, p *payer, open []byte) error { return p.reconnect().sendRaw(open) }},
		{"a sealed request replayed on another's connection", "open.signature", func(t *testing.T, _ *payer, open []byte) error { return w.payer(t, deposit).sendRaw(open) }},
		{"a sealed request with a flipped bit", "open.signature", func(_ *testing.T, p *payer, open []byte) error {
			_, again := p.seal(p.params(chat("x")))
			again[len(again)-200] ^= 1 // of the signature or of what it is over
			return p.sendRaw(again)
		}},
		{"a sealed request for another worker", "open.keyset", func(t *testing.T, p *payer, open []byte) error {
			q := *p
			q.w = n.worker(t, setup{})
			return q.reconnect().sendRaw(open)
		}},
		{"a sealed request signed by another channel's key", "open.signature", func(t *testing.T, p *payer, _ []byte) error {
			q := *p
			q.key = newKey(t)
			_, open := q.seal(p.params(chat("x")))
			return p.sendRaw(open)
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := w.payer(t, deposit)
			first := p.begin(p.params(chat("x")))
			first.finish()
			ran, before := w.engine.count(), p.purse()
			wantRefusal(t, row.send(t, p, first.open), row.check)
			if after := p.purse(); after != before {
				t.Errorf("money: got %+v, want %+v", after, before)
			}
			if got := w.engine.count(); got != ran {
				t.Error("the engine ran")
			}
		})
	}
	w.serves(t)
}

// What a client's frames lose, repeat or swap on their way ends the job, and
// bills what was produced.
func TestClientStream(t *testing.T) {
	n := newNetwork(t)
	w := n.worker(t, setup{})
	body := func(last bool, s string) channel.Frame {
		return channel.Frame{Type: channel.FrameBody, Last: last, Data: []byte(s)}
	}
	aborted := func(t *testing.T, p *payer, r auditlog.Receipt, cost uint64) {
		t.Helper()
		if r.Status != auditlog.StatusAborted || r.Cost != cost {
			t.Errorf("receipt: got %s costing %d, want it aborted at %d", r.Status, r.Cost, cost)
		}
		u := p.purse()
		if u.settled != cost || u.credited != opening || u.paid != 0 {
			t.Errorf("money: got %+v", u)
		}
	}
	for _, row := range []struct {
		name string
		send func(j *job)
	}{
		{"a reordered stream", func(j *job) {
			one, two := j.seal(body(false, "{")), j.seal(body(true, "}"))
			j.wire(two)
			j.wire(one)
		}},
		{"a repeated frame", func(j *job) {
			one := j.seal(body(false, "{"))
			j.wire(one)
			j.wire(one)
		}},
		{"a frame left out", func(j *job) {
			j.seal(body(false, "{"))
			j.wire(j.seal(body(true, "}")))
		}},
		{"a frame with a flipped bit", func(j *job) {
			one := j.seal(body(false, "{"))
			one[3] ^= 1
			j.wire(one)
		}},
		{"another job's frame", func(j *job) {
			other, _ := j.p.seal(j.p.params(nil))
			wire, err := other.Seal(body(true, "{}"))
			must(j.p.t, err)
			j.wire(wire)
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := w.payer(t, deposit)
			j := p.begin(p.params(nil))
			row.send(j)
			aborted(t, p, j.killed("frames.sequence"), 0)
		})
	}
	t.Run("a truncated stream", func(t *testing.T) {
		p := w.payer(t, deposit)
		j := p.begin(p.params(nil))
		j.frame(body(false, `{"model":`))
		must(t, j.stream.CloseSend())
		r := j.finish()
		if j.fault == nil || j.fault.Code != "frames.truncated" {
			t.Errorf("fault: got %v", j.fault)
		}
		aborted(t, p, r, 0)
	})
	t.Run("a flipped bit in a voucher's frame in mid-stream", func(t *testing.T) {
		p := w.payer(t, deposit)
		w.engine.script(hold("one ", "two "))
		j := p.begin(p.params(chat("x")))
		j.until(2)
		u := channel.VoucherUpdate{Voucher: p.raw(p.voucher(2 * opening)), LogID: p.logID}
		wire := j.seal(channel.Frame{Type: channel.FrameVoucher, Data: u.Encode()})
		wire[9] ^= 1
		j.wire(wire)
		aborted(t, p, j.killed("frames.sequence"), promptTokens+2*2)
	})
	w.serves(t)
}

// The same frames, in any other order than they were sent in, are no answer.
func TestAnswerFramesOfARealJob(t *testing.T) {
	n := newNetwork(t)
	w := n.worker(t, setup{})
	for _, row := range []struct {
		name, check string
		order       func(wires [][]byte) [][]byte
	}{
		{"a reordered stream", "answer.sequence", func(f [][]byte) [][]byte { f[2], f[3] = f[3], f[2]; return f }},
		{"a repeated frame", "answer.sequence", func(f [][]byte) [][]byte { return slices.Insert(f, 2, f[1]) }},
		{"a frame left out", "answer.sequence", func(f [][]byte) [][]byte { return slices.Delete(f, 1, 2) }},
		{"frame 0 twice", "answer.sequence", func(f [][]byte) [][]byte { return slices.Insert(f, 0, f[0]) }},
		{"an answer without its frame 0", "answer.size", func(f [][]byte) [][]byte { return f[1:] }},
		{"a flipped bit", "answer.sequence", func(f [][]byte) [][]byte { f[2][4] ^= 1; return f }},
		{"a truncated stream", "answer.truncated", func(f [][]byte) [][]byte { return f[:len(f)-1] }},
		{"an empty stream", "answer.truncated", func(f [][]byte) [][]byte { return nil }},
		{"a frame after the last", "answer.after-last", func(f [][]byte) [][]byte { return append(f, f[1]) }},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := w.payer(t, deposit)
			ran := p.begin(p.params(chat("x")))
			var wires [][]byte
			for {
				wire, err := ran.stream.Recv()
				if errors.Is(err, io.EOF) {
					break
				}
				must(t, err)
				wires = append(wires, slices.Clone(wire))
			}
			if len(wires) != 5 {
				t.Fatalf("got %d frames, want a hello, three tokens and a receipt", len(wires))
			}
			var err error
			for _, wire := range row.order(wires) {
				if _, err = ran.sealed.OpenAnswer(wire); err != nil {
					break
				}
			}
			if err == nil {
				err = ran.sealed.End()
			}
			var broken *channel.BrokenError
			if !errors.As(err, &broken) || broken.Name != row.check {
				t.Errorf("got %v, want it broken by %s", err, row.check)
			}
			if _, again := ran.sealed.OpenAnswer(wires[0]); again == nil {
				t.Error("a broken job opened another frame")
			}
		})
	}
	w.serves(t)
}

// Below TLS a relay can break a job, and no more: the answer ends in an error,
// and what was produced is billed once.
func TestBytesSpoiledOnTheWire(t *testing.T) {
	n := newNetwork(t)
	w := n.worker(t, setup{})
	flipLast := func(_, b []byte) []byte { b[len(b)-1] ^= 1; return b }
	for _, row := range []struct {
		name string
		do   func(r *wire)
	}{
		{"a bit flipped on the wire", func(r *wire) { r.spoil(nil, flipLast) }},
		{"bytes repeated on the wire", func(r *wire) { r.spoil(nil, func(last, b []byte) []byte { return append(slices.Clone(last), b...) }) }},
		{"bytes lost on the wire", func(r *wire) { r.spoil(nil, func(_, b []byte) []byte { return b[1:] }) }},
		{"a bit flipped on the way to the worker", func(r *wire) { r.spoil(flipLast, nil) }},
		{"a connection cut in mid-answer", func(r *wire) { r.cut() }},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := wireTo(t, w.addr)
			c := n.newClient(t)
			s := c.funded(t, r.addr, w.id)
			gate := make(chan struct{})
			w.engine.script(gated(gate, "one ", "two "))
			settled := w.events.count("job.ended")
			j, err := s.Start(t.Context(), request())
			must(t, err)
			part, err := j.Next()
			for got := string(part); err == nil && got != "one two "; got += string(part) {
				part, err = j.Next()
			}
			must(t, err)
			row.do(r)
			close(gate)
			j.Cancel() // so that something is sent the worker's way, too
			o := drain(j)
			if o.err == nil || o.receipt != nil {
				t.Errorf("got %+v, %v, want a broken answer", o.receipt, o.err)
			}
			w.events.await(t, "job.ended", settled+1)
			ch := c.channels(t)[0]
			m := c.moneyOf(t, ch)
			if m.signed != opening || m.booked != 0 || m.paid != 0 {
				t.Errorf("money: got %+v, want a voucher over %d and nothing booked", m, opening)
			}
			st := c.statement(t, w.addr, ch)
			if most := uint64(promptTokens + 2*3); st.settled > most || st.settled < promptTokens+2*2 || st.receipts != 1 {
				t.Errorf("the worker: got %+v, want one receipt over what was produced", st)
			}
			// On a new connection the client fetches the receipt, and goes on.
			again := c.funded(t, w.addr, w.id)
			if got := c.moneyOf(t, ch); got.booked != st.settled || got.signed != opening {
				t.Errorf("reconciled: got %+v, want %d booked", got, st.settled)
			}
			if o := run(t.Context(), again); o.err != nil || o.answer != plainAnswer {
				t.Errorf("an honest job afterwards: got %q, %v", o.answer, o.err)
			}
			if m := c.moneyOf(t, ch); m.booked != st.settled+plainCost || m.signed != st.settled+opening {
				t.Errorf("afterwards: got %+v", m)
			}
		})
	}
}

// A client that does not pay for the next window gets what it paid for, and a
// receipt over just that.
func TestClientStopsPaying(t *testing.T) {
	n := newNetwork(t)
	w := n.worker(t, setup{})
	t.Run("a client that stops paying in mid-stream", func(t *testing.T) {
		w.engine.script(many(completionCeiling))
		p := w.payer(t, deposit)
		j := p.begin(p.params(chat("x")))
		j.until(256)
		n.clock.await(t, 5*time.Second, 1)
		n.advance(5 * time.Second)
		r := j.finish()
		if r.Status != auditlog.StatusAborted || r.Cost != opening || r.Usage.Completion != 256 || j.fault == nil || j.fault.Code != "credit.timeout" {
			t.Errorf("got %s costing %d for %d tokens, fault %v", r.Status, r.Cost, r.Usage.Completion, j.fault)
		}
		if u := p.purse(); u.settled != opening || u.credited != opening || u.paid != 0 {
			t.Errorf("money: got %+v, want %d settled of as much", u, opening)
		}
	})
	t.Run("a client that pays one window and stops", func(t *testing.T) {
		w.engine.script(many(completionCeiling))
		p := w.payer(t, deposit)
		j := p.begin(p.params(chat("x")))
		j.until(200)
		j.pay(p.voucher(opening + 2*256))
		j.until(512)
		n.clock.await(t, 5*time.Second, 1)
		n.advance(5 * time.Second)
		r := j.finish()
		if want := uint64(opening + 2*256); r.Status != auditlog.StatusAborted || r.Cost != want || j.tokens != 512 || p.standing().settled != want {
			t.Errorf("got %s costing %d after %d tokens, want %d", r.Status, r.Cost, j.tokens, want)
		}
	})
	t.Run("a client that sends old vouchers only", func(t *testing.T) {
		w.engine.script(many(completionCeiling))
		p := w.payer(t, deposit)
		j := p.begin(p.params(chat("x")))
		j.until(256)
		n.clock.await(t, 5*time.Second, 1)
		j.pay(p.voucher(opening))
		j.pay(p.voucher(opening - 1))
		n.advance(5 * time.Second)
		if r := j.finish(); r.Status != auditlog.StatusAborted || r.Cost != opening || j.fault == nil || j.fault.Code != "credit.timeout" {
			t.Errorf("got %s costing %d, fault %v", r.Status, r.Cost, j.fault)
		}
	})
	w.serves(t)
}

// A job whose connection is gone says just that, whichever end noticed first:
// what is above may then take it to a new connection.
func TestConnectionThatDies(t *testing.T) {
	n := newNetwork(t)
	w := n.worker(t, setup{})
	c := n.newClient(t)
	s := c.funded(t, w.addr, w.id)
	w.engine.script(hold("one "))
	j, err := s.Start(t.Context(), request())
	must(t, err)
	_, err = j.Next()
	must(t, err)
	settled := w.events.count("job.ended")
	s.Close()
	if o := drain(j); !session.Unreached(o.err) || !session.ConnectAgain(o.err) || o.receipt != nil {
		t.Errorf("got %v, want a worker that was not reached", o.err)
	}
	w.events.await(t, "job.ended", settled+1)
	w.serves(t)
}
