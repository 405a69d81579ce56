package contracts

import (
	"fmt"

	"github.com/xssnick/tonutils-go/tvm/cell"

	"cocoon/attestation"
)

// Op is what a proposal would do.
type Op interface {
	// Cell is the operation as the registry reads it (RegistryOp in schema.tlb).
	Cell() (*cell.Cell, error)
	// Slow operations wait at least SlowRegistryDelay.
	Slow() bool
}

// SetEntry adds an entry, or changes one that was not revoked.
type SetEntry struct {
	Key       [32]byte
	Kind      uint8
	NotBefore uint32 // Unix seconds
	Meta      [32]byte
}

// RemoveEntry makes room. It takes a revocation away with the entry.
type RemoveEntry struct{ Key [32]byte }

// RaiseFloor raises the release floor; it never falls.
type RaiseFloor struct{ ReleaseFloor uint64 }

// SetOwner hands the registry over.
type SetOwner struct{ Owner attestation.Address }

// SetGuardian replaces the guardian, or with the zero address removes it. The guardian cannot cancel it.
type SetGuardian struct{ Guardian attestation.Address }

// SetDelay changes the timelock, in seconds, from MinRegistryDelay to MaxRegistryDelay.
type SetDelay struct{ Delay uint32 }

// SetCode replaces the registry's code by one of that hash, which whoever executes it brings. The data stay, so
// the new code must read them; older bindings refuse it.
type SetCode struct{ CodeHash [32]byte }

const (
	opSetEntry    = 0x01
	opRemoveEntry = 0x02
	opRaiseFloor  = 0x03
	opSetOwner    = 0x11
	opSetGuardian = 0x12
	opSetDelay    = 0x13
	opSetCode     = 0x14
)

func (SetEntry) Slow() bool    { return false }
func (RemoveEntry) Slow() bool { return false }
func (RaiseFloor) Slow() bool  { return false }
func (SetOwner) Slow() bool    { return true }
func (SetGuardian) Slow() bool { return true }
func (SetDelay) Slow() bool    { return true }
func (SetCode) Slow() bool     { return true }

func (o SetEntry) Cell() (*cell.Cell, error) {
	if err := checkKind(o.Kind); err != nil {
		return nil, fmt.Errorf("set entry: %w", err)
	}
	return opCell(opSetEntry).MustStoreSlice(o.Key[:], 256).MustStoreUInt(uint64(o.Kind), 8).
		MustStoreUInt(uint64(o.NotBefore), 32).MustStoreSlice(o.Meta[:], 256).EndCell(), nil
}

func (o RemoveEntry) Cell() (*cell.Cell, error) {
	return opCell(opRemoveEntry).MustStoreSlice(o.Key[:], 256).EndCell(), nil
}

func (o RaiseFloor) Cell() (*cell.Cell, error) {
	return opCell(opRaiseFloor).MustStoreUInt(o.ReleaseFloor, 64).EndCell(), nil
}

func (o SetOwner) Cell() (*cell.Cell, error) {
	b := opCell(opSetOwner)
	if err := storeAddress(b, "owner", o.Owner); err != nil {
		return nil, fmt.Errorf("set owner: %w", err)
	}
	return b.EndCell(), nil
}

func (o SetGuardian) Cell() (*cell.Cell, error) {
	b := opCell(opSetGuardian)
	if err := storeOptionalAddress(b, "guardian", o.Guardian); err != nil {
		return nil, fmt.Errorf("set guardian: %w", err)
	}
	return b.EndCell(), nil
}

func (o SetDelay) Cell() (*cell.Cell, error) {
	if o.Delay < MinRegistryDelay || o.Delay > MaxRegistryDelay {
		return nil, fmt.Errorf("set delay: got %d s, want %d to %d", o.Delay, MinRegistryDelay, MaxRegistryDelay)
	}
	return opCell(opSetDelay).MustStoreUInt(uint64(o.Delay), 32).EndCell(), nil
}

func (o SetCode) Cell() (*cell.Cell, error) {
	return opCell(opSetCode).MustStoreSlice(o.CodeHash[:], 256).EndCell(), nil
}

func opCell(tag uint64) *cell.Builder { return cell.BeginCell().MustStoreUInt(tag, 8) }

// ParseOp reads an operation.
func ParseOp(c *cell.Cell) (Op, error) {
	if err := ordinary(c, 1); err != nil {
		return nil, fmt.Errorf("op: %w", err)
	}
	r := read(c)
	var op Op
	switch tag := r.uint("op", 8); tag {
	case opSetEntry:
		op = SetEntry{
			Key: r.bytes32("key"), Kind: uint8(r.uint("kind", 8)),
			NotBefore: uint32(r.uint("not before", 32)), Meta: r.bytes32("meta"),
		}
	case opRemoveEntry:
		op = RemoveEntry{Key: r.bytes32("key")}
	case opRaiseFloor:
		op = RaiseFloor{ReleaseFloor: r.uint("release floor", 64)}
	case opSetOwner:
		op = SetOwner{Owner: r.address("owner")}
	case opSetGuardian:
		op = SetGuardian{Guardian: r.optionalAddress("guardian")}
	case opSetDelay:
		op = SetDelay{Delay: uint32(r.uint("delay", 32))}
	case opSetCode:
		op = SetCode{CodeHash: r.bytes32("code hash")}
	default:
		return nil, fmt.Errorf("op: got tag %#x, want a known one", tag)
	}
	if err := r.end(); err != nil {
		return nil, fmt.Errorf("op: %w", err)
	}
	built, err := op.Cell()
	if err := same(c, built, err); err != nil {
		return nil, fmt.Errorf("op: %w", err)
	}
	return op, nil
}

const (
	opPropose = 0x43520001
	opExecute = 0x43520002
	opCancel  = 0x43520003
	opRevoke  = 0x43520004
)

// ProposeBody starts the timelock of op. Only the owner may.
func ProposeBody(op Op) (*cell.Cell, error) {
	c, err := op.Cell()
	if err != nil {
		return nil, err
	}
	return cell.BeginCell().MustStoreUInt(opPropose, 32).MustStoreRef(c).EndCell(), nil
}

// ExecuteBody carries out a proposal that has fallen due, for anyone. code is nil but for SetCode.
func ExecuteBody(id uint32, code *cell.Cell) *cell.Cell {
	return cell.BeginCell().MustStoreUInt(opExecute, 32).MustStoreUInt(uint64(id), 32).MustStoreMaybeRef(code).EndCell()
}

// CancelBody drops a proposal, for the owner and, but for SetGuardian, the guardian.
func CancelBody(id uint32) *cell.Cell {
	return cell.BeginCell().MustStoreUInt(opCancel, 32).MustStoreUInt(uint64(id), 32).EndCell()
}

// RevokeBody revokes an entry at once, for the owner and the guardian. It cannot be undone.
func RevokeBody(key [32]byte) *cell.Cell {
	return cell.BeginCell().MustStoreUInt(opRevoke, 32).MustStoreSlice(key[:], 256).EndCell()
}

// storeOptionalAddress writes addr_none for the zero address.
func storeOptionalAddress(b *cell.Builder, field string, a attestation.Address) error {
	if a == (attestation.Address{}) {
		return b.StoreUInt(0, 2)
	}
	return storeAddress(b, field, a)
}
