package evidence

import (
	"context"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"

	"cocoon/attestation"
	"cocoon/attestation/tdx"
)

// Folder is collateral that the host keeps fresh in a folder: tdx.json in the
// common form of quote-verification libraries, or vek.pem, ask.pem, ark.pem
// and crl.der for SNP, with vlek.pem in vek.pem's place for a VLEK.
type Folder struct{ Dir string }

const maxCollateral = 1 << 20

func (f Folder) read(name string) ([]byte, error) {
	b, err := os.ReadFile(filepath.Join(f.Dir, name))
	if err == nil && len(b) > maxCollateral {
		err = fmt.Errorf("%s: got %d bytes, want at most %d", name, len(b), maxCollateral)
	}
	return b, err
}

// Collateral reads the folder anew, so that what the host refreshed is used.
func (f Folder) Collateral(ctx context.Context, tee attestation.TEE) (*attestation.TDXCollateral, *attestation.SNPCollateral, error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	if tee == attestation.TDX {
		b, err := f.read("tdx.json")
		if err != nil {
			return nil, nil, err
		}
		c, err := tdx.ParseCollateralJSON(b)
		return c, nil, err
	}
	c := new(attestation.SNPCollateral)
	vek := "vek.pem"
	if _, err := os.Stat(filepath.Join(f.Dir, "vlek.pem")); err == nil {
		vek, c.VLEK = "vlek.pem", true
	}
	for _, p := range []struct {
		name string
		into *[]byte
	}{{vek, &c.VEK}, {"ask.pem", &c.ASK}, {"ark.pem", &c.ARK}} {
		b, err := f.read(p.name)
		if err != nil {
			return nil, nil, err
		}
		block, _ := pem.Decode(b)
		if block == nil {
			return nil, nil, fmt.Errorf("%s: want a PEM certificate", p.name)
		}
		*p.into = block.Bytes
	}
	var err error
	c.CRL, err = f.read("crl.der")
	return nil, c, err
}
