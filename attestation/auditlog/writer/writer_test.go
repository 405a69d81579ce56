package writer_test

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"cocoon/attestation/auditlog"
	"cocoon/attestation/auditlog/writer"
)

func testKey(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte(name))
	return ed25519.NewKeyFromSeed(seed[:])
}

func entry(n uint64) auditlog.Entry {
	return auditlog.ReceiptEntry{Digest: sha256.Sum256(binary.BigEndian.AppendUint64(nil, n))}
}

func open(t *testing.T, dir string, key ed25519.PrivateKey) *writer.Log {
	t.Helper()
	l, err := writer.Open(t.Context(), writer.Config{Dir: dir, Key: key, Interval: writer.MinInterval})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close(context.Background()) })
	return l
}

func parse(t *testing.T, raw []byte, key ed25519.PrivateKey) auditlog.Checkpoint {
	t.Helper()
	c, err := auditlog.ParseCheckpoint(raw, [32]byte(key.Public().(ed25519.PublicKey)))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestAppendIsCoveredByACheckpoint(t *testing.T) {
	key, dir := testKey("log"), t.TempDir()
	l := open(t, dir, key)
	if c := parse(t, l.Checkpoint(), key); c.Size != 0 || c.LogID != l.LogID() {
		t.Errorf("first checkpoint: got size %d of %x, want 0 of %x", c.Size, c.LogID, l.LogID())
	}
	const n = 600 // more than two bundles
	var mu sync.Mutex
	var wg sync.WaitGroup
	seen := make(map[uint64]bool)
	for i := range uint64(n) {
		wg.Go(func() {
			index, err := l.Append(t.Context(), entry(i))
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			seen[index] = true
			mu.Unlock()
		})
	}
	wg.Wait()
	if len(seen) != n || !seen[0] || !seen[n-1] {
		t.Fatalf("indices: got %d different ones, want 0 to %d", len(seen), n-1)
	}
	raw, err := l.WaitCheckpoint(t.Context(), n-1)
	if err != nil {
		t.Fatal(err)
	}
	if c := parse(t, raw, key); c.Size != n {
		t.Errorf("size: got %d, want %d", c.Size, n)
	}
	if err := l.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Append(t.Context(), entry(1)); !errors.Is(err, writer.ErrClosed) {
		t.Errorf("append after close: got %v, want ErrClosed", err)
	}
}

func TestCloseCoversEverything(t *testing.T) {
	key, dir := testKey("log"), t.TempDir()
	l := open(t, dir, key)
	for i := range uint64(5) {
		if _, err := l.Append(t.Context(), entry(i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(dir, "checkpoint"))
	if err != nil {
		t.Fatal(err)
	}
	if c := parse(t, raw, key); c.Size != 5 {
		t.Errorf("size at close: got %d, want 5", c.Size)
	}
}

func TestReopenContinues(t *testing.T) {
	key, dir := testKey("log"), t.TempDir()
	l := open(t, dir, key)
	for i := range uint64(300) {
		go l.Append(t.Context(), entry(i))
	}
	if _, err := l.WaitCheckpoint(t.Context(), 299); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	l = open(t, dir, key)
	if i, err := l.Append(t.Context(), entry(300)); err != nil || i != 300 {
		t.Fatalf("after reopening: got index %d, %v, want 300", i, err)
	}
	if _, err := l.WaitCheckpoint(t.Context(), 300); err != nil {
		t.Fatal(err)
	}
}

func TestOpenRefuses(t *testing.T) {
	key, dir := testKey("log"), t.TempDir()
	l := open(t, dir, key)
	if _, err := writer.Open(t.Context(), writer.Config{Dir: dir, Key: key}); err == nil {
		t.Error("a second writer of an open log: got no error")
	}
	if err := l.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]writer.Config{
		"another key":      {Dir: dir, Key: testKey("other")},
		"no key":           {Dir: dir},
		"a short interval": {Dir: dir, Key: key, Interval: time.Millisecond},
	} {
		if _, err := writer.Open(t.Context(), c); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
}

// The host puts an earlier copy of the folder back under a running worker.
func TestRolledBackFolderIsNotSigned(t *testing.T) {
	key, dir := testKey("log"), t.TempDir()
	l := open(t, dir, key)
	appendOne := func(i uint64) error {
		index, err := l.Append(t.Context(), entry(i))
		if err != nil {
			return err
		}
		_, err = l.WaitCheckpoint(t.Context(), index)
		return err
	}
	if err := appendOne(0); err != nil {
		t.Fatal(err)
	}
	old := snapshot(t, dir)
	for i := range uint64(3) {
		if err := appendOne(1 + i); err != nil {
			t.Fatal(err)
		}
	}
	signed := parse(t, l.Checkpoint(), key)
	for path, b := range old {
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	for i := uint64(100); err == nil; i++ {
		err = appendOne(i)
	}
	if !errors.Is(err, writer.ErrRewritten) {
		t.Fatalf("got %v, want ErrRewritten", err)
	}
	if c := parse(t, l.Checkpoint(), key); c != signed {
		t.Errorf("checkpoint: got %+v, want the last one before the rollback %+v", c, signed)
	}
	if _, err := l.Append(t.Context(), entry(9)); !errors.Is(err, writer.ErrRewritten) {
		t.Errorf("append afterwards: got %v, want ErrRewritten", err)
	}
}

func TestEditedFolderIsNotReopened(t *testing.T) {
	key, dir := testKey("log"), t.TempDir()
	l := open(t, dir, key)
	for i := range uint64(3) {
		if _, err := l.Append(t.Context(), entry(i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "tile/entries/000.p/3")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)-1] ^= 1
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := writer.Open(t.Context(), writer.Config{Dir: dir, Key: key}); !errors.Is(err, writer.ErrRewritten) {
		t.Errorf("got %v, want ErrRewritten", err)
	}
}

func snapshot(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	files := make(map[string][]byte)
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Base(path) == ".lock" {
			return err
		}
		b, err := os.ReadFile(path)
		files[path] = b
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestNothingOnTheProcessStreams(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	out, errOut := os.Stdout, os.Stderr
	os.Stdout, os.Stderr = w, w
	defer func() { os.Stdout, os.Stderr = out, errOut }()
	l := open(t, t.TempDir(), testKey("log"))
	if _, err := l.Append(t.Context(), entry(1)); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.Close()
	b := make([]byte, 100)
	if n, _ := r.Read(b); n != 0 {
		t.Errorf("printed %q", b[:n])
	}
}
