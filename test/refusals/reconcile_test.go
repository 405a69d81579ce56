package refusals

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"cocoon/attestation"
	"cocoon/attestation/auditlog"
	"cocoon/attestation/channel"
	"cocoon/contracts"
	"cocoon/enclave"
	"cocoon/enclave/api"
	"cocoon/proxy/ledger"
	"cocoon/proxy/route"
	"cocoon/proxy/session"
)

// A client compares accounts with the worker before it signs anything on a new
// connection. A worker that invents or withholds gets nothing more.
func TestReconciling(t *testing.T) {
	n := newNetwork(t)
	good := n.worker(t, setup{})
	mine := newKey(t)
	forged := func(ch attestation.Address, cumulative uint64) []byte {
		return sure(sure(contracts.SignVoucher(mine, contracts.Voucher{GlobalID: globalID, Channel: ch, Cumulative: cumulative})).MarshalBinary())
	}
	foreign := func(t *testing.T, _ *market, err error) {
		if !errors.Is(err, ledger.ErrForeignVoucher) {
			t.Errorf("got %v, want %v", err, ledger.ErrForeignVoucher)
		}
	}
	misbehaves := func(name string) func(*testing.T, *market, error) {
		return func(t *testing.T, m *market, err error) { m.misbehaved(t, err, name) }
	}
	books := func(field string) func(*testing.T, *market, error) {
		return func(t *testing.T, m *market, err error) { m.booksDiffer(t, err, field) }
	}
	for _, row := range []struct {
		name  string
		spoil func(ch attestation.Address, r *api.ReceiptsResponse)
		check func(*testing.T, *market, error)
	}{
		{"a worker that invents a base voucher", func(ch attestation.Address, r *api.ReceiptsResponse) { r.Base = forged(ch, 5_000_000) }, foreign},
		{"a worker that invents a highest voucher", func(ch attestation.Address, r *api.ReceiptsResponse) { r.Highest = forged(ch, 5_000_000) }, foreign},
		{"a worker that raises a voucher's amount", func(_ attestation.Address, r *api.ReceiptsResponse) {
			r.Highest = append([]byte(nil), r.Highest...)
			r.Highest[42] ^= 1
		}, foreign},
		{"a worker that counts as spent what the chain has not paid", func(_ attestation.Address, r *api.ReceiptsResponse) { r.BasePaid = 5_000_000 }, misbehaves("receipts.base")},
		{"a worker that makes its highest voucher the base", func(_ attestation.Address, r *api.ReceiptsResponse) { r.Base = r.Highest }, books("base")},
		{"a worker that withholds receipts", func(_ attestation.Address, r *api.ReceiptsResponse) {
			r.Count, r.Settled, r.Receipts = 3, 3*plainCost, nil
		}, misbehaves("receipts.withheld")},
		{"a worker that settled more than its receipts", func(_ attestation.Address, r *api.ReceiptsResponse) { r.Settled += 1000 }, books("settled")},
		{"a worker that settled less than its receipts", func(_ attestation.Address, r *api.ReceiptsResponse) { r.Settled-- }, books("settled")},
		{"a worker that answers for another log", func(_ attestation.Address, r *api.ReceiptsResponse) { r.LogID[5] ^= 1 }, misbehaves("receipts.log")},
	} {
		t.Run(row.name, func(t *testing.T) {
			bad := n.rogue(t)
			m := n.market(t, bad, good)
			if o := m.try(t); o.err != nil {
				t.Fatal(o.err)
			}
			ch := m.badChannel(t)
			before := m.moneyOf(t, ch)
			bad.statement = func(r *api.ReceiptsResponse) { row.spoil(ch, r) }
			s := m.connect(t, bad.addr, bad.id)
			err := s.Fund(t.Context())
			if err == nil || !session.Misbehaves(err) {
				t.Errorf("Fund: got %v, want a breach", err)
			}
			row.check(t, m, err)
			if _, err := s.Start(t.Context(), request()); err == nil {
				t.Error("a job was started all the same")
			}
			if after := m.moneyOf(t, ch); after != before {
				t.Errorf("money: got %+v, want %+v", after, before)
			}
			m.robs(t, ch, opening)
		})
	}
	receipts := []struct {
		name, check string
		edit        func(*auditlog.Receipt)
		key         bool
	}{
		{"a receipt of a job that nobody opened", "", nil, false},
		{"an old receipt that another key signed", "receipt.signature", nil, true},
		{"an old receipt of an unknown keyset", "receipt.keyset", func(r *auditlog.Receipt) { r.KeysetDigest[3] ^= 1 }, false},
		{"an old receipt of another channel", "receipt.place", func(r *auditlog.Receipt) { r.Channel[9] ^= 1 }, false},
		{"an old receipt of another worker", "receipt.place", func(r *auditlog.Receipt) { r.WorkerID[9] ^= 1 }, false},
		{"an old receipt of another log", "receipt.place", func(r *auditlog.Receipt) { r.LogID[9] ^= 1 }, false},
		{"an old receipt with a wrong cost", "receipt.cost", func(r *auditlog.Receipt) { r.Cost++ }, false},
	}
	for _, row := range receipts {
		t.Run(row.name, func(t *testing.T) {
			bad := n.rogue(t)
			m := n.market(t, bad, good)
			if o := m.try(t); o.err != nil {
				t.Fatal(o.err)
			}
			ch := m.badChannel(t)
			before := m.moneyOf(t, ch)
			bad.statement = func(r *api.ReceiptsResponse) {
				extra := auditlog.Receipt{
					Version: auditlog.ReceiptVersion, JobID: [16]byte{9}, Channel: ch, WorkerID: bad.id, LogID: bad.logID, Index: r.Count, KeysetDigest: bad.digest,
					Model: toyModel, Usage: attestation.Usage{Prompt: 100}, Prices: prices, Cost: 100, Started: 1, Finished: 1, FinishReason: "stop", Status: auditlog.StatusOK,
				}
				if row.edit != nil {
					row.edit(&extra)
				}
				signer := bad.signing
				if row.key {
					signer = mine
				}
				r.Receipts = append(r.Receipts, sure(auditlog.SignReceipt(signer, extra)))
				r.Count, r.Settled = r.Count+1, r.Settled+extra.Cost
			}
			s := m.connect(t, bad.addr, bad.id)
			err := s.Fund(t.Context())
			if row.check == "" {
				m.booksDiffer(t, err, "receipt 1")
			} else {
				m.misbehaved(t, err, row.check)
			}
			if after := m.moneyOf(t, ch); after != before {
				t.Errorf("money: got %+v, want %+v", after, before)
			}
			m.robs(t, ch, opening)
		})
	}
	good.serves(t)
}

// The router benches a worker that fails to reconcile, as it does one that
// fails a job.
func TestBenchedAtReconciling(t *testing.T) {
	n := newNetwork(t)
	good, bad := n.worker(t, setup{}), n.rogue(t)
	bad.statement = func(r *api.ReceiptsResponse) { r.BasePaid = 1 }
	m := n.market(t, bad, good)
	o := m.try(t)
	var none *route.NoWorkerError
	if !errors.As(o.err, &none) {
		t.Errorf("got %v, want no worker", o.err)
	}
	m.misbehaved(t, none.Err, "receipts.base")
	m.goesElsewhere(t, route.Benched)
	if got := m.moneyOf(t, m.badChannel(t)); got.signed != 0 || got.booked != 0 || got.paid != 0 {
		t.Errorf("money: got %+v, want nothing signed", got)
	}
	if got := bad.jobs(); got != 0 {
		t.Errorf("it was sent %d jobs", got)
	}
}

// A ledger that is older than its vouchers signs nothing until its owner says
// that it is the only one.
func TestLedgerOlderThanItsVouchers(t *testing.T) {
	n := newNetwork(t)
	w := n.worker(t, setup{})
	c := n.newClient(t)
	c.funded(t, w.addr, w.id).Close()
	must(t, c.ledger.Close())
	backup := filepath.Join(t.TempDir(), "ledger")
	must(t, os.CopyFS(backup, os.DirFS(c.dir)))
	must(t, os.Chmod(backup, 0o700))
	c.open(t)
	s := c.funded(t, w.addr, w.id)
	if o := run(t.Context(), s); o.err != nil {
		t.Fatal(o.err)
	}
	s.Close()
	must(t, c.ledger.Close())

	old := *c
	old.dir = backup
	old.open(t)
	defer old.ledger.Close()
	ch := old.channels(t)[0]
	before := old.statement(t, w.addr, ch)
	s = old.connect(t, w.addr, w.id)
	err := s.Fund(t.Context())
	var unknown *ledger.UnknownVoucherError
	if !errors.As(err, &unknown) || unknown.Cumulative != opening || session.Misbehaves(err) {
		t.Errorf("got %v, want an *ledger.UnknownVoucherError over %d", err, opening)
	}
	if m := old.moneyOf(t, ch); m.signed != 0 || m.booked != 0 {
		t.Errorf("money: got %+v, want nothing signed", m)
	}
	if after := old.statement(t, w.addr, ch); after != before {
		t.Errorf("the worker: got %+v, want %+v", after, before)
	}
	old.cfg.Restore = true
	s = old.funded(t, w.addr, w.id)
	if o := run(t.Context(), s); o.err != nil || o.answer != plainAnswer {
		t.Errorf("restored: got %q, %v", o.answer, o.err)
	}
	if m := old.moneyOf(t, ch); m.signed != plainCost+opening || m.booked != 2*plainCost {
		t.Errorf("restored: money: got %+v", m)
	}
}

// Prices are the record's: a worker that wants more is not paid more.
func TestPricesAboveTheRecord(t *testing.T) {
	n := newNetwork(t)
	good := n.worker(t, setup{})
	w := n.worker(t, setup{config: func(c *enclave.Config) { c.Worker.Prices[0].Min.Completion++ }})
	c := n.newClient(t)
	s := c.funded(t, w.addr, w.id)
	o := run(t.Context(), s)
	var fault *channel.JobError
	if !errors.As(o.err, &fault) || fault.Code != "terms.price" {
		t.Errorf("got %v, want terms.price", o.err)
	}
	if o.receipt == nil || o.receipt.Cost != 0 || o.receipt.Status != auditlog.StatusRefused {
		t.Errorf("receipt: got %+v", o.receipt)
	}
	if m := c.money(t, s); m.booked != 0 || m.paid != 0 {
		t.Errorf("money: got %+v, want nothing booked", m)
	}
	if st := c.statement(t, w.addr, c.channels(t)[0]); st.settled != 0 || st.credited != 0 {
		t.Errorf("the worker: got %+v", st)
	}
	t.Run("a model that the record does not price", func(t *testing.T) {
		w := n.worker(t, setup{record: func(r *contracts.WorkerRecord) { r.Prices = nil }})
		s := c.connect(t, w.addr, w.id)
		must(t, s.Fund(t.Context()))
		before := c.money(t, s)
		if _, err := s.Start(t.Context(), request()); err == nil {
			t.Error("a job was started")
		}
		if after := c.money(t, s); after != before || after.signed != 0 {
			t.Errorf("money: got %+v, want %+v", after, before)
		}
	})
	good.serves(t)
}
