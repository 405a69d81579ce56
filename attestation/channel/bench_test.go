package channel

import (
	"testing"
)

// A 180-byte server-sent event, as facts/performance measures.
func BenchmarkAnswer180(b *testing.B) {
	for _, shape := range []Shape{ShapeOffUnpadded, ShapeOn} {
		b.Run("seal/"+shape.String(), func(b *testing.B) {
			_, s := newRig(b).pair(shape)
			if _, err := s.Seal(Frame{Type: FrameHello}); err != nil {
				b.Fatal(err)
			}
			data, buf := AppendData(nil, 1, make([]byte, 180)), make([]byte, 0, 8192)
			b.SetBytes(180)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.AppendSeal(buf, Frame{Type: FrameData, Data: data}); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("both/"+shape.String(), func(b *testing.B) {
			j, s := newRig(b).pair(shape)
			hello, err := s.Seal(Frame{Type: FrameHello})
			if err != nil {
				b.Fatal(err)
			}
			if _, err := j.OpenAnswer(hello); err != nil {
				b.Fatal(err)
			}
			data, buf, out := AppendData(nil, 1, make([]byte, 180)), make([]byte, 0, 8192), make([]byte, 0, 8192)
			b.SetBytes(180)
			b.ReportAllocs()
			for b.Loop() {
				ct, err := s.AppendSeal(buf, Frame{Type: FrameData, Data: data})
				if err != nil {
					b.Fatal(err)
				}
				if _, _, err := j.AppendOpenAnswer(out, ct); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// Opening a job with a 2 KB prompt: what a request costs beyond its bytes.
func BenchmarkOpenJob(b *testing.B) {
	params := func(r *rig) JobParams {
		p := r.params(ShapeOffUnpadded)
		p.First.Data = OpenRequest{Endpoint: "chat/completions", Shape: ShapeOffUnpadded, Body: make([]byte, 2048), BodyDone: true}.Encode()
		return p
	}
	b.Run("client", func(b *testing.B) {
		r := newRig(b)
		p := params(r)
		for b.Loop() {
			r.newJob(p)
		}
	})
	b.Run("client/prepared", func(b *testing.B) {
		r := newRig(b)
		p, digest := params(r), r.keyset.Digest()
		for b.Loop() {
			b.StopTimer()
			if err := r.session.prepare(digest, p.JobID); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
			r.newJob(p)
		}
	})
	b.Run("worker", func(b *testing.B) {
		r := newRig(b)
		_, raw := r.newJob(params(r))
		for b.Loop() {
			if _, err := r.epoch.Accept(raw, r.ekm, r.keyset.Digest(), r.key, NewReplay(1)); err != nil {
				b.Fatal(err)
			}
		}
	})
}
