package contracts

import (
	"fmt"

	"github.com/xssnick/tonutils-go/address"
	"github.com/xssnick/tonutils-go/tlb"
	"github.com/xssnick/tonutils-go/tvm/cell"

	"cocoon/attestation"
)

// ToTON converts an address to the client library's form. It refuses workchains that TON does not have.
func ToTON(a attestation.Address) (*address.Address, error) {
	if wc := a.Workchain(); wc != 0 && wc != -1 {
		return nil, fmt.Errorf("address: workchain: got %d, want 0 or -1", wc)
	}
	id := a.ID()
	return address.NewAddress(0, byte(a.Workchain()), id[:]), nil
}

// FromTON converts the client library's form of an address. It takes plain internal addresses only: no
// anycast, no other lengths, no external or absent ones.
func FromTON(a *address.Address) (attestation.Address, error) {
	if a == nil || a.Type() != address.StdAddress || a.Anycast() != nil || len(a.Data()) != 32 {
		return attestation.Address{}, fmt.Errorf("address: got %v, want a standard internal one", a)
	}
	if wc := a.Workchain(); wc != 0 && wc != -1 {
		return attestation.Address{}, fmt.Errorf("address: workchain: got %d, want 0 or -1", wc)
	}
	return attestation.NewAddress(a.Workchain(), [32]byte(a.Data())), nil
}

// addressOf is the basechain address that a state init deploys at.
func addressOf(s *tlb.StateInit) (attestation.Address, error) {
	c, err := tlb.ToCell(s)
	if err != nil {
		return attestation.Address{}, fmt.Errorf("state init: %w", err)
	}
	return attestation.NewAddress(0, [32]byte(c.Hash())), nil
}

// storeAddress writes addr_std without anycast.
func storeAddress(b *cell.Builder, field string, a attestation.Address) error {
	t, err := ToTON(a)
	if err != nil {
		return fmt.Errorf("%s: %w", field, err)
	}
	return b.StoreAddr(t)
}
