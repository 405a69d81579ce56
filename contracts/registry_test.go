package contracts_test

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/xssnick/tonutils-go/tlb"
	"github.com/xssnick/tonutils-go/tvm/cell"

	"cocoon/attestation"
	"cocoon/contracts"
)

var (
	owner    = person(0x0e)
	guardian = person(0x06)
)

const (
	errRegSender   = 201
	errRegFull     = 202
	errNoProposal  = 203
	errTooEarly    = 204
	errTooLate     = 205
	errNoEntry     = 206
	errRevoked     = 207
	errFloor       = 208
	errKind        = 209
	errDelay       = 210
	errCode        = 211
	errGuardian    = 212
	errRegBody     = 213
	errRegAddress  = 214
	window         = contracts.ProposalExpiration
	short, long    = contracts.MinRegistryDelay, contracts.SlowRegistryDelay
	releaseFloor   = 3
	firstEntryKind = attestation.EntryRelease
)

type registry struct{ *account }

// entryKey spreads keys over the dictionary.
func entryKey(n int) (k [32]byte) {
	binary.BigEndian.PutUint32(k[:], uint32(n)*2654435761)
	return k
}

func registryInit(entries int) contracts.RegistryInit {
	init := contracts.RegistryInit{
		Owner: owner, Guardian: guardian, Delay: short, ReleaseFloor: releaseFloor,
		Entries: map[[32]byte]contracts.Entry{},
	}
	for n := range entries {
		init.Entries[entryKey(n)] = contracts.Entry{Kind: firstEntryKind, NotBefore: 7, Meta: attestation.ReleaseMeta(uint64(n))}
	}
	return init
}

func deployRegistry(t testing.TB, init contracts.RegistryInit) *registry {
	t.Helper()
	a := newAccount(t, must(init.Address()))
	if o := a.deliver(a.message(owner, coin, nil, must(init.StateInit()))); !o.acted {
		t.Fatalf("deploy: exit %d", o.exit)
	}
	return &registry{a}
}

func (r *registry) parse() contracts.RegistryState {
	r.t.Helper()
	code, data, _ := r.state()
	s, err := contracts.ParseRegistry(code, data)
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}

// must sends a message and wants the state to become what change makes of it.
func (r *registry) must(from attestation.Address, body *cell.Cell, change func(*contracts.RegistryState)) {
	r.t.Helper()
	want := r.parse()
	if o := r.send(from, contracts.RegistryFee, body); !o.acted || len(o.toward) != 0 {
		r.t.Fatalf("exit %d, payments %v", o.exit, o.toward)
	}
	change(&want)
	if diff := cmp.Diff(want, r.parse(), equateEmpty()); diff != "" {
		r.t.Fatal(diff)
	}
}

func (r *registry) mustReject(exit int64, from attestation.Address, body *cell.Cell) {
	r.t.Helper()
	before := r.parse()
	o := r.send(from, contracts.RegistryFee, body)
	if o.exit != exit || o.acted || o.bounce == 0 {
		r.t.Errorf("exit: got %d (acted %t, %d nano back), want %d and a bounce", o.exit, o.acted, o.bounce, exit)
	}
	if diff := cmp.Diff(before, r.parse()); diff != "" {
		r.t.Errorf("state changed: %s", diff)
	}
}

// propose as the owner; the proposal must fall due after wait seconds.
func (r *registry) propose(op contracts.Op, wait uint32) uint32 {
	r.t.Helper()
	id := r.parse().NextID
	r.must(owner, must(contracts.ProposeBody(op)), func(s *contracts.RegistryState) {
		if s.Pending == nil {
			s.Pending = map[uint32]contracts.Pending{}
		}
		s.Pending[id] = contracts.Pending{ETA: r.now + wait, Op: op}
		s.NextID++
	})
	return id
}

func (r *registry) execute(id uint32, code *cell.Cell, change func(*contracts.RegistryState)) {
	r.t.Helper()
	r.must(stranger, contracts.ExecuteBody(id, code), func(s *contracts.RegistryState) {
		delete(s.Pending, id)
		s.Version++
		change(s)
	})
}

func equateEmpty() cmp.Option {
	return cmp.FilterValues(func(a, b map[uint32]contracts.Pending) bool { return len(a) == 0 && len(b) == 0 }, cmp.Ignore())
}

func TestRegistryStartsAsInitialised(t *testing.T) {
	init := registryInit(5)
	r := deployRegistry(t, init)
	want := contracts.RegistryState{
		Owner: owner, Guardian: guardian, Delay: short, Version: 1, ReleaseFloor: releaseFloor, Entries: init.Entries,
	}
	if diff := cmp.Diff(want, r.parse(), equateEmpty()); diff != "" {
		t.Error(diff)
	}
	at := time.Unix(1_780_000_000, 0)
	view := r.parse().View(r.addr, at)
	if view.Address != r.addr || view.Version != 1 || view.ReleaseFloor != releaseFloor || len(view.Entries) != 5 || !view.ProvenAt.Equal(at) {
		t.Errorf("view: got %+v", view)
	}
	if !view.Entries[entryKey(2)].Live(at) || view.Entries[entryKey(2)].Meta != attestation.ReleaseMeta(2) {
		t.Errorf("entry: got %+v", view.Entries[entryKey(2)])
	}
}

func TestProposalsWaitAndThenAnyoneExecutes(t *testing.T) {
	newCode := cell.BeginCell().MustStoreUInt(0xc0de, 16).EndCell()
	key := entryKey(77)
	for name, c := range map[string]struct {
		op     contracts.Op
		wait   uint32
		code   *cell.Cell
		change func(*contracts.RegistryState)
	}{
		"add entry": {contracts.SetEntry{Key: key, Kind: attestation.EntryModel, NotBefore: 12, Meta: [32]byte{5}}, short, nil,
			func(s *contracts.RegistryState) {
				s.Entries[key] = contracts.Entry{Kind: attestation.EntryModel, NotBefore: 12, Meta: [32]byte{5}}
			}},
		"change entry": {contracts.SetEntry{Key: entryKey(1), Kind: attestation.EntryPolicyFloor, NotBefore: 1}, short, nil,
			func(s *contracts.RegistryState) {
				s.Entries[entryKey(1)] = contracts.Entry{Kind: attestation.EntryPolicyFloor, NotBefore: 1}
			}},
		"remove entry": {contracts.RemoveEntry{Key: entryKey(0)}, short, nil,
			func(s *contracts.RegistryState) { delete(s.Entries, entryKey(0)) }},
		"raise floor": {contracts.RaiseFloor{ReleaseFloor: releaseFloor + 1}, short, nil,
			func(s *contracts.RegistryState) { s.ReleaseFloor = releaseFloor + 1 }},
		"owner": {contracts.SetOwner{Owner: stranger}, long, nil,
			func(s *contracts.RegistryState) { s.Owner = stranger }},
		"guardian": {contracts.SetGuardian{Guardian: stranger}, long, nil,
			func(s *contracts.RegistryState) { s.Guardian = stranger }},
		"no guardian": {contracts.SetGuardian{}, long, nil,
			func(s *contracts.RegistryState) { s.Guardian = attestation.Address{} }},
		"delay": {contracts.SetDelay{Delay: 2 * short}, long, nil,
			func(s *contracts.RegistryState) { s.Delay = 2 * short }},
		"same code": {contracts.SetCode{CodeHash: [32]byte(contracts.RegistryCode().Hash())}, long, contracts.RegistryCode(),
			func(*contracts.RegistryState) {}},
	} {
		t.Run(name, func(t *testing.T) {
			r := deployRegistry(t, registryInit(3))
			for _, from := range []attestation.Address{guardian, stranger, attestation.NewAddress(-1, owner.ID())} {
				if o := r.send(from, coin/10, must(contracts.ProposeBody(c.op))); o.exit != errRegSender {
					t.Errorf("proposed by %s: exit %d, want %d", from, o.exit, errRegSender)
				}
			}
			id := r.propose(c.op, c.wait)
			eta := r.parse().Pending[id].ETA
			r.mustReject(errTooEarly, owner, contracts.ExecuteBody(id, c.code))
			r.now = eta - 1
			r.mustReject(errTooEarly, stranger, contracts.ExecuteBody(id, c.code))
			r.now = eta
			r.execute(id, c.code, c.change)
			r.mustReject(errNoProposal, stranger, contracts.ExecuteBody(id, c.code))
		})
		t.Run(name+", too late", func(t *testing.T) {
			r := deployRegistry(t, registryInit(3))
			id := r.propose(c.op, c.wait)
			r.now = r.parse().Pending[id].ETA + window + 1
			r.mustReject(errTooLate, owner, contracts.ExecuteBody(id, c.code))
			r.must(owner, contracts.CancelBody(id), func(s *contracts.RegistryState) { delete(s.Pending, id) })
		})
		t.Run(name+", in the last second", func(t *testing.T) {
			r := deployRegistry(t, registryInit(3))
			id := r.propose(c.op, c.wait)
			r.now = r.parse().Pending[id].ETA + window
			r.execute(id, c.code, c.change)
		})
	}
	t.Run("other code", func(t *testing.T) {
		r := deployRegistry(t, registryInit(3))
		id := r.propose(contracts.SetCode{CodeHash: [32]byte(newCode.Hash())}, long)
		r.now += long
		r.mustReject(errCode, stranger, contracts.ExecuteBody(id, nil))
		r.mustReject(errCode, stranger, contracts.ExecuteBody(id, contracts.RegistryCode()))
		if o := r.send(stranger, contracts.RegistryFee, contracts.ExecuteBody(id, newCode)); !o.acted {
			t.Fatalf("exit %d", o.exit)
		}
		code, data, _ := r.state()
		if _, err := contracts.ParseRegistry(code, data); err == nil {
			t.Error("registry with other code: got nil, want an error")
		}
	})
}

func TestALongerDelayHoldsForSlowChangesToo(t *testing.T) {
	init := registryInit(1)
	init.Delay = contracts.MaxRegistryDelay
	r := deployRegistry(t, init)
	r.propose(contracts.RaiseFloor{ReleaseFloor: 9}, contracts.MaxRegistryDelay)
	r.propose(contracts.SetOwner{Owner: stranger}, contracts.MaxRegistryDelay)
}

func TestCancel(t *testing.T) {
	ops := map[string]contracts.Op{
		"entry": contracts.SetEntry{Key: [32]byte{1}, Kind: attestation.EntryRelease}, "remove": contracts.RemoveEntry{Key: entryKey(0)},
		"floor": contracts.RaiseFloor{ReleaseFloor: 9}, "owner": contracts.SetOwner{Owner: stranger},
		"delay": contracts.SetDelay{Delay: 2 * short}, "code": contracts.SetCode{},
		"guardian": contracts.SetGuardian{}, "other guardian": contracts.SetGuardian{Guardian: stranger},
	}
	for name, op := range ops {
		t.Run(name, func(t *testing.T) {
			r := deployRegistry(t, registryInit(1))
			drop := func(id uint32) func(*contracts.RegistryState) {
				return func(s *contracts.RegistryState) { delete(s.Pending, id) }
			}
			first, second := r.propose(op, r.wait(op)), r.propose(op, r.wait(op))
			r.mustReject(errRegSender, stranger, contracts.CancelBody(first))
			if _, own := op.(contracts.SetGuardian); own {
				r.mustReject(errGuardian, guardian, contracts.CancelBody(first))
			} else {
				r.must(guardian, contracts.CancelBody(first), drop(first))
				r.mustReject(errNoProposal, stranger, contracts.ExecuteBody(first, nil))
			}
			r.must(owner, contracts.CancelBody(second), drop(second))
			r.mustReject(errNoProposal, owner, contracts.CancelBody(second))
		})
	}
}

func (r *registry) wait(op contracts.Op) uint32 {
	if op.Slow() {
		return long
	}
	return short
}

func TestNoGuardianMeansNobody(t *testing.T) {
	init := registryInit(1)
	init.Guardian = attestation.Address{}
	r := deployRegistry(t, init)
	id := r.propose(contracts.RaiseFloor{ReleaseFloor: 9}, short)
	r.mustReject(errRegSender, guardian, contracts.CancelBody(id))
	r.mustReject(errRegSender, guardian, contracts.RevokeBody(entryKey(0)))
	r.must(owner, contracts.CancelBody(id), func(s *contracts.RegistryState) { delete(s.Pending, id) })
}

func TestRevoke(t *testing.T) {
	for name, from := range map[string]attestation.Address{"owner": owner, "guardian": guardian} {
		t.Run(name, func(t *testing.T) {
			r := deployRegistry(t, registryInit(3))
			key := entryKey(1)
			again := r.propose(contracts.SetEntry{Key: key, Kind: attestation.EntryRelease}, short)
			r.mustReject(errRegSender, stranger, contracts.RevokeBody(key))
			r.mustReject(errNoEntry, from, contracts.RevokeBody([32]byte{0xff}))
			r.must(from, contracts.RevokeBody(key), func(s *contracts.RegistryState) {
				e := s.Entries[key]
				e.RevokedAt = r.now
				s.Entries[key] = e
				s.Version++
			})
			if r.parse().View(r.addr, time.Time{}).Entries[key].Live(time.Unix(int64(r.now), 0)) {
				t.Error("a revoked entry is live")
			}
			r.mustReject(errRevoked, owner, contracts.RevokeBody(key))
			r.mustReject(errRevoked, guardian, contracts.RevokeBody(key))

			// What was in the timelock does not bring it back.
			r.now += short
			r.mustReject(errRevoked, stranger, contracts.ExecuteBody(again, nil))
		})
	}
}

func TestFloorOnlyRises(t *testing.T) {
	r := deployRegistry(t, registryInit(1))
	lower, equal := r.propose(contracts.RaiseFloor{ReleaseFloor: releaseFloor - 1}, short), r.propose(contracts.RaiseFloor{ReleaseFloor: releaseFloor}, short)
	r.now += short
	r.mustReject(errFloor, stranger, contracts.ExecuteBody(lower, nil))
	r.mustReject(errFloor, stranger, contracts.ExecuteBody(equal, nil))
}

func TestRegistryIsBounded(t *testing.T) {
	t.Run("entries", func(t *testing.T) {
		r := deployRegistry(t, registryInit(contracts.MaxEntries))
		add := r.propose(contracts.SetEntry{Key: [32]byte{0xee}, Kind: attestation.EntryModel}, short)
		change := r.propose(contracts.SetEntry{Key: entryKey(9), Kind: attestation.EntryModel}, short)
		remove := r.propose(contracts.RemoveEntry{Key: entryKey(200)}, short)
		absent := r.propose(contracts.RemoveEntry{Key: [32]byte{0xdd}}, short)
		r.now += short
		r.mustReject(errNoEntry, stranger, contracts.ExecuteBody(absent, nil))
		r.mustReject(errRegFull, stranger, contracts.ExecuteBody(add, nil))
		r.execute(change, nil, func(s *contracts.RegistryState) {
			s.Entries[entryKey(9)] = contracts.Entry{Kind: attestation.EntryModel}
		})
		r.execute(remove, nil, func(s *contracts.RegistryState) { delete(s.Entries, entryKey(200)) })
		r.execute(add, nil, func(s *contracts.RegistryState) {
			s.Entries[[32]byte{0xee}] = contracts.Entry{Kind: attestation.EntryModel}
		})
		if got := len(r.parse().Entries); got != contracts.MaxEntries {
			t.Errorf("entries: got %d, want %d", got, contracts.MaxEntries)
		}
	})
	t.Run("proposals", func(t *testing.T) {
		r := deployRegistry(t, registryInit(1))
		op := contracts.RaiseFloor{ReleaseFloor: 9}
		for range contracts.MaxPending {
			r.propose(op, short)
		}
		r.mustReject(errRegFull, owner, must(contracts.ProposeBody(op)))
		r.must(owner, contracts.CancelBody(3), func(s *contracts.RegistryState) { delete(s.Pending, 3) })
		r.propose(op, short)
	})
	t.Run("initial entries", func(t *testing.T) {
		if _, err := registryInit(contracts.MaxEntries + 1).StateInit(); err == nil {
			t.Error("got nil, want an error")
		}
	})
}

func TestRegistryRefusesMalformedMessages(t *testing.T) {
	r := deployRegistry(t, registryInit(2))
	proposal := func(op *cell.Builder) *cell.Cell {
		return cell.BeginCell().MustStoreUInt(0x43520001, 32).MustStoreRef(op.EndCell()).EndCell()
	}
	opBits := func(op contracts.Op) *cell.Builder { return must(op.Cell()).ToBuilder() }
	bits := func() *cell.Builder { return cell.BeginCell() }
	std := func(b *cell.Builder, a attestation.Address) *cell.Builder { return b.MustStoreAddr(ton(t, a)) }
	for name, c := range map[string]struct {
		exit int64
		body *cell.Cell
	}{
		"unknown op":           {errRegBody, bits().MustStoreUInt(0x43520005, 32).EndCell()},
		"comment":              {errRegBody, bits().MustStoreUInt(0, 32).EndCell()},
		"propose nothing":      {exitCell, bits().MustStoreUInt(0x43520001, 32).EndCell()},
		"propose two":          {exitCell, bits().MustStoreUInt(0x43520001, 32).MustStoreRef(bits().EndCell()).MustStoreRef(bits().EndCell()).EndCell()},
		"unknown proposal":     {exitTag, proposal(bits().MustStoreUInt(0x04, 8))},
		"proposal with more":   {exitCell, proposal(opBits(contracts.RaiseFloor{ReleaseFloor: 9}).MustStoreUInt(0, 1))},
		"proposal with a cell": {exitCell, proposal(opBits(contracts.RaiseFloor{ReleaseFloor: 9}).MustStoreRef(bits().EndCell()))},
		"truncated proposal":   {exitCell, proposal(bits().MustStoreUInt(0x03, 8).MustStoreUInt(9, 63))},
		"kind 0":               {errKind, proposal(bits().MustStoreUInt(0x01, 8).MustStoreSlice(make([]byte, 32), 256).MustStoreUInt(0, 40).MustStoreSlice(make([]byte, 32), 256))},
		"kind 4":               {errKind, proposal(bits().MustStoreUInt(0x01, 8).MustStoreSlice(make([]byte, 32), 256).MustStoreUInt(4<<32, 40).MustStoreSlice(make([]byte, 32), 256))},
		"delay below a day":    {errDelay, proposal(bits().MustStoreUInt(0x13, 8).MustStoreUInt(short-1, 32))},
		"delay above 30 days":  {errDelay, proposal(bits().MustStoreUInt(0x13, 8).MustStoreUInt(contracts.MaxRegistryDelay+1, 32))},
		"owner zero":           {errRegAddress, proposal(std(bits().MustStoreUInt(0x11, 8), attestation.Address{}))},
		"guardian zero":        {errRegAddress, proposal(std(bits().MustStoreUInt(0x12, 8), attestation.Address{}))},
		"owner of workchain 5": {errRegAddress, proposal(bits().MustStoreUInt(0x11, 8).MustStoreUInt(0b100, 3).MustStoreUInt(5, 8).MustStoreSlice(make([]byte, 31), 248).MustStoreUInt(1, 8))},
		"owner none":           {exitCell, proposal(bits().MustStoreUInt(0x11, 8).MustStoreUInt(0, 2))},
		"execute unknown":      {errNoProposal, contracts.ExecuteBody(99, nil)},
		"execute with more":    {exitCell, contracts.ExecuteBody(0, nil).ToBuilder().MustStoreUInt(0, 1).EndCell()},
		"cancel with more":     {exitCell, contracts.CancelBody(0).ToBuilder().MustStoreUInt(0, 1).EndCell()},
		"revoke truncated":     {exitCell, bits().MustStoreUInt(0x43520004, 32).MustStoreSlice(make([]byte, 32), 255).EndCell()},
	} {
		t.Run(name, func(t *testing.T) {
			r.t = t
			r.mustReject(c.exit, owner, c.body)
		})
	}
	r.t = t
	id := r.propose(contracts.RaiseFloor{ReleaseFloor: 9}, short)
	r.now += short
	r.mustReject(errCode, stranger, contracts.ExecuteBody(id, contracts.RegistryCode())) // code that nobody asked for
	if o := r.account.execute(&tlb.ExternalMessage{DstAddr: ton(t, r.addr), Body: contracts.ExecuteBody(id, nil)}); o.acted || o.gas != 0 {
		t.Errorf("external message: acted %t, %d gas charged", o.acted, o.gas)
	}
	if o := r.send(stranger, coin, nil); !o.acted {
		t.Errorf("rent from a stranger: exit %d", o.exit)
	}
}

// A registry that starts with less than a day's delay, past the bindings, still waits a day.
func TestDelayIsEnforcedByTheCode(t *testing.T) {
	init := registryInit(0)
	init.Delay = 1
	if _, err := init.StateInit(); err == nil {
		t.Error("StateInit: got nil, want an error")
	}
	data := must(contracts.RegistryState{Owner: owner, Guardian: guardian, Delay: 1, Version: 1}.Data())
	s := &tlb.StateInit{Code: contracts.RegistryCode(), Data: data}
	a := newAccount(t, attestation.NewAddress(0, [32]byte(must(tlb.ToCell(s)).Hash())))
	a.deliver(a.message(owner, coin, nil, s))
	if o := a.send(owner, contracts.RegistryFee, must(contracts.ProposeBody(contracts.RaiseFloor{ReleaseFloor: 1}))); !o.acted {
		t.Fatalf("propose: exit %d", o.exit)
	}
	a.now += short - 1
	if o := a.send(owner, contracts.RegistryFee, contracts.ExecuteBody(0, nil)); o.exit != errTooEarly {
		t.Errorf("before a day: exit %d, want %d", o.exit, errTooEarly)
	}
	a.now++
	if o := a.send(owner, contracts.RegistryFee, contracts.ExecuteBody(0, nil)); !o.acted {
		t.Errorf("after a day: exit %d", o.exit)
	}
}
