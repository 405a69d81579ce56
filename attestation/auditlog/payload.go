package auditlog

import (
	"encoding/binary"
	"math"
	"unicode/utf8"

	"cocoon/attestation/canonical"
)

// parsePayload reads the canonical CBOR inside a receipt, whose checkpoint may
// then be a part of b. Whatever readPayload does not take goes to the codec,
// whose verdict and error count.
func parsePayload(b []byte) (Receipt, error) {
	r, ok := readPayload(b)
	if !ok {
		if err := canonical.Unmarshal("receipt", b, MaxReceiptBytes, &r); err != nil {
			return Receipt{}, err
		}
	}
	if err := r.check(); err != nil {
		return Receipt{}, err
	}
	return r, nil
}

// readPayload reads a receipt's fields in their one order (RFC 8949 section
// 4.2.1) without reflection: an auditor reads millions, and the codec takes a
// sixth of the time that the signature does. What it accepts, the codec
// writes back to the same bytes.
func readPayload(b []byte) (Receipt, bool) {
	var r Receipt
	f := fields{b: b, ok: true}
	f.head(0xa0, 18)
	r.Cost = f.uint("cost")
	r.Index = f.uint("index")
	f.key("model")
	f.head(0xa0, 2)
	r.Model.Name = f.text("name")
	r.Model.WeightsRoot = f.text("weights_root")
	f.key("usage")
	f.head(0xa0, 4)
	r.Usage.Cached, r.Usage.Prompt, r.Usage.Reasoning, r.Usage.Completion = f.counts()
	f.fixed("job_id", r.JobID[:])
	f.fixed("log_id", r.LogID[:])
	f.key("prices")
	f.head(0xa0, 4)
	r.Prices.Cached, r.Prices.Prompt, r.Prices.Reasoning, r.Prices.Completion = f.counts()
	r.Status = Status(f.text("status"))
	f.fixed("channel", r.Channel[:])
	r.Started = f.time("started")
	r.Version = f.uint("version")
	r.Finished = f.time("finished")
	f.fixed("worker_id", r.WorkerID[:])
	f.key("checkpoint")
	r.Checkpoint = f.take(f.head(0x40, math.MaxUint64))
	r.FinishReason = f.text("finish_reason")
	f.fixed("keyset_digest", r.KeysetDigest[:])
	f.fixed("request_commitment", r.RequestCommitment[:])
	f.fixed("response_commitment", r.ResponseCommitment[:])
	return r, f.ok && len(f.b) == 0
}

// fields reads canonical CBOR off b. The first thing that is not as expected
// clears ok, after which nothing it returned counts.
type fields struct {
	b  []byte
	ok bool
}

// head reads a type and its argument in the shortest form. want is the
// argument it must have, or MaxUint64 for any.
func (f *fields) head(major byte, want uint64) uint64 {
	if len(f.b) == 0 || f.b[0]&0xe0 != major {
		f.ok = false
		return 0
	}
	var v, least uint64
	switch info := f.b[0] & 0x1f; {
	case info < 24:
		v = uint64(info)
		f.b = f.b[1:]
	case info <= 27 && len(f.b) > 1<<(info-24):
		n := 1 << (info - 24)
		var wide [8]byte
		copy(wide[8-n:], f.b[1:1+n])
		v, least = binary.BigEndian.Uint64(wide[:]), [...]uint64{24, 1 << 8, 1 << 16, 1 << 32}[info-24]
		f.b = f.b[1+n:]
	default:
		f.ok = false
		return 0
	}
	if v < least || want != math.MaxUint64 && v != want {
		f.ok = false
	}
	return v
}

// take reads n bytes.
func (f *fields) take(n uint64) []byte {
	if !f.ok || n > uint64(len(f.b)) {
		f.ok = false
		return nil
	}
	b := f.b[:n]
	f.b = f.b[n:]
	return b
}

func (f *fields) key(name string) {
	if string(f.take(f.head(0x60, uint64(len(name))))) != name {
		f.ok = false
	}
}

func (f *fields) uint(name string) uint64 {
	f.key(name)
	return f.head(0x00, math.MaxUint64)
}

func (f *fields) time(name string) int64 {
	v := f.uint(name)
	if v > math.MaxInt64 {
		f.ok = false
	}
	return int64(v)
}

func (f *fields) text(name string) string {
	f.key(name)
	b := f.take(f.head(0x60, math.MaxUint64))
	if !utf8.Valid(b) {
		f.ok = false
	}
	return string(b)
}

func (f *fields) fixed(name string, to []byte) {
	f.key(name)
	copy(to, f.take(f.head(0x40, uint64(len(to)))))
}

// counts reads the four fields of Usage and of Prices, in the order of their keys.
func (f *fields) counts() (cached, prompt, reasoning, completion uint64) {
	cached = f.uint("cached")
	prompt = f.uint("prompt")
	reasoning = f.uint("reasoning")
	completion = f.uint("completion")
	return cached, prompt, reasoning, completion
}
