package seed

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"testing"
)

func TestBytes(t *testing.T) {
	b := Bytes()
	if string(b[:4]) != "GGUF" {
		t.Fatalf("file starts with %q, want GGUF", b[:4])
	}
	sum := sha256.Sum256(b)
	const want = "1a89193e72ba5cab1894b52dcd0dae946096206c8b48bea75ac94bb7711df9fc"
	if got := hex.EncodeToString(sum[:]); got != want {
		t.Errorf("SHA-256 = %s, want %s", got, want)
	}
	b[0] = 0
	if Bytes()[0] != 'G' {
		t.Error("a caller changed the embedded model")
	}
}

func TestNoticeIsKept(t *testing.T) {
	for _, want := range []string{"WordNet 3.0 Copyright 2006 by Princeton University", "the same appear on ALL copies"} {
		if !strings.Contains(strings.Join(strings.Fields(Notice()), " "), want) {
			t.Errorf("notice lacks %q", want)
		}
	}
}
