package proxy_test

import (
	"net/http"
	"strings"
	"testing"
)

func TestStreamedAnswer(t *testing.T) {
	w := newWorld(t)
	k := w.worker(0)
	g := w.proxy(settings{}, k.addr)
	r := g.post(chat(true, nil))
	body := text(t, r)
	if r.StatusCode != http.StatusOK || body != answer(3, true) {
		t.Fatalf("got %d %q", r.StatusCode, body)
	}
	if got := r.Header.Get("Content-Type"); !strings.HasPrefix(got, "text/event-stream") {
		t.Errorf("content type: got %q", got)
	}
	if got := r.Header.Get("X-Cocoon-Worker"); got != k.id.String() {
		t.Errorf("worker: got %q, want %s", got, k.id)
	}
	if got := r.Trailer.Get("X-Cocoon-Cost"); got != "16" { // 10 prompt tokens at 1, 3 others at 2
		t.Errorf("cost: got %q, want 16", got)
	}
	if got := r.Trailer.Get("X-Cocoon-Receipt"); len(got) != 32 {
		t.Errorf("receipt: got %q, want a job id", got)
	}
}
