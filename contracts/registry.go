package contracts

import (
	"fmt"
	"time"

	"github.com/xssnick/tonutils-go/tlb"
	"github.com/xssnick/tonutils-go/tvm/cell"

	"cocoon/attestation"
)

// Bounds of a registry, as its code has them. Delays are in seconds.
const (
	MaxEntries = 256
	MaxPending = 16

	MinRegistryDelay   = 24 * 3600
	MaxRegistryDelay   = 30 * 24 * 3600
	SlowRegistryDelay  = 7 * 24 * 3600  // for changes of owner, guardian, delay and code
	ProposalExpiration = 30 * 24 * 3600 // after the ETA
)

// A dictionary of n entries has 2n-1 cells; a proposal brings one more.
const maxRegistryCells = 1 + 2*MaxEntries + 3*MaxPending

// Entry is one thing that clients may accept, under its digest. The kinds and what Meta says of each are
// attestation.EntryRelease, EntryModel and EntryPolicyFloor.
type Entry struct {
	Kind      uint8
	NotBefore uint32 // Unix seconds
	RevokedAt uint32 // Unix seconds; 0: never
	Meta      [32]byte
}

// Pending is a proposal in its timelock.
type Pending struct {
	ETA uint32 // Unix seconds from which anyone may execute it
	Op  Op
}

// RegistryInit is what a registry is deployed with.
type RegistryInit struct {
	Owner        attestation.Address
	Guardian     attestation.Address // zero: none
	Delay        uint32              // seconds of timelock
	ReleaseFloor uint64
	Entries      map[[32]byte]Entry
}

// StateInit is what a deploying message carries. The first version is 1.
func (i RegistryInit) StateInit() (*tlb.StateInit, error) {
	data, err := RegistryState{
		Owner: i.Owner, Guardian: i.Guardian, Delay: i.Delay,
		Version: 1, ReleaseFloor: i.ReleaseFloor, Entries: i.Entries,
	}.Data()
	if err != nil {
		return nil, err
	}
	if _, err := ParseRegistry(RegistryCode(), data); err != nil {
		return nil, err
	}
	return &tlb.StateInit{Code: RegistryCode(), Data: data}, nil
}

// Address is where the registry lives. Its data change, so clients pin this address; it cannot be recomputed
// from a later state.
func (i RegistryInit) Address() (attestation.Address, error) {
	s, err := i.StateInit()
	if err != nil {
		return attestation.Address{}, err
	}
	return addressOf(s)
}

// RegistryState is a registry's data.
type RegistryState struct {
	Owner        attestation.Address
	Guardian     attestation.Address // zero: none
	Delay        uint32              // seconds
	Version      uint32              // rises by one with every executed proposal and every revocation
	ReleaseFloor uint64              // only rises
	NextID       uint32              // the next proposal's
	Entries      map[[32]byte]Entry
	Pending      map[uint32]Pending
}

// View is the state in the form that policies read. The caller has proven the account at that address.
func (s RegistryState) View(addr attestation.Address, provenAt time.Time) attestation.RegistryView {
	v := attestation.RegistryView{
		Address: addr, Version: uint64(s.Version), ReleaseFloor: s.ReleaseFloor,
		Entries: make(map[[32]byte]attestation.RegistryEntry, len(s.Entries)), ProvenAt: provenAt,
	}
	for k, e := range s.Entries {
		v.Entries[k] = attestation.RegistryEntry{
			Kind: e.Kind, NotBefore: int64(e.NotBefore), RevokedAt: int64(e.RevokedAt), Meta: e.Meta,
		}
	}
	return v
}

// Data builds the data cell (Registry in schema.tlb).
func (s RegistryState) Data() (*cell.Cell, error) {
	entries := cell.NewDict(256)
	for k, e := range s.Entries {
		if err := entries.SetBuilder(cell.BeginCell().MustStoreSlice(k[:], 256).EndCell(), e.builder()); err != nil {
			return nil, fmt.Errorf("registry: entry %x: %w", k, err)
		}
	}
	pending := cell.NewDict(32)
	for id, p := range s.Pending {
		op, err := p.Op.Cell()
		if err != nil {
			return nil, fmt.Errorf("registry: proposal %d: %w", id, err)
		}
		value := cell.BeginCell().MustStoreUInt(uint64(p.ETA), 32).MustStoreRef(op)
		if err := pending.SetBuilder(cell.BeginCell().MustStoreUInt(uint64(id), 32).EndCell(), value); err != nil {
			return nil, fmt.Errorf("registry: proposal %d: %w", id, err)
		}
	}
	b := cell.BeginCell()
	for _, err := range []error{
		storeAddress(b, "owner", s.Owner),
		storeOptionalAddress(b, "guardian", s.Guardian),
		b.StoreUInt(uint64(s.Delay), 32),
		b.StoreUInt(uint64(s.Version), 32),
		b.StoreUInt(s.ReleaseFloor, 64),
		b.StoreUInt(uint64(s.NextID), 32),
		b.StoreUInt(uint64(len(s.Entries)), 16),
		b.StoreUInt(uint64(len(s.Pending)), 8),
		b.StoreMaybeRef(entries.AsCell()),
		b.StoreMaybeRef(pending.AsCell()),
	} {
		if err != nil {
			return nil, fmt.Errorf("registry: %w", err)
		}
	}
	return b.EndCell(), nil
}

func (e Entry) builder() *cell.Builder {
	return cell.BeginCell().
		MustStoreUInt(uint64(e.Kind), 8).
		MustStoreUInt(uint64(e.NotBefore), 32).
		MustStoreUInt(uint64(e.RevokedAt), 32).
		MustStoreSlice(e.Meta[:], 256)
}

// ParseRegistry reads the code and data of a registry's account, as they were proven at the address that the
// caller trusts.
func ParseRegistry(code, data *cell.Cell) (RegistryState, error) {
	if err := checkCode("registry", code, RegistryCodeHash); err != nil {
		return RegistryState{}, err
	}
	s, err := parseRegistryData(data)
	if err != nil {
		return RegistryState{}, fmt.Errorf("registry: data: %w", err)
	}
	return s, nil
}

func parseRegistryData(data *cell.Cell) (RegistryState, error) {
	var s RegistryState
	if err := ordinary(data, maxRegistryCells); err != nil {
		return s, err
	}
	r := read(data)
	s.Owner = r.address("owner")
	s.Guardian = r.optionalAddress("guardian")
	s.Delay = uint32(r.uint("delay", 32))
	s.Version = uint32(r.uint("version", 32))
	s.ReleaseFloor = r.uint("release floor", 64)
	s.NextID = uint32(r.uint("next id", 32))
	entryCount := r.uint("entry count", 16)
	pendingCount := r.uint("pending count", 8)
	entries := r.maybeRef("entries")
	pending := r.maybeRef("pending")
	if err := r.end(); err != nil {
		return s, err
	}
	switch {
	case s.Delay < MinRegistryDelay || s.Delay > MaxRegistryDelay:
		return s, fmt.Errorf("delay: got %d s, want %d to %d", s.Delay, MinRegistryDelay, MaxRegistryDelay)
	case s.Version == 0:
		return s, fmt.Errorf("version: got 0, want at least 1")
	case entryCount > MaxEntries:
		return s, fmt.Errorf("entry count: got %d, want at most %d", entryCount, MaxEntries)
	case pendingCount > MaxPending:
		return s, fmt.Errorf("pending count: got %d, want at most %d", pendingCount, MaxPending)
	}
	var err error
	if s.Entries, err = parseEntries(entries); err != nil {
		return s, err
	}
	if s.Pending, err = parsePending(pending, s.NextID); err != nil {
		return s, err
	}
	// The counts are compared here too: Data writes what it finds.
	built, err := s.Data()
	return s, same(data, built, err)
}

func parseEntries(root *cell.Cell) (map[[32]byte]Entry, error) {
	if root == nil {
		return nil, nil
	}
	all, err := root.AsDict(256).LoadAll()
	if err != nil {
		return nil, fmt.Errorf("entries: %w", err)
	}
	out := make(map[[32]byte]Entry, len(all))
	for _, kv := range all {
		key, err := kv.Key.LoadSlice(256)
		if err != nil {
			return nil, fmt.Errorf("entries: %w", err)
		}
		r := &reader{s: kv.Value}
		e := Entry{
			Kind:      uint8(r.uint("kind", 8)),
			NotBefore: uint32(r.uint("not before", 32)),
			RevokedAt: uint32(r.uint("revoked at", 32)),
			Meta:      r.bytes32("meta"),
		}
		if err := r.end(); err != nil {
			return nil, fmt.Errorf("entry %x: %w", key, err)
		}
		if err := checkKind(e.Kind); err != nil {
			return nil, fmt.Errorf("entry %x: %w", key, err)
		}
		out[[32]byte(key)] = e
	}
	return out, nil
}

func parsePending(root *cell.Cell, nextID uint32) (map[uint32]Pending, error) {
	if root == nil {
		return nil, nil
	}
	all, err := root.AsDict(32).LoadAll()
	if err != nil {
		return nil, fmt.Errorf("pending: %w", err)
	}
	out := make(map[uint32]Pending, len(all))
	for _, kv := range all {
		id, err := kv.Key.LoadUInt(32)
		if err != nil {
			return nil, fmt.Errorf("pending: %w", err)
		}
		if id >= uint64(nextID) {
			return nil, fmt.Errorf("proposal %d: want an id below the next, %d", id, nextID)
		}
		r := &reader{s: kv.Value}
		p := Pending{ETA: uint32(r.uint("eta", 32))}
		op := r.ref("op")
		if err := r.end(); err != nil {
			return nil, fmt.Errorf("proposal %d: %w", id, err)
		}
		if p.Op, err = ParseOp(op); err != nil {
			return nil, fmt.Errorf("proposal %d: %w", id, err)
		}
		out[uint32(id)] = p
	}
	return out, nil
}

func checkKind(kind uint8) error {
	if kind < attestation.EntryRelease || kind > attestation.EntryPolicyFloor {
		return fmt.Errorf("kind: got %d, want %d to %d", kind, attestation.EntryRelease, attestation.EntryPolicyFloor)
	}
	return nil
}
