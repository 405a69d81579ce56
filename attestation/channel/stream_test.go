package channel

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hpke"
	"crypto/sha256"
	"encoding/binary"
	"testing"

	"github.com/google/go-cmp/cmp"

	"cocoon/attestation/canonical"
)

// answer seals a whole answer: hello, two parts, receipt.
func answer(t testing.TB, s *ServerJob) [][]byte {
	t.Helper()
	var wire [][]byte
	for _, f := range []Frame{
		{Type: FrameHello, Data: Hello{}.Encode()},
		{Type: FrameData, Data: AppendData(nil, 1, []byte("one"))},
		{Type: FrameData, Data: AppendData(nil, 2, []byte("two"))},
		{Type: FrameReceipt, Last: true, Data: []byte("receipt")},
	} {
		b, err := s.Seal(f)
		if err != nil {
			t.Fatal(err)
		}
		wire = append(wire, b)
	}
	return wire
}

func TestBothShapesCarryAJob(t *testing.T) {
	for _, shape := range []Shape{ShapeOn, ShapeOffUnpadded} {
		t.Run(shape.String(), func(t *testing.T) {
			r := newRig(t)
			p := r.params(shape)
			p.First.Data = OpenRequest{Endpoint: "chat/completions", Shape: shape, Body: []byte("half ")}.Encode()
			j, raw := r.newJob(p)
			s, err := r.accept(raw)
			if err != nil {
				t.Fatal(err)
			}
			if s.JobID() != p.JobID || s.Channel() != p.Channel || s.Terms() != p.Terms || s.Shape() != shape || string(s.Request().Body) != "half " {
				t.Errorf("the worker sees job %x, channel %s, terms %+v, shape %s", s.JobID(), s.Channel(), s.Terms(), s.Shape())
			}
			for _, f := range []Frame{
				{Type: FrameBody, Data: []byte("a body"), Last: true},
				{Type: FrameFiller, Data: []byte{}},
				{Type: FrameVoucher, Data: VoucherUpdate{Count: 3}.Encode()},
				{Type: FrameCancel, Data: []byte{}},
			} {
				ct, err := j.Seal(f)
				if err != nil {
					t.Fatal(err)
				}
				if shape == ShapeOn && len(ct) != ClientTickBytes {
					t.Errorf("%s: got %d bytes on the wire, want %d", f.Type, len(ct), ClientTickBytes)
				}
				got, err := s.Open(ct)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(f, got); diff != "" {
					t.Errorf("%s (-sent +got):\n%s", f.Type, diff)
				}
			}
			var text string
			for _, ct := range answer(t, s) {
				if shape == ShapeOn && len(ct) != WorkerTickBytes {
					t.Errorf("got %d bytes on the wire, want %d", len(ct), WorkerTickBytes)
				}
				f, err := j.OpenAnswer(ct)
				if err != nil {
					t.Fatal(err)
				}
				if f.Type == FrameData {
					_, b, err := ParseData(f.Data)
					if err != nil {
						t.Fatal(err)
					}
					text += string(b)
				}
			}
			if text != "onetwo" || !j.Done() || j.End() != nil {
				t.Errorf("got %q, done %t, end %v", text, j.Done(), j.End())
			}
		})
	}
}

func TestAnswerStreamAttacks(t *testing.T) {
	for _, tt := range []struct {
		name   string
		attack func(wire, other [][]byte) [][]byte
		want   string
	}{
		{"gap", func(w, _ [][]byte) [][]byte { return [][]byte{w[0], w[2]} }, "answer.sequence"},
		{"gap at the start", func(w, _ [][]byte) [][]byte { return w[1:] }, "answer.sequence"},
		{"reordered", func(w, _ [][]byte) [][]byte { return [][]byte{w[0], w[2], w[1], w[3]} }, "answer.sequence"},
		{"repeated", func(w, _ [][]byte) [][]byte { return [][]byte{w[0], w[1], w[1]} }, "answer.sequence"},
		{"repeated start", func(w, _ [][]byte) [][]byte { return [][]byte{w[0], w[0]} }, "answer.sequence"},
		{"truncated", func(w, _ [][]byte) [][]byte { return w[:3] }, "answer.truncated"},
		{"nothing at all", func(w, _ [][]byte) [][]byte { return nil }, "answer.truncated"},
		{"cut to the receipt", func(w, _ [][]byte) [][]byte { return [][]byte{w[0], w[3]} }, "answer.sequence"},
		{"data after last", func(w, _ [][]byte) [][]byte { return append(w, w[3]) }, "answer.after-last"},
		{"flipped bit", func(w, _ [][]byte) [][]byte { w[1][20] ^= 1; return w }, "answer.sequence"},
		{"flipped tag", func(w, _ [][]byte) [][]byte { w[1][len(w[1])-1] ^= 1; return w }, "answer.sequence"},
		{"flipped worker nonce", func(w, _ [][]byte) [][]byte { w[0][0] ^= 1; return w }, "answer.sequence"},
		{"another job's answer", func(_, o [][]byte) [][]byte { return o }, "answer.sequence"},
		{"another job's frame", func(w, o [][]byte) [][]byte { return [][]byte{w[0], o[1]} }, "answer.sequence"},
		{"cut frame", func(w, _ [][]byte) [][]byte { w[1] = w[1][:100]; return w }, "answer.size"},
		{"long frame", func(w, _ [][]byte) [][]byte { w[1] = make([]byte, MaxWireBytes+1); return w }, "answer.size"},
		{"empty frame", func(w, _ [][]byte) [][]byte { w[0] = nil; return w }, "answer.size"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t)
			j, s := r.pair(ShapeOn)
			_, s2 := r.pair(ShapeOn)
			var err error
			for _, ct := range tt.attack(answer(t, s), answer(t, s2)) {
				if _, err = j.OpenAnswer(ct); err != nil {
					break
				}
			}
			if err == nil {
				err = j.End()
			}
			if err == nil {
				t.Fatalf("the answer passed as whole, want %s", tt.want)
			}
			if got := refusal(t, err); got != tt.want {
				t.Errorf("got %s (%v), want %s", got, err, tt.want)
			}
			if _, err := j.Seal(Frame{Type: FrameFiller}); err == nil {
				t.Error("the dead job seals")
			}
			if err := j.End(); err == nil {
				t.Error("the dead job ended well")
			}
		})
	}
}

func TestClientStreamAttacks(t *testing.T) {
	for _, tt := range []struct {
		name   string
		attack func(w [][]byte) [][]byte
		want   string
	}{
		{"gap", func(w [][]byte) [][]byte { return w[1:] }, "frames.sequence"},
		{"reordered", func(w [][]byte) [][]byte { return [][]byte{w[1], w[0]} }, "frames.sequence"},
		{"repeated", func(w [][]byte) [][]byte { return [][]byte{w[0], w[0]} }, "frames.sequence"},
		{"flipped bit", func(w [][]byte) [][]byte { w[0][0] ^= 1; return w }, "frames.sequence"},
		{"cut", func(w [][]byte) [][]byte { return [][]byte{w[0][:40]} }, "frames.size"},
		{"empty", func(w [][]byte) [][]byte { return [][]byte{nil} }, "frames.size"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			j, s := newRig(t).pair(ShapeOn)
			var wire [][]byte
			for range 2 {
				b, err := j.Seal(Frame{Type: FrameFiller})
				if err != nil {
					t.Fatal(err)
				}
				wire = append(wire, b)
			}
			var err error
			for _, ct := range tt.attack(wire) {
				if _, err = s.Open(ct); err != nil {
					break
				}
			}
			if err == nil {
				t.Fatalf("the frames passed, want %s", tt.want)
			}
			if got := refusal(t, err); got != tt.want {
				t.Errorf("got %s (%v), want %s", got, err, tt.want)
			}
			if _, err := s.Seal(Frame{Type: FrameHello}); err == nil {
				t.Error("the dead job seals")
			}
		})
	}
}

func TestFrameRules(t *testing.T) {
	big := make([]byte, MaxFrameData+1)
	for _, tt := range []struct {
		name   string
		frames []Frame
		want   string
	}{
		{"a second opening", []Frame{{Type: FrameOpen}}, "frames.type"},
		{"a worker's frame", []Frame{{Type: FrameReceipt}}, "frames.type"},
		{"no type", []Frame{{}}, "frames.type"},
		{"body after the last part", []Frame{{Type: FrameBody}}, "frames.after-last"},
		{"last on a voucher", []Frame{{Type: FrameVoucher, Last: true}}, "frames.last"},
		{"a filler that carries data", []Frame{{Type: FrameFiller, Data: []byte("x")}}, "frames.type"},
		{"too long", []Frame{{Type: FrameVoucher, Data: big}}, "frames.size"},
	} {
		t.Run("client "+tt.name, func(t *testing.T) {
			j, _ := newRig(t).pair(ShapeOn) // whose body was whole in the opening frame
			seal(t, j.Seal, tt.frames, tt.want)
		})
	}
	hello := Frame{Type: FrameHello}
	for _, tt := range []struct {
		name   string
		frames []Frame
		want   string
	}{
		{"data first", []Frame{{Type: FrameData}}, "answer.type"},
		{"two hellos", []Frame{hello, hello}, "answer.type"},
		{"a client's frame", []Frame{hello, {Type: FrameVoucher}}, "answer.type"},
		{"last without a receipt", []Frame{hello, {Type: FrameData, Last: true}}, "answer.last"},
		{"a receipt that is not last", []Frame{hello, {Type: FrameReceipt}}, "answer.last"},
		{"after the receipt", []Frame{hello, {Type: FrameReceipt, Last: true}, {Type: FrameFiller}}, "answer.after-last"},
		{"too long", []Frame{hello, {Type: FrameData, Data: big}}, "answer.size"},
	} {
		t.Run("worker "+tt.name, func(t *testing.T) {
			_, s := newRig(t).pair(ShapeOn)
			seal(t, s.Seal, tt.frames, tt.want)
		})
	}
}

// seal expects the last of frames to be refused.
func seal(t *testing.T, do func(Frame) ([]byte, error), frames []Frame, want string) {
	t.Helper()
	for i, f := range frames {
		_, err := do(f)
		if i < len(frames)-1 {
			if err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err == nil {
			t.Fatalf("sealed, want %s", want)
		}
		if got := refusal(t, err); got != want {
			t.Errorf("got %s (%v), want %s", got, err, want)
		}
	}
}

// TestBytesOnTheWire opens both directions by DESIGN section 4 alone.
func TestBytesOnTheWire(t *testing.T) {
	r := newRig(t)
	p := r.params(ShapeOn)
	j, raw := r.newJob(p)
	var o struct {
		JobID        []byte `cbor:"job_id"`
		KeysetDigest []byte `cbor:"keyset_digest"`
		Channel      []byte `cbor:"channel"`
		Enc          []byte `cbor:"enc"`
		Terms        []byte `cbor:"terms"`
		Ciphertext   []byte `cbor:"ciphertext"`
		Signature    []byte `cbor:"signature"`
	}
	if err := canonical.Unmarshal("job open", raw, len(raw), &o); err != nil {
		t.Fatal(err)
	}
	info := append(append([]byte("cocoon/job/v1"), o.KeysetDigest...), p.JobID[:]...)
	rcpt, err := hpke.NewRecipient(o.Enc, r.epoch.hpke, hpke.HKDFSHA256(), hpke.AES256GCM(), info)
	if err != nil {
		t.Fatal(err)
	}
	aad := append(binary.BigEndian.AppendUint64(nil, uint64(len(o.Terms))), o.Terms...)
	plain, err := rcpt.Open(aad, o.Ciphertext)
	if err != nil {
		t.Fatal(err)
	}
	want := append([]byte{1, 1}, binary.BigEndian.AppendUint32(nil, uint32(len(p.First.Data)))...)
	want = append(want, p.First.Data...)
	want = append(want, make([]byte, len(plain)-len(want))...)
	if !bytes.Equal(plain, want) {
		t.Errorf("opening plaintext: got %x, want %x", plain, want)
	}

	s, err := r.accept(raw)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := rcpt.Export("cocoon/answer/v1", 32)
	if err != nil {
		t.Fatal(err)
	}
	wire := answer(t, s)
	salt := append(append([]byte(nil), o.Enc...), wire[0][:32]...)
	key, err := hkdf.Key(sha256.New, secret, salt, "key", 32)
	if err != nil {
		t.Fatal(err)
	}
	base, err := hkdf.Key(sha256.New, secret, salt, "nonce", 12)
	if err != nil {
		t.Fatal(err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	wire[0] = append([]byte(nil), wire[0][32:]...)
	for i, ct := range wire {
		nonce := append([]byte(nil), base...)
		nonce[11] ^= byte(i)
		aad := []byte{0, 0, 0, 0, 0, 0, 0, byte(i), 0}
		if i == len(wire)-1 {
			aad[8] = 1
		}
		if _, err := gcm.Open(nil, nonce, ct, aad); err != nil {
			t.Errorf("answer frame %d: %v", i, err)
		}
	}
	if j.Done() {
		t.Error("done before anything was opened")
	}
}

func TestSealingAnAnswerAllocatesNothing(t *testing.T) {
	_, s := newRig(t).pair(ShapeOffUnpadded)
	if _, err := s.Seal(Frame{Type: FrameHello}); err != nil {
		t.Fatal(err)
	}
	buf, data := make([]byte, 0, 1024), AppendData(nil, 1, make([]byte, 180))
	if n := testing.AllocsPerRun(100, func() {
		if _, err := s.AppendSeal(buf, Frame{Type: FrameData, Data: data}); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("got %v allocations a frame, want 0", n)
	}
}
