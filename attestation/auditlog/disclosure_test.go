package auditlog_test

import (
	"bytes"
	"testing"

	"cocoon/attestation"
	"cocoon/attestation/auditlog"
)

// disclose writes what a folder shows of one channel to a file, without the receipts that drop names.
func disclose(t testing.TB, f *auditlog.Folder, sections []auditlog.Section, channel attestation.Address, drop func(int) bool) *auditlog.Disclosure {
	t.Helper()
	raw := discloseBytes(t, f, sections, channel, drop)
	d, err := auditlog.OpenDisclosure(bytes.NewReader(raw), int64(len(raw)))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func discloseBytes(t testing.TB, f *auditlog.Folder, sections []auditlog.Section, channel attestation.Address, drop func(int) bool) []byte {
	t.Helper()
	var out bytes.Buffer
	d, err := auditlog.NewDisclosureWriter(&out)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range sections {
		if s.Channel != channel {
			continue
		}
		s.Whole = drop == nil
		if err := d.Section(s); err != nil {
			t.Fatal(err)
		}
		n := 0
		for r, err := range f.Receipts(t.Context(), s) {
			if err != nil {
				t.Fatal(err)
			}
			if drop == nil || !drop(n) {
				r.BlindingKey = bytes.Repeat([]byte{1}, 32)
				if err := d.Receipt(r); err != nil {
					t.Fatal(err)
				}
			}
			n++
		}
	}
	vs, err := f.Vouchers(t.Context(), channel)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range vs {
		if err := d.Voucher(channel, v); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestDisclosureRoundTrip(t *testing.T) {
	w := manyReceipts(t, 40, 2)
	w.voucher(address("a"), 77)
	f := w.folder()
	sections, err := f.Sections(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	raw := discloseBytes(t, f, sections, address("a"), nil)
	d, err := auditlog.OpenDisclosure(bytes.NewReader(raw), int64(len(raw)))
	if err != nil {
		t.Fatal(err)
	}
	shown, err := d.Sections(t.Context())
	if err != nil || len(shown) != 1 || shown[0].Channel != address("a") || !shown[0].Whole {
		t.Fatalf("sections: %+v, %v", shown, err)
	}
	n := 0
	for r, err := range d.Receipts(t.Context(), shown[0]) {
		if err != nil {
			t.Fatal(err)
		}
		if got, err := auditlog.ParseReceipt(r.COSE); err != nil || got.Index != uint64(n) || len(r.BlindingKey) != 32 {
			t.Errorf("receipt %d: %+v, %v", n, got, err)
		}
		n++
	}
	if n != 20 {
		t.Errorf("receipts: got %d, want 20", n)
	}
	if vs, err := d.Vouchers(t.Context(), address("a")); err != nil || len(vs) != 1 || len(vs[0]) != 8 {
		t.Errorf("vouchers: %x, %v", vs, err)
	}
	// A file cut anywhere, or with anything behind it, is no disclosure.
	for cut := 0; cut < len(raw); cut += 97 {
		if _, err := auditlog.OpenDisclosure(bytes.NewReader(raw[:cut]), int64(cut)); err == nil {
			t.Errorf("cut at %d of %d: got no error", cut, len(raw))
		}
	}
	long := append(bytes.Clone(raw), 0)
	if _, err := auditlog.OpenDisclosure(bytes.NewReader(long), int64(len(long))); err == nil {
		t.Error("trailing byte: got no error")
	}
}

func TestDisclosureWriterRefuses(t *testing.T) {
	d, err := auditlog.NewDisclosureWriter(&bytes.Buffer{})
	if err != nil {
		t.Fatal(err)
	}
	good := sign(t, testKey("x"), sample())
	if err := d.Receipt(auditlog.Disclosed{COSE: good}); err == nil {
		t.Error("a receipt before any section: got no error")
	}
	if err := d.Section(auditlog.Section{Channel: address("a")}); err != nil {
		t.Fatal(err)
	}
	if err := d.Receipt(auditlog.Disclosed{COSE: good, BlindingKey: []byte("short")}); err == nil {
		t.Error("a short blinding key: got no error")
	}
	if err := d.Receipt(auditlog.Disclosed{COSE: good[1:]}); err == nil {
		t.Error("no receipt: got no error")
	}
	if err := d.Voucher(address("a"), nil); err == nil {
		t.Error("no voucher: got no error")
	}
}

func FuzzOpenDisclosure(f *testing.F) {
	w := manyReceipts(f, 4, 2)
	folder := w.folder()
	sections, err := folder.Sections(f.Context())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(discloseBytes(f, folder, sections, address("a"), nil))
	f.Add([]byte("cocoon/disclosure/v1\n\x00\x00\x00\x01\xa0"))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := auditlog.OpenDisclosure(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		sections, _ := d.Sections(t.Context())
		for _, s := range sections {
			for r, err := range d.Receipts(t.Context(), s) {
				if err != nil || len(r.COSE) > auditlog.MaxReceiptBytes+256 {
					t.Errorf("a file that opened does not read: %v", err)
				}
			}
		}
	})
}
