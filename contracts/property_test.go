package contracts_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/xssnick/tonutils-go/tvm/cell"

	"cocoon/attestation"
	"cocoon/contracts"
)

// model is what DESIGN section 5 says of a channel, without its cells: which messages it accepts, and what they
// do to paid, close at and closed.
type model struct {
	state contracts.ChannelState
}

func (m *model) topUp() bool { return !m.state.Closed && m.state.CloseAt == 0 }

func (m *model) redeem(from attestation.Address, cumulative, available uint64) bool {
	s := &m.state
	if s.Closed || (from != payee && from != redeemer) || cumulative <= s.Paid || available == 0 {
		return false
	}
	s.Paid += min(cumulative-s.Paid, available)
	return true
}

func (m *model) startClose(from attestation.Address, now uint32) bool {
	if m.state.Closed || from != client || m.state.CloseAt != 0 {
		return false
	}
	m.state.CloseAt = now + contracts.CloseDelay
	return true
}

func (m *model) finishClose(now uint32) bool {
	if m.state.Closed || m.state.CloseAt == 0 || now < m.state.CloseAt {
		return false
	}
	m.state.Closed = true
	return true
}

func (m *model) release(from attestation.Address) bool {
	if m.state.Closed || from != payee {
		return false
	}
	m.state.Closed = true
	return true
}

// Random operations from random senders at random times: the contract does what the model does, and the sums
// hold after each.
func TestChannelProperties(t *testing.T) {
	const sequences, length = 150, 40
	ended := map[bool]int{}
	for seed := range uint64(sequences) {
		rnd := rand.New(rand.NewPCG(seed, 5))
		c := openChannel(t, 50_000_000+rnd.Uint64N(coin))
		_, balance := c.parse()
		m := model{state: contracts.ChannelState{Init: c.init}}
		people := []attestation.Address{client, payee, redeemer, stranger}
		var (
			trace         []string
			in, out, fees = balance, uint64(0), uint64(0)
			highest       uint64 // the largest voucher presented
		)
		for range length {
			c.now += []uint32{1, 3600, 12 * 3600, 40 * 3600}[rnd.IntN(4)]
			from := people[rnd.IntN(len(people))]
			value := uint64(contracts.RedeemFee) * (1 + rnd.Uint64N(30))
			before, balance := c.parse()
			var body *cell.Cell
			var want bool
			op := rnd.IntN(12)
			switch {
			case op < 5:
				cumulative := before.Paid + rnd.Uint64N(coin/4)
				if rnd.IntN(4) == 0 {
					cumulative = rnd.Uint64N(before.Paid + 2)
				}
				highest = max(highest, cumulative)
				body = must(contracts.RedeemBody(c.voucher(cumulative)))
				// Rent falls due before the contract runs; near an empty channel the model cannot know its nano.
				if a := before.Available(balance); a > 0 && a < 2*rentBound {
					continue
				}
				want = m.redeem(from, cumulative, before.Available(balance))
			case op < 8:
				body, want = contracts.TopUpBody(), m.topUp()
			case op < 10:
				body, want = contracts.StartCloseBody(), m.startClose(from, c.now)
			case op < 11:
				body, want = contracts.FinishCloseBody(), m.finishClose(c.now)
			default:
				if rnd.IntN(4) != 0 {
					continue
				}
				body, want = contracts.ReleaseBody(), m.release(from)
			}
			trace = append(trace, fmt.Sprintf("at %d from %s value %d op %d", c.now, from, value, op))
			o := c.send(from, value, body)
			after, left := c.parse()
			in, fees = in+value, fees+o.fees
			for _, v := range o.toward {
				out += v
			}
			out += o.bounce

			fail := func(format string, args ...any) {
				t.Helper()
				t.Fatalf("seed %d: %s\n%s", seed, fmt.Sprintf(format, args...), strings.Join(trace, "\n"))
			}
			if o.acted != want {
				fail("acted: got %t, want %t (exit %d)", o.acted, want, o.exit)
			}
			if after.CloseAt != m.state.CloseAt || after.Closed != m.state.Closed {
				fail("state: got %+v, want %+v", after, m.state)
			}
			// The amount of a redeem that empties the channel depends on the rent.
			if after.Paid > m.state.Paid || after.Paid+rentBound < m.state.Paid || after.Paid < before.Paid {
				fail("paid: got %d, want %d", after.Paid, m.state.Paid)
			}
			m.state.Paid = after.Paid
			if after.Paid > highest {
				fail("paid: got %d, above every voucher (%d)", after.Paid, highest)
			}
			if after.Paid > in {
				fail("paid: got %d of %d deposited", after.Paid, in)
			}
			if before.Closed && (len(o.toward) != 0 || len(o.logs) != 0 || after.Paid != before.Paid) {
				fail("a closed channel paid %v", o.toward)
			}
			if out+left > in {
				fail("more came out than went in: out %d, balance %d, in %d", out, left, in)
			}
			if out+fees+left+uint64(length)*rentBound < in {
				fail("money vanished: out %d, fees %d, balance %d, in %d", out, fees, left, in)
			}
			if left+uint64(length)*rentBound < contracts.Reserve || (o.acted && after.Paid > before.Paid && left < contracts.Reserve) {
				fail("balance: got %d, below the reserve %d", left, contracts.Reserve)
			}
			if after.Closed && !before.Closed && left != contracts.Reserve {
				fail("closed with %d, want the reserve %d", left, contracts.Reserve)
			}
		}
		ended[m.state.Closed]++
	}
	if ended[true] < sequences/10 || ended[false] < sequences/10 {
		t.Errorf("sequences that ended closed and open: got %v, want many of each", ended)
	}
}
