package evidence

import (
	"context"
	"fmt"
	"strings"

	"github.com/google/go-configfs-tsm/configfs/configfsi"
	"github.com/google/go-configfs-tsm/report"

	"cocoon/attestation"
)

// Collateral returns the vendor's signed statements for a quote. They come
// from outside the VM and are believed by nobody for that: each is signed.
type Collateral interface {
	// Collateral returns TDX or SNP collateral, by tee; the other is nil.
	Collateral(ctx context.Context, tee attestation.TEE) (*attestation.TDXCollateral, *attestation.SNPCollateral, error)
}

// Guest is the machine's own TEE, through the kernel's configfs-tsm report
// interface (Linux 6.7 and later, Documentation/ABI/testing/configfs-tsm).
// It was never tried on a TDX or SNP machine: see SECURITY.md.
type Guest struct {
	Client     configfsi.Client // linuxtsm.MakeClient, or a fake
	Collateral Collateral
}

// maxQuote bounds what the kernel returns, in bytes.
const maxQuote = 1 << 20

// Quote asks the kernel for a report over reportData.
func (g Guest) Quote(ctx context.Context, reportData [64]byte) (attestation.CPUEvidence, error) {
	if err := ctx.Err(); err != nil {
		return attestation.CPUEvidence{}, err
	}
	resp, err := report.Get(g.Client, &report.Request{InBlob: reportData[:]})
	if err != nil {
		return attestation.CPUEvidence{}, fmt.Errorf("configfs-tsm: %w", err)
	}
	ev := attestation.CPUEvidence{Quote: resp.OutBlob}
	switch provider := strings.TrimSpace(resp.Provider); provider {
	case "tdx_guest":
		ev.TEE = attestation.TDX
	case "sev_guest":
		ev.TEE = attestation.SNP
	default:
		return attestation.CPUEvidence{}, fmt.Errorf("configfs-tsm: provider: got %.40q, want tdx_guest or sev_guest", provider)
	}
	if len(ev.Quote) == 0 || len(ev.Quote) > maxQuote {
		return attestation.CPUEvidence{}, fmt.Errorf("configfs-tsm: outblob: got %d bytes, want 1 to %d", len(ev.Quote), maxQuote)
	}
	if ev.TDX, ev.SNP, err = g.Collateral.Collateral(ctx, ev.TEE); err != nil {
		return attestation.CPUEvidence{}, fmt.Errorf("collateral: %w", err)
	}
	return ev, nil
}
