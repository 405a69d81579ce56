package main

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"

	"cocoon/attestation"
	"cocoon/attestation/sevsnp"
	"cocoon/attestation/tdx"
)

// quoteFlags name one quote or report and its vendor's collateral. Its result
// is never complete: it says nothing about whose evidence this is.
type quoteFlags struct {
	tdx, collateral           string
	snp, vcek, vlek, ask, crl string
}

func (q *quoteFlags) register(fs *flag.FlagSet) {
	fs.StringVar(&q.tdx, "tdx", "", "a TDX quote's `file`: raw, hex or base64")
	fs.StringVar(&q.collateral, "collateral", "", "Intel's collateral in the common JSON of quote verifiers, a `file`")
	fs.StringVar(&q.snp, "snp", "", "an SEV-SNP report's `file`: raw, hex or base64")
	fs.StringVar(&q.vcek, "vcek", "", "the chip's VCEK, a PEM or DER `file`")
	fs.StringVar(&q.vlek, "vlek", "", "the provider's VLEK in the VCEK's place, a PEM or DER `file`")
	fs.StringVar(&q.ask, "ask", "", "the intermediate that signed it, a PEM or DER `file`")
	fs.StringVar(&q.crl, "crl", "", "AMD's revocation list, a DER or PEM `file`")
}

// count counts what is to be verified.
func (q *quoteFlags) count(bundle string) int {
	n := 0
	for _, s := range []string{bundle, q.tdx, q.snp} {
		if s != "" {
			n++
		}
	}
	return n
}

// evidence reads the files.
func (q *quoteFlags) evidence() (*attestation.CPUEvidence, error) {
	if q.tdx != "" {
		b, err := readFile("tdx", q.tdx, 1<<20)
		if err != nil {
			return nil, err
		}
		ev := &attestation.CPUEvidence{TEE: attestation.TDX, Quote: b}
		if q, err := tdx.DecodeQuote(b); err == nil {
			ev.Quote = q // what is in no known encoding fails tdx.parse as it is
		}
		if q.collateral == "" {
			return ev, nil
		}
		if b, err = readFile("collateral", q.collateral, 1<<20); err != nil {
			return nil, err
		}
		if ev.TDX, err = tdx.ParseCollateralJSON(b); err != nil {
			return nil, &exitError{code: exitNotAuthentic, err: err}
		}
		return ev, nil
	}
	b, err := readFile("snp", q.snp, 1<<20)
	if err != nil {
		return nil, err
	}
	ev := &attestation.CPUEvidence{TEE: attestation.SNP, Quote: decodeReport(b), SNP: &attestation.SNPCollateral{VLEK: q.vlek != ""}}
	vek := q.vcek
	if q.vlek != "" {
		if q.vcek != "" {
			return nil, usageError(errors.New("--vcek and --vlek: give one of them"), "")
		}
		vek = q.vlek
	}
	for _, f := range []struct {
		flag, path string
		into       *[]byte
	}{{"vcek", vek, &ev.SNP.VEK}, {"ask", q.ask, &ev.SNP.ASK}, {"crl", q.crl, &ev.SNP.CRL}} {
		if f.path == "" {
			continue
		}
		b, err := readFile(f.flag, f.path, 1<<20)
		if err != nil {
			return nil, err
		}
		if block, rest := pem.Decode(b); block != nil {
			if len(bytes.TrimSpace(rest)) != 0 {
				return nil, fmt.Errorf("--%s: %s: want one PEM block", f.flag, f.path)
			}
			b = block.Bytes
		}
		*f.into = b
	}
	return ev, nil
}

// decodeReport tells raw, hex and base64 apart: a report has one size.
func decodeReport(b []byte) []byte {
	if len(b) == sevsnp.ReportSize {
		return b
	}
	text := bytes.TrimSpace(b)
	if out, err := hex.DecodeString(string(text)); err == nil {
		return out
	}
	if out, err := base64.StdEncoding.DecodeString(string(text)); err == nil {
		return out
	}
	return b
}

func verifyQuote(q quoteFlags, at, policy, roots string, explain, asJSON bool, w io.Writer) error {
	now, err := parseAt(at)
	if err != nil {
		return err
	}
	ev, err := q.evidence()
	if err != nil {
		return err
	}
	v, err := newVerifier(policy, roots, nil)
	if err != nil {
		return err
	}
	return printResult(v.VerifyCPUEvidence(ev, now), explain, asJSON, w)
}
