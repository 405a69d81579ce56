package auditlog

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"

	"cocoon/attestation"
	"cocoon/attestation/canonical"
)

// A disclosure file begins with this line. Records follow, each a kind, a u32
// big-endian length and that many bytes: a section, its receipts in the order
// of their indices, further sections, vouchers; and an end, so that a cut file
// is no file. A new kind of record is a new first line.
const disclosureMagic = "cocoon/disclosure/v1\n"

// Kinds of records.
const (
	recordSection = 's' // canonical CBOR of a Section
	recordReceipt = 'r' // 32 bytes of blinding key after a byte 1, or a byte 0; then the COSE_Sign1
	recordVoucher = 'v' // channel, signed voucher
	recordEnd     = 'e' // u64: how many receipts came before
)

// Bounds of a disclosure's records.
const (
	maxRecordBytes  = MaxReceiptBytes + 256
	maxVoucherBytes = 512
	maxSections     = 1 << 20
)

// DisclosureWriter writes a disclosure: what a client exports from its ledger
// for an auditor. The file holds no prompt and no answer; with a blinding key
// whoever knows a text can prove that it was this one.
type DisclosureWriter struct {
	w        io.Writer
	section  bool
	receipts uint64
}

// NewDisclosureWriter begins a disclosure.
func NewDisclosureWriter(w io.Writer) (*DisclosureWriter, error) {
	if _, err := io.WriteString(w, disclosureMagic); err != nil {
		return nil, err
	}
	return &DisclosureWriter{w: w}, nil
}

func (d *DisclosureWriter) put(kind byte, parts ...[]byte) error {
	body := bytes.Join(parts, nil)
	b := binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(body)))
	_, err := d.w.Write(append(b, body...))
	return err
}

// Section begins a section.
func (d *DisclosureWriter) Section(s Section) error {
	d.section = true
	return d.put(recordSection, canonical.MustMarshal(s))
}

// Receipt adds the next receipt of the section.
func (d *DisclosureWriter) Receipt(r Disclosed) error {
	if !d.section {
		return errors.New("disclosure: a receipt before any section")
	}
	if len(r.BlindingKey) != 0 && len(r.BlindingKey) != 32 {
		return fmt.Errorf("disclosure: blinding key: got %d bytes, want 32 or none", len(r.BlindingKey))
	}
	if _, err := ParseReceipt(r.COSE); err != nil {
		return err
	}
	d.receipts++
	return d.put(recordReceipt, []byte{byte(len(r.BlindingKey) / 32)}, r.BlindingKey, r.COSE)
}

// Voucher adds a signed voucher of a channel.
func (d *DisclosureWriter) Voucher(channel attestation.Address, raw []byte) error {
	if len(raw) == 0 || len(raw) > maxVoucherBytes {
		return fmt.Errorf("disclosure: voucher: got %d bytes, want 1 to %d", len(raw), maxVoucherBytes)
	}
	return d.put(recordVoucher, channel[:], raw)
}

// Close ends the disclosure. It does not close the writer underneath.
func (d *DisclosureWriter) Close() error {
	return d.put(recordEnd, binary.BigEndian.AppendUint64(nil, d.receipts))
}

// Disclosure is a disclosure file open for reading. It is a Discloser.
type Disclosure struct {
	r        io.ReaderAt
	sections []Section
	spans    map[sectionKey]span
	channels []attestation.Address
	vouchers map[attestation.Address][][]byte
}

type sectionKey struct {
	channel attestation.Address
	logID   [32]byte
}

func (s Section) key() sectionKey { return sectionKey{s.Channel, s.LogID} }

// span is where a section's receipts lie in the file.
type span struct{ begin, end int64 }

// OpenDisclosure reads through a disclosure of size bytes once, checks its
// form to the end, and keeps the places of its sections; receipts are read
// again as they are asked for. They are not believed.
func OpenDisclosure(r io.ReaderAt, size int64) (*Disclosure, error) {
	d := &Disclosure{r: r, spans: make(map[sectionKey]span), vouchers: make(map[attestation.Address][][]byte)}
	in := &recordReader{r: bufio.NewReaderSize(io.NewSectionReader(r, 0, size), 64<<10)}
	if err := in.magic(); err != nil {
		return nil, err
	}
	var open *Section
	receipts := uint64(0)
	for {
		at := in.offset
		kind, body, err := in.next()
		if err != nil {
			return nil, err
		}
		if kind != recordReceipt && open != nil {
			d.spans[open.key()] = span{d.spans[open.key()].begin, at}
			open = nil
		}
		switch kind {
		case recordSection:
			if open, err = d.addSection(body, in.offset); err != nil {
				return nil, err
			}
		case recordReceipt:
			if open == nil {
				return nil, fmt.Errorf("disclosure: receipt at byte %d: outside any section", at)
			}
			if _, err := parseDisclosed(body); err != nil {
				return nil, fmt.Errorf("disclosure: receipt at byte %d: %w", at, err)
			}
			receipts++
		case recordVoucher:
			if err := d.addVoucher(body); err != nil {
				return nil, err
			}
		case recordEnd:
			if len(body) != 8 || binary.BigEndian.Uint64(body) != receipts {
				return nil, fmt.Errorf("disclosure: end: got %x, want the count of %d receipts", body, receipts)
			}
			if in.offset != size {
				return nil, fmt.Errorf("disclosure: got %d bytes after the end", size-in.offset)
			}
			return d, nil
		default:
			return nil, fmt.Errorf("disclosure: record at byte %d: kind: got %q", at, kind)
		}
	}
}

func (d *Disclosure) addSection(body []byte, at int64) (*Section, error) {
	var s Section
	if err := canonical.Unmarshal("disclosure: section", body, maxRecordBytes, &s); err != nil {
		return nil, err
	}
	if _, twice := d.spans[s.key()]; twice || len(d.sections) == maxSections {
		return nil, fmt.Errorf("disclosure: section of channel %s in log %x: twice, or more than %d", s.Channel, s.LogID, maxSections)
	}
	d.sections = append(d.sections, s)
	d.spans[s.key()] = span{begin: at}
	return &s, nil
}

func (d *Disclosure) addVoucher(body []byte) error {
	if len(body) <= len(attestation.Address{}) || len(body) > len(attestation.Address{})+maxVoucherBytes {
		return fmt.Errorf("disclosure: voucher: got %d bytes", len(body))
	}
	c := attestation.Address(body[:36])
	if d.vouchers[c] == nil {
		d.channels = append(d.channels, c)
	}
	if d.vouchers[c] = append(d.vouchers[c], body[36:]); len(d.vouchers[c]) > 1024 || len(d.channels) > maxSections {
		return errors.New("disclosure: too many vouchers")
	}
	return nil
}

func parseDisclosed(body []byte) (Disclosed, error) {
	switch {
	case len(body) > 1 && body[0] == 0:
		return Disclosed{COSE: body[1:]}, nil
	case len(body) > 33 && body[0] == 1:
		return Disclosed{COSE: body[33:], BlindingKey: body[1:33]}, nil
	}
	return Disclosed{}, fmt.Errorf("got %d bytes, want a blinding key's flag, its 32 bytes or none, and a receipt", len(body))
}

// Sections lists the sections in the order of the file.
func (d *Disclosure) Sections(context.Context) ([]Section, error) { return d.sections, nil }

// Channels lists the channels with vouchers.
func (d *Disclosure) Channels(context.Context) ([]attestation.Address, error) {
	return d.channels, nil
}

// Vouchers returns a channel's vouchers.
func (d *Disclosure) Vouchers(_ context.Context, c attestation.Address) ([][]byte, error) {
	return d.vouchers[c], nil
}

// Signer is true: clients export disclosures.
func (d *Disclosure) Signer() bool { return true }

// Receipts yields a section's receipts.
func (d *Disclosure) Receipts(ctx context.Context, s Section) iter.Seq2[Disclosed, error] {
	return func(yield func(Disclosed, error) bool) {
		at := d.spans[s.key()]
		in := &recordReader{r: bufio.NewReaderSize(io.NewSectionReader(d.r, at.begin, at.end-at.begin), 64<<10)}
		for in.offset < at.end-at.begin {
			_, body, err := in.next()
			var r Disclosed
			if err == nil {
				r, err = parseDisclosed(body)
			}
			if err == nil {
				err = ctx.Err()
			}
			if !yield(r, err) || err != nil {
				return
			}
		}
	}
}

// recordReader reads records one after another.
type recordReader struct {
	r      *bufio.Reader
	offset int64
}

func (r *recordReader) magic() error {
	b := make([]byte, len(disclosureMagic))
	if _, err := io.ReadFull(r.r, b); err != nil || string(b) != disclosureMagic {
		return fmt.Errorf("disclosure: first line: want %q", disclosureMagic)
	}
	r.offset = int64(len(b))
	return nil
}

func (r *recordReader) next() (kind byte, body []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(r.r, head[:]); err != nil {
		return 0, nil, fmt.Errorf("disclosure: cut off at byte %d: %w", r.offset, err)
	}
	size := binary.BigEndian.Uint32(head[1:])
	if size > maxRecordBytes {
		return 0, nil, fmt.Errorf("disclosure: record at byte %d: got %d bytes, want at most %d", r.offset, size, maxRecordBytes)
	}
	body = make([]byte, size)
	if _, err := io.ReadFull(r.r, body); err != nil {
		return 0, nil, fmt.Errorf("disclosure: cut off at byte %d: %w", r.offset, err)
	}
	r.offset += 5 + int64(size)
	return head[0], body, nil
}
