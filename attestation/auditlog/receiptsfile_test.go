package auditlog

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"cocoon/attestation/canonical"
)

// What is read of a store's receipts is a prefix of the file, whatever the host
// has put there, and nothing is longer than a receipt may be.
func FuzzReceiptsFile(f *testing.F) {
	two := append(canonical.LP([]byte("one")), canonical.LP([]byte("two"))...)
	for _, b := range [][]byte{nil, two, two[:len(two)-1], two[:9], bytes.Repeat([]byte{0xff}, 16), canonical.LP(make([]byte, MaxReceiptBytes+1))} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		in := bytes.NewReader(file)
		var again []byte
		for {
			raw, err := nextReceipt(in)
			if err != nil {
				if !errors.Is(err, io.EOF) && len(file)-len(again) < 8 {
					t.Errorf("got %v, want EOF within a length", err)
				}
				break
			}
			if len(raw) > MaxReceiptBytes {
				t.Fatalf("a receipt of %d bytes", len(raw))
			}
			again = append(again, canonical.LP(raw)...)
		}
		if !bytes.HasPrefix(file, again) {
			t.Errorf("read %x of %x", again, file)
		}
	})
}
