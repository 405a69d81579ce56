package sevsnp

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/google/go-sev-guest/abi"

	"cocoon/attestation"
)

// ReportSize is the size of every report version, in bytes.
const ReportSize = abi.ReportSize

const signedSize = 0x2a0

// tcb is a TCB version decoded for its product line.
type tcb = attestation.SNPTCB

// report is the part of an attestation report that checks read.
type report struct {
	raw                                   []byte
	version                               uint32
	policy                                uint64
	vmpl                                  uint32
	platformInfo                          uint64
	signer                                abi.ReportSigner
	maskChipKey                           bool
	current, reported, committed, launch  uint64
	launchMitigations, currentMitigations uint64
	family, model                         uint8
	chipID                                [64]byte
	reportData                            [64]byte
	measurement                           [48]byte
}

// parseReport reads exactly one report. Fields that no version defines must be zero.
func parseReport(raw []byte) (*report, error) {
	if len(raw) != ReportSize {
		return nil, fmt.Errorf("report: size: got %d bytes, want %d", len(raw), ReportSize)
	}
	le := binary.LittleEndian
	r := &report{
		raw: raw, version: le.Uint32(raw), policy: le.Uint64(raw[0x08:]), vmpl: le.Uint32(raw[0x30:]),
		current: le.Uint64(raw[0x38:]), platformInfo: le.Uint64(raw[0x40:]),
		reported: le.Uint64(raw[0x180:]), committed: le.Uint64(raw[0x1e0:]), launch: le.Uint64(raw[0x1f0:]),
		chipID: [64]byte(raw[0x1a0:0x1e0]), reportData: [64]byte(raw[0x50:0x90]), measurement: [48]byte(raw[0x90:0xc0]),
	}
	if r.version < 2 || r.version > 5 {
		return nil, fmt.Errorf("report: version: got %d, want 2 to 5", r.version)
	}
	if algo := le.Uint32(raw[0x34:]); algo != abi.SignEcdsaP384Sha384 {
		return nil, fmt.Errorf("report: signature algorithm: got %d, want %d (ECDSA P-384 with SHA-384)", algo, abi.SignEcdsaP384Sha384)
	}
	info := le.Uint32(raw[0x48:])
	if info>>5 != 0 {
		return nil, fmt.Errorf("report: signer info: got %#x, want bits 5 to 31 clear", info)
	}
	r.maskChipKey = info&2 != 0
	switch r.signer = abi.ReportSigner(info >> 2 & 7); r.signer {
	case abi.VcekReportSigner, abi.VlekReportSigner:
	default:
		return nil, fmt.Errorf("report: signing key: got %d, want 0 (VCEK) or 1 (VLEK)", info>>2&7)
	}
	zero := []struct {
		name   string
		lo, hi int
	}{{"0x4c", 0x4c, 0x50}, {"0x1eb", 0x1eb, 0x1ec}, {"0x1ef", 0x1ef, 0x1f0}, {"0x208", 0x208, signedSize}, {"signature", signedSize + 144, ReportSize}}
	if r.version >= 3 {
		r.family, r.model = raw[0x188], raw[0x189]
		zero = append(zero, struct {
			name   string
			lo, hi int
		}{"0x18b", 0x18b, 0x1a0})
	} else {
		zero = append(zero, struct {
			name   string
			lo, hi int
		}{"0x188", 0x188, 0x1a0})
	}
	if r.version >= 5 {
		r.launchMitigations, r.currentMitigations = le.Uint64(raw[0x1f8:]), le.Uint64(raw[0x200:])
	} else {
		zero = append(zero, struct {
			name   string
			lo, hi int
		}{"0x1f8", 0x1f8, 0x208})
	}
	for _, z := range zero {
		if len(bytes.Trim(raw[z.lo:z.hi], "\x00")) != 0 {
			return nil, fmt.Errorf("report: reserved bytes at %s: got something, want zeros", z.name)
		}
	}
	return r, nil
}

// line is a product line: one root, one TCB layout.
type line struct {
	name  string // as AMD's key service spells it
	cpu   string // Genoa's line has several kinds of processor
	turin bool   // FMC-first TCB layout and 8-byte hardware ids
}

// lineOf reads the line from the CPUID that reports carry since version 3.
// Version 2 does not say; there the certificate's product name decides.
func (r *report) lineOf(certProduct string) (line, error) {
	if r.version < 3 {
		switch {
		case hasLine(certProduct, "Milan"):
			return line{name: "Milan", cpu: "Milan"}, nil
		case hasLine(certProduct, "Genoa"):
			return line{name: "Genoa", cpu: "Genoa"}, nil
		}
		return line{}, fmt.Errorf("product: certificate names %.20q, want Milan or Genoa for a version 2 report", certProduct)
	}
	var l line
	switch {
	case r.family == 0x19 && r.model <= 0x0f:
		l = line{name: "Milan", cpu: "Milan"}
	case r.family == 0x19 && r.model >= 0x10 && r.model <= 0x1f:
		l = line{name: "Genoa", cpu: "Genoa"}
	case r.family == 0x19 && r.model >= 0xa0 && r.model <= 0xaf:
		l = line{name: "Genoa", cpu: "Bergamo"} // and Siena
	case r.family == 0x1a && r.model <= 0x1f:
		l = line{name: "Turin", cpu: "Turin", turin: true}
	default:
		return line{}, fmt.Errorf("product: got CPUID family %#x model %#x, want a known EPYC", r.family, r.model)
	}
	if certProduct != "" && !hasLine(certProduct, l.name) {
		return line{}, fmt.Errorf("product: certificate names %.20q, report is of %s", certProduct, l.name)
	}
	return l, nil
}

// hasLine reports whether a certificate's product name, such as "Milan-B0", is of a line.
func hasLine(product, name string) bool {
	return product == name || len(product) > len(name) && product[:len(name)+1] == name+"-"
}

// decode splits a TCB version. Reserved bytes must be zero.
func (l line) decode(v uint64) (tcb, error) {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], v)
	if l.turin {
		if b[4]|b[5]|b[6] != 0 {
			return tcb{}, fmt.Errorf("tcb %016x: reserved bytes are set", v)
		}
		return tcb{FMC: b[0], Bootloader: b[1], TEE: b[2], SNP: b[3], Microcode: b[7]}, nil
	}
	if b[2]|b[3]|b[4]|b[5] != 0 {
		return tcb{}, fmt.Errorf("tcb %016x: reserved bytes are set", v)
	}
	return tcb{Bootloader: b[0], TEE: b[1], SNP: b[6], Microcode: b[7]}, nil
}

// below names the first part of got that is lower than want.
func below(got, want tcb) string {
	for _, p := range []struct {
		name      string
		got, want uint8
	}{
		{"fmc", got.FMC, want.FMC}, {"bootloader", got.Bootloader, want.Bootloader}, {"tee", got.TEE, want.TEE},
		{"snp", got.SNP, want.SNP}, {"microcode", got.Microcode, want.Microcode},
	} {
		if p.got < p.want {
			return fmt.Sprintf("%s: got %d, want %d or more", p.name, p.got, p.want)
		}
	}
	return ""
}
