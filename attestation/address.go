package attestation

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
)

// Address is a TON account: a big-endian i32 workchain, then 32 bytes.
type Address [36]byte

// NewAddress joins a workchain and an account id.
func NewAddress(workchain int32, id [32]byte) Address {
	var a Address
	binary.BigEndian.PutUint32(a[:4], uint32(workchain))
	copy(a[4:], id[:])
	return a
}

// Workchain is 0 for the basechain and -1 for the masterchain.
func (a Address) Workchain() int32 { return int32(binary.BigEndian.Uint32(a[:4])) }

// ID is the 32-byte account id.
func (a Address) ID() [32]byte { return [32]byte(a[4:]) }

// IsZero reports whether the account id is all zeros, which names nobody.
func (a Address) IsZero() bool { return a.ID() == [32]byte{} }

// String is TON's raw form, "0:HEX".
func (a Address) String() string {
	return fmt.Sprintf("%d:%s", a.Workchain(), hex.EncodeToString(a[4:]))
}

// ParseAddress reads the raw form "WORKCHAIN:64 HEX DIGITS".
func ParseAddress(s string) (Address, error) {
	wc, id, ok := strings.Cut(s, ":")
	if !ok || len(s) > 80 {
		return Address{}, fmt.Errorf("address: got %.80q, want WORKCHAIN:HEX", s)
	}
	w, err := strconv.ParseInt(wc, 10, 32)
	if err != nil {
		return Address{}, fmt.Errorf("address: workchain: got %q, want an integer", wc)
	}
	b, err := hex.DecodeString(id)
	if err != nil || len(b) != 32 {
		return Address{}, fmt.Errorf("address: account id: got %d characters, want 64 hex digits", len(id))
	}
	return NewAddress(int32(w), [32]byte(b)), nil
}

// MarshalText writes the raw form, so that addresses read well in JSON and TOML.
func (a Address) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText reads the raw form.
func (a *Address) UnmarshalText(b []byte) error {
	v, err := ParseAddress(string(b))
	if err == nil {
		*a = v
	}
	return err
}
