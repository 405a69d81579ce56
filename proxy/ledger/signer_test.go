package ledger

import (
	"context"
	"crypto/rand"
	"errors"
	mathrand "math/rand/v2"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"cocoon/attestation/auditlog"
	"cocoon/contracts"
)

func begin(t testing.TB, s *Signer, log byte) {
	t.Helper()
	if _, err := s.Begin(logID(log), nil, 0); err != nil {
		t.Fatal(err)
	}
}

func allocate(t testing.TB, s *Signer, log byte, job int, nano uint64) contracts.Voucher {
	t.Helper()
	c, err := s.Raise(logID(log), jobID(job), nano)
	if errors.Is(err, ErrJobEnded) {
		c, err = s.Allocate(logID(log), jobID(job), nano, testLimit)
	}
	if err != nil {
		t.Fatal(err)
	}
	var v contracts.SignedVoucher
	if err := v.UnmarshalBinary(c.Voucher); err != nil {
		t.Fatal(err)
	}
	ch := s.Channel()
	if err := v.Verify(ch.Init.ClientKey, ch.GlobalID, ch.Address); err != nil {
		t.Fatal(err)
	}
	if v.Voucher.Cumulative != c.Cumulative {
		t.Fatalf("voucher over %d, want %d", v.Voucher.Cumulative, c.Cumulative)
	}
	return v.Voucher
}

// receipt stands for one that was verified: the ledger looks at nothing else.
func receipt(s *Signer, log byte, job int, index, cost uint64) ([]byte, auditlog.Receipt) {
	r := auditlog.Receipt{JobID: jobID(job), Channel: s.Channel().Address, LogID: logID(log), Index: index, Cost: cost, Status: auditlog.StatusOK, Finished: int64(1000 + index)}
	r.Model.Name = "m"
	return []byte{byte(log), byte(job >> 8), byte(job), byte(index), byte(cost)}, r
}

func record(t testing.TB, s *Signer, log byte, job int, index, cost uint64) {
	t.Helper()
	if err := s.Record(receipt(s, log, job, index, cost)); err != nil {
		t.Fatal(err)
	}
}

func TestVouchersCoverWhatIsSpentAndOpen(t *testing.T) {
	l := open(t, filepath.Join(t.TempDir(), "ledger"))
	s := newSigner(t, l)
	if _, err := s.Allocate(logID(1), jobID(1), 1, testLimit); !errors.Is(err, ErrLogEnded) {
		t.Fatalf("before Begin: got %v", err)
	}
	begin(t, s, 1)
	for i, step := range []struct {
		do   func()
		job  int
		nano uint64
		want uint64
	}{
		{nil, 1, 100, 100},
		{nil, 2, 50, 150},
		{nil, 1, 130, 180}, // raised, not added
		{nil, 1, 20, 180},  // never lowered
		{func() { record(t, s, 1, 1, 0, 60) }, 2, 50, 180}, // 60 + 50: what was signed carries over
		{nil, 3, 100, 210},
		{func() { s.Forget(jobID(3)) }, 4, 100, 210},
	} {
		if step.do != nil {
			step.do()
		}
		if got := allocate(t, s, 1, step.job, step.nano).Cumulative; got != step.want {
			t.Errorf("step %d: got a voucher over %d, want %d", i, got, step.want)
		}
	}
	s.SetLimit(220)
	var credit *CreditError
	if _, err := s.Allocate(logID(1), jobID(5), 11, testLimit); !errors.As(err, &credit) || credit.Need != 221 || credit.Limit != 220 {
		t.Errorf("beyond the channel's limit: got %v", err)
	}
	if got := allocate(t, s, 1, 5, 10).Cumulative; got != 220 {
		t.Errorf("up to the limit: got %d, want 220", got)
	}
}

func TestHeadIsOverTheReceipts(t *testing.T) {
	l := open(t, filepath.Join(t.TempDir(), "ledger"))
	s := newSigner(t, l)
	begin(t, s, 1)
	var tree auditlog.HeadTree
	for n := range 5 {
		v := allocate(t, s, 1, n, 100)
		if want := auditlog.Head(logID(1), [32]byte{}, tree.Count(), tree.Root()); v.ReceiptsHead != want {
			t.Fatalf("after %d receipts: got head %x, want %x", n, v.ReceiptsHead, want)
		}
		cose, r := receipt(s, 1, n, uint64(n), 90)
		if err := s.Record(cose, r); err != nil {
			t.Fatal(err)
		}
		tree.Append(cose)
	}
}

func TestReceiptsInAnyOrder(t *testing.T) {
	l := open(t, filepath.Join(t.TempDir(), "ledger"))
	s := newSigner(t, l)
	begin(t, s, 1)
	for n := range 3 {
		allocate(t, s, 1, n, 100)
	}
	if err := s.Expect(logID(1), 3, 60); err != nil { // more than is held: asked again later
		t.Fatal(err)
	}
	record(t, s, 1, 2, 2, 30)
	record(t, s, 1, 2, 2, 30)
	if n, more, err := s.Held(logID(1)); n != 0 || !more || err != nil {
		t.Errorf("held: got %d, %t, want 0 and more to come", n, more)
	}
	record(t, s, 1, 1, 1, 20)
	record(t, s, 1, 0, 0, 10)
	if n, more, err := s.Held(logID(1)); n != 3 || more || err != nil {
		t.Errorf("held: got %d, %t, want 3 and nothing to come", n, more)
	}
	if _, used := s.Funds(); used != 60 {
		t.Errorf("used: got %d, want 60", used)
	}
	if err := l.Flush(context.Background()); err != nil {
		t.Fatal(err)
	}
	got, err := l.Receipts(context.Background(), Query{Channel: s.Channel().Address, LogID: logID(1)})
	if err != nil || len(got) != 3 || got[1].Cost != 20 || got[1].JobID != jobID(1) {
		t.Errorf("receipts: got %+v, %v", got, err)
	}
	one, err := l.Receipt(context.Background(), jobID(2))
	if err != nil || one.Index != 2 {
		t.Errorf("receipt of job 2: got %+v, %v", one, err)
	}
	if _, err := l.Receipt(context.Background(), jobID(7)); !errors.Is(err, ErrNoReceipt) {
		t.Errorf("receipt of no job: got %v", err)
	}
}

func TestBooksThatDifferStopTheChannel(t *testing.T) {
	for name, lie := range map[string]func(s *Signer) error{
		"another receipt under one index": func(s *Signer) error { return s.Record(receipt(s, 1, 1, 0, 11)) },
		"a sum that is not ours":          func(s *Signer) error { return s.Expect(logID(1), 1, 11) },
		"two sums for one count": func(s *Signer) error {
			return errors.Join(s.Expect(logID(1), 9, 11), s.Expect(logID(1), 9, 12))
		},
		"a sum that turns out wrong": func(s *Signer) error {
			_, err := s.Allocate(logID(1), jobID(2), 10, testLimit)
			return errors.Join(err, s.Expect(logID(1), 2, 99), s.Record(receipt(s, 1, 2, 1, 10)))
		},
		"a job that was never opened": func(s *Signer) error { return s.Record(receipt(s, 1, 9, 1, 0)) },
		"the same job twice":          func(s *Signer) error { return s.Record(receipt(s, 1, 1, 1, 1)) },
		"more than the job was granted, within its terms": func(s *Signer) error {
			_, err := s.Allocate(logID(1), jobID(2), 10, 30)
			return errors.Join(err, s.Record(receipt(s, 1, 2, 1, 11)))
		},
		"more than was ever signed, though the jobs are lost": func(s *Signer) error {
			s.Restore()
			return errors.Join(s.Record(receipt(s, 1, 8, 1, 0)), s.Record(receipt(s, 1, 9, 2, 1)))
		},
		"another base": func(s *Signer) error {
			c, err := s.Allocate(logID(1), jobID(5), 5, testLimit)
			if err != nil {
				return err
			}
			_, err = s.Begin(logID(1), c.Voucher, 0)
			return err
		},
		"another channel's receipt": func(s *Signer) error {
			cose, r := receipt(s, 1, 1, 1, 10)
			r.Channel = party(77)
			return s.Record(cose, r)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSigner(t, open(t, filepath.Join(t.TempDir(), "ledger")))
			begin(t, s, 1)
			allocate(t, s, 1, 1, 10)
			record(t, s, 1, 1, 0, 10)
			var books *BooksError
			if err := lie(s); !errors.As(err, &books) {
				t.Fatalf("got %v, want a BooksError", err)
			}
			if name == "another base" || name == "another channel's receipt" {
				return // refused before it reached the books
			}
			if _, err := s.Allocate(logID(1), jobID(3), 1, testLimit); !errors.As(err, &books) {
				t.Errorf("afterwards: got %v, want nothing signed", err)
			}
		})
	}
}

func TestWorkerRestarts(t *testing.T) {
	l := open(t, filepath.Join(t.TempDir(), "ledger"))
	s := newSigner(t, l)
	begin(t, s, 1)
	allocate(t, s, 1, 1, 100)
	c, err := s.Allocate(logID(1), jobID(2), 50, testLimit) // over 150
	if err != nil {
		t.Fatal(err)
	}
	record(t, s, 1, 1, 0, 70)

	// The worker kept the last voucher: all of it counts as spent.
	if _, err := s.Begin(logID(2), c.Voucher, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Allocate(logID(1), jobID(2), 60, testLimit); !errors.Is(err, ErrLogEnded) {
		t.Errorf("a job of the old log: got %v, want ErrLogEnded", err)
	}
	v := allocate(t, s, 2, 3, 10)
	var base contracts.SignedVoucher
	if err := base.UnmarshalBinary(c.Voucher); err != nil {
		t.Fatal(err)
	}
	var empty auditlog.HeadTree
	if want := auditlog.Head(logID(2), base.Voucher.ReceiptsHead, 0, empty.Root()); v.Cumulative != 160 || v.ReceiptsHead != want {
		t.Errorf("got %d and head %x, want 160 and %x", v.Cumulative, v.ReceiptsHead, want)
	}
	record(t, s, 2, 3, 0, 5)

	// The worker lost everything in a crash: what it receipted stays paid.
	begin(t, s, 3)
	if v := allocate(t, s, 3, 4, 20); v.Cumulative != 150+5+20 {
		t.Errorf("got %d, want %d", v.Cumulative, 150+5+20)
	}
	// It does not go back to a log that ended.
	var books *BooksError
	if _, err := s.Begin(logID(2), c.Voucher, 0); !errors.As(err, &books) {
		t.Errorf("an earlier log: got %v, want a BooksError", err)
	}
}

func TestOnlyOwnVouchersAreRecognised(t *testing.T) {
	l := open(t, filepath.Join(t.TempDir(), "ledger"))
	s, other := newSigner(t, l), newSigner(t, l)
	begin(t, s, 1)
	begin(t, other, 1)
	c, err := s.Allocate(logID(1), jobID(1), 100, testLimit)
	if err != nil {
		t.Fatal(err)
	}
	if v, err := s.Recognise(c.Voucher); err != nil || v.Cumulative != 100 {
		t.Errorf("own: got %v, %v", v, err)
	}
	if _, err := other.Recognise(c.Voucher); !errors.Is(err, ErrForeignVoucher) {
		t.Errorf("another channel's: got %v", err)
	}
	flipped := append([]byte(nil), c.Voucher...)
	flipped[len(flipped)-1] ^= 1
	if _, err := s.Recognise(flipped); !errors.Is(err, ErrForeignVoucher) {
		t.Errorf("changed: got %v", err)
	}

	// A copy of the ledger went on signing: this one must not.
	lost, err := contracts.SignVoucher(s.key, contracts.Voucher{GlobalID: -239, Channel: s.Channel().Address, Cumulative: 500, ReceiptsHead: [32]byte{1}})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := lost.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	var unknown *UnknownVoucherError
	if _, err := s.Begin(logID(2), raw, 0); !errors.As(err, &unknown) || unknown.Cumulative != 500 || unknown.Highest != 100 {
		t.Fatalf("lost: got %v, want an UnknownVoucherError", err)
	}
	if err := s.Adopt(raw); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Begin(logID(2), raw, 0); err != nil {
		t.Fatal(err)
	}
	if v := allocate(t, s, 2, 2, 1); v.Cumulative != 501 {
		t.Errorf("after adopting: got %d, want 501", v.Cumulative)
	}
	if err := s.Adopt(flipped); !errors.Is(err, ErrForeignVoucher) {
		t.Errorf("adopting a foreign voucher: got %v", err)
	}
}

// TestReopenGoesOn drives a ledger at random through closes, and compares with
// a plain model of what must be covered.
func TestReopenGoesOn(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ledger")
	l := open(t, dir)
	s := newSigner(t, l)
	address := s.Channel().Address
	begin(t, s, 1)
	rnd := mathrand.New(mathrand.NewPCG(1, 2))
	openJobs := map[int]uint64{}
	var settled, highest, index uint64
	next := 0
	for range 400 {
		switch k := rnd.IntN(10); {
		case k == 0:
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			l = open(t, dir)
			var err error
			if s, err = l.Signer(address); err != nil {
				t.Fatal(err)
			}
			s.SetLimit(testLimit)
			if n, err := s.Begin(logID(1), nil, 0); err != nil || n != index {
				t.Fatalf("reopened: got %d receipts, %v, want %d", n, err, index)
			}
		case k < 6 || len(openJobs) == 0:
			next++
			nano := rnd.Uint64N(1000) + 1
			openJobs[next] = nano
			v := allocate(t, s, 1, next, nano)
			need := settled
			for _, n := range openJobs {
				need += n
			}
			if v.Cumulative < need || v.Cumulative < highest || v.Cumulative > max(need, highest) {
				t.Fatalf("got a voucher over %d, want %d, or %d if that is more", v.Cumulative, need, highest)
			}
			highest = v.Cumulative
		default:
			for job, nano := range openJobs {
				cost := rnd.Uint64N(nano + 1)
				record(t, s, 1, job, index, cost)
				delete(openJobs, job)
				settled, index = settled+cost, index+1
				break
			}
		}
	}
	if index == 0 || next == 0 {
		t.Fatal("nothing was done")
	}
}

func TestManyAtOnceAreAllCovered(t *testing.T) {
	s := newSigner(t, open(t, filepath.Join(t.TempDir(), "ledger")))
	begin(t, s, 1)
	var wg sync.WaitGroup
	got := make([]uint64, 200)
	for n := range got {
		wg.Go(func() {
			c, err := s.Allocate(logID(1), jobID(n), 10, testLimit)
			if err != nil {
				t.Error(err)
				return
			}
			got[n] = c.Cumulative
		})
	}
	wg.Wait()
	var highest uint64
	for _, v := range got {
		highest = max(highest, v)
	}
	if want := uint64(10 * len(got)); highest != want || s.Highest() != want {
		t.Errorf("highest: got %d and %d, want %d", highest, s.Highest(), want)
	}
}

func TestJobsThatWentSilent(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ledger")
	now := time.Unix(1_800_000_000, 0)
	l, err := Open(Config{Dir: dir, Now: func() time.Time { return now }, Rand: rand.Reader})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s := newSigner(t, l)
	begin(t, s, 1)
	allocate(t, s, 1, 1, 100)
	s.Release(jobID(1))
	if v := allocate(t, s, 1, 2, 1); v.Cumulative != 101 {
		t.Errorf("soon after: got %d, want 101", v.Cumulative)
	}
	now = now.Add(orphanAge + time.Second)
	if v := allocate(t, s, 1, 2, 50); v.Cumulative != 101 {
		t.Errorf("long after: got %d, want 101, of which 100 are free again", v.Cumulative)
	}
	record(t, s, 1, 1, 0, 80) // it was served after all
	if v := allocate(t, s, 1, 2, 50); v.Cumulative != 130 {
		t.Errorf("after its receipt: got %d, want 130", v.Cumulative)
	}
}

func BenchmarkAllocate(b *testing.B) {
	s := newSigner(b, open(b, filepath.Join(b.TempDir(), "ledger")))
	begin(b, s, 1)
	var mu sync.Mutex
	n := 0
	b.SetParallelism(64)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			mu.Lock()
			n++
			job := n
			mu.Unlock()
			if _, err := s.Allocate(logID(1), jobID(job), 10, testLimit); err != nil {
				b.Error(err)
			}
			s.Forget(jobID(job))
		}
	})
}
