package auditlog

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"

	"cocoon/attestation"
	"cocoon/attestation/canonical"
)

// A disclosure file begins with this line. Records follow, each a u32
// big-endian length and canonical CBOR: a section, its receipts in the order
// of their indices, further sections, vouchers; and an end record, so that a
// cut file is no file. A new kind of record is a new first line.
const disclosureMagic = "cocoon/disclosure/v1\n"

// Bounds of a disclosure's records.
const (
	maxRecordBytes  = MaxReceiptBytes + 256
	maxVoucherBytes = 512
	maxSections     = 1 << 20
)

// record is any line of a disclosure; exactly the fields of its type are set.
type record struct {
	Type     string      `cbor:"type"`     // "section", "receipt", "voucher" or "end"
	Section  *Section    `cbor:"section"`  // of a section
	Receipt  *Disclosed  `cbor:"receipt"`  // of a receipt
	Voucher  *voucherRec `cbor:"voucher"`  // of a voucher
	Receipts uint64      `cbor:"receipts"` // of the end: how many receipts came before
}

type voucherRec struct {
	Channel attestation.Address `cbor:"channel"`
	Raw     []byte              `cbor:"raw"`
}

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

func (d *DisclosureWriter) put(r record) error {
	b, err := canonical.Marshal(r)
	if err != nil {
		return err
	}
	if len(b) > maxRecordBytes {
		return fmt.Errorf("disclosure: %s: got %d bytes, want at most %d", r.Type, len(b), maxRecordBytes)
	}
	_, err = d.w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...))
	return err
}

// Section begins a section.
func (d *DisclosureWriter) Section(s Section) error {
	d.section = true
	return d.put(record{Type: "section", Section: &s})
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
	return d.put(record{Type: "receipt", Receipt: &r})
}

// Voucher adds a signed voucher of a channel.
func (d *DisclosureWriter) Voucher(channel attestation.Address, raw []byte) error {
	if len(raw) == 0 || len(raw) > maxVoucherBytes {
		return fmt.Errorf("disclosure: voucher: got %d bytes, want 1 to %d", len(raw), maxVoucherBytes)
	}
	return d.put(record{Type: "voucher", Voucher: &voucherRec{channel, raw}})
}

// Close ends the disclosure. It does not close the writer underneath.
func (d *DisclosureWriter) Close() error { return d.put(record{Type: "end", Receipts: d.receipts}) }

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
		rec, err := in.next()
		if err != nil {
			return nil, err
		}
		if rec.Type != "receipt" && open != nil {
			d.spans[open.key()] = span{d.spans[open.key()].begin, at}
			open = nil
		}
		switch rec.Type {
		case "section":
			s := *rec.Section
			if _, twice := d.spans[s.key()]; twice || len(d.sections) == maxSections {
				return nil, fmt.Errorf("disclosure: section of channel %s in log %x: twice, or more than %d", s.Channel, s.LogID, maxSections)
			}
			open = &s
			d.sections = append(d.sections, s)
			d.spans[s.key()] = span{begin: in.offset}
		case "receipt":
			if open == nil {
				return nil, errors.New("disclosure: a receipt outside any section")
			}
			receipts++
		case "voucher":
			v := rec.Voucher
			if d.vouchers[v.Channel] == nil {
				d.channels = append(d.channels, v.Channel)
			}
			if d.vouchers[v.Channel] = append(d.vouchers[v.Channel], v.Raw); len(d.vouchers[v.Channel]) > 1024 || len(d.channels) > maxSections {
				return nil, errors.New("disclosure: too many vouchers")
			}
		case "end":
			if rec.Receipts != receipts {
				return nil, fmt.Errorf("disclosure: end: got %d receipts, want %d", receipts, rec.Receipts)
			}
			if in.offset != size {
				return nil, fmt.Errorf("disclosure: got %d bytes after the end", size-in.offset)
			}
			return d, nil
		}
	}
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

// Receipts yields a section's receipts.
func (d *Disclosure) Receipts(ctx context.Context, s Section) iter.Seq2[Disclosed, error] {
	return func(yield func(Disclosed, error) bool) {
		at := d.spans[s.key()]
		in := &recordReader{r: bufio.NewReaderSize(io.NewSectionReader(d.r, at.begin, at.end-at.begin), 64<<10)}
		for in.offset < at.end-at.begin {
			rec, err := in.next()
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				yield(Disclosed{}, err)
				return
			}
			if !yield(*rec.Receipt, nil) {
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

func (r *recordReader) next() (record, error) {
	var rec record
	var n [4]byte
	if _, err := io.ReadFull(r.r, n[:]); err != nil {
		return rec, fmt.Errorf("disclosure: cut off at byte %d: %w", r.offset, err)
	}
	size := binary.BigEndian.Uint32(n[:])
	if size > maxRecordBytes {
		return rec, fmt.Errorf("disclosure: record at byte %d: got %d bytes, want at most %d", r.offset, size, maxRecordBytes)
	}
	b := make([]byte, size)
	if _, err := io.ReadFull(r.r, b); err != nil {
		return rec, fmt.Errorf("disclosure: cut off at byte %d: %w", r.offset, err)
	}
	if err := canonical.Unmarshal("disclosure", b, maxRecordBytes, &rec); err != nil {
		return rec, err
	}
	if err := rec.check(); err != nil {
		return rec, fmt.Errorf("disclosure: record at byte %d: %w", r.offset, err)
	}
	r.offset += 4 + int64(size)
	return rec, nil
}

func (r *record) check() error {
	want := record{Type: r.Type}
	switch r.Type {
	case "section":
		want.Section = r.Section
	case "receipt":
		want.Receipt = r.Receipt
		if r.Receipt != nil && len(r.Receipt.BlindingKey) != 0 && len(r.Receipt.BlindingKey) != 32 {
			return fmt.Errorf("blinding key: got %d bytes, want 32 or none", len(r.Receipt.BlindingKey))
		}
	case "voucher":
		want.Voucher = r.Voucher
		if r.Voucher != nil && len(r.Voucher.Raw) > maxVoucherBytes {
			return fmt.Errorf("voucher: got %d bytes, want at most %d", len(r.Voucher.Raw), maxVoucherBytes)
		}
	case "end":
		want.Receipts = r.Receipts
	default:
		return fmt.Errorf("type: got %.20q, want section, receipt, voucher or end", r.Type)
	}
	if *r != want || r.Type != "end" && r.Section == nil && r.Receipt == nil && r.Voucher == nil {
		return fmt.Errorf("type %s: its own fields, and only they, must be set", r.Type)
	}
	return nil
}
