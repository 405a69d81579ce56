package contracts_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/xssnick/tonutils-go/tlb"
	"github.com/xssnick/tonutils-go/tvm/cell"

	"cocoon/attestation"
	"cocoon/contracts"
)

func (c *channel) startClose() {
	c.t.Helper()
	if o := c.send(client, contracts.CloseFee, contracts.StartCloseBody()); !o.acted || len(o.toward) != 0 {
		c.t.Fatalf("start close: exit %d, payments %v", o.exit, o.toward)
	}
	if s, _ := c.parse(); s.CloseAt != c.now+c.init.CloseDelay || s.Closed {
		c.t.Fatalf("start close: got %+v, want close at %d", s, c.now+c.init.CloseDelay)
	}
}

// mustClose sends what must close the channel, and wants everything above the reserve with the client.
func (c *channel) mustClose(from attestation.Address, value uint64, body *cell.Cell) {
	c.t.Helper()
	before, balance := c.parse()
	o := c.send(from, value, body)
	after, left := c.parse()
	if !o.acted {
		c.t.Fatalf("close: exit %d", o.exit)
	}
	want := before
	want.Closed = true
	if diff := cmp.Diff(want, after); diff != "" {
		c.t.Errorf("state: %s", diff)
	}
	if left != contracts.Reserve {
		c.t.Errorf("balance: got %d, want the reserve %d", left, contracts.Reserve)
	}
	whole := balance + value - contracts.Reserve
	if got := o.toward[client]; len(o.toward) != 1 || got > whole || got+contracts.CloseFee+rentBound < whole {
		c.t.Errorf("payments: got %v, want the client to get about %d", o.toward, whole)
	}
}

func TestCloseAfterTheWindow(t *testing.T) {
	c := openChannel(t, coin)
	c.mustRedeem(payee, c.voucher(100_000_000), 100_000_000)
	c.mustReject(errEarly, client, contracts.CloseFee, contracts.FinishCloseBody())
	for _, from := range []attestation.Address{payee, redeemer, workerID, stranger, attestation.NewAddress(-1, client.ID())} {
		c.mustReject(errSender, from, coin/10, contracts.StartCloseBody())
	}
	c.startClose()
	s, _ := c.parse()

	// Neither a second start nor a deposit moves the window.
	c.now += 3600
	c.mustReject(errClosing, client, contracts.CloseFee, contracts.StartCloseBody())
	c.mustReject(errClosing, client, coin, contracts.TopUpBody())
	c.mustReject(errClosing, stranger, coin, cell.BeginCell().EndCell())

	// The worker's vouchers are good to the end of the window, and beyond it until someone finishes.
	c.mustRedeem(redeemer, c.voucher(200_000_000), 100_000_000)
	c.now = s.CloseAt - 1
	c.mustReject(errEarly, client, contracts.CloseFee, contracts.FinishCloseBody())
	c.mustRedeem(redeemer, c.voucher(300_000_000), 100_000_000)
	c.now = s.CloseAt
	c.mustRedeem(redeemer, c.voucher(400_000_000), 100_000_000)
	c.mustClose(stranger, contracts.CloseFee, contracts.FinishCloseBody())
}

func TestFinishCloseWithoutStart(t *testing.T) {
	c := openChannel(t, coin)
	c.now += year
	c.mustReject(errEarly, stranger, contracts.CloseFee, contracts.FinishCloseBody())
}

func TestRelease(t *testing.T) {
	t.Run("at any time", func(t *testing.T) {
		c := openChannel(t, coin)
		for _, from := range []attestation.Address{client, redeemer, workerID, stranger} {
			c.mustReject(errSender, from, contracts.CloseFee, contracts.ReleaseBody())
		}
		c.mustClose(payee, contracts.CloseFee, contracts.ReleaseBody())
	})
	t.Run("within the window", func(t *testing.T) {
		c := openChannel(t, coin)
		c.startClose()
		c.mustRedeem(payee, c.voucher(1000), 1000)
		c.mustClose(payee, contracts.CloseFee, contracts.ReleaseBody())
	})
	t.Run("of an empty channel", func(t *testing.T) {
		c := openChannel(t, 100_000_000)
		_, balance := c.parse()
		c.mustRedeem(payee, c.voucher(coin), balance-contracts.Reserve)
		c.mustClose(payee, contracts.CloseFee, contracts.ReleaseBody())
	})
}

func TestBodiesAreExact(t *testing.T) {
	for name, body := range map[string]*cell.Cell{
		"top up": contracts.TopUpBody(), "start close": contracts.StartCloseBody(),
		"finish close": contracts.FinishCloseBody(), "release": contracts.ReleaseBody(),
	} {
		for _, over := range []*cell.Cell{
			body.ToBuilder().MustStoreUInt(0, 1).EndCell(),
			body.ToBuilder().MustStoreRef(cell.BeginCell().EndCell()).EndCell(),
		} {
			c := openChannel(t, coin)
			from := client
			if name == "release" {
				from = payee
			}
			if name == "finish close" {
				c.startClose()
				c.now += contracts.CloseDelay
			}
			c.mustReject(exitCell, from, contracts.CloseFee, over)
		}
	}
}

func TestTombstone(t *testing.T) {
	for name, close := range map[string]func(*channel){
		"released": func(c *channel) { c.mustClose(payee, contracts.CloseFee, contracts.ReleaseBody()) },
		"finished": func(c *channel) {
			c.startClose()
			c.now += contracts.CloseDelay
			c.mustClose(stranger, contracts.CloseFee, contracts.FinishCloseBody())
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := openChannel(t, coin)
			old := c.voucher(100_000_000)
			c.mustRedeem(payee, old, 100_000_000)
			close(c)
			redeemOld := must(contracts.RedeemBody(old))
			attempts := func() {
				t.Helper()
				c.mustReject(errClosed, client, coin, contracts.TopUpBody())
				c.mustReject(errClosed, client, coin, cell.BeginCell().EndCell())
				c.mustReject(errClosed, payee, contracts.RedeemFee, redeemOld)
				c.mustReject(errClosed, payee, contracts.RedeemFee, must(contracts.RedeemBody(c.voucher(coin))))
				c.mustReject(errClosed, client, contracts.CloseFee, contracts.StartCloseBody())
				c.mustReject(errClosed, stranger, contracts.CloseFee, contracts.FinishCloseBody())
				c.mustReject(errClosed, payee, contracts.CloseFee, contracts.ReleaseBody())
			}
			attempts()

			// The same state init, sent again, brings nothing back to life.
			before, _ := c.parse()
			again := c.message(client, coin, redeemOld, must(c.init.StateInit()))
			if o := c.deliver(again); o.acted || len(o.toward) != 0 {
				t.Errorf("deployed again: exit %d, payments %v", o.exit, o.toward)
			}
			if after, _ := c.parse(); !cmp.Equal(before, after) {
				t.Errorf("deployed again: %s", cmp.Diff(before, after))
			}

			// Money that cannot bounce stays in the tombstone and still moves nothing.
			gift := c.message(stranger, coin, nil, nil)
			gift.Bounce = false
			if o := c.deliver(gift); o.acted || len(o.toward) != 0 {
				t.Errorf("gift: exit %d, payments %v", o.exit, o.toward)
			}
			attempts()

			// The reserve outlasts ten years.
			c.now += 10 * year
			c.mustReject(errClosed, payee, contracts.RedeemFee, redeemOld)
			if _, balance := c.parse(); balance == 0 {
				t.Error("balance: got 0 after ten years")
			}
		})
	}
}

func TestReserveLastsTwentyYears(t *testing.T) {
	c := openChannel(t, 100_000_000)
	c.mustClose(payee, contracts.CloseFee, contracts.ReleaseBody())
	c.now += 20 * year
	if o := c.send(stranger, contracts.CloseFee, contracts.FinishCloseBody()); o.exit != errClosed {
		t.Fatalf("exit: got %d, want %d", o.exit, errClosed)
	}
	if _, balance := c.parse(); balance < 1_000_000 {
		t.Errorf("balance after 20 years: got %d, want some of the reserve left", balance)
	}
}

// A channel whose deposit was eaten by rent still closes, and cannot pay.
func TestStorageDebt(t *testing.T) {
	c := openChannel(t, 60_000_000)
	v := c.voucher(coin)
	c.now += 60 * year
	c.mustReject(errNoFunds, payee, contracts.RedeemFee, must(contracts.RedeemBody(v)))
	s, balance := c.parse()
	if balance >= contracts.Reserve || s.Available(balance) != 0 || s.CreditLimit(balance) != 0 {
		t.Fatalf("balance %d: available %d, credit limit %d; want nothing", balance, s.Available(balance), s.CreditLimit(balance))
	}
	// Whoever closes it fills the tombstone's rent first.
	if o := c.send(payee, contracts.CloseFee, contracts.ReleaseBody()); o.acted {
		t.Error("release without the rent: want the action phase to fail")
	}
	if s, _ := c.parse(); s.Closed {
		t.Error("release without the rent: closed")
	}
	o := c.send(payee, contracts.Reserve+contracts.CloseFee, contracts.ReleaseBody())
	if s, balance := c.parse(); !o.acted || !s.Closed || balance != contracts.Reserve {
		t.Errorf("release with the rent: exit %d, closed %t, balance %d", o.exit, s.Closed, balance)
	}
}

func TestStorageDebtThenTopUp(t *testing.T) {
	c := openChannel(t, 60_000_000)
	c.now += 60 * year
	if o := c.send(client, coin, contracts.TopUpBody()); !o.acted {
		t.Fatalf("top-up: exit %d", o.exit)
	}
	c.mustRedeem(payee, c.voucher(100_000_000), 100_000_000)
}

func TestClosingNeedsItsFees(t *testing.T) {
	for _, value := range []uint64{1, 10_000, 100_000} {
		c := openChannel(t, coin)
		before, _ := c.parse()
		c.send(payee, value, contracts.ReleaseBody())
		if after, _ := c.parse(); !cmp.Equal(before, after) {
			t.Errorf("value %d: %s", value, cmp.Diff(before, after))
		}
	}
}

// What the constants say to attach is enough for a worker to serve the channel.
func TestLeastDeploymentIsServed(t *testing.T) {
	c := openChannel(t, contracts.MinDeposit+contracts.Reserve+contracts.DeployFee)
	s, balance := c.parse()
	want := contracts.WorkerChecks{WorkerID: workerID, Payout: payee, Redeemer: redeemer}
	if err := contracts.CheckChannelForWorker(s, want, balance); err != nil {
		t.Error(err)
	}
}

func TestNoExternalMessages(t *testing.T) {
	c := openChannel(t, coin)
	before, balance := c.parse()
	for _, body := range []*cell.Cell{
		must(contracts.RedeemBody(c.voucher(1000))), contracts.ReleaseBody(), cell.BeginCell().EndCell(),
	} {
		o := c.execute(&tlb.ExternalMessage{DstAddr: ton(t, c.addr), Body: body})
		if o.acted || o.gas != 0 {
			t.Errorf("external message: acted %t, %d gas charged", o.acted, o.gas)
		}
	}
	after, left := c.parse()
	if !cmp.Equal(before, after) || left != balance {
		t.Errorf("balance: got %d, want %d; %s", left, balance, cmp.Diff(before, after))
	}
}

func TestBouncedMessagesMoveNothing(t *testing.T) {
	c := openChannel(t, coin)
	before, _ := c.parse()
	m := c.message(payee, contracts.RedeemFee, must(contracts.RedeemBody(c.voucher(1000))), nil)
	m.Bounced, m.Bounce = true, false
	if o := c.deliver(m); len(o.toward) != 0 || len(o.logs) != 0 {
		t.Errorf("payments %v, %d logs", o.toward, len(o.logs))
	}
	if after, _ := c.parse(); !cmp.Equal(before, after) {
		t.Error(cmp.Diff(before, after))
	}
}
