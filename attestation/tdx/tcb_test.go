package tdx

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"math/big"
	"strings"
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

// A TDX 1.5 module's own SVN and version are not the platform's.
func TestPlatformLevelLeavesTheModuleOut(t *testing.T) {
	level := pcs.TcbLevel{Tcb: pcs.Tcb{SgxTcbcomponents: make([]pcs.TcbComponent, 16), TdxTcbcomponents: make([]pcs.TcbComponent, 16)}, TcbStatus: "UpToDate"}
	level.Tcb.TdxTcbcomponents[0].Svn = 8
	level.Tcb.TdxTcbcomponents[1].Svn = 2
	p := &pck{cpuSVN: make([]byte, 16)}
	levels := []pcs.TcbLevel{level}
	if platformLevel(levels, p, [16]byte{7, 1}) == nil {
		t.Error("TDX 1.5: the module's components were compared")
	}
	if platformLevel(levels, p, [16]byte{7, 0}) != nil {
		t.Error("TDX 1.0: the module's components were not compared")
	}
	levels[0].Tcb.TdxTcbcomponents[2].Svn = 1
	if platformLevel(levels, p, [16]byte{9, 1}) != nil {
		t.Error("TDX 1.5: the third component was not compared")
	}
}

func TestParseChain(t *testing.T) {
	one := intelRoot
	headers := strings.Replace(one, "CERTIFICATE-----\n", "CERTIFICATE-----\nName: value\n\n", 1)
	for _, tt := range []struct {
		name, in string
		n        int
		ok       bool
	}{
		{"one", one, 1, true},
		{"three", one + "\n" + one + one + "\x00", 3, true},
		{"none", "", 1, false},
		{"two of three", one + one, 3, false},
		{"four of three", one + one + one + one, 3, false},
		{"text before", "x" + one, 1, false},
		{"text between", one + "x\n" + one, 2, false},
		{"text after", one + "x", 1, false},
		{"two zeros", one + "\x00\x00", 1, false},
		{"PEM headers", headers, 1, false},
		{"another kind", strings.ReplaceAll(one, "CERTIFICATE", "PUBLIC KEY"), 1, false},
		{"too long", one + strings.Repeat("\n", maxChainBytes), 1, false},
	} {
		got, err := parseChain([]byte(tt.in), tt.n)
		if (err == nil) != tt.ok || tt.ok && len(got) != tt.n {
			t.Errorf("%s: got %d certificates and error %v", tt.name, len(got), err)
		}
	}
}

// Intel's profile has P-256 alone: another curve is not Intel's.
func TestOtherCurvesAreRefused(t *testing.T) {
	for curve, ok := range map[elliptic.Curve]bool{elliptic.P256(): true, elliptic.P384(): false} {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		template := &x509.Certificate{SerialNumber: big.NewInt(1), SignatureAlgorithm: x509.ECDSAWithSHA256}
		der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
		if err != nil {
			t.Fatal(err)
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p256(c); (err == nil) != ok {
			t.Errorf("%s: got error %v", curve.Params().Name, err)
		}
	}
}
