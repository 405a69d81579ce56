package refusals

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"cocoon/attestation"
	"cocoon/attestation/auditlog"
	"cocoon/contracts"
	"cocoon/contracts/lite"
	"cocoon/enclave"
	"cocoon/proxy/ledger"
)

// A worker credits a voucher only if its own channel would pay it, on this
// network, and if its head is over the receipts that both hold.
func TestVouchersThatBuyNothing(t *testing.T) {
	n := newNetwork(t)
	w := n.worker(t, setup{})
	stranger := w.payer(t, deposit)
	spoiled := func(f func(p *payer, v *contracts.Voucher)) func(*payer, *params) {
		return func(p *payer, j *params) {
			v := p.voucher(p.spent + opening)
			f(p, &v)
			j.request.Voucher = p.raw(v)
		}
	}
	for _, row := range []struct {
		name, code string
		status     int
		spoil      func(*payer, *params)
		credited   uint64 // what the worker may still take the voucher for
	}{
		{name: "a voucher of another channel", code: "voucher.channel", status: 402, spoil: spoiled(func(_ *payer, v *contracts.Voucher) { v.Channel = stranger.channel })},
		{name: "another channel's own voucher", code: "voucher.channel", status: 402, spoil: func(_ *payer, j *params) { j.request.Voucher = stranger.raw(stranger.voucher(opening)) }},
		{name: "a voucher of this channel by another channel's key", code: "voucher.signature", status: 402, spoil: func(p *payer, j *params) { j.request.Voucher = stranger.raw(p.voucher(opening)) }},
		{name: "a voucher of another worker's log", code: "voucher.log", status: 402, spoil: func(_ *payer, j *params) { j.request.LogID[7] ^= 1 }},
		{name: "a voucher of another network", code: "voucher.network", status: 402, spoil: spoiled(func(_ *payer, v *contracts.Voucher) { v.GlobalID = -239 })},
		{name: "a voucher with a wrong head", code: "voucher.head", status: 402, spoil: spoiled(func(_ *payer, v *contracts.Voucher) { v.ReceiptsHead[7] ^= 1 })},
		{name: "a voucher with a head of zeros", code: "voucher.head", status: 402, spoil: spoiled(func(_ *payer, v *contracts.Voucher) { v.ReceiptsHead = [32]byte{} })},
		{name: "a voucher over receipts that are not there yet", code: "voucher.head", status: 402, spoil: func(_ *payer, j *params) { j.request.Count += 5 }},
		{name: "a voucher above the balance", code: "voucher.balance", status: 402, spoil: spoiled(func(_ *payer, v *contracts.Voucher) { v.Cumulative = deposit + deposit/2 })},
		{name: "a flipped bit in a voucher's amount", code: "voucher.signature", status: 402, spoil: func(_ *payer, j *params) { j.request.Voucher[44] ^= 1 }},
		{name: "a flipped bit in a voucher's signature", code: "voucher.signature", status: 402, spoil: func(_ *payer, j *params) { j.request.Voucher[100] ^= 1 }},
		{name: "half a voucher", code: "voucher.parse", status: 400, spoil: func(_ *payer, j *params) { j.request.Voucher = j.request.Voucher[:72] }},
		{name: "no voucher", code: "voucher.parse", status: 400, spoil: func(_ *payer, j *params) { j.request.Voucher = nil }},
		{name: "a voucher one nano short", code: "credit.short", status: 402, spoil: spoiled(func(_ *payer, v *contracts.Voucher) { v.Cumulative-- }), credited: opening - 1},
		{name: "prices below the worker's", code: "terms.price", status: 402, spoil: func(_ *payer, j *params) { j.terms.Prices.Completion-- }},
		{name: "a total ceiling below the token ceilings", code: "ceiling.total", status: 400, spoil: func(_ *payer, j *params) { j.terms.TotalCeiling-- }, credited: opening},
		{name: "a prompt ceiling below the prompt", code: "terms.prompt-ceiling", status: 400, spoil: func(_ *payer, j *params) { j.terms.PromptCeiling = 20 }, credited: opening},
		{name: "a body that names another model than the terms", code: "terms.model", status: 400, spoil: func(_ *payer, j *params) {
			j.request.Body = bytes.Replace(j.request.Body, []byte(`"toy"`), []byte(`"big"`), 1)
		}, credited: opening},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := w.payer(t, deposit)
			ran, before := w.engine.count(), p.purse()
			j := p.params(chat("hello"))
			row.spoil(p, &j)
			r := p.begin(j)
			got := r.finish()
			if got.Status != auditlog.StatusRefused || got.Cost != 0 || got.Usage != (attestation.Usage{}) || r.answer != "" {
				t.Errorf("receipt: got %s costing %d for %+v, answer %q", got.Status, got.Cost, got.Usage, r.answer)
			}
			if r.fault == nil || r.fault.Code != row.code || r.fault.Status != row.status {
				t.Errorf("fault: got %v, want %d %s", r.fault, row.status, row.code)
			}
			before.credited = row.credited
			if after := p.purse(); after != before {
				t.Errorf("money: got %+v, want %+v", after, before)
			}
			if got := w.engine.count(); got != ran {
				t.Error("the engine ran")
			}
			// The same payer is served once it pays properly.
			if got := p.begin(p.params(chat("hello"))).finish(); got.Status != auditlog.StatusOK || got.Cost != plainCost {
				t.Errorf("afterwards: got %s costing %d", got.Status, got.Cost)
			}
		})
	}
	w.serves(t)
}

// A lower voucher changes nothing: it neither lowers what was promised nor
// buys a job.
func TestLowerVoucher(t *testing.T) {
	n := newNetwork(t)
	w := n.worker(t, setup{})
	p := w.payer(t, deposit)
	p.begin(p.params(chat("x"))).finish()
	before := p.purse()
	j := p.params(chat("x"))
	j.request.Voucher = p.raw(p.voucher(opening - 1))
	r := p.begin(j)
	if got := r.finish(); got.Status != auditlog.StatusRefused || got.Cost != 0 || r.fault == nil || r.fault.Code != "credit.short" {
		t.Errorf("a lower voucher: got %s costing %d, fault %v", got.Status, got.Cost, r.fault)
	}
	if after := p.purse(); after != before || before.credited != opening {
		t.Errorf("money: got %+v, want %+v", after, before)
	}
	w.serves(t)
}

// Vouchers in mid-stream are held to the same.
func TestVouchersInMidStream(t *testing.T) {
	n := newNetwork(t)
	w := n.worker(t, setup{})
	stranger := w.payer(t, deposit)
	for _, row := range []struct {
		name, code string
		spoil      func(*contracts.Voucher)
	}{
		{"a voucher of another channel in mid-stream", "voucher.channel", func(v *contracts.Voucher) { v.Channel = stranger.channel }},
		{"a voucher of another network in mid-stream", "voucher.network", func(v *contracts.Voucher) { v.GlobalID = -3 }},
		{"a voucher with a wrong head in mid-stream", "voucher.head", func(v *contracts.Voucher) { v.ReceiptsHead[0] ^= 1 }},
		{"a voucher above the balance in mid-stream", "voucher.balance", func(v *contracts.Voucher) { v.Cumulative = 1 << 50 }},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := w.payer(t, deposit)
			w.engine.script(hold("one ", "two "))
			r := p.begin(p.params(chat("x")))
			r.until(2)
			v := p.voucher(2 * opening)
			row.spoil(&v)
			r.pay(v)
			got := r.finish()
			if got.Status != auditlog.StatusAborted || r.fault == nil || r.fault.Code != row.code {
				t.Errorf("got %s, fault %v, want it aborted for %s", got.Status, r.fault, row.code)
			}
			if want := uint64(promptTokens + 2*2); got.Cost != want || p.standing().settled != want || p.standing().credited != opening {
				t.Errorf("got a cost of %d and %+v, want %d, what was produced", got.Cost, p.standing(), want)
			}
		})
	}
	w.serves(t)
}

// A worker serves a channel only if it is its own, open, funded and sound.
func TestChannelsThatAreNotServed(t *testing.T) {
	n := newNetwork(t)
	// Vouchers reach the host when a channel closes, not on the hour.
	set := setup{config: func(c *enclave.Config) { c.VoucherFlush = time.Hour }}
	w, other := n.worker(t, set), n.worker(t, set)
	refused := func(t *testing.T, p *payer, text string) {
		t.Helper()
		paid, balance := n.onChain(t, p.channel)
		_, open := p.seal(p.params(chat("x")))
		err := p.sendRaw(open)
		wantRefusal(t, err, "channel.refused")
		if !bytes.Contains([]byte(err.Error()), []byte(text)) {
			t.Errorf("got %v, want it to say %q", err, text)
		}
		if got := w.held(t, p.channel); got != 0 {
			t.Errorf("the host holds a voucher for %d nano", got)
		}
		if p2, b2 := n.onChain(t, p.channel); p2 != paid || b2 != balance {
			t.Errorf("on chain: got %d paid of %d, want %d of %d", p2, b2, paid, balance)
		}
	}
	for _, row := range []struct {
		name, text string
		deposit    uint64
		spoil      func(*contracts.ChannelInit)
	}{
		{"a channel of another worker", "worker id", deposit, func(i *contracts.ChannelInit) { i.WorkerID = other.id }},
		{"a channel that pays another", "payout", deposit, func(i *contracts.ChannelInit) { i.Payout = n.client.Address() }},
		{"a channel that another redeems", "redeemer", deposit, func(i *contracts.ChannelInit) { i.Redeemer = n.client.Address() }},
		{"a channel that closes in an hour", "close delay", deposit, func(i *contracts.ChannelInit) { i.CloseDelay = 3600 }},
		{"an empty channel", "deposit", 0, nil},
		{"a channel below the least deposit", "deposit", contracts.MinDeposit / 2, nil},
	} {
		t.Run(row.name, func(t *testing.T) { refused(t, w.payerWith(t, row.deposit, row.spoil), row.text) })
	}
	closing := func(t *testing.T, p *payer) {
		t.Helper()
		must(t, n.client.Send(t.Context(), []lite.Message{{To: p.channel, Amount: contracts.CloseFee, Body: contracts.StartCloseBody(), Bounce: true}}))
	}
	t.Run("a channel being closed", func(t *testing.T) {
		p := w.payer(t, deposit)
		closing(t, p)
		refused(t, p, "closing at")
	})
	t.Run("a channel that was closed", func(t *testing.T) {
		p := w.payer(t, deposit)
		must(t, n.host.Send(t.Context(), []lite.Message{{To: p.channel, Amount: contracts.CloseFee, Body: contracts.ReleaseBody(), Bounce: true}}))
		refused(t, p, "closed")
	})
	t.Run("no channel at all", func(t *testing.T) {
		p := w.payer(t, deposit)
		p.channel = attestation.NewAddress(0, [32]byte{0xee})
		j := p.params(chat("x"))
		_, open := p.seal(j)
		wantRefusal(t, p.sendRaw(open), "channel.unproven")
	})
	t.Run("a channel that closes while it is served", func(t *testing.T) {
		p := w.payer(t, deposit)
		p.begin(p.params(chat("x"))).finish()
		closing(t, p)
		n.clock.await(t, time.Minute, 2) // between looks at served channels, of both
		n.advance(time.Minute)
		w.events.await(t, "channel.closing", 1)
		n.clock.await(t, time.Minute, 2)
		_, open := p.seal(p.params(chat("x")))
		wantRefusal(t, p.sendRaw(open), "channel.refused")
		if st := p.standing(); st.settled != plainCost || st.credited != opening || st.receipts != 1 {
			t.Errorf("standing: got %+v", st)
		}
		// What was earned is at the host, in time for the close window.
		if got := w.held(t, p.channel); got != opening {
			t.Errorf("the host holds a voucher for %d nano, want %d", got, opening)
		}
	})
	w.serves(t)
	other.serves(t)
}

// An honest client whose deposit is used up is told to top up, and signs nothing.
func TestSpentDeposit(t *testing.T) {
	n := newNetwork(t)
	dear := attestation.Prices{Prompt: 1e11, Cached: 1e11, Completion: 1e11, Reasoning: 1e11} // 100,000 nano a token
	w := n.worker(t, setup{
		record: func(r *contracts.WorkerRecord) { r.Prices[0].Prices = dear },
		config: func(c *enclave.Config) { c.Worker.Prices[0].Min = dear },
	})
	// The ceilings, 1280 tokens, are affordable once, and no more after 1000 were used.
	w.engine.script(sayAfter(promptCeiling, 300, func(int) string { return "w " }))
	c := n.newClient(t)
	s := c.funded(t, w.addr, w.id)
	if o := run(t.Context(), s); o.err != nil || o.receipt.Cost != 1324*100_000 {
		t.Fatalf("the first job: got %+v, %v", o.receipt, o.err)
	}
	before := c.money(t, s)
	ch := c.channels(t)[0]
	standing := c.statement(t, w.addr, ch)
	_, err := s.Start(t.Context(), request())
	var short *ledger.CreditError
	if !errors.As(err, &short) || short.Limit < deposit || short.Need <= short.Limit {
		t.Errorf("a spent deposit: got %v, want a *ledger.CreditError", err)
	}
	if after := c.money(t, s); after != before {
		t.Errorf("money: got %+v, want %+v", after, before)
	}
	if after := c.statement(t, w.addr, ch); after != standing {
		t.Errorf("the worker: got %+v, want %+v", after, standing)
	}
	// A client that signs all the same gets nothing for it.
	p := w.payer(t, deposit)
	j := p.params(chat("x"))
	j.terms.Prices, j.terms.TotalCeiling = dear, (promptCeiling+completionCeiling)*100_000
	j.request.Voucher = p.raw(p.voucher((promptCeiling + 256) * 100_000 * 2))
	purse := p.purse()
	r := p.begin(j)
	if got := r.finish(); got.Cost != 0 || r.fault == nil || r.fault.Code != "voucher.balance" {
		t.Errorf("a voucher beyond the deposit: got a cost of %d, fault %v", got.Cost, r.fault)
	}
	if after := p.purse(); after != purse {
		t.Errorf("money: got %+v, want %+v", after, purse)
	}
	// Topped up, it goes on.
	must(t, n.client.Send(t.Context(), []lite.Message{{To: ch, Amount: deposit, Body: contracts.TopUpBody(), Bounce: true}}))
	n.advance(5 * time.Second) // between looks at a channel that cannot pay
	if o := run(t.Context(), s); o.err != nil || o.answer != plainAnswer {
		t.Errorf("after a top-up: got %q, %v", o.answer, o.err)
	}
}

// The chain pays a voucher of this channel, of this network, above what was
// paid, to the payout address, and no other.
func TestRedeemsThatTheChainRefuses(t *testing.T) {
	n := newNetwork(t)
	w := n.worker(t, setup{})
	p, other := w.payer(t, deposit), w.payer(t, deposit)
	p.begin(p.params(chat("x"))).finish()
	spoiled := func(f func(*contracts.Voucher)) contracts.SignedVoucher {
		v := p.voucher(opening)
		f(&v)
		return p.signVoucher(v)
	}
	good := p.signVoucher(p.voucher(opening))
	flipped := good
	flipped.Signature[9] ^= 1
	refuse := func(name string, exit int32, from *lite.Wallet, v contracts.SignedVoucher) {
		t.Run(name, func(t *testing.T) {
			paid, balance := n.onChain(t, p.channel)
			err := p.redeem(from, v)
			var refused *lite.RefusedError
			if !errors.As(err, &refused) || refused.To != p.channel || refused.ExitCode != exit {
				t.Errorf("got %v, want the channel's refusal with exit code %d", err, exit)
			}
			if p2, b2 := n.onChain(t, p.channel); p2 != paid || b2 != balance {
				t.Errorf("got %d paid of %d, want %d of %d", p2, b2, paid, balance)
			}
		})
	}
	refuse("redeeming a voucher of another channel", 104, n.host, spoiled(func(v *contracts.Voucher) { v.Channel = other.channel }))
	refuse("redeeming a voucher that another channel's key signed", 102, n.host, other.signVoucher(p.voucher(opening)))
	refuse("redeeming a voucher of another network", 103, n.host, spoiled(func(v *contracts.Voucher) { v.GlobalID = -239 }))
	refuse("redeeming a voucher with a flipped bit", 102, n.host, flipped)
	refuse("redeeming as somebody else", 101, n.client, good)
	must(t, p.redeem(n.host, good))
	if paid, balance := n.onChain(t, p.channel); paid != opening || balance < deposit+contracts.Reserve-opening {
		t.Fatalf("redeemed: got %d paid, %d left", paid, balance)
	}
	refuse("redeeming a voucher twice", 105, n.host, good)
	refuse("redeeming a lower voucher", 105, n.host, p.signVoucher(p.voucher(opening-1)))
	w.serves(t)
}
