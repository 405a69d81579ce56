package proxy_test

import (
	"bufio"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cocoon/attestation/auditlog"
	"cocoon/proxy/session"
)

// keep copies the ledger's files as a kill -9 of the proxy would leave them.
func (w *world) keep() (back func()) {
	w.t.Helper()
	kept := w.t.TempDir()
	move := func(from, to string) {
		list, err := os.ReadDir(from)
		if err != nil {
			w.t.Fatal(err)
		}
		for _, e := range list {
			b, err := os.ReadFile(filepath.Join(from, e.Name()))
			if err == nil {
				err = os.WriteFile(filepath.Join(to, e.Name()), b, 0o600)
			}
			if err != nil {
				w.t.Fatal(err)
			}
		}
	}
	move(w.dir, kept)
	return func() {
		list, err := os.ReadDir(w.dir)
		if err != nil {
			w.t.Fatal(err)
		}
		for _, e := range list {
			if err := os.Remove(filepath.Join(w.dir, e.Name())); err != nil {
				w.t.Fatal(err)
			}
		}
		move(kept, w.dir)
	}
}

// TestProxyKilledInMidStream goes on from what is on disk while a job is open:
// the worker settles the job, and the next start finds its receipt.
func TestProxyKilledInMidStream(t *testing.T) {
	w := newWorld(t)
	k := w.worker(0)
	g := w.proxy(settings{}, k.addr)
	if got := text(t, g.post(chat(true, nil))); got != answer(3, true) {
		t.Fatalf("got %q", got)
	}
	k.engine.script(say(50, func(ctx context.Context, i int) error {
		if i == 10 {
			<-ctx.Done()
			return ctx.Err()
		}
		return nil
	}))
	r := g.post(chat(true, nil))
	lines := bufio.NewScanner(r.Body)
	if !lines.Scan() {
		t.Fatal("no answer")
	}
	if err := g.ledger.Flush(context.Background()); err != nil {
		t.Fatal(err)
	}
	back := w.keep()
	r.Body.Close()
	eventually(t, "the worker to settle", func() bool { return len(g.receipts()) == 2 })
	if err := g.stop(); err != nil {
		t.Fatal(err)
	}
	back()
	k.engine.script(say(3, nil))
	g = w.proxy(settings{}, k.addr)
	if got := text(t, g.post(chat(true, nil))); got != answer(3, true) {
		t.Fatalf("after the kill: got %q", got)
	}
	list := g.receipts()
	if len(list) != 3 || list[1].Status != string(auditlog.StatusCancelled) || list[1].Cost != 10+2*10 {
		t.Errorf("receipts: got %+v, want the killed job's as the second of three", list)
	}
	if _, used := g.funds(); used != 16+30+16 {
		t.Errorf("used: got %d nano, want 62", used)
	}
}

func (g *gateway) funds() (limit, used uint64) {
	s := g.router.Workers()[0]
	return s.Limit, s.Used
}

// TestOutdatedLedgerStopsUntilRestore runs a ledger from a backup: vouchers
// that it does not know are out, so it signs nothing until told to.
func TestOutdatedLedgerStopsUntilRestore(t *testing.T) {
	w := newWorld(t)
	k := w.worker(0)
	g := w.proxy(settings{}, k.addr)
	if got := text(t, g.post(chat(true, nil))); got != answer(3, true) {
		t.Fatalf("got %q", got)
	}
	if err := g.ledger.Flush(context.Background()); err != nil {
		t.Fatal(err)
	}
	back := w.keep()
	k.engine.script(say(300, nil))
	if got := text(t, g.post(chat(true, nil))); got != answer(300, true) {
		t.Fatalf("got %d bytes", len(got))
	}
	if err := g.stop(); err != nil {
		t.Fatal(err)
	}
	back()
	g = w.proxy(settings{}, k.addr)
	if message := wantFailure(t, g.post(chat(true, nil)), 402, "insufficient_quota"); !strings.Contains(message, "--restore") {
		t.Errorf("got %q, want it to name --restore", message)
	}
	if err := g.stop(); err != nil {
		t.Fatal(err)
	}
	g = w.proxy(settings{session: func(c *session.Config) { c.Restore = true }}, k.addr)
	if got := text(t, g.post(chat(true, nil))); got != answer(300, true) {
		t.Fatalf("restored: got %.300q", got)
	}
	if list := g.receipts(); len(list) != 3 || list[1].Cost != 10+2*300 {
		t.Errorf("receipts: got %+v, want the lost one as the second of three", list)
	}
	if w.chain.opened != 1 {
		t.Errorf("opened %d channels, want 1", w.chain.opened)
	}
}
