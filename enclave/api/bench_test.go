package api_test

import (
	"crypto/ed25519"
	"fmt"
	"io"
	"sync"
	"testing"

	"google.golang.org/grpc"

	"cocoon/attestation"
	"cocoon/attestation/channel"
	"cocoon/enclave/api"
)

// flood answers a job with b.N of the 180-byte events that
// facts/performance measures, each sealed alone.
type flood struct {
	*worker
	events int
}

func (w *flood) Run(s api.RunServer) error {
	ekm, err := api.EKMFromContext(s.Context())
	if err != nil {
		return err
	}
	first, err := s.Recv()
	if err != nil {
		return err
	}
	key := func(attestation.Address) (ed25519.PublicKey, error) {
		return w.client.Public().(ed25519.PublicKey), nil
	}
	j, err := w.epoch.Accept(first, ekm, w.keyset.Digest(), key, w.seen)
	if err != nil {
		return err
	}
	p := channel.NewPacer(channel.PacerConfig{Shape: j.Shape(), Seal: j.AppendSeal, Send: s.Send})
	if err := p.Put(s.Context(), channel.Frame{Type: channel.FrameHello}); err != nil {
		return err
	}
	event := make([]byte, 180)
	for i := range w.events {
		if err := p.PutData(s.Context(), uint32(i), event); err != nil {
			return err
		}
	}
	return p.Put(s.Context(), channel.Frame{Type: channel.FrameReceipt, Last: true})
}

func BenchmarkStreams(b *testing.B) {
	for _, streams := range []int{1, 64} {
		b.Run(fmt.Sprint(streams), func(b *testing.B) {
			w := &flood{events: max(1, b.N/streams)}
			w.worker = newWorkerOf(b, func(g *grpc.Server, base *worker) { w.worker = base; api.Register(g, w) })
			c := connect(b, w.worker)
			b.SetBytes(180)
			b.ReportAllocs()
			b.ResetTimer()
			var all sync.WaitGroup
			for range streams {
				all.Go(func() {
					if err := drink(b, c); err != nil {
						b.Error(err)
					}
				})
			}
			all.Wait()
			b.ReportMetric(float64(w.events*streams)/b.Elapsed().Seconds(), "events/s")
		})
	}
}

func drink(b *testing.B, c *client) error {
	j, raw := c.job(b, c.params(channel.ShapeOffUnpadded, make([]byte, 2048), true))
	s, err := c.conn.Client.Run(b.Context())
	if err != nil {
		return err
	}
	if err := s.Send(raw); err != nil {
		return err
	}
	var buf []byte
	for {
		wire, err := s.Recv()
		if err == io.EOF {
			return j.End()
		}
		if err != nil {
			return err
		}
		if buf, _, err = j.AppendOpenAnswer(buf[:0], wire); err != nil {
			return err
		}
	}
}
