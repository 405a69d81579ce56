package tdx

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/url"
	"strings"

	"cocoon/attestation"
)

// MaxCollateralBytes bounds a collateral file.
const MaxCollateralBytes = 4 << 20

// DecodeQuote returns a quote's bytes from a file's: raw, hex (with or without
// 0x) or base64. The content tells which: a quote's version is 4 or 5 as a
// little-endian u16, and its second byte, zero, stands in no text.
func DecodeQuote(b []byte) ([]byte, error) {
	if len(b) > 4*MaxQuoteBytes {
		return nil, fmt.Errorf("quote: size: got %d bytes, want at most %d", len(b), 4*MaxQuoteBytes)
	}
	if len(b) >= 2 && (b[0] == 4 || b[0] == 5) && b[1] == 0 {
		return b, nil
	}
	out, err := decodeText(string(b))
	if err != nil {
		return nil, fmt.Errorf("quote: %w", err)
	}
	return out, nil
}

// decodeText reads hex or base64.
func decodeText(s string) ([]byte, error) {
	s = strings.Join(strings.Fields(s), "")
	if s == "" {
		return nil, fmt.Errorf("empty")
	}
	if b, err := hex.DecodeString(strings.TrimPrefix(strings.TrimPrefix(s, "0x"), "0X")); err == nil {
		return b, nil
	}
	s = strings.TrimRight(s, "=")
	for _, e := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		if b, err := e.DecodeString(s); err == nil {
			return b, nil
		}
	}
	return nil, fmt.Errorf("neither raw, hex nor base64")
}

// collateralFile is the common JSON form of a platform's collateral, as
// quote verification libraries write it.
type collateralFile struct {
	TCBInfo               string `json:"tcb_info"`
	TCBInfoSignature      string `json:"tcb_info_signature"`
	TCBInfoIssuerChain    string `json:"tcb_info_issuer_chain"`
	QEIdentity            string `json:"qe_identity"`
	QEIdentitySignature   string `json:"qe_identity_signature"`
	QEIdentityIssuerChain string `json:"qe_identity_issuer_chain"`
	PCKCRL                string `json:"pck_crl"`
	PCKCRLIssuerChain     string `json:"pck_crl_issuer_chain"`
	RootCACRL             string `json:"root_ca_crl"`
}

// ParseCollateralJSON reads the common JSON form: signed documents as strings
// of the exact bytes (bare, or in the wrapper that Intel's service sends), signatures in
// hex, CRLs in hex, base64 or PEM, chains in PEM (as they are, or escaped as in a
// header). It authenticates nothing. What is absent stays empty.
func ParseCollateralJSON(b []byte) (*attestation.TDXCollateral, error) {
	if len(b) > MaxCollateralBytes {
		return nil, fmt.Errorf("collateral: size: got %d bytes, want at most %d", len(b), MaxCollateralBytes)
	}
	var f collateralFile
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, fmt.Errorf("collateral: %w", err)
	}
	var c attestation.TDXCollateral
	var err error
	if c.TCBInfo, c.TCBInfoSignature, err = document(f.TCBInfo, f.TCBInfoSignature, "tcbInfo"); err != nil {
		return nil, fmt.Errorf("collateral: tcb_info: %w", err)
	}
	if c.QEIdentity, c.QEIdentitySignature, err = document(f.QEIdentity, f.QEIdentitySignature, "enclaveIdentity"); err != nil {
		return nil, fmt.Errorf("collateral: qe_identity: %w", err)
	}
	if c.PCKCRL, err = crlBytes(f.PCKCRL); err != nil {
		return nil, fmt.Errorf("collateral: pck_crl: %w", err)
	}
	if c.RootCACRL, err = crlBytes(f.RootCACRL); err != nil {
		return nil, fmt.Errorf("collateral: root_ca_crl: %w", err)
	}
	c.TCBInfoIssuerChain = chainBytes(f.TCBInfoIssuerChain)
	c.QEIdentityIssuerChain = chainBytes(f.QEIdentityIssuerChain)
	c.PCKCRLIssuerChain = chainBytes(f.PCKCRLIssuerChain)
	return &c, nil
}

// document returns the signed bytes and the signature, out of Intel's
// {"KEY": ..., "signature": "hex"} if they come in it.
func document(body, sig, key string) ([]byte, []byte, error) {
	raw := []byte(body)
	var wrapper map[string]json.RawMessage
	if json.Unmarshal(raw, &wrapper) == nil && wrapper[key] != nil {
		raw = bytes.TrimSpace(wrapper[key])
		if sig == "" {
			if err := json.Unmarshal(wrapper["signature"], &sig); err != nil {
				return nil, nil, fmt.Errorf("signature: %w", err)
			}
		}
	}
	s, err := hex.DecodeString(sig)
	if err != nil {
		return nil, nil, fmt.Errorf("signature: %w", err)
	}
	return raw, s, nil
}

func crlBytes(s string) ([]byte, error) {
	if s == "" {
		return nil, nil
	}
	if strings.Contains(s, "-----BEGIN") {
		block, rest := pem.Decode([]byte(s))
		if block == nil || len(bytes.TrimSpace(rest)) != 0 {
			return nil, fmt.Errorf("not one PEM block")
		}
		return block.Bytes, nil
	}
	return decodeText(s)
}

// chainBytes undoes the escaping of a header. Intel escapes a blank as %20 and
// leaves no plus sign; those who record headers may write a blank as a plus.
func chainBytes(s string) []byte {
	unescape := url.PathUnescape
	if strings.Contains(s, "BEGIN+CERTIFICATE") {
		unescape = url.QueryUnescape
	}
	if plain, err := unescape(s); err == nil && strings.Contains(s, "%") {
		return []byte(plain)
	}
	return []byte(s)
}
