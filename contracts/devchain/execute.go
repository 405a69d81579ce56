package devchain

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"cocoon/attestation"

	"github.com/xssnick/tonutils-go/address"
	"github.com/xssnick/tonutils-go/tlb"
	"github.com/xssnick/tonutils-go/ton"
	"github.com/xssnick/tonutils-go/tvm"
	"github.com/xssnick/tonutils-go/tvm/cell"
)

// ltStep separates the logical times of two blocks.
const ltStep = 1_000_000

type account struct {
	prepared *tvm.PreparedAccount
	stat     *cell.Cell // the executor's storage statistics
	txs      []transaction
}

type transaction struct {
	account attestation.Address
	lt      uint64
	cell    *cell.Cell
	block   *ton.BlockIDExt
}

// get returns the account, made up as non-existent if nobody touched it yet.
func (c *Chain) get(a attestation.Address) (*account, error) {
	if x := c.accounts[a]; x != nil {
		return x, nil
	}
	none := &tlb.ShardAccount{Account: cell.BeginCell().MustStoreBoolBit(false).EndCell(), LastTransHash: make([]byte, 32)}
	prepared, err := tvm.PrepareAccount(none, toTON(a))
	if err != nil {
		return nil, err
	}
	return &account{prepared: prepared}, nil
}

// step is one block being made.
type step struct {
	*Chain
	rec   blockRecord
	seed  [32]byte
	start uint64
	vmCtx *tvm.BlockContext
	txs   []transaction
	next  []*cell.Cell
}

// apply makes the next block out of rec and the chain's own queue. It is a
// function of the journal alone: no clock, no randomness, no map order.
func (c *Chain) apply(rec blockRecord) error {
	c.lt = (c.lt/ltStep + 1) * ltStep
	s := &step{Chain: c, rec: rec, start: c.lt}
	s.seed = sha256.Sum256(binary.BigEndian.AppendUint64([]byte("devchain"), s.start))
	var err error
	s.vmCtx, err = c.network.prepared.NewBlockContext(tvm.BlockOptions{
		Now: rec.Time, BlockLT: int64(s.start), RandSeed: s.seed[:], GlobalID: c.network.globalID,
	})
	if err != nil {
		return fmt.Errorf("devchain: block: %w", err)
	}
	inbound := c.queue
	for _, m := range rec.Mints {
		msg, err := mintMessage(m, s.start, rec.Time)
		if err != nil {
			return fmt.Errorf("devchain: mint: %w", err)
		}
		inbound = append(inbound, msg)
	}
	for _, m := range inbound {
		if err := s.deliver(m, false); err != nil {
			return err
		}
	}
	for _, boc := range rec.Externals {
		m, err := cell.FromBOC(boc)
		if err != nil {
			return fmt.Errorf("devchain: external: %w", err)
		}
		if err := s.deliver(m, true); err != nil {
			return err
		}
	}
	c.queue = s.next
	return s.commit()
}

// deliver runs one message. Messages that the rules drop (an external that is
// not accepted, a body that cannot be parsed) leave no trace.
func (s *step) deliver(m *cell.Cell, external bool) error {
	msg, err := tvm.PrepareMessage(m)
	if err != nil {
		return nil
	}
	to, err := fromTON(msg.Message().Msg.DestAddr())
	if err != nil || to.Workchain() != 0 {
		return nil
	}
	a, err := s.get(to)
	if err != nil {
		return err
	}
	r, err := s.emulate(a, msg)
	if err != nil || r.TransactionCell == nil || (external && !r.Accepted) {
		return nil
	}
	tx, err := r.ParseTransaction()
	if err != nil {
		return fmt.Errorf("devchain: transaction: %w", err)
	}
	s.accounts[to] = a
	a.prepared, a.stat = r.NextAccount, r.AccountStorageStat
	s.lt = max(s.lt, r.EndLT)
	s.txs = append(s.txs, transaction{account: to, lt: tx.LT, cell: r.TransactionCell})
	for _, o := range r.OutMessages {
		if o.Msg.MsgType == tlb.MsgTypeInternal {
			s.next = append(s.next, o.Cell)
		}
	}
	return nil
}

// emulate turns a panic of the executor into an error: the message is in the
// journal by now, and would bring down every later replay.
func (s *step) emulate(a *account, msg *tvm.PreparedMessage) (r *tvm.TransactionExecutionResult, err error) {
	defer recoverTo(&err)
	return s.vm.EmulateTransaction(s.vmCtx, a.prepared, msg, tvm.TransactionOptions{LogicalTime: int64(s.lt), AccountStorageStat: a.stat})
}

func recoverTo(err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("panic: %v", r)
	}
}

// mintMessage has a logical time of its own, as every message does.
func mintMessage(m mint, lt uint64, now uint32) (*cell.Cell, error) {
	return tlb.ToCell(&tlb.InternalMessage{
		IHRDisabled: true, SrcAddr: address.NewAddress(0, 0, make([]byte, 32)), DstAddr: toTON(m.To),
		Amount: tlb.FromNanoTONU(m.Amount), CreatedLT: lt, CreatedAt: now, Body: cell.BeginCell().EndCell(),
	})
}

// errNotAccepted is what a liteserver says of a message no contract would pay for.
var errNotAccepted = errors.New("cannot apply external message to current state : External message was not accepted")

// push queues an external message if its contract would accept it now.
func (c *Chain) push(boc []byte) error {
	if len(boc) > maxExternalBytes {
		return fmt.Errorf("external message: got %d bytes, want at most %d", len(boc), maxExternalBytes)
	}
	m, err := cell.FromBOC(boc)
	if err != nil {
		return fmt.Errorf("external message: %w", err)
	}
	msg, err := tvm.PrepareMessage(m)
	if err != nil {
		return fmt.Errorf("external message: %w", err)
	}
	if msg.Message().MsgType != tlb.MsgTypeExternalIn {
		return fmt.Errorf("external message: type: got %s, want an inbound external", msg.Message().MsgType)
	}
	to, err := fromTON(msg.Message().Msg.DestAddr())
	if err != nil || to.Workchain() != 0 {
		return errors.New("external message: want a destination in workchain 0")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.externals) >= maxPending {
		return errors.New("too many external messages wait")
	}
	a, err := c.get(to)
	if err != nil {
		return err
	}
	ctx, err := c.network.prepared.NewBlockContext(tvm.BlockOptions{Now: c.blockTime(), GlobalID: c.network.globalID})
	if err != nil {
		return err
	}
	ok, err := c.vm.CheckExternalMessageAccepted(ctx, a.prepared, msg, tvm.TransactionOptions{})
	if err != nil {
		return err
	}
	if !ok {
		return errNotAccepted
	}
	for range c.faults.copies() {
		c.externals = append(c.externals, bytes.Clone(boc))
	}
	c.nudge()
	return nil
}

// sortedTxs orders a block's transactions as its dictionaries do.
func sortedTxs(txs []transaction) []transaction {
	txs = slices.Clone(txs)
	slices.SortFunc(txs, func(a, b transaction) int {
		if d := bytes.Compare(a.account[:], b.account[:]); d != 0 {
			return d
		}
		if a.lt < b.lt {
			return -1
		}
		return 1
	})
	return txs
}
