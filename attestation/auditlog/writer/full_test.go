package writer_test

import (
	"crypto/ed25519"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"cocoon/attestation/auditlog"
	"cocoon/attestation/auditlog/writer"
)

// A host that takes entries but no checkpoint (a full disk does) ends the log
// by name, and cannot keep a worker from stopping.
func TestHostThatTakesNoCheckpoint(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "logs", "x")
	key := ed25519.NewKeyFromSeed(make([]byte, 32))
	l, err := writer.Open(t.Context(), writer.Config{Dir: dir, Key: key, Interval: writer.MinInterval})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Remove(filepath.Join(dir, "checkpoint")), os.MkdirAll(filepath.Join(dir, "checkpoint", "x"), 0o700)); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Append(t.Context(), auditlog.EpochClosedEntry{Epoch: 1}); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(t.Context()); !errors.Is(err, writer.ErrUnpublished) {
		t.Errorf("close: got %v, want %v", err, writer.ErrUnpublished)
	}
}
