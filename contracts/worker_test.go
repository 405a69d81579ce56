package contracts_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/xssnick/tonutils-go/tlb"
	"github.com/xssnick/tonutils-go/tvm/cell"

	"cocoon/attestation"
	"cocoon/contracts"
)

const (
	errWorkerSender = 301
	errEndpoint     = 302
	errPrices       = 303
	errWorkerBody   = 304
)

type worker struct {
	*account
	init contracts.WorkerInit
}

func deployWorker(t testing.TB, value uint64) *worker {
	t.Helper()
	init := contracts.WorkerInit{Owner: owner, Nonce: [32]byte{4}}
	a := newAccount(t, must(init.WorkerID()))
	if o := a.deliver(a.message(owner, value, nil, must(init.StateInit()))); !o.acted {
		t.Fatalf("deploy: exit %d", o.exit)
	}
	return &worker{a, init}
}

func workerRecord(models int) contracts.WorkerRecord {
	r := contracts.WorkerRecord{
		Endpoint: "worker.example:8443", Payout: payee, PlatformID: [32]byte{8}, Expiry: 1_790_000_000,
	}
	for n := range models {
		p := uint64(n+1) * 1_000_000
		r.Prices = append(r.Prices, contracts.ModelPrice{
			Model:  contracts.ModelNameHash(fmt.Sprintf("model-%d", n)),
			Prices: attestation.Prices{Prompt: p, Cached: p / 2, Completion: 3 * p, Reasoning: 4 * p},
		})
	}
	return r
}

func largestRecord() contracts.WorkerRecord {
	r := workerRecord(contracts.MaxModelPrices)
	r.Endpoint = strings.Repeat("w", contracts.MaxEndpoint)
	return r
}

func (w *worker) parse() contracts.WorkerState {
	w.t.Helper()
	code, data, _ := w.state()
	s, err := contracts.ParseWorker(w.addr, code, data)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

func TestWorkerRecord(t *testing.T) {
	w := deployWorker(t, coin)
	if diff := cmp.Diff(contracts.WorkerState{Init: w.init}, w.parse()); diff != "" {
		t.Fatal(diff)
	}
	for _, r := range []contracts.WorkerRecord{
		workerRecord(0), workerRecord(1), largestRecord(),
		{Endpoint: "x", Payout: attestation.NewAddress(-1, [32]byte{1})},
		{Endpoint: strings.Repeat("e", 127), Payout: payee}, {Endpoint: strings.Repeat("e", 128), Payout: payee},
	} {
		body := must(contracts.SetRecordBody(r))
		for _, from := range []attestation.Address{stranger, payee, attestation.NewAddress(-1, owner.ID())} {
			before := w.parse()
			if o := w.send(from, coin/10, body); o.exit != errWorkerSender {
				t.Errorf("set by %s: exit %d, want %d", from, o.exit, errWorkerSender)
			}
			if diff := cmp.Diff(before, w.parse()); diff != "" {
				t.Error(diff)
			}
		}
		if o := w.send(owner, contracts.RegistryFee, body); !o.acted {
			t.Fatalf("set: exit %d", o.exit)
		}
		got := w.parse().Record
		if diff := cmp.Diff(&r, got, anyOrder()); diff != "" {
			t.Error(diff)
		}
	}
}

// anyOrder compares prices by model: the record keeps them in the order of their hashes.
func anyOrder() cmp.Option {
	return cmp.Transformer("byModel", func(p []contracts.ModelPrice) map[[32]byte]attestation.Prices {
		m := map[[32]byte]attestation.Prices{}
		for _, p := range p {
			m[p.Model] = p.Prices
		}
		return m
	})
}

func TestWorkerPriceAndView(t *testing.T) {
	r := workerRecord(3)
	p, ok := r.Price("model-1")
	if want := (attestation.Prices{Prompt: 2_000_000, Cached: 1_000_000, Completion: 6_000_000, Reasoning: 8_000_000}); !ok || p != want {
		t.Errorf("price: got %v %t, want %v", p, ok, want)
	}
	if _, ok := r.Price("model-9"); ok {
		t.Error("price of a model that is not there: got ok")
	}
	at := time.Unix(1_780_000_000, 0)
	want := attestation.RecordView{WorkerID: workerID, Payout: payee, PlatformID: [32]byte{8}, Expiry: time.Unix(1_790_000_000, 0), ProvenAt: at}
	if diff := cmp.Diff(want, r.View(workerID, at)); diff != "" {
		t.Error(diff)
	}
}

func TestDeployAndSetInOneMessage(t *testing.T) {
	init := contracts.WorkerInit{Owner: owner, Nonce: [32]byte{5}}
	a := newAccount(t, must(init.WorkerID()))
	r := workerRecord(2)
	if o := a.deliver(a.message(owner, coin, must(contracts.SetRecordBody(r)), must(init.StateInit()))); !o.acted {
		t.Fatalf("exit %d", o.exit)
	}
	if diff := cmp.Diff(&r, (&worker{a, init}).parse().Record, anyOrder()); diff != "" {
		t.Error(diff)
	}
	other := contracts.WorkerInit{Owner: owner, Nonce: [32]byte{6}}
	if must(other.WorkerID()) == a.addr {
		t.Error("two nonces have one id")
	}
}

func TestWorkerRefusesMalformedRecords(t *testing.T) {
	w := deployWorker(t, coin)
	bits := func() *cell.Builder { return cell.BeginCell() }
	text := func(n uint) *cell.Builder { return bits().MustStoreSlice(make([]byte, n), n*8) }
	record := func(endpoint, prices *cell.Cell) *cell.Builder {
		return bits().MustStoreRef(endpoint).MustStoreAddr(ton(t, payee)).MustStoreSlice(make([]byte, 32), 256).
			MustStoreUInt(0, 32).MustStoreMaybeRef(prices)
	}
	set := func(r *cell.Builder) *cell.Cell {
		return bits().MustStoreUInt(0x43570001, 32).MustStoreRef(r.EndCell()).EndCell()
	}
	price := func(model byte, next *cell.Cell) *cell.Cell {
		return bits().MustStoreUInt(uint64(model), 8).MustStoreSlice(make([]byte, 63), 504).MustStoreMaybeRef(next).EndCell()
	}
	list := func(models ...byte) (next *cell.Cell) {
		for i := len(models) - 1; i >= 0; i-- {
			next = price(models[i], next)
		}
		return next
	}
	short := text(4).EndCell()
	for name, c := range map[string]struct {
		exit int64
		body *cell.Cell
	}{
		"empty endpoint":     {errEndpoint, set(record(bits().EndCell(), nil))},
		"half a byte":        {errEndpoint, set(record(text(3).MustStoreUInt(1, 4).EndCell(), nil))},
		"256 bytes":          {errEndpoint, set(record(text(127).MustStoreRef(text(127).MustStoreRef(text(2).EndCell()).EndCell()).EndCell(), nil))},
		"two tails":          {errEndpoint, set(record(text(4).MustStoreRef(short).MustStoreRef(text(5).EndCell()).EndCell(), nil))},
		"empty tail":         {errEndpoint, set(record(text(4).MustStoreRef(bits().EndCell()).EndCell(), nil))},
		"nine models":        {errPrices, set(record(short, list(1, 2, 3, 4, 5, 6, 7, 8, 9)))},
		"model twice":        {errPrices, set(record(short, list(1, 2, 2)))},
		"falling models":     {errPrices, set(record(short, list(2, 1)))},
		"truncated price":    {exitCell, set(record(short, bits().MustStoreUInt(1, 256).EndCell()))},
		"record with more":   {exitCell, set(record(short, nil).MustStoreUInt(0, 1))},
		"record with a cell": {exitCell, set(record(short, nil).MustStoreRef(short))},
		"no record":          {exitCell, bits().MustStoreUInt(0x43570001, 32).EndCell()},
		"message with more":  {exitCell, bits().MustStoreUInt(0x43570001, 32).MustStoreUInt(0, 1).MustStoreRef(record(short, nil).EndCell()).EndCell()},
		"unknown op":         {errWorkerBody, bits().MustStoreUInt(0x43570002, 32).EndCell()},
		"comment":            {errWorkerBody, bits().MustStoreUInt(0, 32).EndCell()},
	} {
		t.Run(name, func(t *testing.T) {
			before := w.parse()
			o := w.send(owner, contracts.RegistryFee, c.body)
			if o.exit != c.exit || o.acted || o.bounce == 0 {
				t.Errorf("exit: got %d (acted %t, %d nano back), want %d and a bounce", o.exit, o.acted, o.bounce, c.exit)
			}
			if diff := cmp.Diff(before, w.parse()); diff != "" {
				t.Error(diff)
			}
		})
	}
	if o := w.execute(&tlb.ExternalMessage{DstAddr: ton(t, w.addr), Body: must(contracts.SetRecordBody(workerRecord(1)))}); o.acted || o.gas != 0 {
		t.Errorf("external message: acted %t, %d gas charged", o.acted, o.gas)
	}
	if o := w.send(stranger, coin, nil); !o.acted {
		t.Errorf("rent from a stranger: exit %d", o.exit)
	}
}

func TestRecordBuilderRefuses(t *testing.T) {
	for name, change := range map[string]func(*contracts.WorkerRecord){
		"no endpoint":   func(r *contracts.WorkerRecord) { r.Endpoint = "" },
		"long endpoint": func(r *contracts.WorkerRecord) { r.Endpoint = strings.Repeat("x", 256) },
		"space":         func(r *contracts.WorkerRecord) { r.Endpoint = "a b" },
		"control":       func(r *contracts.WorkerRecord) { r.Endpoint = "a\n" },
		"not ASCII":     func(r *contracts.WorkerRecord) { r.Endpoint = "wörker:1" },
		"no payout":     func(r *contracts.WorkerRecord) { r.Payout = attestation.Address{} },
		"workchain":     func(r *contracts.WorkerRecord) { r.Payout = attestation.NewAddress(3, [32]byte{1}) },
		"nine models":   func(r *contracts.WorkerRecord) { *r = workerRecord(9) },
		"model twice":   func(r *contracts.WorkerRecord) { r.Prices = append(r.Prices, r.Prices[0]) },
	} {
		r := workerRecord(2)
		change(&r)
		if _, err := contracts.SetRecordBody(r); err == nil {
			t.Errorf("%s: got nil, want an error", name)
		}
	}
}
