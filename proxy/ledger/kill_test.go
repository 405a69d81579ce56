package ledger

import (
	"bufio"
	"context"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"cocoon/attestation"
	"cocoon/contracts"
)

// TestMain lets a test run this binary as a ledger that another process kills.
func TestMain(m *testing.M) {
	if dir := os.Getenv("COCOON_LEDGER_CHILD"); dir != "" {
		signForEver(dir)
		return
	}
	os.Exit(m.Run())
}

// signForEver opens the ledger and shows every voucher once it has left: a
// line on stdout is what a worker would hold.
func signForEver(dir string) {
	t := &childT{}
	l := open(t, dir)
	var s *Signer
	if list, err := l.Channels(context.Background()); err != nil {
		t.Fatal(err)
	} else if len(list) == 0 {
		s = newSigner(t, l)
	} else if s, err = l.Signer(list[0].Address); err != nil {
		t.Fatal(err)
	}
	s.SetLimit(testLimit)
	held, err := s.Begin(logID(1), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	index := held
	fmt.Println("channel", s.Channel().Address)
	for g := range 4 {
		go func() {
			for n := 0; ; n++ {
				job := int(held)<<16 | g<<12 | n&0xfff
				c, err := s.Allocate(logID(1), jobID(job), 10, testLimit)
				if err != nil {
					t.Fatal(err)
				}
				mu.Lock()
				fmt.Println("voucher", hex.EncodeToString(c.Voucher))
				err = s.Record(receipt(s, 1, job, index, 7))
				index++
				mu.Unlock()
				if err != nil {
					t.Fatal(err)
				}
			}
		}()
	}
	select {}
}

// childT is what the helpers need of a test, in a process that is not one.
type childT struct{ testing.TB }

func (*childT) Helper()        {}
func (*childT) Cleanup(func()) {}
func (*childT) Fatal(a ...any) { fmt.Fprintln(os.Stderr, a...); os.Exit(1) }

// TestKill9 kills a signing process again and again. No voucher that came out
// may be above what the ledger holds afterwards, or unknown to it.
func TestKill9(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "ledger")
	var highest uint64
	for round := range 4 {
		address, out := runAndKill(t, exe, dir, 40+37*round)
		l := open(t, dir)
		s, err := l.Signer(address)
		if err != nil {
			t.Fatal(err)
		}
		for _, raw := range out {
			v, err := s.Recognise(raw)
			if err != nil {
				t.Fatalf("round %d: a voucher that left: %v", round, err)
			}
			if v.Cumulative > s.Highest() {
				t.Fatalf("round %d: a voucher over %d left, the ledger holds %d", round, v.Cumulative, s.Highest())
			}
			highest = max(highest, v.Cumulative)
		}
		s.SetLimit(testLimit)
		begin(t, s, 1)
		if v := allocate(t, s, 1, 1<<30+round, 1); v.Cumulative < highest {
			t.Fatalf("round %d: signed %d after %d had left", round, v.Cumulative, highest)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if highest == 0 {
		t.Fatal("no voucher was seen")
	}
}

func runAndKill(t *testing.T, exe, dir string, vouchers int) (attestation.Address, [][]byte) {
	t.Helper()
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), "COCOON_LEDGER_CHILD="+dir)
	stderr := &strings.Builder{}
	cmd.Stderr = stderr
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var address attestation.Address
	var out [][]byte
	killed := false
	lines := bufio.NewScanner(pipe)
	for lines.Scan() { // to the end: what is in the pipe has left the process
		kind, text, _ := strings.Cut(lines.Text(), " ")
		switch kind {
		case "channel":
			if address, err = attestation.ParseAddress(text); err != nil {
				t.Fatal(err)
			}
		case "voucher":
			raw, err := hex.DecodeString(text)
			if err != nil || len(raw) != contracts.SignedVoucherSize {
				break // cut off by the kill
			}
			out = append(out, raw)
		}
		if len(out) >= vouchers && !killed {
			killed = true
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := cmd.Wait(); err == nil || !killed {
		t.Fatalf("the child ended by itself: %v: %s", err, stderr)
	}
	return address, out
}
