package softtee

import (
	"encoding/pem"
	"maps"
	"slices"
)

// PEM returns the roots' certificates, for tools that link no development
// code: Intel's, then AMD's by product line.
func (r *Roots) PEM() []byte {
	var b []byte
	if r.intel != nil {
		b = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: r.intel.Raw})
	}
	for _, line := range slices.Sorted(maps.Keys(r.amd)) {
		for _, c := range r.amd[line] {
			b = append(b, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
		}
	}
	return b
}
