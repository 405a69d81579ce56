package contracts_test

import (
	"bytes"
	"testing"

	"github.com/xssnick/tonutils-go/tvm/cell"

	"cocoon/contracts"
)

// maxFuzzBOC is larger than any cell tree that the parsers take.
const maxFuzzBOC = 1 << 16

// fuzzCells runs parse on the cells in the corpus and on what becomes of them. parse builds again what it read.
func fuzzCells(f *testing.F, parse func(*cell.Cell) (*cell.Cell, error), seeds ...*cell.Cell) {
	for _, s := range seeds {
		if _, err := parse(s); err != nil {
			f.Fatalf("seed: %v", err)
		}
		f.Add(s.ToBOC())
	}
	f.Add(cell.BeginCell().EndCell().ToBOC())
	f.Fuzz(func(t *testing.T, boc []byte) {
		if len(boc) > maxFuzzBOC {
			return
		}
		c, err := cell.FromBOCWithOptions(boc, cell.BOCParseOptions{MaxCells: 2048})
		if err != nil {
			return
		}
		again, err := parse(c)
		if err != nil {
			return
		}
		if !bytes.Equal(again.Hash(), c.Hash()) {
			t.Errorf("parsed %s, built %s", c.Dump(), again.Dump())
		}
	})
}

func FuzzParseChannel(f *testing.F) {
	state := contracts.ChannelState{Init: channelInit(), Paid: 77, CloseAt: 5}
	addr := must(state.Init.Address())
	fuzzCells(f, func(c *cell.Cell) (*cell.Cell, error) {
		s, err := contracts.ParseChannel(addr, contracts.ChannelCode(), c)
		if err != nil {
			return nil, err
		}
		return s.Data()
	}, must(state.Data()))
}

func FuzzParseRegistry(f *testing.F) {
	state := contracts.RegistryState{
		Owner: owner, Guardian: guardian, Delay: short, Version: 1, NextID: 9,
		Entries: registryInit(5).Entries,
		Pending: map[uint32]contracts.Pending{
			0: {ETA: 1, Op: contracts.SetEntry{Kind: 1}}, 1: {ETA: 2, Op: contracts.RemoveEntry{}},
			2: {ETA: 3, Op: contracts.RaiseFloor{}}, 3: {ETA: 4, Op: contracts.SetOwner{Owner: owner}},
			4: {ETA: 5, Op: contracts.SetGuardian{}}, 5: {ETA: 6, Op: contracts.SetDelay{Delay: short}},
			6: {ETA: 7, Op: contracts.SetCode{}},
		},
	}
	fuzzCells(f, func(c *cell.Cell) (*cell.Cell, error) {
		s, err := contracts.ParseRegistry(contracts.RegistryCode(), c)
		if err != nil {
			return nil, err
		}
		return s.Data()
	}, must(state.Data()), must(registryInit(0).StateInit()).Data)
}

func FuzzParseWorker(f *testing.F) {
	init := contracts.WorkerInit{Owner: owner}
	id := must(init.WorkerID())
	small, large := workerRecord(0), largestRecord()
	fuzzCells(f, func(c *cell.Cell) (*cell.Cell, error) {
		s, err := contracts.ParseWorker(id, contracts.WorkerCode(), c)
		if err != nil {
			return nil, err
		}
		return s.Data()
	}, must(contracts.WorkerState{Init: init}.Data()),
		must(contracts.WorkerState{Init: init, Record: &small}.Data()),
		must(contracts.WorkerState{Init: init, Record: &large}.Data()))
}

func FuzzParseRedeem(f *testing.F) {
	s := must(contracts.SignVoucher(testKey(1), contracts.Voucher{GlobalID: -3, Channel: person(1), Cumulative: 12345}))
	fuzzCells(f, func(c *cell.Cell) (*cell.Cell, error) {
		s, err := contracts.ParseRedeem(c)
		if err != nil {
			return nil, err
		}
		return contracts.RedeemBody(s)
	}, must(contracts.RedeemBody(s)))
}

func FuzzParseRedeemed(f *testing.F) {
	fuzzCells(f, func(c *cell.Cell) (*cell.Cell, error) {
		e, err := contracts.ParseRedeemed(c)
		if err != nil {
			return nil, err
		}
		return e.Cell(), nil
	}, contracts.Redeemed{Cumulative: 300, Paid: 200}.Cell())
}

func FuzzSignedVoucher(f *testing.F) {
	s := must(contracts.SignVoucher(testKey(1), contracts.Voucher{GlobalID: -3, Channel: person(1), Cumulative: 12345}))
	f.Add(must(s.MarshalBinary()))
	f.Fuzz(func(t *testing.T, b []byte) {
		var s contracts.SignedVoucher
		if s.UnmarshalBinary(b) != nil {
			return
		}
		if again := must(s.MarshalBinary()); !bytes.Equal(again, b) {
			t.Errorf("read %x, wrote %x", b, again)
		}
	})
}
