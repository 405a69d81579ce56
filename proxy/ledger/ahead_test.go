package ledger

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"cocoon/contracts"
)

// A copy of an open ledger's files is what a kill leaves: the bound is there,
// what was signed under it since may not be.
func TestKilledGoesOnFromTheBound(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ledger")
	l := open(t, dir)
	s := newSigner(t, l)
	begin(t, s, 1)
	allocate(t, s, 1, 1, 10) // waits for the bound
	left := filepath.Join(t.TempDir(), "ledger")
	if err := os.CopyFS(left, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(left, 0o700); err != nil {
		t.Fatal(err)
	}
	c, err := s.Allocate(logID(1), jobID(2), 10, testLimit)
	if err != nil {
		t.Fatal(err)
	}

	again := open(t, left)
	k, err := again.Signer(s.Channel().Address)
	if err != nil {
		t.Fatal(err)
	}
	k.SetLimit(testLimit)
	bound := k.Highest()
	if want := uint64(10 + 10*aheadJobs); bound != want || bound < c.Cumulative {
		t.Errorf("bound: got %d, want %d, above the %d that left", bound, want, c.Cumulative)
	}
	if v, err := k.Recognise(c.Voucher); err != nil || v.Cumulative != 20 {
		t.Errorf("a voucher that left and is not listed: got %+v, %v", v, err)
	}
	beyond, err := contracts.SignVoucher(s.key, contracts.Voucher{GlobalID: -239, Channel: s.Channel().Address, Cumulative: bound + 1})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := beyond.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	var unknown *UnknownVoucherError
	if _, err := k.Recognise(raw); !errors.As(err, &unknown) {
		t.Errorf("one beyond the bound: got %v, want an UnknownVoucherError", err)
	}

	begin(t, k, 1)
	record(t, k, 1, 1, 0, 10)
	record(t, k, 1, 2, 1, 10) // of a job that did not reach the disk
	if v := allocate(t, k, 1, 3, 10); v.Cumulative != bound {
		t.Errorf("the next voucher: got %d, want the bound, %d", v.Cumulative, bound)
	}
	var books *BooksError
	if err := k.Record(receipt(k, 1, 9, 2, bound)); !errors.As(err, &books) {
		t.Errorf("more than was ever signed: got %v, want a BooksError", err)
	}
}

// Nobody waits for the disk while the bound reaches, and a closed ledger leaves
// no bound above what was signed.
func TestBoundRunsAhead(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ledger")
	l := open(t, dir)
	s := newSigner(t, l)
	begin(t, s, 1)
	waits := 0
	for job := range 10 * aheadJobs {
		_, bound, err := s.allocate(logID(1), jobID(job), openJob{nano: 10})
		if err != nil {
			t.Fatal(err)
		}
		if bound != nil {
			waits++
			if err := bound.wait(); err != nil {
				t.Fatal(err)
			}
		}
		if need := uint64(10 * (job + 1)); s.onDisk() < need {
			t.Fatalf("job %d: the bound is %d, and %d may be signed", job, s.onDisk(), need)
		}
	}
	if waits > 10*aheadJobs/4 {
		t.Errorf("waited %d times in %d jobs", waits, 10*aheadJobs)
	}
	top := s.Highest()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Allocate(logID(1), jobID(1<<20), 10, testLimit); !errors.Is(err, ErrStopped) {
		t.Errorf("after Close: got %v, want ErrStopped", err)
	}
	k, err := open(t, dir).Signer(s.Channel().Address)
	if err != nil {
		t.Fatal(err)
	}
	if k.Highest() != top || k.unlisted != 0 {
		t.Errorf("reopened: got %d and a bound of %d, want %d and none", k.Highest(), k.unlisted, top)
	}
}
