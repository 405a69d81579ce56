package contracts_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/xssnick/tonutils-go/tlb"
	"github.com/xssnick/tonutils-go/tvm/cell"

	"cocoon/attestation"
	"cocoon/contracts"
)

func TestParseChannel(t *testing.T) {
	init := channelInit()
	addr := must(init.Address())
	want := contracts.ChannelState{Init: init, Paid: 1<<64 - 1, CloseAt: 5, Closed: true}
	data := must(want.Data())
	if diff := cmp.Diff(want, must(contracts.ParseChannel(addr, contracts.ChannelCode(), data))); diff != "" {
		t.Fatal(diff)
	}

	variant := func(change func(*contracts.ChannelState)) *cell.Cell {
		s := want
		change(&s)
		return must(s.Data())
	}
	rebuilt := func(paid *cell.Builder, more func(*cell.Builder)) *cell.Cell {
		b := cell.BeginCell().MustStoreBuilder(paid).MustStoreUInt(0, 33)
		more(b)
		return b.EndCell()
	}
	terms := data.MustPeekRef(0)
	zero := cell.BeginCell().MustStoreCoins(0)
	withTerms := func(b *cell.Builder) { b.MustStoreRef(terms) }
	pruned := must(cell.CreatePrunedBranch(terms, 1, 0))
	for name, c := range map[string]struct {
		addr       attestation.Address
		code, data *cell.Cell
		want       string
	}{
		"other code":         {addr, contracts.WorkerCode(), data, "code hash: got"},
		"no code":            {addr, nil, data, "code: got none"},
		"no data":            {addr, contracts.ChannelCode(), nil, "got none"},
		"other address":      {person(1), contracts.ChannelCode(), data, "address: got"},
		"masterchain":        {attestation.NewAddress(-1, addr.ID()), contracts.ChannelCode(), data, "address: got"},
		"other nonce":        {addr, contracts.ChannelCode(), variant(func(s *contracts.ChannelState) { s.Init.Nonce[0]++ }), "address: got"},
		"other key":          {addr, contracts.ChannelCode(), variant(func(s *contracts.ChannelState) { s.Init.ClientKey[0]++ }), "address: got"},
		"other payout":       {addr, contracts.ChannelCode(), variant(func(s *contracts.ChannelState) { s.Init.Payout = person(9) }), "address: got"},
		"unsound key":        {addr, contracts.ChannelCode(), variant(func(s *contracts.ChannelState) { s.Init.ClientKey = [32]byte{1} }), "unsound client key"},
		"long close delay":   {addr, contracts.ChannelCode(), variant(func(s *contracts.ChannelState) { s.Init.CloseDelay = 1 << 31 }), "close delay"},
		"one bit more":       {addr, contracts.ChannelCode(), data.ToBuilder().MustStoreUInt(0, 1).EndCell(), "trailing data"},
		"one reference more": {addr, contracts.ChannelCode(), data.ToBuilder().MustStoreRef(cell.BeginCell().EndCell()).EndCell(), "got more than 3"},
		"padded amount":      {addr, contracts.ChannelCode(), rebuilt(cell.BeginCell().MustStoreUInt(1, 4).MustStoreUInt(0, 8), withTerms), "canonical"},
		"amount of 65 bits":  {addr, contracts.ChannelCode(), rebuilt(cell.BeginCell().MustStoreUInt(9, 4).MustStoreUInt(1, 8).MustStoreUInt(0, 64), withTerms), "paid"},
		"no terms":           {addr, contracts.ChannelCode(), rebuilt(zero, func(*cell.Builder) {}), "terms"},
		"pruned terms":       {addr, contracts.ChannelCode(), rebuilt(zero, func(b *cell.Builder) { b.MustStoreRef(pruned) }), "exotic"},
		"truncated":          {addr, contracts.ChannelCode(), cell.BeginCell().MustStoreUInt(0, 30).MustStoreRef(terms).EndCell(), "close at"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := contracts.ParseChannel(c.addr, c.code, c.data)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
		})
	}
}

func TestChannelInitRefuses(t *testing.T) {
	for name, change := range map[string]func(*contracts.ChannelInit){
		"no worker":     func(i *contracts.ChannelInit) { i.WorkerID = attestation.Address{} },
		"no client":     func(i *contracts.ChannelInit) { i.Client = attestation.Address{} },
		"no payout":     func(i *contracts.ChannelInit) { i.Payout = attestation.Address{} },
		"no redeemer":   func(i *contracts.ChannelInit) { i.Redeemer = attestation.Address{} },
		"workchain 7":   func(i *contracts.ChannelInit) { i.Payout = attestation.NewAddress(7, [32]byte{1}) },
		"workchain 256": func(i *contracts.ChannelInit) { i.Payout = attestation.NewAddress(256, [32]byte{1}) },
		"no delay":      func(i *contracts.ChannelInit) { i.CloseDelay = 0 },
		"a year's wait": func(i *contracts.ChannelInit) { i.CloseDelay = year },
		"no key":        func(i *contracts.ChannelInit) { i.ClientKey = [32]byte{} },
	} {
		i := channelInit()
		change(&i)
		if _, err := i.Address(); err == nil {
			t.Errorf("%s: got nil, want an error", name)
		}
	}
}

func TestVoucherVerify(t *testing.T) {
	key := testKey(clientKeySeed)
	pub := [32]byte(key[32:])
	ch := person(3)
	v := contracts.Voucher{GlobalID: globalID, Channel: ch, Cumulative: 5, ReceiptsHead: [32]byte{2}}
	s := must(contracts.SignVoucher(key, v))
	if err := s.Verify(pub, globalID, ch); err != nil {
		t.Fatal(err)
	}
	var mismatch *contracts.VoucherMismatchError
	if err := s.Verify(pub, -3, ch); !errors.As(err, &mismatch) || mismatch.Field != "global id" || mismatch.Got != "-239" || mismatch.Want != "-3" {
		t.Errorf("another network: got %v", err)
	}
	if err := s.Verify(pub, globalID, person(4)); !errors.As(err, &mismatch) || mismatch.Field != "channel" || mismatch.Want != person(4).String() {
		t.Errorf("another channel: got %v", err)
	}
	if err := s.Verify([32]byte(testKey(1)[32:]), globalID, ch); !errors.Is(err, contracts.ErrVoucherSignature) {
		t.Errorf("another key: got %v", err)
	}
	if err := s.Verify([32]byte{}, globalID, ch); !errors.Is(err, contracts.ErrUnsoundKey) {
		t.Errorf("zero key: got %v", err)
	}
	raw := must(s.MarshalBinary())
	if len(raw) != contracts.SignedVoucherSize {
		t.Fatalf("binary: got %d bytes, want %d", len(raw), contracts.SignedVoucherSize)
	}
	for i := range raw {
		for bit := range 8 {
			raw[i] ^= 1 << bit
			var f contracts.SignedVoucher
			if err := f.UnmarshalBinary(raw); err == nil && f.Verify(pub, globalID, ch) == nil {
				t.Errorf("byte %d bit %d flipped: still verifies", i, bit)
			}
			raw[i] ^= 1 << bit
		}
	}
	var back contracts.SignedVoucher
	if err := back.UnmarshalBinary(raw); err != nil || back != s {
		t.Errorf("round trip: got %v %v", back, err)
	}
	for _, bad := range [][]byte{nil, raw[:len(raw)-1], append(append([]byte{}, raw...), 0)} {
		if err := back.UnmarshalBinary(bad); err == nil {
			t.Errorf("%d bytes: got nil, want an error", len(bad))
		}
	}
}

func TestRedeemRoundTrip(t *testing.T) {
	s := must(contracts.SignVoucher(testKey(1), contracts.Voucher{GlobalID: -3, Channel: attestation.NewAddress(-1, [32]byte{1}), Cumulative: 1 << 63}))
	got, err := contracts.ParseRedeem(must(contracts.RedeemBody(s)))
	if err != nil || got != s {
		t.Errorf("got %+v %v, want %+v", got, err, s)
	}
	if _, err := contracts.ParseRedeemed((contracts.Redeemed{Cumulative: 1, Paid: 2}).Cell()); err == nil {
		t.Error("paid above the voucher: got nil, want an error")
	}
}

func TestParseRegistryRefuses(t *testing.T) {
	good := contracts.RegistryState{
		Owner: owner, Guardian: guardian, Delay: short, Version: 3, NextID: 2,
		Entries: map[[32]byte]contracts.Entry{{1}: {Kind: 1}, {2}: {Kind: 2}},
		Pending: map[uint32]contracts.Pending{1: {ETA: 5, Op: contracts.RaiseFloor{ReleaseFloor: 7}}},
	}
	data := must(good.Data())
	if diff := cmp.Diff(good, must(contracts.ParseRegistry(contracts.RegistryCode(), data))); diff != "" {
		t.Fatal(diff)
	}
	build := func(change func(*contracts.RegistryState)) *cell.Cell {
		s := good
		s.Entries = map[[32]byte]contracts.Entry{{1}: {Kind: 1}, {2}: {Kind: 2}}
		change(&s)
		return must(s.Data())
	}
	// The counts stand 88 bits before the end: 16 + 8, then two dictionary bits.
	counts := func(entries, pending uint64) *cell.Cell {
		s := data.MustBeginParse()
		head := s.BitsLeft() - 26
		b := cell.BeginCell().MustStoreSlice(s.MustLoadSlice(head), head).MustStoreUInt(entries, 16).MustStoreUInt(pending, 8)
		s.MustLoadUInt(24)
		return b.MustStoreBuilder(s.ToBuilder()).EndCell()
	}
	if must(contracts.ParseRegistry(contracts.RegistryCode(), counts(2, 1))).Version != 3 {
		t.Fatal("the test's own counts are wrong")
	}
	for name, c := range map[string]struct {
		code, data *cell.Cell
		want       string
	}{
		"other code":         {contracts.ChannelCode(), data, "code hash"},
		"version 0":          {contracts.RegistryCode(), build(func(s *contracts.RegistryState) { s.Version = 0 }), "version"},
		"short delay":        {contracts.RegistryCode(), build(func(s *contracts.RegistryState) { s.Delay = short - 1 }), "delay"},
		"long delay":         {contracts.RegistryCode(), build(func(s *contracts.RegistryState) { s.Delay = 1 << 31 }), "delay"},
		"kind 0":             {contracts.RegistryCode(), build(func(s *contracts.RegistryState) { s.Entries[[32]byte{3}] = contracts.Entry{} }), "kind"},
		"kind 4":             {contracts.RegistryCode(), build(func(s *contracts.RegistryState) { s.Entries[[32]byte{3}] = contracts.Entry{Kind: 4} }), "kind"},
		"id not given yet":   {contracts.RegistryCode(), build(func(s *contracts.RegistryState) { s.NextID = 1 }), "id below"},
		"entries miscounted": {contracts.RegistryCode(), counts(1, 1), "canonical"},
		"pending miscounted": {contracts.RegistryCode(), counts(2, 0), "canonical"},
		"too many entries":   {contracts.RegistryCode(), counts(257, 1), "entry count"},
		"too many pending":   {contracts.RegistryCode(), counts(2, 17), "pending count"},
		"one bit more":       {contracts.RegistryCode(), data.ToBuilder().MustStoreUInt(0, 1).EndCell(), "trailing"},
		"pruned entries":     {contracts.RegistryCode(), prune(t, data), "exotic"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := contracts.ParseRegistry(c.code, c.data)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
		})
	}
}

// prune puts a pruned branch in the place of a cell's first reference, as a proof of something else would.
func prune(t *testing.T, c *cell.Cell) *cell.Cell {
	t.Helper()
	s := c.MustBeginParse()
	n := s.BitsLeft()
	b := cell.BeginCell().MustStoreSlice(s.MustLoadSlice(n), n)
	b.MustStoreRef(must(cell.CreatePrunedBranch(c.MustPeekRef(0), 1, 0)))
	for i := 1; i < int(c.RefsNum()); i++ {
		b.MustStoreRef(c.MustPeekRef(i))
	}
	return b.EndCell()
}

func TestParseWorkerRefuses(t *testing.T) {
	init := contracts.WorkerInit{Owner: owner, Nonce: [32]byte{4}}
	id := must(init.WorkerID())
	r := workerRecord(2)
	data := must(contracts.WorkerState{Init: init, Record: &r}.Data())
	if _, err := contracts.ParseWorker(id, contracts.WorkerCode(), data); err != nil {
		t.Fatal(err)
	}
	record := data.MustPeekRef(0)
	endpoint, prices := record.MustPeekRef(0), record.MustPeekRef(1)
	replace := func(endpoint, prices *cell.Cell) *cell.Cell {
		s := record.MustBeginParse()
		n := s.BitsLeft()
		rec := cell.BeginCell().MustStoreSlice(s.MustLoadSlice(n), n).MustStoreRef(endpoint).MustStoreRef(prices).EndCell()
		s = data.MustBeginParse()
		n = s.BitsLeft()
		return cell.BeginCell().MustStoreSlice(s.MustLoadSlice(n), n).MustStoreRef(rec).EndCell()
	}
	if _, err := contracts.ParseWorker(id, contracts.WorkerCode(), replace(endpoint, prices)); err != nil {
		t.Fatalf("the test's own rebuild: %v", err)
	}
	text := func(s string, next *cell.Cell) *cell.Cell {
		b := cell.BeginCell().MustStoreSlice([]byte(s), uint(len(s)*8))
		if next != nil {
			b.MustStoreRef(next)
		}
		return b.EndCell()
	}
	falling := must(cell.BeginCell().MustStoreSlice([]byte(strings.Repeat("\xff", 32)), 256).MustStoreUInt(0, 64).MustStoreUInt(0, 64).
		MustStoreUInt(0, 64).MustStoreUInt(0, 64).MustStoreMaybeRef(prices).EndCell(), nil)
	for name, c := range map[string]struct {
		id         attestation.Address
		code, data *cell.Cell
		want       string
	}{
		"other code":       {id, contracts.ChannelCode(), data, "code hash"},
		"other id":         {person(2), contracts.WorkerCode(), data, "address: got"},
		"empty endpoint":   {id, contracts.WorkerCode(), replace(text("", nil), prices), "endpoint"},
		"odd chunks":       {id, contracts.WorkerCode(), replace(text("a", text("b", nil)), prices), "canonical"},
		"unprintable":      {id, contracts.WorkerCode(), replace(text("a\x00b", nil), prices), "printable"},
		"falling models":   {id, contracts.WorkerCode(), replace(endpoint, falling), "canonical"},
		"pruned record":    {id, contracts.WorkerCode(), prune(t, data), "exotic"},
		"one bit more":     {id, contracts.WorkerCode(), data.ToBuilder().MustStoreUInt(0, 1).EndCell(), "trailing"},
		"truncated prices": {id, contracts.WorkerCode(), replace(endpoint, text("x", nil)), "model"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := contracts.ParseWorker(c.id, c.code, c.data)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
		})
	}
}

// A tree that shares cells must not cost more than it has cells.
func TestParsersAreBounded(t *testing.T) {
	c := cell.BeginCell().EndCell()
	for range 100 {
		c = cell.BeginCell().MustStoreRef(c).MustStoreRef(c).MustStoreRef(c).MustStoreRef(c).EndCell()
	}
	if _, err := contracts.ParseRegistry(contracts.RegistryCode(), c); err == nil || !strings.Contains(err.Error(), "got more than") {
		t.Errorf("got %v, want a bound on cells", err)
	}
}

func TestAddressesOfOtherKinds(t *testing.T) {
	for _, wc := range []int32{1, -2, 255, 256, -1 << 31} {
		if _, err := contracts.ToTON(attestation.NewAddress(wc, [32]byte{1})); err == nil {
			t.Errorf("workchain %d: got nil, want an error", wc)
		}
	}
	for _, a := range []attestation.Address{person(1), attestation.NewAddress(-1, [32]byte{5})} {
		if back := must(contracts.FromTON(ton(t, a))); back != a {
			t.Errorf("round trip: got %s, want %s", back, a)
		}
	}
	if _, err := contracts.FromTON(nil); err == nil {
		t.Error("no address: got nil, want an error")
	}
	var none tlb.InternalMessage
	if _, err := contracts.FromTON(none.SrcAddr); err == nil {
		t.Error("absent address: got nil, want an error")
	}
}

func TestCheckChannelForWorker(t *testing.T) {
	want := contracts.WorkerChecks{WorkerID: workerID, Payout: payee, Redeemer: redeemer}
	const least = contracts.MinDeposit + contracts.Reserve
	open := contracts.ChannelState{Init: channelInit()}
	for name, c := range map[string]struct {
		field   string // "": served
		balance uint64
		change  func(*contracts.ChannelState, *contracts.WorkerChecks)
	}{
		"just enough":    {"", least, func(*contracts.ChannelState, *contracts.WorkerChecks) {}},
		"one nano short": {"deposit", least - 1, func(*contracts.ChannelState, *contracts.WorkerChecks) {}},
		"empty":          {"deposit", 0, func(*contracts.ChannelState, *contracts.WorkerChecks) {}},
		"spent":          {"", contracts.Reserve, func(s *contracts.ChannelState, _ *contracts.WorkerChecks) { s.Paid = contracts.MinDeposit }},
		"other worker":   {"worker id", coin, func(s *contracts.ChannelState, _ *contracts.WorkerChecks) { s.Init.WorkerID = stranger }},
		"other payout":   {"payout", coin, func(s *contracts.ChannelState, _ *contracts.WorkerChecks) { s.Init.Payout = stranger }},
		"other redeemer": {"redeemer", coin, func(s *contracts.ChannelState, _ *contracts.WorkerChecks) { s.Init.Redeemer = stranger }},
		"short window":   {"close delay", coin, func(s *contracts.ChannelState, _ *contracts.WorkerChecks) { s.Init.CloseDelay-- }},
		"long window":    {"close delay", coin, func(s *contracts.ChannelState, _ *contracts.WorkerChecks) { s.Init.CloseDelay++ }},
		"unsound key":    {"client key", coin, func(s *contracts.ChannelState, _ *contracts.WorkerChecks) { s.Init.ClientKey = [32]byte{1} }},
		"closing":        {"state", coin, func(s *contracts.ChannelState, _ *contracts.WorkerChecks) { s.CloseAt = 1 }},
		"closed":         {"state", coin, func(s *contracts.ChannelState, _ *contracts.WorkerChecks) { s.Closed = true }},
		"nothing expected": {"worker's own addresses", coin, func(s *contracts.ChannelState, w *contracts.WorkerChecks) {
			*s, *w = contracts.ChannelState{}, contracts.WorkerChecks{}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s, w := open, want
			c.change(&s, &w)
			err := contracts.CheckChannelForWorker(s, w, c.balance)
			var refused *contracts.ChannelRefusedError
			switch {
			case c.field == "" && err != nil:
				t.Errorf("got %v, want it served", err)
			case c.field != "" && (!errors.As(err, &refused) || refused.Field != c.field):
				t.Errorf("got %v, want it refused for its %s", err, c.field)
			}
		})
	}
}

func TestCreditLimit(t *testing.T) {
	for name, c := range map[string]struct {
		state   contracts.ChannelState
		balance uint64
		want    uint64
	}{
		"open":       {contracts.ChannelState{Paid: 5}, contracts.Reserve + 7, 12},
		"at reserve": {contracts.ChannelState{Paid: 5}, contracts.Reserve, 5},
		"in debt":    {contracts.ChannelState{Paid: 5}, 0, 5},
		"closed":     {contracts.ChannelState{Paid: 5, Closed: true}, coin, 5},
		"huge":       {contracts.ChannelState{Paid: 1<<64 - 2}, coin, 1<<64 - 1},
	} {
		if got := c.state.CreditLimit(c.balance); got != c.want {
			t.Errorf("%s: got %d, want %d", name, got, c.want)
		}
	}
}
