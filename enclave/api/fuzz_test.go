package api

import (
	"bytes"
	"testing"

	"cocoon/attestation/canonical"
)

func messages() []message {
	return []message{new(AttestRequest), new(AttestResponse), new(ReceiptsRequest), new(ReceiptsResponse), new(EvidenceRequest), new(EvidenceResponse)}
}

func FuzzMessages(f *testing.F) {
	for _, m := range messages() {
		f.Add(canonical.MustMarshal(m))
	}
	f.Add(canonical.MustMarshal(&ReceiptsResponse{BasePaid: 1, Receipts: [][]byte{{1}, {}}}))
	f.Add([]byte{0xa0})
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, m := range messages() {
			if err := m.decode(b); err == nil && !bytes.Equal(canonical.MustMarshal(m), b) {
				t.Errorf("%T does not encode to itself", m)
			}
		}
	})
}

func TestMessagesAreBounded(t *testing.T) {
	long := make([]byte, 5<<10)
	for name, tt := range map[string]struct{ sent, read message }{
		"receipts":     {&ReceiptsResponse{Receipts: make([][]byte, MaxReceipts+1)}, new(ReceiptsResponse)},
		"receipt":      {&ReceiptsResponse{Receipts: [][]byte{long}}, new(ReceiptsResponse)},
		"base":         {&ReceiptsResponse{Base: long}, new(ReceiptsResponse)},
		"highest":      {&ReceiptsResponse{Highest: long}, new(ReceiptsResponse)},
		"two bases":    {&ReceiptsResponse{Base: []byte{1}, BasePaid: 1}, new(ReceiptsResponse)},
		"another type": {&EvidenceResponse{}, new(AttestResponse)},
	} {
		if err := tt.read.decode(canonical.MustMarshal(tt.sent)); err == nil {
			t.Errorf("%s: parsed", name)
		}
	}
	most := &ReceiptsResponse{Receipts: make([][]byte, MaxReceipts)}
	if err := new(ReceiptsResponse).decode(canonical.MustMarshal(most)); err != nil {
		t.Errorf("%d receipts: %v", MaxReceipts, err)
	}
}
