package ledger

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"cocoon/attestation"
	"cocoon/contracts"
)

const testLimit = 1 << 50

func party(b byte) attestation.Address { return attestation.NewAddress(0, [32]byte{31: b}) }

func logID(b byte) [32]byte { return [32]byte{0: 'l', 31: b} }

func jobID(n int) [16]byte {
	return [16]byte{0: 'j', 12: byte(n >> 24), 13: byte(n >> 16), 14: byte(n >> 8), 15: byte(n)}
}

func open(t testing.TB, dir string) *Ledger {
	t.Helper()
	l, err := Open(Config{Dir: dir, Now: time.Now, Rand: rand.Reader})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func newSigner(t testing.TB, l *Ledger) *Signer {
	t.Helper()
	ch, err := l.AddChannel(ChannelPlan{WorkerID: party(1), Client: party(2), Payout: party(3), Redeemer: party(4), CloseDelay: contracts.CloseDelay, GlobalID: -239, Deposit: testLimit})
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Signer(ch.Address)
	if err != nil {
		t.Fatal(err)
	}
	s.SetLimit(testLimit)
	return s
}

func TestFilesAreForTheirOwnerAlone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ledger")
	l := open(t, dir)
	newSigner(t, l)
	for name, want := range map[string]os.FileMode{"": 0o700, fileName: 0o600, fileName + "-wal": 0o600, fileName + "-shm": 0o600, lockName: 0o600} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%q: mode: got %#o, want %#o", name, got, want)
		}
	}
	loose := filepath.Join(t.TempDir(), "loose")
	if err := os.Mkdir(loose, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Config{Dir: loose, Now: time.Now, Rand: rand.Reader}); err == nil {
		t.Error("a folder that others may enter was opened")
	}
}

func TestOneProcessAtATime(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ledger")
	l := open(t, dir)
	if _, err := Open(Config{Dir: dir, Now: time.Now, Rand: rand.Reader}); !errors.Is(err, ErrLocked) {
		t.Fatalf("second open: got %v, want ErrLocked", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, dir)
}

func TestReopenKeepsKeysAndDerivations(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ledger")
	l := open(t, dir)
	s := newSigner(t, l)
	address, public, blind, salt := s.Channel().Address, s.Public(), l.BlindingKey(jobID(1)), l.CacheSalt("k")
	if blind == l.BlindingKey(jobID(2)) || salt == l.CacheSalt("other") || blind == salt {
		t.Error("derived keys repeat")
	}
	l.Close()

	l = open(t, dir)
	s, err := l.Signer(address)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(s.Public(), public) || l.BlindingKey(jobID(1)) != blind || l.CacheSalt("k") != salt {
		t.Error("keys changed over a restart")
	}
	list, err := l.ChannelsTo(context.Background(), party(1))
	if err != nil || len(list) != 1 || list[0].Address != address || list[0].Deposit != testLimit {
		t.Errorf("channels: got %v, %v", list, err)
	}
	if err := l.CloseChannel(address); err != nil {
		t.Fatal(err)
	}
	if list, err := l.ChannelsTo(context.Background(), party(1)); err != nil || len(list) != 0 {
		t.Errorf("a closed channel is still offered: %v, %v", list, err)
	}
	if _, err := l.Signer(party(9)); !errors.Is(err, ErrUnknownChannel) {
		t.Errorf("unknown channel: got %v", err)
	}
}

func TestDamageAndNewerFilesAreRefused(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ledger")
	l := open(t, dir)
	s := newSigner(t, l)
	if _, err := l.write.Exec("UPDATE channels SET payout = ?", bytes.Repeat([]byte{7}, 36)); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Channels(context.Background()); err == nil {
		t.Error("a channel whose parties were changed was listed")
	}
	_ = s
	if _, err := l.write.Exec("PRAGMA user_version = 99"); err != nil {
		t.Fatal(err)
	}
	l.Close()
	if _, err := Open(Config{Dir: dir, Now: time.Now, Rand: rand.Reader}); err == nil {
		t.Error("a newer file was opened")
	}
}

func TestSignRefusesWhatCouldBeAVoucher(t *testing.T) {
	s := newSigner(t, open(t, filepath.Join(t.TempDir(), "ledger")))
	if _, err := s.Sign(make([]byte, 32)); err == nil {
		t.Error("signed 32 bytes")
	}
	if _, err := s.Sign(make([]byte, 33)); err != nil {
		t.Error(err)
	}
}

func TestNothingIsSignedAfterAFailedCommit(t *testing.T) {
	l := open(t, filepath.Join(t.TempDir(), "ledger"))
	s := newSigner(t, l)
	if _, err := s.Begin(logID(1), nil, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Allocate(logID(1), jobID(1), 100, testLimit); err != nil {
		t.Fatal(err)
	}
	// The next commit meets a full disk.
	if _, err := l.write.Exec("PRAGMA max_page_count = 1"); err != nil {
		t.Fatal(err)
	}
	var failed error
	for n := 2; n < 5000 && failed == nil; n++ {
		_, failed = s.Allocate(logID(1), jobID(n), 100, testLimit)
	}
	if !errors.Is(failed, ErrStopped) {
		t.Fatalf("on a full disk: got %v, want ErrStopped", failed)
	}
	if _, err := l.write.Exec("PRAGMA max_page_count = 100000"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Raise(logID(1), jobID(1), 200); !errors.Is(err, ErrStopped) {
		t.Errorf("after a failed commit: got %v, want ErrStopped", err)
	}
}
