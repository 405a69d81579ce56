package tdx

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"testing"

	"github.com/google/go-tdx-guest/pcs"
)

// Intel's table of how two statuses converge (DCAP QVL, convergeTcbStatus).
func TestStatusesConverge(t *testing.T) {
	for _, tt := range []struct{ a, b, want pcs.TcbComponentStatus }{
		{"UpToDate", "UpToDate", "UpToDate"},
		{"UpToDate", "SWHardeningNeeded", "SWHardeningNeeded"},
		{"UpToDate", "OutOfDate", "OutOfDate"},
		{"SWHardeningNeeded", "OutOfDate", "OutOfDate"},
		{"SWHardeningNeeded", "ConfigurationNeeded", "ConfigurationAndSWHardeningNeeded"},
		{"ConfigurationNeeded", "OutOfDate", "OutOfDateConfigurationNeeded"},
		{"ConfigurationAndSWHardeningNeeded", "OutOfDate", "OutOfDateConfigurationNeeded"},
		{"OutOfDateConfigurationNeeded", "SWHardeningNeeded", "OutOfDateConfigurationNeeded"},
		{"Revoked", "UpToDate", "Revoked"},
		{"Revoked", "OutOfDateConfigurationNeeded", "Revoked"},
	} {
		for _, pair := range [][2]pcs.TcbComponentStatus{{tt.a, tt.b}, {tt.b, tt.a}} {
			var v verdict
			for _, s := range pair {
				if err := v.add("level", &pcs.TcbLevel{TcbStatus: s}); err != nil {
					t.Fatal(err)
				}
			}
			if got := v.status.String(); got != string(tt.want) {
				t.Errorf("%s and %s: got %s, want %s", pair[0], pair[1], got, tt.want)
			}
		}
	}
	for _, s := range []pcs.TcbComponentStatus{"", "uptodate", "TDRelaunchAdvised"} {
		if err := new(verdict).add("level", &pcs.TcbLevel{TcbStatus: s}); err == nil {
			t.Errorf("status %q was taken for one of Intel's", s)
		}
	}
}

func TestPinnedRoot(t *testing.T) {
	block, rest := pem.Decode([]byte(intelRoot))
	if block == nil || len(rest) != 0 {
		t.Fatal("not one PEM block")
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	// Printed in Intel's documents as the root's public key.
	const key = "040ba9c4c0c0c86193a3fe23d6b02cda10a8bbd4e88e48b4458561a36e705525f567918e2edc88e40d860bd0cc4ee26aacc988e505a953558c453f6b0904ae7394"
	sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	got := hex.EncodeToString(c.RawSubjectPublicKeyInfo[len(c.RawSubjectPublicKeyInfo)-65:])
	if got != key || c.Subject.CommonName != cnRoot || c.CheckSignatureFrom(c) != nil {
		t.Errorf("got %q with key %s (SHA-256 of its SPKI %x)", c.Subject, got, sum)
	}
}
