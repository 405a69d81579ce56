package tdx

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
)

// MaxQuoteBytes bounds a quote. Real ones take 5 to 8 KiB, padding included.
const MaxQuoteBytes = 32 << 10

// Sizes and codes of Intel's quote formats 4 and 5.
const (
	headerBytes     = 48
	descriptorBytes = 6 // v5: body type u16, body size u32
	body10Bytes     = 584
	body15Bytes     = 648
	qeReportBytes   = 384

	attestationKeyP256 = 2
	teeTypeTDX         = 0x81
	bodyTDX10          = 2
	bodyTDX15          = 3
	certQEReport       = 6 // outer certification data: QE report and what certifies it
	certPCKChain       = 5 // inner certification data: PCK chain, PEM
)

// tdReport is the body of a quote. TDX 1.0 bodies have no svn2 and serviceTD.
type tdReport struct {
	tcbSVN         [16]byte // TEE_TCB_SVN: the module that launched the TD
	mrSignerSEAM   [48]byte
	seamAttributes [8]byte
	attributes     uint64
	xfam           uint64
	mrtd           [48]byte
	mrConfigID     [48]byte
	mrOwner        [48]byte
	mrOwnerConfig  [48]byte
	rtmr           [4][48]byte
	reportData     [64]byte
	v15            bool
	tcbSVN2        [16]byte // TEE_TCB_SVN_2: the module that runs now
	mrServiceTD    [48]byte
}

// qeReport is the SGX report of the quoting enclave.
type qeReport struct {
	raw        []byte
	miscSelect [4]byte
	attributes [16]byte
	mrSigner   [32]byte
	isvProdID  uint16
	isvSVN     uint16
	reportData [64]byte
}

// quote is a parsed quote. Nothing in it has been authenticated.
type quote struct {
	vendor      [16]byte
	signed      []byte // header and body: what signature covers
	td          tdReport
	signature   [64]byte // r‖s over signed, by key
	key         [64]byte // the attestation key, x‖y
	qe          qeReport
	qeSignature [64]byte // r‖s over qe.raw, by the PCK
	qeAuth      []byte
	pckChain    []byte // PEM: PCK, its CA, root
}

// signedDigest names the quote: bytes outside the signed part can be changed
// by anyone (another signature of the same key, padding) and name nothing.
func (q *quote) signedDigest() [32]byte { return sha256.Sum256(q.signed) }

// cursor reads fields in order. After the first short read all reads are empty.
type cursor struct {
	b   []byte
	err error
}

func (c *cursor) next(field string, n int) []byte {
	if c.err == nil && n > len(c.b) {
		c.err = fmt.Errorf("%s: got %d bytes, want %d", field, len(c.b), n)
	}
	if c.err != nil {
		return make([]byte, min(n, body15Bytes))
	}
	out := c.b[:n]
	c.b = c.b[n:]
	return out
}

func (c *cursor) u16(field string) int { return int(binary.LittleEndian.Uint16(c.next(field, 2))) }

func (c *cursor) u32(field string) uint32 { return binary.LittleEndian.Uint32(c.next(field, 4)) }

func (c *cursor) want(field string, got, want int) {
	if c.err == nil && got != want {
		c.err = fmt.Errorf("%s: got %d, want %d", field, got, want)
	}
}

// rest reads a u32 that must count the bytes after it.
func (c *cursor) rest(field string) {
	n := c.u32(field)
	if c.err == nil && uint64(n) != uint64(len(c.b)) {
		c.err = fmt.Errorf("%s: got %d, want %d", field, n, len(c.b))
	}
}

// parseQuote reads a version 4 or 5 TDX quote. After its end it allows zeros
// alone, which Intel's quoting library leaves in its buffer.
func parseQuote(b []byte) (*quote, error) {
	if len(b) > MaxQuoteBytes {
		return nil, fmt.Errorf("quote: size: got %d bytes, want at most %d", len(b), MaxQuoteBytes)
	}
	q := new(quote)
	c := &cursor{b: b}
	version := c.u16("version")
	c.want("attestation key type", c.u16("attestation key type"), attestationKeyP256)
	c.want("tee type", int(c.u32("tee type")), teeTypeTDX)
	c.next("reserved", 4)
	q.vendor = [16]byte(c.next("qe vendor id", 16))
	c.next("user data", headerBytes-28)
	kind, size := bodyTDX10, body10Bytes
	switch version {
	case 4:
	case 5:
		kind, size = c.u16("body type"), body10Bytes
		if kind == bodyTDX15 {
			size = body15Bytes
		} else {
			c.want("body type", kind, bodyTDX10)
		}
		c.want("body size", int(c.u32("body size")), size)
	default:
		if c.err == nil {
			c.err = fmt.Errorf("version: got %d, want 4 or 5", version)
		}
	}
	q.td = parseTDReport(c.next("body", size), kind == bodyTDX15)
	q.signed = b[:len(b)-len(c.b)]

	n := c.u32("signature data size")
	if c.err == nil && uint64(n) > uint64(len(c.b)) {
		c.err = fmt.Errorf("signature data size: got %d, want at most the %d bytes there are", n, len(c.b))
	}
	if c.err != nil {
		return nil, fmt.Errorf("quote: %w", c.err)
	}
	padding := c.b[n:]
	if len(bytes.Trim(padding, "\x00")) > 0 {
		return nil, fmt.Errorf("quote: %d bytes after its end, want none but zero padding", len(padding))
	}
	if err := q.parseSignatureData(c.b[:n]); err != nil {
		return nil, fmt.Errorf("quote: signature data: %w", err)
	}
	return q, nil
}

func (q *quote) parseSignatureData(b []byte) error {
	c := &cursor{b: b}
	q.signature = [64]byte(c.next("signature", 64))
	q.key = [64]byte(c.next("attestation key", 64))
	c.want("certification data type", c.u16("certification data type"), certQEReport)
	c.rest("certification data size")
	q.qe = parseQEReport(c.next("qe report", qeReportBytes))
	q.qeSignature = [64]byte(c.next("qe report signature", 64))
	n := c.u16("qe authentication data size")
	if c.err == nil && n > len(c.b) {
		c.err = fmt.Errorf("qe authentication data size: got %d, want at most %d", n, len(c.b))
	}
	if c.err != nil {
		return c.err
	}
	q.qeAuth = c.next("qe authentication data", n)
	c.want("pck certification data type", c.u16("pck certification data type"), certPCKChain)
	c.rest("pck certification data size")
	q.pckChain = c.b
	return c.err
}

func parseTDReport(b []byte, v15 bool) tdReport {
	t := tdReport{
		tcbSVN:         [16]byte(b),
		mrSignerSEAM:   [48]byte(b[64:]),
		seamAttributes: [8]byte(b[112:]),
		attributes:     binary.LittleEndian.Uint64(b[120:]),
		xfam:           binary.LittleEndian.Uint64(b[128:]),
		mrtd:           [48]byte(b[136:]),
		mrConfigID:     [48]byte(b[184:]),
		mrOwner:        [48]byte(b[232:]),
		mrOwnerConfig:  [48]byte(b[280:]),
		reportData:     [64]byte(b[520:]),
		v15:            v15,
	}
	for i := range t.rtmr {
		t.rtmr[i] = [48]byte(b[328+48*i:])
	}
	if v15 {
		t.tcbSVN2 = [16]byte(b[584:])
		t.mrServiceTD = [48]byte(b[600:])
	}
	return t
}

func parseQEReport(b []byte) qeReport {
	return qeReport{
		raw:        b,
		miscSelect: [4]byte(b[16:]),
		attributes: [16]byte(b[48:]),
		mrSigner:   [32]byte(b[128:]),
		isvProdID:  binary.LittleEndian.Uint16(b[256:]),
		isvSVN:     binary.LittleEndian.Uint16(b[258:]),
		reportData: [64]byte(b[320:]),
	}
}
