package contracts

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"slices"
	"time"

	"github.com/xssnick/tonutils-go/tlb"
	"github.com/xssnick/tonutils-go/tvm/cell"

	"cocoon/attestation"
)

// Bounds of a worker's record, as its code has them.
const (
	MaxEndpoint    = 255 // bytes
	MaxModelPrices = 8
)

const (
	opSetRecord   = 0x43570001
	snakeBytes    = 127
	maxSnakeCells = 3
)

// WorkerInit is what the worker's id is the address of.
type WorkerInit struct {
	Owner attestation.Address // the only one who may set the record
	Nonce [32]byte            // one owner may have many workers
}

// StateInit is what a deploying message carries; SetRecordBody in the same message fills the record.
func (i WorkerInit) StateInit() (*tlb.StateInit, error) {
	data, err := WorkerState{Init: i}.Data()
	if err != nil {
		return nil, err
	}
	return &tlb.StateInit{Code: WorkerCode(), Data: data}, nil
}

// WorkerID is the address of the record.
func (i WorkerInit) WorkerID() (attestation.Address, error) {
	s, err := i.StateInit()
	if err != nil {
		return attestation.Address{}, err
	}
	return addressOf(s)
}

// ModelPrice is what a worker asks for one model, named by ModelNameHash.
type ModelPrice struct {
	Model  [32]byte
	Prices attestation.Prices
}

// ModelNameHash is how a record names a model, and the Meta of its registry entry: SHA-256 of the name.
func ModelNameHash(name string) [32]byte { return sha256.Sum256([]byte(name)) }

// WorkerRecord is what a worker says of itself. Only the payout, the platform and the prices bind it: proxies
// refuse a worker whose evidence or terms differ.
type WorkerRecord struct {
	Endpoint   string // host:port, at most MaxEndpoint bytes of printable ASCII
	Payout     attestation.Address
	PlatformID [32]byte // DESIGN section 3, Policy
	Expiry     uint32   // Unix seconds from which the record says nothing
	Prices     []ModelPrice
}

// Price is what the record asks for the model of that name.
func (r WorkerRecord) Price(model string) (attestation.Prices, bool) {
	h := ModelNameHash(model)
	for _, p := range r.Prices {
		if p.Model == h {
			return p.Prices, true
		}
	}
	return attestation.Prices{}, false
}

// View is the record in the form that verification reads. The caller has proven the account.
func (r WorkerRecord) View(id attestation.Address, provenAt time.Time) attestation.RecordView {
	return attestation.RecordView{
		WorkerID: id, Payout: r.Payout, PlatformID: r.PlatformID,
		Expiry: time.Unix(int64(r.Expiry), 0), ProvenAt: provenAt,
	}
}

// Cell builds the record (WorkerRecord in schema.tlb). Prices may come in any order; a model priced twice is
// refused.
func (r WorkerRecord) Cell() (*cell.Cell, error) {
	endpoint, err := endpointCell(r.Endpoint)
	if err != nil {
		return nil, fmt.Errorf("worker record: %w", err)
	}
	prices, err := pricesCell(r.Prices)
	if err != nil {
		return nil, fmt.Errorf("worker record: %w", err)
	}
	if r.Payout.IsZero() {
		return nil, fmt.Errorf("worker record: payout: got the zero address")
	}
	b := cell.BeginCell().MustStoreRef(endpoint)
	for _, err := range []error{
		storeAddress(b, "payout", r.Payout),
		b.StoreSlice(r.PlatformID[:], 256),
		b.StoreUInt(uint64(r.Expiry), 32),
		b.StoreMaybeRef(prices),
	} {
		if err != nil {
			return nil, fmt.Errorf("worker record: %w", err)
		}
	}
	return b.EndCell(), nil
}

// SetRecordBody replaces the record. Only the owner may send it.
func SetRecordBody(r WorkerRecord) (*cell.Cell, error) {
	c, err := r.Cell()
	if err != nil {
		return nil, err
	}
	return cell.BeginCell().MustStoreUInt(opSetRecord, 32).MustStoreRef(c).EndCell(), nil
}

// WorkerState is the data of a worker's account.
type WorkerState struct {
	Init   WorkerInit
	Record *WorkerRecord // nil until the first Set
}

// Data builds the data cell (Worker in schema.tlb).
func (s WorkerState) Data() (*cell.Cell, error) {
	var record *cell.Cell
	if s.Record != nil {
		var err error
		if record, err = s.Record.Cell(); err != nil {
			return nil, err
		}
	}
	b := cell.BeginCell()
	for _, err := range []error{
		storeAddress(b, "owner", s.Init.Owner),
		b.StoreSlice(s.Init.Nonce[:], 256),
		b.StoreMaybeRef(record),
	} {
		if err != nil {
			return nil, fmt.Errorf("worker: %w", err)
		}
	}
	return b.EndCell(), nil
}

// ParseWorker reads the code and data of the account at id, as they were proven. It checks the code's hash and
// that id is where the owner and the nonce deploy.
func ParseWorker(id attestation.Address, code, data *cell.Cell) (WorkerState, error) {
	if err := checkCode("worker", code, WorkerCodeHash); err != nil {
		return WorkerState{}, err
	}
	s, err := parseWorkerData(data)
	if err != nil {
		return WorkerState{}, fmt.Errorf("worker: data: %w", err)
	}
	want, err := s.Init.WorkerID()
	if err != nil {
		return WorkerState{}, err
	}
	if id != want {
		return WorkerState{}, fmt.Errorf("worker: address: got %s, want %s, where its initial data deploy", id, want)
	}
	return s, nil
}

func parseWorkerData(data *cell.Cell) (WorkerState, error) {
	var s WorkerState
	if err := ordinary(data, 2+maxSnakeCells+MaxModelPrices); err != nil {
		return s, err
	}
	r := read(data)
	s.Init.Owner = r.address("owner")
	s.Init.Nonce = r.bytes32("nonce")
	record := r.maybeRef("record")
	if err := r.end(); err != nil {
		return s, err
	}
	if record != nil {
		rec, err := parseRecord(record)
		if err != nil {
			return s, fmt.Errorf("record: %w", err)
		}
		s.Record = &rec
	}
	built, err := s.Data()
	return s, same(data, built, err)
}

func parseRecord(c *cell.Cell) (WorkerRecord, error) {
	var w WorkerRecord
	r := read(c)
	endpoint := r.ref("endpoint")
	w.Payout = r.address("payout")
	w.PlatformID = r.bytes32("platform")
	w.Expiry = uint32(r.uint("expiry", 32))
	price := r.maybeRef("prices")
	if err := r.end(); err != nil {
		return w, err
	}
	s, err := endpoint.BeginParse()
	if err != nil {
		return w, fmt.Errorf("endpoint: %w", err)
	}
	b, err := s.LoadBinarySnake()
	if err != nil {
		return w, fmt.Errorf("endpoint: %w", err)
	}
	w.Endpoint = string(b)
	for price != nil {
		if len(w.Prices) == MaxModelPrices {
			return w, fmt.Errorf("prices: got more than %d", MaxModelPrices)
		}
		r := read(price)
		p := ModelPrice{Model: r.bytes32("model")}
		p.Prices.Prompt = r.uint("prompt", 64)
		p.Prices.Cached = r.uint("cached", 64)
		p.Prices.Completion = r.uint("completion", 64)
		p.Prices.Reasoning = r.uint("reasoning", 64)
		price = r.maybeRef("next")
		if err := r.end(); err != nil {
			return w, fmt.Errorf("prices: %w", err)
		}
		w.Prices = append(w.Prices, p)
	}
	return w, nil
}

func endpointCell(s string) (*cell.Cell, error) {
	if len(s) == 0 || len(s) > MaxEndpoint {
		return nil, fmt.Errorf("endpoint: got %d bytes, want 1 to %d", len(s), MaxEndpoint)
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return nil, fmt.Errorf("endpoint: got byte %#x, want printable ASCII without spaces", s[i])
		}
	}
	var next *cell.Cell
	for start := (len(s) - 1) / snakeBytes * snakeBytes; start >= 0; start -= snakeBytes {
		chunk := []byte(s[start:min(start+snakeBytes, len(s))])
		b := cell.BeginCell().MustStoreSlice(chunk, uint(len(chunk)*8))
		if next != nil {
			b.MustStoreRef(next)
		}
		next = b.EndCell()
	}
	return next, nil
}

func pricesCell(prices []ModelPrice) (*cell.Cell, error) {
	if len(prices) > MaxModelPrices {
		return nil, fmt.Errorf("prices: got %d, want at most %d", len(prices), MaxModelPrices)
	}
	sorted := slices.SortedFunc(slices.Values(prices), func(a, b ModelPrice) int {
		return bytes.Compare(a.Model[:], b.Model[:])
	})
	var next *cell.Cell
	for i := len(sorted) - 1; i >= 0; i-- {
		p := sorted[i]
		if i > 0 && sorted[i-1].Model == p.Model {
			return nil, fmt.Errorf("prices: model %x is priced twice", p.Model)
		}
		next = cell.BeginCell().
			MustStoreSlice(p.Model[:], 256).
			MustStoreUInt(p.Prices.Prompt, 64).
			MustStoreUInt(p.Prices.Cached, 64).
			MustStoreUInt(p.Prices.Completion, 64).
			MustStoreUInt(p.Prices.Reasoning, 64).
			MustStoreMaybeRef(next).
			EndCell()
	}
	return next, nil
}
