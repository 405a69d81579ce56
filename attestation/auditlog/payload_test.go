package auditlog

import (
	"bytes"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"

	"cocoon/attestation"
	"cocoon/attestation/canonical"
)

func fullReceipt(big uint64) Receipt {
	return Receipt{
		Version: big, JobID: [16]byte{1}, Channel: attestation.Address{2}, WorkerID: attestation.Address{3}, LogID: [32]byte{4},
		Checkpoint: bytes.Repeat([]byte{5}, int(big%300)), Index: big, KeysetDigest: [32]byte{6}, Model: attestation.Model{Name: "m", WeightsRoot: "w"},
		RequestCommitment: [32]byte{7}, ResponseCommitment: [32]byte{8}, Usage: attestation.Usage{Prompt: big, Cached: 1, Completion: 2, Reasoning: 3},
		Prices: attestation.Prices{Prompt: 4, Cached: big, Completion: 5, Reasoning: 6}, Cost: big, Started: int64(big >> 1), Finished: 9, FinishReason: "stop", Status: "ok",
	}
}

// Every width of an integer, and every field, reads as the codec reads it.
func TestReadPayloadAgreesWithTheCodec(t *testing.T) {
	for _, big := range []uint64{0, 1, 23, 24, 255, 256, 65535, 65536, math.MaxUint32, math.MaxUint32 + 1, math.MaxUint64} {
		want := fullReceipt(big)
		raw := canonical.MustMarshal(want)
		got, ok := readPayload(raw)
		if !ok {
			t.Errorf("%d: not read", big)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%d (-want +got):\n%s", big, d)
		}
		for i := range raw { // cut off anywhere, it is refused
			if _, ok := readPayload(raw[:i]); ok {
				t.Errorf("%d: read from %d of %d bytes", big, i, len(raw))
			}
		}
	}
}

func FuzzReadPayload(f *testing.F) {
	for _, big := range []uint64{0, 24, 65536, math.MaxUint64} {
		f.Add(canonical.MustMarshal(fullReceipt(big)))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, ok := readPayload(b)
		var want Receipt
		err := canonical.Unmarshal("receipt", b, MaxReceiptBytes, &want)
		if !ok {
			return // the codec decides
		}
		if err != nil || !bytes.Equal(canonical.MustMarshal(got), b) || cmp.Diff(want, got) != "" {
			t.Errorf("read %x as %+v; the codec: %+v, %v", b, got, want, err)
		}
	})
}
