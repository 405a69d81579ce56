package contracts_test

import (
	"crypto/ed25519"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/xssnick/tonutils-go/tlb"
	"github.com/xssnick/tonutils-go/tvm/cell"

	"cocoon/attestation"
	"cocoon/contracts"
)

// Exit codes of channel.tolk; exitCell and exitOp are the machine's and the compiler's own.
const (
	errSender    = 101
	errSignature = 102
	errNetwork   = 103
	errChannel   = 104
	errOld       = 105
	errNoFunds   = 106
	errClosed    = 107
	errClosing   = 108
	errEarly     = 109
	errKey       = 110
	errBody      = 111

	exitCell = 9
	exitTag  = 63
)

// mustReject sends a message and wants it bounced with that exit code, with the channel as it was.
func (c *channel) mustReject(exit int64, from attestation.Address, value uint64, body *cell.Cell) {
	c.t.Helper()
	before, balance := c.parse()
	o := c.send(from, value, body)
	after, left := c.parse()
	if o.exit != exit || o.acted {
		c.t.Errorf("exit: got %d (acted %t), want %d", o.exit, o.acted, exit)
	}
	if diff := cmp.Diff(before, after); diff != "" {
		c.t.Errorf("state changed: %s", diff)
	}
	if o.bounce == 0 || len(o.toward) != 0 || len(o.logs) != 0 {
		c.t.Errorf("got %d nano back, payments %v, %d logs; want only a bounce", o.bounce, o.toward, len(o.logs))
	}
	if left > balance {
		c.t.Errorf("balance: rose from %d to %d", balance, left)
	}
}

// mustRedeem redeems v and wants exactly amount to move.
func (c *channel) mustRedeem(from attestation.Address, v contracts.SignedVoucher, amount uint64) outcome {
	c.t.Helper()
	before, balance := c.parse()
	o := c.redeem(from, v)
	after, left := c.parse()
	if !o.acted {
		c.t.Fatalf("redeem: exit %d", o.exit)
	}
	want := before
	want.Paid += amount
	if diff := cmp.Diff(want, after); diff != "" {
		c.t.Fatalf("state: %s", diff)
	}
	if spent := balance - left; spent < amount || spent > amount+rentBound {
		c.t.Errorf("balance: fell by %d, want %d and a little rent", spent, amount)
	}
	if got := o.toward[c.init.Payout]; len(o.toward) != 1 || got < amount || got > amount+contracts.RedeemFee {
		c.t.Errorf("payments: got %v, want the payout alone to get %d to %d", o.toward, amount, amount+contracts.RedeemFee)
	}
	if len(o.logs) != 1 {
		c.t.Fatalf("logs: got %d, want 1", len(o.logs))
	}
	wantLog := contracts.Redeemed{Cumulative: v.Voucher.Cumulative, Paid: after.Paid, ReceiptsHead: v.Voucher.ReceiptsHead}
	if diff := cmp.Diff(wantLog, must(contracts.ParseRedeemed(o.logs[0]))); diff != "" {
		c.t.Errorf("log: %s", diff)
	}
	return o
}

// rentBound is more than a channel's rent between two messages of these tests (at most 30 days).
const rentBound = 200_000

func TestRedeemMovesTheDifferenceToThePayout(t *testing.T) {
	for _, from := range []attestation.Address{payee, redeemer} {
		c := openChannel(t, coin)
		c.mustRedeem(from, c.voucher(300_000_000), 300_000_000)
		c.mustRedeem(from, c.voucher(300_000_001), 1)
		c.mustRedeem(from, c.voucher(500_000_000), 199_999_999)
	}
}

func TestRedeemRefuses(t *testing.T) {
	type attempt struct {
		name string
		exit int64
		from attestation.Address
		body func(c *channel) *cell.Cell
	}
	redeem := func(v func(c *channel) contracts.SignedVoucher) func(*channel) *cell.Cell {
		return func(c *channel) *cell.Cell { return must(contracts.RedeemBody(v(c))) }
	}
	good := func(c *channel) contracts.Voucher { return c.voucher(300_000_000).Voucher }
	altered := func(change func(*contracts.Voucher)) func(*channel) *cell.Cell {
		return redeem(func(c *channel) contracts.SignedVoucher {
			v := good(c)
			change(&v)
			return c.sign(v)
		})
	}
	forged := func(change func(*contracts.Voucher)) func(*channel) *cell.Cell {
		return redeem(func(c *channel) contracts.SignedVoucher {
			v := c.sign(good(c))
			change(&v.Voucher)
			return v
		})
	}
	ok := altered(func(*contracts.Voucher) {})
	raw := func(build func(sig []byte, voucher *cell.Cell) *cell.Cell) func(*channel) *cell.Cell {
		return func(c *channel) *cell.Cell {
			s := c.sign(good(c))
			return build(s.Signature[:], must(s.Voucher.Cell()))
		}
	}
	resigned := func(voucher func(v *cell.Cell) *cell.Cell) func(*channel) *cell.Cell {
		return func(c *channel) *cell.Cell {
			v := voucher(must(good(c).Cell()))
			sig := ed25519.Sign(testKey(clientKeySeed), v.Hash())
			return cell.BeginCell().MustStoreUInt(0x43430002, 32).MustStoreSlice(sig, 512).MustStoreRef(v).EndCell()
		}
	}
	for _, a := range []attempt{
		{"stranger", errSender, stranger, ok},
		{"client", errSender, client, ok},
		{"worker record", errSender, workerID, ok},
		{"payout on the masterchain", errSender, attestation.NewAddress(-1, payee.ID()), ok},
		{"another key", errSignature, payee, redeem(func(c *channel) contracts.SignedVoucher {
			return must(contracts.SignVoucher(testKey(8), good(c)))
		})},
		{"raised amount", errSignature, payee, forged(func(v *contracts.Voucher) { v.Cumulative++ })},
		{"other head", errSignature, payee, forged(func(v *contracts.Voucher) { v.ReceiptsHead[31]++ })},
		{"swapped network", errSignature, payee, forged(func(v *contracts.Voucher) { v.GlobalID = -3 })},
		{"flipped signature bit", errSignature, payee, redeem(func(c *channel) contracts.SignedVoucher {
			s := c.sign(good(c))
			s.Signature[0] ^= 1
			return s
		})},
		{"zero signature", errSignature, payee, redeem(func(c *channel) contracts.SignedVoucher {
			return contracts.SignedVoucher{Voucher: good(c)}
		})},
		{"another network", errNetwork, payee, altered(func(v *contracts.Voucher) { v.GlobalID = -3 })},
		{"network of the other sign", errNetwork, payee, altered(func(v *contracts.Voucher) { v.GlobalID = 239 })},
		{"another channel", errChannel, payee, altered(func(v *contracts.Voucher) { v.Channel = person(0x77) })},
		{"this channel on the masterchain", errChannel, payee, altered(func(v *contracts.Voucher) {
			v.Channel = attestation.NewAddress(-1, v.Channel.ID())
		})},
		{"nothing above paid", errOld, payee, altered(func(v *contracts.Voucher) { v.Cumulative = 0 })},
		{"no voucher", exitCell, payee, raw(func(sig []byte, _ *cell.Cell) *cell.Cell {
			return cell.BeginCell().MustStoreUInt(0x43430002, 32).MustStoreSlice(sig, 512).EndCell()
		})},
		{"truncated signature", exitCell, payee, raw(func(sig []byte, v *cell.Cell) *cell.Cell {
			return cell.BeginCell().MustStoreUInt(0x43430002, 32).MustStoreSlice(sig, 511).MustStoreRef(v).EndCell()
		})},
		{"one bit too many", exitCell, payee, raw(func(sig []byte, v *cell.Cell) *cell.Cell {
			return cell.BeginCell().MustStoreUInt(0x43430002, 32).MustStoreSlice(sig, 512).MustStoreUInt(0, 1).MustStoreRef(v).EndCell()
		})},
		{"one reference too many", exitCell, payee, raw(func(sig []byte, v *cell.Cell) *cell.Cell {
			return cell.BeginCell().MustStoreUInt(0x43430002, 32).MustStoreSlice(sig, 512).MustStoreRef(v).MustStoreRef(v).EndCell()
		})},
		{"signed voucher with a bit too many", exitCell, payee, resigned(func(v *cell.Cell) *cell.Cell {
			return v.ToBuilder().MustStoreUInt(0, 1).EndCell()
		})},
		{"signed voucher with a reference", exitCell, payee, resigned(func(v *cell.Cell) *cell.Cell {
			return v.ToBuilder().MustStoreRef(cell.BeginCell().EndCell()).EndCell()
		})},
		{"signed truncated voucher", exitCell, payee, resigned(func(v *cell.Cell) *cell.Cell {
			return cell.BeginCell().MustStoreSlice(v.MustBeginParse().MustLoadSlice(v.BitsSize()-1), v.BitsSize()-1).EndCell()
		})},
		{"signed cell that is no voucher", exitTag, payee, resigned(func(*cell.Cell) *cell.Cell {
			return cell.BeginCell().MustStoreUInt(1, 32).EndCell()
		})},
		{"unknown op", errBody, payee, func(*channel) *cell.Cell {
			return cell.BeginCell().MustStoreUInt(0x43430006, 32).EndCell()
		}},
		{"half an op", errBody, payee, func(*channel) *cell.Cell { return cell.BeginCell().MustStoreUInt(0x4343, 16).EndCell() }},
		{"a wallet's comment", errBody, payee, func(*channel) *cell.Cell {
			return cell.BeginCell().MustStoreUInt(0, 32).MustStoreSlice([]byte("hi"), 16).EndCell()
		}},
	} {
		t.Run(a.name, func(t *testing.T) {
			c := openChannel(t, coin)
			c.mustReject(a.exit, a.from, coin/10, a.body(c)) // a bounce to the masterchain is dear
			c.mustRedeem(payee, c.voucher(300_000_000), 300_000_000)
		})
	}
}

func TestRedeemOldVouchers(t *testing.T) {
	c := openChannel(t, coin)
	v := c.voucher(300_000_000)
	c.mustRedeem(payee, v, 300_000_000)
	c.mustReject(errOld, payee, contracts.RedeemFee, must(contracts.RedeemBody(v)))
	c.mustReject(errOld, redeemer, contracts.RedeemFee, must(contracts.RedeemBody(c.voucher(299_999_999))))
	c.mustRedeem(payee, c.voucher(300_000_001), 1)
}

func TestVoucherAboveTheDepositPaysWhatIsThere(t *testing.T) {
	c := openChannel(t, 300_000_000)
	v := c.voucher(2 * coin)
	_, balance := c.parse()
	first := balance - contracts.Reserve
	c.mustRedeem(payee, v, first)
	if _, left := c.parse(); left != contracts.Reserve {
		t.Errorf("balance: got %d, want the reserve %d", left, contracts.Reserve)
	}
	c.mustReject(errNoFunds, payee, contracts.RedeemFee, must(contracts.RedeemBody(v)))

	// More value on the message itself is not a deposit.
	c.mustReject(errNoFunds, payee, coin, must(contracts.RedeemBody(v)))

	// The same voucher is good for the rest after a top-up.
	if o := c.send(client, coin, contracts.TopUpBody()); !o.acted {
		t.Fatalf("top-up: exit %d", o.exit)
	}
	s, balance := c.parse()
	if s.CreditLimit(balance) != s.Paid+balance-contracts.Reserve {
		t.Errorf("credit limit: got %d", s.CreditLimit(balance))
	}
	c.mustRedeem(payee, v, balance-contracts.Reserve)
	if s, _ := c.parse(); s.Paid <= first || s.Paid >= v.Voucher.Cumulative {
		t.Errorf("paid: got %d", s.Paid)
	}
}

// Whatever is attached, a redeem moves all or nothing, and never spends the deposit on fees.
func TestRedeemValueEdges(t *testing.T) {
	const amount = 1000
	try := func(value uint64) (outcome, uint64) {
		c := openChannel(t, coin)
		_, balance := c.parse()
		o := c.send(payee, value, must(contracts.RedeemBody(c.voucher(amount))))
		s, left := c.parse()
		want := uint64(0)
		if o.acted {
			want = amount
		}
		if s.Paid != want || left+want < balance {
			t.Errorf("value %d: paid %d, balance %d of %d; want at most %d moved", value, s.Paid, left, balance, want)
		}
		if o.acted != (len(o.logs) == 1) || o.acted != (len(o.toward) == 1) {
			t.Errorf("value %d: acted %t, but %d logs, payments %v", value, o.acted, len(o.logs), o.toward)
		}
		return o, s.Paid
	}
	low, high := uint64(0), uint64(contracts.RedeemFee)
	for high-low > 1 {
		mid := (low + high) / 2
		if _, paid := try(mid); paid > 0 {
			high = mid
		} else {
			low = mid
		}
	}
	if o, paid := try(high); paid != amount || o.toward[payee] == 0 {
		t.Errorf("value %d: paid %d, want %d", high, paid, amount)
	}
	if _, paid := try(high - 1); paid != 0 {
		t.Errorf("value %d: paid %d, want 0", high-1, paid)
	}
	for _, value := range []uint64{1, high / 2, high + 1, coin} {
		try(value)
	}
	if high > contracts.RedeemFee*3/4 {
		t.Errorf("RedeemFee: got %d, want a margin above the least that works, %d", contracts.RedeemFee, high)
	}
}

// Every encoding of the small-order points, little-endian, and whether Go's verifier takes the forgery below.
func smallOrderKeys() [][32]byte {
	var out [][32]byte
	for _, k := range [][32]byte{
		{}, {1},
		{0: 0xec, 31: 0x7f}, {0: 0xed, 31: 0x7f}, {0: 0xee, 31: 0x7f},
		{0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0,
			0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05},
		{0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f,
			0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a},
	} {
		if k[31] == 0x7f {
			for i := 1; i < 31; i++ {
				k[i] = 0xff
			}
		}
		out = append(out, k)
		k[31] |= 0x80
		out = append(out, k)
	}
	return out
}

func TestUnsoundClientKeysBuyNothing(t *testing.T) {
	forgeries := 0
	for _, key := range smallOrderKeys() {
		if err := contracts.CheckClientKey(key); err == nil {
			t.Errorf("CheckClientKey(%x): got nil, want an error", key)
		}
		init := channelInit()
		init.ClientKey = key
		if _, err := init.StateInit(); err == nil {
			t.Errorf("StateInit with key %x: got nil, want an error", key)
		}
		// Deployed past the bindings, the contract itself refuses the key.
		data := must(contracts.ChannelState{Init: init}.Data())
		s := &tlb.StateInit{Code: contracts.ChannelCode(), Data: data}
		addr := attestation.NewAddress(0, [32]byte(must(tlb.ToCell(s)).Hash()))
		a := newAccount(t, addr)
		if o := a.deliver(a.message(client, coin, nil, s)); !o.acted {
			t.Fatalf("deploy: exit %d", o.exit)
		}
		v := contracts.Voucher{GlobalID: globalID, Channel: addr, Cumulative: coin / 2}
		sv := contracts.SignedVoucher{Voucher: v}
		// R = the identity, S = 0 verifies whenever h*A is the identity; a small group gives that often.
		sv.Signature[0] = 1
		for head := range byte(64) {
			sv.Voucher.ReceiptsHead[0] = head
			h := must(sv.Voucher.Hash())
			if ed25519.Verify(key[:], h[:], sv.Signature[:]) {
				forgeries++
				break
			}
		}
		if err := sv.Verify(key, globalID, addr); err == nil {
			t.Errorf("Verify under %x: got nil, want an error", key)
		}
		if o := a.send(payee, contracts.RedeemFee, must(contracts.RedeemBody(sv))); o.exit != errKey {
			t.Errorf("redeem under %x: exit %d, want %d", key, o.exit, errKey)
		}
	}
	if forgeries < 8 {
		t.Errorf("only %d of the keys verified a forgery: the test shows nothing", forgeries)
	}
	if err := contracts.CheckClientKey([32]byte(testKey(1)[32:])); err != nil {
		t.Errorf("an honest key: %v", err)
	}
}
