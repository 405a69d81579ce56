package tdx_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/url"
	"testing"

	"cocoon/attestation"
	"cocoon/attestation/tdx"

	"github.com/google/go-cmp/cmp"
)

func TestDecodeQuoteTellsEncodingsApart(t *testing.T) {
	ev := quote(t, newWorld(t).Machine(attestation.TDX))
	q := ev.Quote
	h, b64 := hex.EncodeToString(q), base64.StdEncoding.EncodeToString(q)
	for name, in := range map[string]string{
		"raw": string(q), "hex": h, "hex with 0x": "0x" + h, "upper-case hex and a newline": fmt.Sprintf("%X\n", q),
		"hex in lines": h[:64] + "\n" + h[64:] + "\n", "base64": b64, "base64 in lines": b64[:76] + "\r\n" + b64[76:] + "\n",
		"base64 without padding": base64.RawStdEncoding.EncodeToString(q), "base64 for URLs": base64.URLEncoding.EncodeToString(q),
	} {
		got, err := tdx.DecodeQuote([]byte(in))
		if err != nil || !bytes.Equal(got, q) {
			t.Errorf("%s: got %d bytes and error %v, want the quote's %d", name, len(got), err, len(q))
		}
	}
	for name, in := range map[string][]byte{"empty": nil, "blank": []byte(" \n"), "text": []byte("not a quote!"), "huge": make([]byte, 1<<20)} {
		if _, err := tdx.DecodeQuote(in); err == nil {
			t.Errorf("%s: was decoded", name)
		}
	}
}

// collateralJSON writes c as verification libraries do.
func collateralJSON(t testing.TB, c *attestation.TDXCollateral) map[string]string {
	t.Helper()
	return map[string]string{
		"tcb_info": string(c.TCBInfo), "tcb_info_signature": hex.EncodeToString(c.TCBInfoSignature), "tcb_info_issuer_chain": string(c.TCBInfoIssuerChain),
		"qe_identity": string(c.QEIdentity), "qe_identity_signature": hex.EncodeToString(c.QEIdentitySignature), "qe_identity_issuer_chain": string(c.QEIdentityIssuerChain),
		"pck_crl": hex.EncodeToString(c.PCKCRL), "pck_crl_issuer_chain": string(c.PCKCRLIssuerChain), "root_ca_crl": hex.EncodeToString(c.RootCACRL),
	}
}

func encode(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestParseCollateralJSONKeepsTheSignedBytes(t *testing.T) {
	ev := quote(t, newWorld(t).Machine(attestation.TDX))
	c := ev.TDX
	for name, edit := range map[string]func(map[string]string){
		"plain":       func(map[string]string) {},
		"base64 CRLs": func(m map[string]string) { m["pck_crl"] = base64.StdEncoding.EncodeToString(c.PCKCRL) },
		"PEM CRLs": func(m map[string]string) {
			m["root_ca_crl"] = string(pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: c.RootCACRL}))
		},
		"Intel's chain": func(m map[string]string) { m["tcb_info_issuer_chain"] = url.PathEscape(string(c.TCBInfoIssuerChain)) },
		"a form's chain": func(m map[string]string) {
			m["qe_identity_issuer_chain"] = url.QueryEscape(string(c.QEIdentityIssuerChain))
		},
		"Intel's wrapper": func(m map[string]string) {
			m["tcb_info"] = fmt.Sprintf(`{"tcbInfo":%s,"signature":"%x"}`, c.TCBInfo, c.TCBInfoSignature)
			m["tcb_info_signature"] = ""
			m["qe_identity"] = fmt.Sprintf(`{"enclaveIdentity": %s, "signature":"%x"}`, c.QEIdentity, c.QEIdentitySignature)
			delete(m, "qe_identity_signature")
		},
		"a key nobody knows": func(m map[string]string) { m["pck_certificate_chain"] = "" },
	} {
		m := collateralJSON(t, c)
		edit(m)
		got, err := tdx.ParseCollateralJSON(encode(t, m))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if diff := cmp.Diff(c, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	for name, in := range map[string]string{
		"empty": "", "a list": "[]", "a trailing byte": "{}x", "a CRL that is no CRL": `{"pck_crl":"@@"}`, "a signature that is not hex": `{"tcb_info":"{}","tcb_info_signature":"zz"}`,
		"two PEM blocks": `{"root_ca_crl":"-----BEGIN A-----\n-----END A-----\n-----BEGIN A-----\n-----END A-----\n"}`,
	} {
		if _, err := tdx.ParseCollateralJSON([]byte(in)); err == nil {
			t.Errorf("%s: was read", name)
		}
	}
	if _, err := tdx.ParseCollateralJSON(make([]byte, tdx.MaxCollateralBytes+1)); err == nil {
		t.Error("more than MaxCollateralBytes was read")
	}
}
