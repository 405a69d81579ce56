package refusals

import (
	"io"
	"log/slog"
	"testing"

	"cocoon/attestation"
	"cocoon/proxy/route"
)

// market is an honest client's router in front of a hostile worker and a good one.
type market struct {
	*client
	bad    *rogue
	good   *worker
	router *route.Router
}

// market connects a new client to both.
func (n *network) market(t testing.TB, bad *rogue, good *worker) *market {
	t.Helper()
	m := &market{client: n.newClient(t), bad: bad, good: good}
	var err error
	m.router, err = route.New(route.Config{
		Session: m.cfg, Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
		Workers: []route.Endpoint{{Address: bad.addr, WorkerID: bad.id}, {Address: good.addr, WorkerID: good.id}},
	})
	must(t, err)
	t.Cleanup(m.router.Close)
	for _, w := range m.router.Settle(t.Context()) {
		if w.State != route.Ready {
			t.Fatalf("worker %s is %s: %s", w.Endpoint, w.State, w.Reason)
		}
	}
	return m
}

// try runs one job on the hostile worker, and has the router judge it.
func (m *market) try(t testing.TB) outcome {
	t.Helper()
	l, err := m.router.Pick(t.Context(), model, map[attestation.Address]bool{m.good.id: true})
	if err != nil {
		return outcome{err: err}
	}
	o := run(t.Context(), l.Session)
	l.Release(o.err)
	return o
}

// badChannel is the channel that pays the hostile worker.
func (m *market) badChannel(t testing.TB) attestation.Address {
	t.Helper()
	list, err := m.ledger.ChannelsTo(t.Context(), m.bad.id)
	must(t, err)
	if len(list) != 1 {
		t.Fatalf("got %d channels to the hostile worker, want 1", len(list))
	}
	return list[0].Address
}

// goesElsewhere wants the hostile worker in that state, and the next job with
// the good one, all of them.
func (m *market) goesElsewhere(t testing.TB, state route.State) {
	t.Helper()
	for _, st := range m.router.Workers() {
		if st.WorkerID == m.bad.id && st.State != state {
			t.Errorf("the hostile worker is %s, want it %s", st.State, state)
		}
	}
	l, err := m.router.Pick(t.Context(), model, nil)
	must(t, err)
	defer l.Release(nil)
	if state == route.Benched && l.WorkerID() != m.good.id {
		t.Errorf("the next job went to %s", l.WorkerID())
		return
	}
	if l.WorkerID() != m.good.id {
		return
	}
	if o := run(t.Context(), l.Session); o.err != nil || o.answer != plainAnswer {
		t.Errorf("an honest job afterwards: got %q, %v", o.answer, o.err)
	}
}

// robs redeems the best voucher that the hostile worker was given, and wants
// exactly most nano to have moved.
func (m *market) robs(t testing.TB, ch attestation.Address, most uint64) {
	t.Helper()
	v := m.bad.best(ch)
	if v.Voucher.Cumulative > 0 {
		p := &payer{t: t, n: m.n, channel: ch}
		must(t, p.redeem(m.n.host, v))
	}
	if paid, _ := m.n.onChain(t, ch); paid != most {
		t.Errorf("the hostile worker was paid %d nano, want %d", paid, most)
	}
}
