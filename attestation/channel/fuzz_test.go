package channel

import (
	"bytes"
	"testing"

	"cocoon/attestation"
	"cocoon/attestation/canonical"
)

func FuzzJobOpen(f *testing.F) {
	r := newRig(f)
	for _, shape := range []Shape{ShapeOn, ShapeOffUnpadded} {
		_, raw := r.newJob(r.params(shape))
		f.Add(raw)
		f.Add(raw[:len(raw)-1])
	}
	f.Add([]byte{})
	f.Add([]byte{0xa7})
	seen := NewReplay(100)
	f.Fuzz(func(t *testing.T, b []byte) {
		o, terms, err := parseJobOpen(b)
		if err == nil && (!bytes.Equal(canonical.MustMarshal(o), b) || !bytes.Equal(canonical.MustMarshal(terms), o.Terms)) {
			t.Error("a job open that does not encode to itself")
		}
		if j, err := r.epoch.Accept(b, r.ekm, r.keyset.Digest(), r.key, seen); (j == nil) == (err == nil) {
			t.Errorf("got job %v and error %v", j, err)
		}
	})
}

func FuzzFrame(f *testing.F) {
	for _, fr := range []Frame{{Type: FrameData, Data: AppendData(nil, 7, []byte("x"))}, {Type: FrameReceipt, Last: true}, {}} {
		f.Add(appendPlain(nil, fr, 64))
		f.Add(appendPlain(nil, fr, headerBytes+len(fr.Data)))
	}
	f.Add([]byte{17, 2, 0, 0, 0, 0})
	f.Add([]byte{17, 0, 0xff, 0xff, 0xff, 0xff})
	f.Add([]byte{17, 0, 0, 0, 0, 0, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		fr, err := parsePlain(b)
		if err != nil {
			return
		}
		if !bytes.Equal(appendPlain(nil, fr, len(b)), b) {
			t.Error("a frame that does not encode to itself")
		}
		if tokens, answer, err := ParseData(fr.Data); err == nil && !bytes.Equal(AppendData(nil, tokens, answer), fr.Data) {
			t.Error("data that does not encode to itself")
		}
	})
}

func FuzzTerms(f *testing.F) {
	f.Add(canonical.MustMarshal(Terms{Model: "toy", Prices: attestation.Prices{Prompt: 1}, PromptCeiling: 1, TotalCeiling: 1 << 60}))
	f.Add(canonical.MustMarshal(Terms{}))
	f.Add([]byte{0xa5})
	f.Fuzz(func(t *testing.T, b []byte) {
		terms, err := ParseTerms(b)
		if err == nil && !bytes.Equal(canonical.MustMarshal(terms), b) {
			t.Error("terms that do not encode to themselves")
		}
	})
}

func FuzzMessages(f *testing.F) {
	f.Add(OpenRequest{Endpoint: "chat/completions", Voucher: []byte{1}, Body: []byte("{}"), BodyDone: true}.Encode())
	f.Add(VoucherUpdate{Voucher: []byte{1}, Count: 9}.Encode())
	f.Add(Hello{Highest: []byte{1}, BasePaid: 5, Settled: 2}.Encode())
	f.Add(JobError{Status: 400, Type: "invalid_request_error", Message: "no"}.Encode())
	f.Add([]byte{0xa0})
	f.Fuzz(func(t *testing.T, b []byte) {
		same := func(name string, again []byte, err error) {
			if err == nil && !bytes.Equal(again, b) {
				t.Errorf("%s does not encode to itself", name)
			}
		}
		r, err := ParseOpenRequest(b)
		same("open request", r.Encode(), err)
		u, err := ParseVoucherUpdate(b)
		same("voucher update", u.Encode(), err)
		h, err := ParseHello(b)
		same("hello", h.Encode(), err)
		e, err := ParseJobError(b)
		same("job error", e.Encode(), err)
	})
}

func TestMessagesAreBounded(t *testing.T) {
	long := make([]byte, MaxVoucherBytes+1)
	for name, err := range map[string]error{
		"endpoint":        second(ParseOpenRequest(OpenRequest{}.Encode())),
		"request voucher": second(ParseOpenRequest(OpenRequest{Endpoint: "a", Voucher: long}.Encode())),
		"shape":           second(ParseOpenRequest(OpenRequest{Endpoint: "a", Shape: 2}.Encode())),
		"body":            second(ParseOpenRequest(OpenRequest{Endpoint: "a", Body: make([]byte, MaxFrameData)}.Encode())),
		"voucher":         second(ParseVoucherUpdate(VoucherUpdate{Voucher: long}.Encode())),
		"hello":           second(ParseHello(Hello{Base: long}.Encode())),
		"two bases":       second(ParseHello(Hello{Base: []byte{1}, BasePaid: 1}.Encode())),
		"status":          second(ParseJobError(JobError{Status: 200}.Encode())),
	} {
		if err == nil {
			t.Errorf("%s: parsed", name)
		}
	}
	if _, err := ParseOpenRequest(OpenRequest{Endpoint: "a", Voucher: long[1:], Body: make([]byte, MaxOpenBody)}.Encode()); err != nil {
		t.Errorf("the longest opening: %v", err)
	}
}

func second[T any](_ T, err error) error { return err }
