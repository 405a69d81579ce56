// Package evidence is where a worker gets its quotes from.
//
// It promises nothing by itself: a Source is the machine's own TEE in a
// confidential VM, and the software vendor world in development. Which one it
// is, a verifier reads from the evidence and never from here.
package evidence

import (
	"context"

	"cocoon/attestation"
)

// Source makes CPU evidence. It is safe for concurrent use.
type Source interface {
	// Quote returns evidence that carries reportData, complete with the
	// vendor's collateral, so that a client needs no vendor network. It may
	// take a second.
	Quote(ctx context.Context, reportData [64]byte) (attestation.CPUEvidence, error)
}
