package writer_test

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"cocoon/attestation"
	"cocoon/attestation/auditlog"
	"cocoon/attestation/auditlog/writer"
)

// TestMain doubles as the worker that is killed.
func TestMain(m *testing.M) {
	if dir := os.Getenv("COCOON_TEST_APPEND_TO"); dir != "" {
		appendForever(dir)
	}
	os.Exit(m.Run())
}

func appendForever(dir string) {
	l, err := writer.Open(context.Background(), writer.Config{Dir: dir, Key: testKey("killed"), Interval: writer.MinInterval})
	if err != nil {
		fmt.Println("open:", err)
		os.Exit(1)
	}
	lines := make(chan string)
	for w := range uint64(8) {
		go func() {
			for n := w; ; n += 8 {
				i, err := l.Append(context.Background(), entry(n))
				if err != nil {
					fmt.Println("append:", err)
					os.Exit(1)
				}
				lines <- fmt.Sprintln(i, n)
			}
		}()
	}
	for s := range lines {
		os.Stdout.WriteString(s)
	}
}

// Whatever Append returned before kill -9 is in the log afterwards, where it said.
func TestKilledWriterLosesNothing(t *testing.T) {
	store := t.TempDir()
	key := testKey("killed")
	id := attestation.LogID([32]byte(key.Public().(ed25519.PublicKey)))
	dir := filepath.Join(store, "logs", hex.EncodeToString(id[:]))
	durable := make(map[uint64]uint64)
	for round := 1; round <= 3; round++ {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "COCOON_TEST_APPEND_TO="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		in := bufio.NewReader(out)
		for range 60 * round {
			var i, n uint64
			if _, err := fmt.Fscanln(in, &i, &n); err != nil {
				t.Fatal(err)
			}
			durable[i] = n
		}
		cmd.Process.Kill()
		cmd.Wait()
	}

	l := open(t, dir, key)
	last, err := l.Append(t.Context(), auditlog.EpochClosedEntry{Epoch: 1})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := l.WaitCheckpoint(t.Context(), last)
	if err != nil {
		t.Fatal(err)
	}
	c := parse(t, raw, key)
	f, err := auditlog.OpenFolder(store)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if len(durable) < 300 {
		t.Fatalf("durable entries: got %d, want more", len(durable))
	}
	for i, n := range durable {
		leaf, err := auditlog.EncodeEntry(entry(n))
		if err != nil {
			t.Fatal(err)
		}
		path, err := auditlog.InclusionProof(t.Context(), f, c, i)
		if err != nil {
			t.Fatal(err)
		}
		if err := auditlog.VerifyInclusion(c, i, leaf, path); err != nil {
			t.Errorf("entry %d at %d: %v", n, i, err)
		}
	}
}

// A disk that takes no more ends the log: nothing after the failure is called durable.
func TestFailedAppendEndsTheLog(t *testing.T) {
	dir, key := t.TempDir(), testKey("log")
	l := open(t, dir, key)
	if _, err := l.Append(t.Context(), entry(0)); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(dir, "tile")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "tile"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := l.Append(t.Context(), entry(1)); err == nil {
			t.Fatal("got no error")
		}
	}
	if err := l.Close(t.Context()); err == nil {
		t.Error("close: got no error")
	}
}
