package refusals

import (
	"crypto/sha256"
	"errors"
	"strings"
	"testing"

	"cocoon/attestation"
	"cocoon/attestation/auditlog"
	"cocoon/attestation/channel"
	"cocoon/proxy/ledger"
	"cocoon/proxy/route"
	"cocoon/proxy/session"
)

// A worker whose receipt is not what was signed, sent and received is benched.
// Nothing of it is booked, and all it can redeem is the one grant it had.
func TestWorkerThatOvercharges(t *testing.T) {
	n := newNetwork(t)
	good := n.worker(t, setup{})
	priced := func(f func(*auditlog.Receipt)) func(*auditlog.Receipt) {
		return func(r *auditlog.Receipt) { f(r); r.Cost = cost(*r) }
	}
	for _, row := range []struct {
		name, check string
		edit        func(*auditlog.Receipt)
	}{
		{"a cost above counts times prices", "receipt.cost", func(r *auditlog.Receipt) { r.Cost++ }},
		{"a cost below counts times prices", "receipt.cost", func(r *auditlog.Receipt) { r.Cost-- }},
		{"more prompt tokens than the terms", "receipt.prompt", priced(func(r *auditlog.Receipt) { r.Usage.Prompt = promptCeiling + 1 })},
		{"more completion tokens than the terms", "receipt.completion", priced(func(r *auditlog.Receipt) { r.Usage.Completion = completionCeiling + 1 })},
		{"more completion tokens than were paid for", "", priced(func(r *auditlog.Receipt) { r.Usage.Prompt, r.Usage.Completion = promptCeiling, completionCeiling })},
		{"prices above the terms", "receipt.prices", priced(func(r *auditlog.Receipt) { r.Prices.Completion *= 2 })},
		{"another job's receipt", "receipt.job", func(r *auditlog.Receipt) { r.JobID[3] ^= 1 }},
		{"another channel's receipt", "receipt.channel", func(r *auditlog.Receipt) { r.Channel[9] ^= 1 }},
		{"another worker's receipt", "receipt.worker", func(r *auditlog.Receipt) { r.WorkerID[9] ^= 1 }},
		{"another log's receipt", "receipt.log", func(r *auditlog.Receipt) { r.LogID[9] ^= 1 }},
		{"another keyset's receipt", "receipt.keyset", func(r *auditlog.Receipt) { r.KeysetDigest[9] ^= 1 }},
		{"another model's receipt", "receipt.model", func(r *auditlog.Receipt) { r.Model.Name = "big" }},
		{"other weights' receipt", "receipt.model", func(r *auditlog.Receipt) { r.Model.WeightsRoot = weights(1) }},
		{"a commitment to another request", "receipt.request", func(r *auditlog.Receipt) { r.RequestCommitment[9] ^= 1 }},
		{"a commitment to another answer", "receipt.response", func(r *auditlog.Receipt) { r.ResponseCommitment[9] ^= 1 }},
		{"an unblinded commitment", "receipt.response", func(r *auditlog.Receipt) { r.ResponseCommitment = sha256.Sum256([]byte(plainAnswer)) }},
		{"an error that was not reported", "receipt.status", func(r *auditlog.Receipt) { r.Status = auditlog.StatusError }},
		{"a checkpoint by another key", "receipt.checkpoint", func(r *auditlog.Receipt) { r.Checkpoint = []byte("cocoon\n1\n\n") }},
	} {
		t.Run(row.name, func(t *testing.T) {
			bad := n.rogue(t)
			bad.play = func(j *rogueJob) error { return j.plain(row.edit) }
			m := n.market(t, bad, good)
			o := m.try(t)
			if row.check == "" {
				var books *ledger.BooksError
				if !errors.As(o.err, &books) {
					t.Errorf("got %v, want a *ledger.BooksError", o.err)
				}
			} else {
				m.misbehaved(t, o.err, row.check)
			}
			m.unpaid(t, opening)
		})
	}
	t.Run("a receipt that another key signed", func(t *testing.T) {
		bad := n.rogue(t)
		bad.signing = newKey(t)
		m := n.market(t, bad, good)
		m.misbehaved(t, m.try(t).err, "receipt.signature")
		m.unpaid(t, opening)
	})
	t.Run("a receipt that is none", func(t *testing.T) {
		bad := n.rogue(t)
		bad.play = func(j *rogueJob) error {
			must(t, j.send(j.hello()))
			return j.send(channel.Frame{Type: channel.FrameReceipt, Last: true, Data: []byte("paid, thanks")})
		}
		m := n.market(t, bad, good)
		m.misbehaved(t, m.try(t).err, "receipt.signature")
		m.unpaid(t, opening)
	})
	good.serves(t)
}

// misbehaved wants err to be a breach of that name.
func (m *market) misbehaved(t testing.TB, err error, name string) {
	t.Helper()
	var bad *session.MisbehaviourError
	if !errors.As(err, &bad) || bad.Name != name || !session.Misbehaves(err) {
		t.Errorf("got %v, want a worker that misbehaves by %s", err, name)
	}
}

// unpaid wants the hostile worker benched, none of its receipts booked, nothing
// signed beyond what was granted to one job, and no more to be redeemed.
func (m *market) unpaid(t testing.TB, granted uint64) {
	t.Helper()
	m.goesElsewhere(t, route.Benched)
	ch := m.badChannel(t)
	if got := m.moneyOf(t, ch); got.booked != 0 || got.signed != granted || got.paid != 0 {
		t.Errorf("money: got %+v, want %d signed and nothing booked", got, granted)
	}
	m.robs(t, ch, granted)
}

// Receipts of one log have their places, and the books are compared with every job.
func TestWorkerThatCooksItsBooks(t *testing.T) {
	n := newNetwork(t)
	good := n.worker(t, setup{})
	for _, row := range []struct {
		name, field string
		edit        func(*auditlog.Receipt)
	}{
		{"two receipts in one place", "receipt 0", func(r *auditlog.Receipt) { r.Index = 0 }},
	} {
		t.Run(row.name, func(t *testing.T) {
			bad := n.rogue(t)
			m := n.market(t, bad, good)
			if o := m.try(t); o.err != nil {
				t.Fatal(o.err)
			}
			bad.play = func(j *rogueJob) error { return j.plain(row.edit) }
			m.booksDiffer(t, m.try(t).err, row.field)
			m.booked(t, plainCost, plainCost+opening)
		})
	}
	t.Run("a receipt left out", func(t *testing.T) {
		bad := n.rogue(t)
		m := n.market(t, bad, good)
		bad.play = func(j *rogueJob) error { return j.plain(func(r *auditlog.Receipt) { r.Index = 1 }) }
		if o := m.try(t); o.err != nil { // it may have come before one that is on its way
			t.Fatal(o.err)
		}
		m.misbehaved(t, m.try(t).err, "receipts.withheld")
		m.booked(t, 0, opening)
	})
	for _, row := range []struct {
		name  string
		hello func(*channel.Hello)
		check func(*market, error)
	}{
		{"a settled cost that is not the receipts'", func(h *channel.Hello) { h.Settled += 1000 }, func(m *market, err error) { m.booksDiffer(t, err, "settled") }},
		{"a base voucher that was not there before", func(h *channel.Hello) { h.Base = h.Highest }, func(m *market, err error) { m.misbehaved(t, err, "hello.base") }},
		{"a voucher that nobody signed", func(h *channel.Hello) {
			h.Highest = append([]byte(nil), h.Highest...)
			h.Highest[44] ^= 1
		}, func(_ *market, err error) {
			if !errors.Is(err, ledger.ErrForeignVoucher) || !session.Misbehaves(err) {
				t.Errorf("got %v, want %v", err, ledger.ErrForeignVoucher)
			}
		}},
	} {
		t.Run("frame 0 with "+row.name, func(t *testing.T) {
			bad := n.rogue(t)
			m := n.market(t, bad, good)
			if o := m.try(t); o.err != nil {
				t.Fatal(o.err)
			}
			bad.hello = row.hello
			row.check(m, m.try(t).err)
			m.booked(t, plainCost, plainCost+opening)
		})
	}
	good.serves(t)
}

func (m *market) booksDiffer(t testing.TB, err error, field string) {
	t.Helper()
	var books *ledger.BooksError
	if !errors.As(err, &books) || !strings.Contains(books.Field, field) || !session.Misbehaves(err) {
		t.Errorf("got %v, want a *ledger.BooksError about %s", err, field)
	}
}

// booked wants the hostile worker benched, and just that much booked and signed.
func (m *market) booked(t testing.TB, booked, signed uint64) {
	t.Helper()
	m.goesElsewhere(t, route.Benched)
	ch := m.badChannel(t)
	if got := m.moneyOf(t, ch); got.booked != booked || got.signed != signed || got.paid != 0 {
		t.Errorf("money: got %+v, want %d booked and %d signed", got, booked, signed)
	}
	m.robs(t, ch, signed)
}

// An answer whose frames a hostile worker swaps, repeats or leaves out is no
// answer, whoever did it.
func TestWorkerThatSpoilsItsStream(t *testing.T) {
	n := newNetwork(t)
	good := n.worker(t, setup{})
	plain := func(j *rogueJob) [][]byte {
		return [][]byte{j.seal(j.hello()), j.seal(j.word("one ")), j.seal(j.word("two ")), j.seal(j.word("three ")), j.seal(j.receipt(nil))}
	}
	for _, row := range []struct {
		name, check string
		state       route.State
		order       func(f [][]byte) [][]byte
	}{
		{"a reordered stream", "answer.sequence", route.Benched, func(f [][]byte) [][]byte { f[1], f[2] = f[2], f[1]; return f }},
		{"a repeated frame", "answer.sequence", route.Benched, func(f [][]byte) [][]byte { f[2] = f[1]; return f }},
		{"a frame left out", "answer.sequence", route.Benched, func(f [][]byte) [][]byte { return append(f[:2:2], f[3:]...) }},
		{"a flipped bit", "answer.sequence", route.Benched, func(f [][]byte) [][]byte { f[2][4] ^= 1; return f }},
		{"a truncated stream", "answer.truncated", route.Ready, func(f [][]byte) [][]byte { return f[:4] }},
		{"a stream that ends at once", "answer.truncated", route.Ready, func(f [][]byte) [][]byte { return nil }},
	} {
		t.Run(row.name, func(t *testing.T) {
			bad := n.rogue(t)
			bad.play = func(j *rogueJob) error {
				for _, wire := range row.order(plain(j)) {
					if err := j.stream.Send(wire); err != nil {
						return nil
					}
				}
				return nil
			}
			m := n.market(t, bad, good)
			o := m.try(t)
			var broken *channel.BrokenError
			if !errors.As(o.err, &broken) || broken.Name != row.check || o.receipt != nil {
				t.Errorf("got %+v, %v, want it broken by %s", o.receipt, o.err, row.check)
			}
			m.goesElsewhere(t, row.state)
			ch := m.badChannel(t)
			if got := m.moneyOf(t, ch); got.booked != 0 || got.signed != opening || got.paid != 0 {
				t.Errorf("money: got %+v, want %d signed and nothing booked", got, opening)
			}
			m.robs(t, ch, opening)
		})
	}
	for _, row := range []struct {
		name, check string
		frames      func(j *rogueJob) []channel.Frame
	}{
		{"a token count that falls", "answer.tokens", func(j *rogueJob) []channel.Frame {
			f := []channel.Frame{j.hello(), j.word("one "), j.word("two ")}
			j.tokens = 0
			return append(f, j.word("three "))
		}},
		{"a token count above the ceiling", "answer.tokens", func(j *rogueJob) []channel.Frame {
			j.tokens = completionCeiling
			return []channel.Frame{j.hello(), j.word("one ")}
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			bad := n.rogue(t)
			bad.play = func(j *rogueJob) error {
				for _, f := range row.frames(j) {
					if err := j.send(f); err != nil {
						return nil
					}
				}
				<-j.stream.Context().Done()
				return nil
			}
			m := n.market(t, bad, good)
			m.misbehaved(t, m.try(t).err, row.check)
			m.unpaid(t, opening)
		})
	}
	good.serves(t)
}

// A worker that asks for window after window is paid no further than the terms.
func TestWorkerThatRacesAhead(t *testing.T) {
	n := newNetwork(t)
	good := n.worker(t, setup{})
	bad := n.rogue(t)
	bad.play = func(j *rogueJob) error {
		must(t, j.send(j.hello()))
		j.tokens = completionCeiling - 1
		must(t, j.send(j.word("all of them")))
		<-j.stream.Context().Done()
		return nil
	}
	m := n.market(t, bad, good)
	l, err := m.router.Pick(t.Context(), model, map[attestation.Address]bool{good.id: true})
	must(t, err)
	j, err := l.Start(t.Context(), request())
	must(t, err)
	if part, err := j.Next(); err != nil || string(part) != "all of them" {
		t.Fatalf("got %q, %v", part, err)
	}
	ch := m.badChannel(t)
	const total = promptCeiling + 2*completionCeiling
	bad.awaitVoucher(t, ch, total)
	j.Abort(errors.New("enough"))
	if o := drain(j); o.err == nil {
		t.Error("an aborted job ended well")
	}
	l.Release(nil)
	if got := m.moneyOf(t, ch); got.signed != total || got.booked != 0 {
		t.Errorf("money: got %+v, want %d signed, the total of the terms", got, total)
	}
	m.robs(t, ch, total)
	good.serves(t)
}
