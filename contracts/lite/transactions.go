package lite

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"cocoon/attestation"
	"cocoon/contracts"

	"github.com/xssnick/tonutils-go/address"
	"github.com/xssnick/tonutils-go/tlb"
	"github.com/xssnick/tonutils-go/ton"
	"github.com/xssnick/tonutils-go/tvm/cell"
)

// Tx is one transaction of an account.
type Tx struct {
	LT      uint64
	Hash    [32]byte
	Time    time.Time
	In      *TxMessage // nil: none, as in a tick-tock transaction
	Out     []TxMessage
	Success bool // it ran, and its actions were done
	// ExitCode is the compute phase's, or the action phase's if only that
	// failed; 0 when nothing ran.
	ExitCode int32
	Skipped  bool   // no code ran: none is there, or too little gas
	Bounced  bool   // the value went back to the sender
	Fees     uint64 // nano

	prevLT   uint64
	prevHash [32]byte
}

// TxMessage is a message that a transaction took in or sent out.
type TxMessage struct {
	Internal  bool                // between contracts; else to or from outside
	From, To  attestation.Address // zero for outside
	Amount    uint64              // nano
	Bounced   bool                // it is a bounce
	CreatedLT uint64              // unique per sender
	Body      *cell.Cell
	Hash      [32]byte
}

// Bounds on histories.
const (
	maxTransactions = 60_000 // of one account
	maxTxBytes      = 1 << 20
	txPerQuery      = 16
)

// Transactions returns an account's transactions with a logical time above
// afterLT, oldest first, proven back from the account's state at the head.
func (c *Client) Transactions(ctx context.Context, addr attestation.Address, afterLT uint64) ([]Tx, error) {
	a, err := c.Account(ctx, addr)
	if err != nil {
		return nil, err
	}
	return c.transactionsOf(ctx, a, afterLT)
}

func (c *Client) transactionsOf(ctx context.Context, a Account, afterLT uint64) ([]Tx, error) {
	cells, err := c.history(ctx, a, afterLT)
	if err != nil {
		return nil, fmt.Errorf("lite: transactions of %s: %w", a.Address, err)
	}
	txs, err := readHistory(a, cells, afterLT)
	if err != nil {
		return nil, fmt.Errorf("lite: transactions of %s: %w", a.Address, err)
	}
	return txs, nil
}

// history fetches transaction cells, newest first, as far as afterLT.
func (c *Client) history(ctx context.Context, a Account, afterLT uint64) ([]*cell.Cell, error) {
	var all []*cell.Cell
	lt, hash, id := a.LastLT, a.LastHash, a.Address.ID()
	for lt > afterLT && lt > 0 {
		list, err := ask[ton.TransactionList](ctx, c, a.At.Seqno, ton.GetTransactions{
			Limit: txPerQuery, AccID: &ton.AccountID{Workchain: a.Address.Workchain(), ID: id[:]}, LT: int64(lt), TxHash: hash[:],
		})
		if err != nil {
			return nil, err
		}
		roots, err := cell.FromBOCMultiRootWithOptions(list.Transactions, cell.BOCParseOptions{MaxCells: len(list.Transactions)/2 + 1})
		if err != nil {
			return nil, err
		}
		if len(roots) == 0 || len(roots)+len(all) > maxTransactions {
			return nil, fmt.Errorf("got %d and %d more, want 1 to %d", len(all), len(roots), maxTransactions)
		}
		for _, root := range roots {
			if lt <= afterLT || lt == 0 {
				break
			}
			tx, err := readTx(a.Address, root, lt, hash)
			if err != nil {
				return nil, err
			}
			all, lt, hash = append(all, root), tx.prevLT, tx.prevHash
		}
	}
	return all, nil
}

// readHistory verifies the hash chain from a's last transaction back to
// afterLT, and returns it oldest first.
func readHistory(a Account, cells []*cell.Cell, afterLT uint64) (txs []Tx, err error) {
	lt, hash := a.LastLT, a.LastHash
	for _, root := range cells {
		if lt <= afterLT || lt == 0 {
			break
		}
		tx, err := readTx(a.Address, root, lt, hash)
		if err != nil {
			return nil, err
		}
		txs, lt, hash = append(txs, tx), tx.prevLT, tx.prevHash
	}
	if lt > afterLT && lt > 0 {
		return nil, fmt.Errorf("got %d transactions, want more, down to logical time %d", len(txs), lt)
	}
	slices.Reverse(txs)
	return txs, nil
}

// readTx reads the transaction that the chain names next.
func readTx(addr attestation.Address, root *cell.Cell, lt uint64, hash [32]byte) (tx Tx, err error) {
	defer recoverParse(&err)
	if got := root.HashKey(); got != hash {
		return Tx{}, fmt.Errorf("hash: got %x, want %x", got, hash)
	}
	var t tlb.Transaction
	if err := tlb.Parse(&t, root); err != nil {
		return Tx{}, err
	}
	id := addr.ID()
	if !bytes.Equal(t.AccountAddr, id[:]) || t.LT != lt || len(t.PrevTxHash) != 32 || t.PrevTxLT >= lt {
		return Tx{}, fmt.Errorf("got logical time %d after %d, want %d of this account", t.LT, t.PrevTxLT, lt)
	}
	fees := t.TotalFees.Coins.Nano()
	if !fees.IsUint64() {
		return Tx{}, fmt.Errorf("fees: got %s nano, want less than 2^64", fees)
	}
	tx = Tx{
		LT: lt, Hash: hash, Time: time.Unix(int64(t.Now), 0).UTC(), Fees: fees.Uint64(),
		prevLT: t.PrevTxLT, prevHash: [32]byte(t.PrevTxHash),
	}
	tx.outcome(t.Description)
	return tx, tx.messages(root, int(t.OutMsgCount))
}

func (t *Tx) outcome(description any) {
	var compute tlb.ComputePhase
	var action *tlb.ActionPhase
	switch d := description.(type) {
	case tlb.TransactionDescriptionOrdinary:
		compute, action, t.Success = d.ComputePhase, d.ActionPhase, !d.Aborted
		if d.BouncePhase != nil {
			_, t.Bounced = d.BouncePhase.Phase.(tlb.BouncePhaseOk)
		}
	case tlb.TransactionDescriptionTickTock:
		compute, action, t.Success = d.ComputePhase, d.ActionPhase, !d.Aborted
	default:
		return
	}
	switch p := compute.Phase.(type) {
	case tlb.ComputePhaseSkipped:
		t.Skipped = true
	case tlb.ComputePhaseVM:
		t.ExitCode = p.Details.ExitCode
		t.Success = t.Success && p.Success
		if p.Success && action != nil && !action.Success {
			t.ExitCode, t.Success = action.ResultCode, false
		}
	}
}

// messages reads ^[in_msg:(Maybe ^Message) out_msgs:(HashmapE 15 ^Message)]
// by hand, since messages are named by the hash of their own cells.
func (t *Tx) messages(root *cell.Cell, count int) error {
	io, err := root.PeekRef(0)
	if err != nil {
		return err
	}
	s, err := io.BeginParse()
	if err != nil {
		return err
	}
	has, err := s.LoadBoolBit()
	if err != nil {
		return err
	}
	if has {
		m, err := s.LoadRefCell()
		if err != nil {
			return err
		}
		in, err := readMessage(m)
		if err != nil {
			return fmt.Errorf("message in: %w", err)
		}
		t.In = &in
	}
	out, err := s.LoadDict(15)
	if err != nil {
		return err
	}
	if out == nil || out.IsEmpty() {
		if count != 0 {
			return fmt.Errorf("messages out: got none, want %d", count)
		}
		return nil
	}
	list, err := out.LoadAll()
	if err != nil {
		return err
	}
	if len(list) != count {
		return fmt.Errorf("messages out: got %d, want %d", len(list), count)
	}
	for _, kv := range list {
		m, err := kv.Value.LoadRefCell()
		if err != nil {
			return err
		}
		msg, err := readMessage(m)
		if err != nil {
			return fmt.Errorf("message out: %w", err)
		}
		t.Out = append(t.Out, msg)
	}
	return nil
}

func readMessage(root *cell.Cell) (TxMessage, error) {
	var m tlb.Message
	if err := tlb.Parse(&m, root); err != nil {
		return TxMessage{}, err
	}
	out := TxMessage{Hash: root.HashKey(), Body: m.Msg.Payload()}
	var err error
	switch x := m.Msg.(type) {
	case *tlb.InternalMessage:
		if !x.Amount.Nano().IsUint64() {
			return TxMessage{}, fmt.Errorf("amount: got %s nano, want less than 2^64", x.Amount.Nano())
		}
		out.Internal, out.Amount, out.Bounced, out.CreatedLT = true, x.Amount.Nano().Uint64(), x.Bounced, x.CreatedLT
		if out.From, err = contracts.FromTON(x.SrcAddr); err != nil {
			return TxMessage{}, err
		}
		out.To, err = plainOrNone(x.DstAddr)
	case *tlb.ExternalMessage:
		out.To, err = contracts.FromTON(x.DstAddr)
	case *tlb.ExternalMessageOut:
		out.CreatedLT = x.CreatedLT
		out.From, err = contracts.FromTON(x.SrcAddr)
	default:
		err = errors.New("type: got none that is known")
	}
	return out, err
}

// plainOrNone allows what an internal message may name and this project never
// pays: an address of another form is the zero address.
func plainOrNone(a *address.Address) (attestation.Address, error) {
	if a == nil || a.Type() != address.StdAddress || a.Anycast() != nil {
		return attestation.Address{}, nil
	}
	return contracts.FromTON(a)
}
