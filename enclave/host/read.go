package host

import (
	"context"

	"cocoon/attestation"
)

// Reader reads the vouchers of a store that another process may hold: files
// are replaced as a whole, so it sees each as it was or as it is.
type Reader struct{ Dir string }

// Vouchers is Store.Vouchers.
func (r Reader) Vouchers(ctx context.Context) (map[attestation.Address][]byte, error) {
	return (&Store{dir: r.Dir}).Vouchers(ctx)
}
