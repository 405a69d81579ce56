package meter_test

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"cocoon/attestation"
	"cocoon/attestation/auditlog"
	"cocoon/contracts"
	"cocoon/enclave/meter"
)

const (
	testNetwork = -239
	otherNet    = -3
)

var (
	testLog     = [32]byte{1: 0x10}
	testChannel = attestation.NewAddress(0, [32]byte{0xc4})
	testPrices  = attestation.Prices{Prompt: 1e6, Cached: 5e5, Completion: 2e6, Reasoning: 2e6} // 1, 1/2 and 2 nano a token
)

// client signs vouchers, and holds its own tree of receipts.
type client struct {
	key      ed25519.PrivateKey
	base     [32]byte
	receipts auditlog.HeadTree
}

func newClient(seed byte) *client {
	return &client{key: ed25519.NewKeyFromSeed(append(make([]byte, 31), seed))}
}

func (c *client) public() [32]byte { return [32]byte(c.key.Public().(ed25519.PublicKey)) }

func (c *client) head(t testing.TB, count uint64) [32]byte {
	t.Helper()
	h, err := c.receipts.Head(testLog, c.base, count)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func (c *client) sign(t testing.TB, v contracts.Voucher) []byte {
	t.Helper()
	s, err := contracts.SignVoucher(c.key, v)
	if err != nil {
		t.Fatal(err)
	}
	b, err := s.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// voucher is one for cumulative nano over all receipts that c holds.
func (c *client) voucher(t testing.TB, cumulative uint64) []byte {
	t.Helper()
	return c.sign(t, contracts.Voucher{GlobalID: testNetwork, Channel: testChannel, Cumulative: cumulative, ReceiptsHead: c.head(t, c.receipts.Count())})
}

// timer fires when the test says so.
type timer struct {
	fire    chan time.Time
	waiting chan time.Duration // one per wait that begins
}

func newTimer() *timer {
	return &timer{make(chan time.Time, 1), make(chan time.Duration, 64)}
}

func (t *timer) wait(d time.Duration) (<-chan time.Time, func() bool) {
	t.waiting <- d
	return t.fire, func() bool { return true }
}

func newMeter(t testing.TB, tm meter.Timer) *meter.Meter {
	t.Helper()
	m, err := meter.New(meter.Config{GlobalID: testNetwork, LogID: testLog, Timer: tm, MaxJobs: 3, MaxChannels: 2})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func open(t testing.TB, m *meter.Meter, c *client, o meter.Opening) *meter.Account {
	t.Helper()
	o.Channel, o.ClientKey = testChannel, c.public()
	if o.Limit == 0 {
		o.Limit = 1e9
	}
	a, err := m.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func credit(t testing.TB, a *meter.Account, c *client, cumulative uint64) {
	t.Helper()
	if err := a.Credit(c.voucher(t, cumulative), testLog, c.receipts.Count()); err != nil {
		t.Fatal(err)
	}
}

// wantRefusal fails unless err is a refusal of that name; "" wants none.
func wantRefusal(t testing.TB, err error, name string) {
	t.Helper()
	var r *meter.Refusal
	switch {
	case name == "" && err != nil:
		t.Fatalf("got %v, want no error", err)
	case name != "" && (!errors.As(err, &r) || r.Name != name):
		t.Fatalf("got %v, want a refusal named %s", err, name)
	}
}

// settle bills u, and gives the receipt to the client.
func settle(t testing.TB, a *meter.Account, c *client, j *meter.Job, u attestation.Usage) meter.Bill {
	t.Helper()
	b, cose, err := j.Settle(u, receipt)
	if err != nil {
		t.Fatal(err)
	}
	c.receipts.Append(cose)
	a.Published(b.Index)
	return b
}

func receipt(b meter.Bill) ([]byte, error) {
	sum := sha256.Sum256(binary.BigEndian.AppendUint64(nil, b.Index))
	return sum[:], nil
}

func terms(prompt, completion uint64) meter.Terms {
	return meter.Terms{Prices: testPrices, Prompt: prompt, Completion: completion, Total: math.MaxUint64}
}

func TestCreditRefusesByName(t *testing.T) {
	c, stranger := newClient(1), newClient(2)
	good := contracts.Voucher{GlobalID: testNetwork, Channel: testChannel, Cumulative: 500, ReceiptsHead: c.head(t, 0)}
	change := func(f func(*contracts.Voucher)) []byte {
		v := good
		f(&v)
		return c.sign(t, v)
	}
	flipped := c.sign(t, good)
	flipped[len(flipped)-1] ^= 1
	for _, tt := range []struct {
		name  string
		raw   []byte
		log   [32]byte
		count uint64
		want  string
	}{
		{"sound", c.sign(t, good), testLog, 0, ""},
		{"empty", nil, testLog, 0, meter.VoucherParse},
		{"trailing byte", append(c.sign(t, good), 0), testLog, 0, meter.VoucherParse},
		{"another network", change(func(v *contracts.Voucher) { v.GlobalID = otherNet }), testLog, 0, meter.VoucherNetwork},
		{"another channel", change(func(v *contracts.Voucher) { v.Channel = attestation.NewAddress(0, [32]byte{9}) }), testLog, 0, meter.VoucherChannel},
		{"another key", stranger.sign(t, good), testLog, 0, meter.VoucherSignature},
		{"flipped bit", flipped, testLog, 0, meter.VoucherSignature},
		{"another log", c.sign(t, good), [32]byte{7}, 0, meter.VoucherLog},
		{"another head", change(func(v *contracts.Voucher) { v.ReceiptsHead[0] ^= 1 }), testLog, 0, meter.VoucherHead},
		{"a count to come", c.sign(t, good), testLog, 1, meter.VoucherHead},
		{"a count far off", c.sign(t, good), testLog, math.MaxUint64, meter.VoucherHead},
		{"all the channel has", change(func(v *contracts.Voucher) { v.Cumulative = 1000 }), testLog, 0, ""},
		{"more than it has", change(func(v *contracts.Voucher) { v.Cumulative = 1001 }), testLog, 0, meter.VoucherBalance},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := open(t, newMeter(t, newTimer().wait), c, meter.Opening{Limit: 1000})
			wantRefusal(t, a.Credit(tt.raw, tt.log, tt.count), tt.want)
			if tt.want == "" {
				return
			}
			if s := a.Statement(); len(s.Highest) != 0 {
				t.Errorf("a refused voucher is held as the highest")
			}
			_, err := a.Begin(terms(1, 1))
			wantRefusal(t, err, meter.CreditShort)
		})
	}
}

func TestOlderVoucherIsNoError(t *testing.T) {
	c := newClient(1)
	a := open(t, newMeter(t, newTimer().wait), c, meter.Opening{})
	credit(t, a, c, 900)
	before := a.Statement()
	credit(t, a, c, 400)
	credit(t, a, c, 900)
	if diff := cmp.Diff(before, a.Statement()); diff != "" {
		t.Errorf("an older voucher changed the statement (-before +after):\n%s", diff)
	}
	// A lower voucher buys nothing: what it seemed to pay for is refused.
	_, err := a.Begin(terms(901, 1))
	wantRefusal(t, err, meter.CreditShort)
}

func TestLaggingHeadIsCredited(t *testing.T) {
	c := newClient(1)
	a := open(t, newMeter(t, newTimer().wait), c, meter.Opening{})
	credit(t, a, c, 10_000)
	for range 5 {
		j, err := a.Begin(terms(10, 10))
		wantRefusal(t, err, "")
		settle(t, a, c, j, attestation.Usage{Prompt: 10})
	}
	for count := range uint64(6) {
		v := c.sign(t, contracts.Voucher{GlobalID: testNetwork, Channel: testChannel, Cumulative: 10_001 + count, ReceiptsHead: c.head(t, count)})
		wantRefusal(t, a.Credit(v, testLog, count), "")
	}
	v := c.sign(t, contracts.Voucher{GlobalID: testNetwork, Channel: testChannel, Cumulative: 20_000, ReceiptsHead: c.head(t, 4)})
	wantRefusal(t, a.Credit(v, testLog, 5), meter.VoucherHead)
}

func TestBeginReservesPromptAndFirstWindow(t *testing.T) {
	for _, tt := range []struct {
		name        string
		credit      uint64
		t           meter.Terms
		want        string
		secondFails string // how a second, equal job is refused
	}{
		{"exactly enough", 100 + 2*256, terms(100, 1000), "", meter.CreditShort},
		{"one nano short", 100 + 2*256 - 1, terms(100, 1000), meter.CreditShort, ""},
		{"a small ceiling has a small window", 100 + 2*7, terms(100, 7), "", meter.CreditShort},
		{"enough for two", 2 * (100 + 2*256), terms(100, 1000), "", ""},
		{"total at the ceilings' cost", 1e6, meter.Terms{Prices: testPrices, Prompt: 100, Completion: 1000, Total: 2100}, "", ""},
		{"total below it", 1e6, meter.Terms{Prices: testPrices, Prompt: 100, Completion: 1000, Total: 2099}, meter.CeilingTotal, ""},
		{"no prompt", 1e6, terms(0, 1), meter.CeilingTotal, ""},
		{"no completion", 1e6, terms(1, 0), meter.CeilingTotal, ""},
		{"a cost beyond uint64", 1e6, terms(math.MaxUint64, math.MaxUint64), meter.CeilingTotal, ""},
		{"a sum beyond uint64", 1e6, terms(math.MaxUint64-500, 1), meter.CreditShort, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newClient(1)
			a := open(t, newMeter(t, newTimer().wait), c, meter.Opening{Paid: 1000})
			credit(t, a, c, 1000+tt.credit) // what was paid before counts as spent
			_, err := a.Begin(tt.t)
			wantRefusal(t, err, tt.want)
			if tt.want == "" {
				_, err = a.Begin(tt.t)
				wantRefusal(t, err, tt.secondFails)
			}
		})
	}
}

func TestOpenJobsAreCapped(t *testing.T) {
	c := newClient(1)
	a := open(t, newMeter(t, newTimer().wait), c, meter.Opening{})
	credit(t, a, c, 1e6)
	var last *meter.Job
	for range 3 {
		var err error
		last, err = a.Begin(terms(1, 1))
		wantRefusal(t, err, "")
	}
	_, err := a.Begin(terms(1, 1))
	wantRefusal(t, err, meter.LimitJobs)
	settle(t, a, c, last, attestation.Usage{})
	_, err = a.Begin(terms(1, 1))
	wantRefusal(t, err, "")
}

func TestChannelsAreCapped(t *testing.T) {
	m := newMeter(t, newTimer().wait)
	for i := range byte(3) {
		_, err := m.Open(meter.Opening{Channel: attestation.NewAddress(0, [32]byte{i + 1}), ClientKey: newClient(1).public()})
		want := ""
		if i == 2 {
			want = meter.LimitChannels
		}
		wantRefusal(t, err, want)
	}
}

func TestStartOverCeilingIsFree(t *testing.T) {
	c := newClient(1)
	a := open(t, newMeter(t, newTimer().wait), c, meter.Opening{})
	credit(t, a, c, 1e6)
	j, err := a.Begin(terms(100, 10))
	wantRefusal(t, err, "")
	wantRefusal(t, j.Start(101, 0), meter.CeilingPrompt)
	if b := settle(t, a, c, j, attestation.Usage{Prompt: 101, Completion: 5}); b.Cost != 0 || b.Usage != (attestation.Usage{}) {
		t.Errorf("bill: got %+v, want nothing", b)
	}
}

func TestStartFreesTheCeiling(t *testing.T) {
	c := newClient(1)
	a := open(t, newMeter(t, newTimer().wait), c, meter.Opening{})
	credit(t, a, c, 1002+10+2)
	j, err := a.Begin(terms(1000, 1))
	wantRefusal(t, err, "")
	_, err = a.Begin(terms(13, 1))
	wantRefusal(t, err, meter.CreditShort)
	wantRefusal(t, j.Start(10, 10), "")
	_, err = a.Begin(terms(13, 1))
	wantRefusal(t, err, "")
}

func TestGrantWaitsForCredit(t *testing.T) {
	begin := func(t *testing.T) (*client, *meter.Account, *meter.Job, *timer) {
		c, tm := newClient(1), newTimer()
		a := open(t, newMeter(t, tm.wait), c, meter.Opening{})
		credit(t, a, c, 10+2*256)
		j, err := a.Begin(terms(10, 600))
		wantRefusal(t, err, "")
		wantRefusal(t, j.Start(10, 0), "")
		for n := range uint64(256) {
			wantRefusal(t, j.Grant(t.Context(), n+1), "")
		}
		return c, a, j, tm
	}
	grant := func(ctx context.Context, j *meter.Job, n uint64) <-chan error {
		done := make(chan error, 1)
		go func() { done <- j.Grant(ctx, n) }()
		return done
	}
	t.Run("voucher arrives", func(t *testing.T) {
		c, a, j, tm := begin(t)
		done := grant(t.Context(), j, 257)
		if d := <-tm.waiting; d != meter.CreditWait {
			t.Errorf("waits %s, want %s", d, meter.CreditWait)
		}
		j.Buy()
		credit(t, a, c, 10+2*511) // one token short of the window: still waits
		select {
		case err := <-done:
			t.Fatalf("granted (%v) without credit for the window", err)
		default:
		}
		credit(t, a, c, 10+2*512)
		wantRefusal(t, <-done, "")
		credit(t, a, c, 10+2*600) // the last window is cut to the ceiling
		j.Buy()
		wantRefusal(t, j.Grant(t.Context(), 600), "")
		wantRefusal(t, j.Grant(t.Context(), 601), meter.CeilingComplete)
		if b := settle(t, a, c, j, attestation.Usage{Prompt: 10, Completion: 600}); b.Cost != 10+2*600 {
			t.Errorf("cost: got %d, want %d", b.Cost, 10+2*600)
		}
	})
	t.Run("no voucher", func(t *testing.T) {
		c, a, j, tm := begin(t)
		done := grant(t.Context(), j, 257)
		<-tm.waiting
		tm.fire <- time.Time{}
		wantRefusal(t, <-done, meter.CreditTimeout)
		if b := settle(t, a, c, j, attestation.Usage{Prompt: 10, Completion: 256}); b.Cost != 10+2*256 {
			t.Errorf("cost: got %d, want %d", b.Cost, 10+2*256)
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		_, _, j, tm := begin(t)
		ctx, cancel := context.WithCancel(t.Context())
		done := grant(ctx, j, 257)
		<-tm.waiting
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want %v", err, context.Canceled)
		}
	})
	t.Run("another job settles", func(t *testing.T) {
		c, a, j, tm := begin(t)
		credit(t, a, c, 10+2*256+500)
		other, err := a.Begin(terms(200, 1))
		wantRefusal(t, err, "")
		j.Buy()
		done := grant(t.Context(), j, 257) // needs 512 more of 298
		<-tm.waiting
		credit(t, a, c, 10+2*256+100+512)
		select {
		case err := <-done:
			t.Fatalf("granted (%v) what another job holds", err)
		default:
		}
		settle(t, a, c, other, attestation.Usage{Prompt: 100})
		wantRefusal(t, <-done, "")
	})
}

// A job does not run ahead on what was signed for another.
func TestJobsDrawOnTheirOwnWindows(t *testing.T) {
	c, tm := newClient(1), newTimer()
	a := open(t, newMeter(t, tm.wait), c, meter.Opening{})
	credit(t, a, c, 2*(10+2*256)+2*256) // two jobs, and a window more
	first, err := a.Begin(terms(10, 1000))
	wantRefusal(t, err, "")
	done := make(chan error, 1)
	go func() { done <- first.Grant(t.Context(), 257) }()
	<-tm.waiting
	second, err := a.Begin(terms(10, 1000))
	wantRefusal(t, err, "")
	select {
	case err := <-done:
		t.Fatalf("granted (%v) what the client has not bought for this job", err)
	default:
	}
	first.Buy()
	wantRefusal(t, <-done, "")
	second.Buy() // bought, it says, but there is no credit for it
	go func() { done <- second.Grant(t.Context(), 257) }()
	<-tm.waiting
	tm.fire <- time.Time{}
	wantRefusal(t, <-done, meter.CreditTimeout)
}

func TestSettleBillsNoMoreThanGranted(t *testing.T) {
	for _, tt := range []struct {
		name    string
		started bool
		u       attestation.Usage
		want    attestation.Usage
		cost    uint64
	}{
		{"as counted", true, attestation.Usage{Prompt: 50, Cached: 20, Completion: 100, Reasoning: 30}, attestation.Usage{Prompt: 50, Cached: 20, Completion: 100, Reasoning: 30}, 30 + 10 + 200},
		{"more prompt than started with", true, attestation.Usage{Prompt: 90, Cached: 0, Completion: 1}, attestation.Usage{Prompt: 50, Cached: 20, Completion: 1}, 30 + 10 + 2},
		{"more completion than granted", true, attestation.Usage{Prompt: 50, Cached: 20, Completion: 1000}, attestation.Usage{Prompt: 50, Cached: 20, Completion: 256}, 30 + 10 + 512},
		{"more reasoning than completion", true, attestation.Usage{Prompt: 50, Cached: 20, Completion: 1, Reasoning: 5}, attestation.Usage{Prompt: 50, Cached: 20, Completion: 1, Reasoning: 1}, 30 + 10 + 2},
		{"nothing", true, attestation.Usage{}, attestation.Usage{}, 0},
		{"counts known at the end", false, attestation.Usage{Prompt: 100, Cached: 1000, Completion: 3}, attestation.Usage{Prompt: 100, Cached: 100, Completion: 3}, 50 + 6},
		{"a prompt over the ceiling, known when it was answered", false, attestation.Usage{Prompt: 1000, Cached: 200, Completion: 3}, attestation.Usage{Prompt: 100, Cached: 100, Completion: 3}, 50 + 6},
		{"a prompt over the ceiling, without an answer", false, attestation.Usage{Prompt: 101}, attestation.Usage{}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newClient(1)
			a := open(t, newMeter(t, newTimer().wait), c, meter.Opening{})
			credit(t, a, c, 1e6)
			j, err := a.Begin(terms(100, 1000))
			wantRefusal(t, err, "")
			if tt.started {
				wantRefusal(t, j.Start(50, 20), "")
			}
			got := settle(t, a, c, j, tt.u)
			if diff := cmp.Diff(meter.Bill{Usage: tt.want, Cost: tt.cost}, got); diff != "" {
				t.Errorf("bill (-want +got):\n%s", diff)
			}
			if _, _, err := j.Settle(tt.u, receipt); err == nil {
				t.Errorf("a job settled twice")
			}
			if err := j.Grant(t.Context(), 500); err == nil {
				t.Errorf("a settled job is granted more")
			}
		})
	}
}

func TestUnusedCreditCarriesOver(t *testing.T) {
	c := newClient(1)
	a := open(t, newMeter(t, newTimer().wait), c, meter.Opening{})
	credit(t, a, c, 100+2*256)
	for range 20 { // each needs the whole credit at its beginning, and uses little of it
		j, err := a.Begin(terms(100-uint64(a.Statement().Settled), 256))
		wantRefusal(t, err, "")
		settle(t, a, c, j, attestation.Usage{Prompt: 1, Completion: 1})
	}
	if got := a.Statement().Settled; got != 20*3 {
		t.Errorf("settled: got %d, want %d", got, 20*3)
	}
}

func TestFailedSignatureBillsNothing(t *testing.T) {
	c := newClient(1)
	a := open(t, newMeter(t, newTimer().wait), c, meter.Opening{})
	credit(t, a, c, 100+2)
	j, err := a.Begin(terms(100, 1))
	wantRefusal(t, err, "")
	broken := errors.New("no key")
	if _, _, err := j.Settle(attestation.Usage{Prompt: 100}, func(meter.Bill) ([]byte, error) { return nil, broken }); !errors.Is(err, broken) {
		t.Fatalf("got %v, want %v", err, broken)
	}
	j, err = a.Begin(terms(100, 1))
	wantRefusal(t, err, "")
	if b := settle(t, a, c, j, attestation.Usage{Prompt: 7}); b.Index != 0 || b.Cost != 7 {
		t.Errorf("bill: got %+v, want the first one, of 7", b)
	}
}

func TestStatementShowsDurableReceiptsOnly(t *testing.T) {
	c := newClient(1)
	a := open(t, newMeter(t, newTimer().wait), c, meter.Opening{})
	credit(t, a, c, 1e6)
	var costs []uint64
	for i := range uint64(3) {
		j, err := a.Begin(terms(100, 1))
		wantRefusal(t, err, "")
		b, _, err := j.Settle(attestation.Usage{Prompt: 10 + i}, receipt)
		wantRefusal(t, err, "")
		costs = append(costs, b.Cost)
	}
	check := func(count, settled uint64) {
		t.Helper()
		if s := a.Statement(); s.Count != count || s.Settled != settled {
			t.Errorf("statement: got %d receipts of %d nano, want %d of %d", s.Count, s.Settled, count, settled)
		}
	}
	check(0, 0)
	a.Published(1)
	check(0, 0) // the one before it is not durable
	a.Published(0)
	check(2, costs[0]+costs[1])
	a.Published(2)
	check(3, costs[0]+costs[1]+costs[2])
}

func TestBootCountsStoredAndPaidAsSpent(t *testing.T) {
	c := newClient(1)
	head := [32]byte{0xba}
	stored := c.sign(t, contracts.Voucher{GlobalID: testNetwork, Channel: testChannel, Cumulative: 700, ReceiptsHead: head})
	for _, tt := range []struct {
		name     string
		stored   []byte
		paid     uint64
		spent    uint64
		base     [32]byte
		basePaid uint64
	}{
		{"new channel", nil, 0, 0, [32]byte{}, 0},
		{"host's voucher", stored, 0, 700, head, 0},
		{"host's voucher, redeemed", stored, 700, 700, head, 0},
		{"chain paid more", stored, 701, 701, [32]byte{}, 701},
		{"chain paid, host lost it", nil, 300, 300, [32]byte{}, 300},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := open(t, newMeter(t, newTimer().wait), c, meter.Opening{Stored: tt.stored, Paid: tt.paid})
			s := a.Statement()
			if s.BasePaid != tt.basePaid || (len(s.Base) != 0) != (tt.base != [32]byte{}) || a.BaseHead() != tt.base {
				t.Errorf("statement: got base of %d bytes, head %x, paid %d", len(s.Base), a.BaseHead(), s.BasePaid)
			}
			if !cmp.Equal(s.Highest, s.Base) {
				t.Errorf("highest voucher at boot is not the base voucher")
			}
			me := newClient(1)
			me.base = tt.base
			credit(t, a, me, tt.spent+3) // of which the old part buys nothing
			_, err := a.Begin(terms(2, 1))
			wantRefusal(t, err, meter.CreditShort)
			_, err = a.Begin(terms(1, 1))
			wantRefusal(t, err, "")
		})
	}
	t.Run("same channel again", func(t *testing.T) {
		m := newMeter(t, newTimer().wait)
		first := open(t, m, c, meter.Opening{Stored: stored})
		if again := open(t, m, c, meter.Opening{Paid: 900}); again != first || again.Statement().BasePaid != 0 {
			t.Errorf("what counts as spent moved within a boot")
		}
	})
	t.Run("damaged", func(t *testing.T) {
		bad := append([]byte(nil), stored...)
		bad[50] ^= 1
		_, err := newMeter(t, newTimer().wait).Open(meter.Opening{Channel: testChannel, ClientKey: c.public(), Stored: bad})
		wantRefusal(t, err, meter.VoucherSignature)
	})
}

func TestLimitFalls(t *testing.T) {
	c := newClient(1)
	a := open(t, newMeter(t, newTimer().wait), c, meter.Opening{Limit: 1000})
	credit(t, a, c, 1000)
	a.SetLimit(0) // the channel was closed
	_, err := a.Begin(terms(1, 1))
	wantRefusal(t, err, meter.CreditShort)
}

func TestUnflushed(t *testing.T) {
	c := newClient(1)
	a := open(t, newMeter(t, newTimer().wait), c, meter.Opening{})
	if raw, _ := a.Unflushed(); raw != nil {
		t.Errorf("a channel without vouchers has one to flush")
	}
	credit(t, a, c, 5)
	raw, at := a.Unflushed()
	if !cmp.Equal(raw, c.voucher(t, 5)) || at != 5 {
		t.Errorf("unflushed: got %d bytes at %d", len(raw), at)
	}
	credit(t, a, c, 6)
	a.Flushed(at)
	if _, at := a.Unflushed(); at != 6 {
		t.Errorf("unflushed: got %d, want 6", at)
	}
	a.Flushed(6)
	if raw, _ := a.Unflushed(); raw != nil {
		t.Errorf("a flushed voucher is flushed again")
	}
}
