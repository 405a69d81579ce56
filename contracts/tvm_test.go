package contracts_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"os"
	"sync"
	"testing"

	"github.com/xssnick/tonutils-go/address"
	"github.com/xssnick/tonutils-go/tlb"
	"github.com/xssnick/tonutils-go/tvm"
	"github.com/xssnick/tonutils-go/tvm/cell"

	"cocoon/attestation"
	"cocoon/contracts"
)

// globalID is that of the mainnet configuration the tests run under.
const globalID = -239

const year = 365 * 24 * 3600

// mainnet is the configuration of TON's mainnet of 2026-05-14 (global version 13), from tonutils-go v1.18.0's
// tvm/testdata/transaction_replay_regression.json.
var mainnet = sync.OnceValue(func() *tvm.PreparedBlockchainConfig {
	raw, err := os.ReadFile("testdata/mainnet-config-2026-05-14.boc")
	if err != nil {
		panic(err)
	}
	root, err := cell.FromBOC(raw)
	if err != nil {
		panic(err)
	}
	return tvm.MustPrepareBlockchainConfig(root)
})

// account is one contract on its own in the TVM, with a clock that the test moves.
type account struct {
	t    testing.TB
	addr attestation.Address
	now  uint32
	lt   uint64
	acc  *tvm.PreparedAccount
	stat *cell.Cell
}

// outcome is what one message did.
type outcome struct {
	exit   int64 // of the compute phase; 0 also when it was skipped
	ran    bool  // the compute phase ran
	acted  bool  // compute and action phases both succeeded
	gas    int64
	fees   uint64 // nano, taken from the account
	toward map[attestation.Address]uint64
	bounce uint64 // nano sent back
	bodies []*cell.Cell
	logs   []*cell.Cell
}

func newAccount(t testing.TB, addr attestation.Address) *account {
	t.Helper()
	none := cell.BeginCell().MustStoreBoolBit(false).EndCell()
	acc, err := tvm.PrepareAccount(&tlb.ShardAccount{Account: none, LastTransHash: make([]byte, 32)}, ton(t, addr))
	if err != nil {
		t.Fatal(err)
	}
	return &account{t: t, addr: addr, now: 1_780_000_000, lt: 1_000_000, acc: acc}
}

// send delivers an internal, bounceable message.
func (a *account) send(from attestation.Address, value uint64, body *cell.Cell) outcome {
	a.t.Helper()
	return a.deliver(a.message(from, value, body, nil))
}

func (a *account) message(from attestation.Address, value uint64, body *cell.Cell, init *tlb.StateInit) *tlb.InternalMessage {
	a.t.Helper()
	return &tlb.InternalMessage{
		IHRDisabled: true, Bounce: true, SrcAddr: ton(a.t, from), DstAddr: ton(a.t, a.addr),
		Amount: tlb.FromNanoTONU(value), StateInit: init, Body: body,
	}
}

func (a *account) deliver(msg *tlb.InternalMessage) outcome {
	a.t.Helper()
	a.lt += 1000
	msg.CreatedLT, msg.CreatedAt = a.lt, a.now
	return a.execute(msg)
}

func (a *account) execute(msg any) outcome {
	a.t.Helper()
	c, err := tlb.ToCell(msg)
	if err != nil {
		a.t.Fatal(err)
	}
	prepared, err := tvm.PrepareMessage(c)
	if err != nil {
		a.t.Fatal(err)
	}
	block, err := mainnet().NewBlockContext(tvm.BlockOptions{Now: a.now, RandSeed: make([]byte, 32), GlobalID: globalID})
	if err != nil {
		a.t.Fatal(err)
	}
	r, err := tvm.NewTVM().EmulateTransaction(block, a.acc, prepared, tvm.TransactionOptions{AccountStorageStat: a.stat})
	if err != nil {
		a.t.Fatal(err)
	}
	out := outcome{exit: r.ExitCode, toward: map[attestation.Address]uint64{}}
	if r.TransactionCell == nil {
		return out
	}
	a.acc, a.stat = r.NextAccount, r.AccountStorageStat
	tx, err := r.ParseTransaction()
	if err != nil {
		a.t.Fatal(err)
	}
	out.gas, out.fees = r.GasUsed, tx.TotalFees.Coins.Nano().Uint64()
	if d, ok := tx.Description.(tlb.TransactionDescriptionOrdinary); ok {
		if vm, ok := d.ComputePhase.Phase.(tlb.ComputePhaseVM); ok {
			out.ran = true
			out.acted = vm.Success && d.ActionPhase != nil && d.ActionPhase.Success
		}
	}
	for _, o := range r.OutMessages {
		switch m := o.Msg.Msg.(type) {
		case *tlb.InternalMessage:
			if m.Bounced {
				out.bounce += m.Amount.Nano().Uint64()
				continue
			}
			if m.Bounce {
				a.t.Errorf("message to %s is bounceable", m.DstAddr)
			}
			to, err := contracts.FromTON(m.DstAddr)
			if err != nil {
				a.t.Fatal(err)
			}
			out.toward[to] += m.Amount.Nano().Uint64() + m.FwdFee.Nano().Uint64()
			out.bodies = append(out.bodies, m.Body)
		case *tlb.ExternalMessageOut:
			out.logs = append(out.logs, m.Body)
		}
	}
	return out
}

// state is the account as a proof would show it.
func (a *account) state() (code, data *cell.Cell, balance uint64) {
	a.t.Helper()
	s, err := a.acc.ShardAccount(), error(nil)
	var st tlb.AccountState
	if err = tlb.Parse(&st, s.Account); err != nil {
		a.t.Fatal(err)
	}
	if !st.IsValid || st.StateInit == nil {
		return nil, nil, 0
	}
	return st.StateInit.Code, st.StateInit.Data, st.Balance.Nano().Uint64()
}

func ton(t testing.TB, a attestation.Address) *address.Address {
	t.Helper()
	out, err := contracts.ToTON(a)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// person is a wallet address that a test makes up.
func person(n byte) attestation.Address {
	return attestation.NewAddress(0, [32]byte(bytes.Repeat([]byte{n}, 32)))
}

// testKey is a client key made from a number.
func testKey(n uint64) ed25519.PrivateKey {
	var seed [32]byte
	binary.BigEndian.PutUint64(seed[:], n)
	return ed25519.NewKeyFromSeed(seed[:])
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
