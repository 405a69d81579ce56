package lite

import (
	"context"
	"errors"
	"fmt"
	"time"

	"cocoon/attestation"

	"github.com/xssnick/tonutils-go/ton"
)

// ErrExpired says that the network proved it: the message was not executed
// while it was valid, and never will be. Sending anew is safe.
var ErrExpired = errors.New("lite: message expired, and was not executed")

// ErrReplaced says that another message of the same key took the turn.
var ErrReplaced = errors.New("lite: another message used the wallet's seqno")

// RefusedError says that a contract did not do what it was sent for.
type RefusedError struct {
	To       attestation.Address
	ExitCode int32  // of its compute or action phase; 0 when nothing ran
	Reason   string // what happened to the message
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("lite: %s refused: %s, exit code %d", e.To, e.Reason, e.ExitCode)
}

// rebroadcast is how long an external may go unanswered before the same bytes
// are sent again; blocks, not the clock, tell what became of it.
const rebroadcast = 2 * time.Second

// Send signs msgs into one external and returns when each destination has
// executed its message, all proven. The same bytes are sent again until the
// wallet has taken them, which it does once: Send is safe against lost and
// repeated messages.
//
// It returns ErrExpired when nothing happened and nothing will, *RefusedError
// when a contract refused, and ErrReplaced when another message took this one's
// turn. With any other error, ctx's end among them, the messages may still be
// executed until Validity has passed: look at the destination before sending again.
func (w *Wallet) Send(ctx context.Context, msgs []Message) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	before, err := w.Account(ctx)
	if err != nil {
		return err
	}
	now := w.c.now()
	if before.At.Time.After(now) {
		now = before.At.Time
	}
	validity := w.Validity
	if validity <= 0 {
		validity = defaultValidity
	}
	x, err := w.sign(before, msgs, now.Add(validity))
	if err != nil {
		return fmt.Errorf("lite: send: %w", err)
	}
	after, err := w.execute(ctx, before, x)
	if err != nil {
		return err
	}
	tx, err := w.find(ctx, before, after, x)
	if err != nil {
		return err
	}
	return w.follow(ctx, tx, msgs)
}

// execute sends x until a proven state of the wallet has used its seqno.
func (w *Wallet) execute(ctx context.Context, before Account, x *external) (Account, error) {
	at := before.At.Seqno
	var refused error // the last thing a liteserver said of it
	for {
		sent, cancel := context.WithTimeout(ctx, rebroadcast)
		if err := w.c.push(sent, x.boc); err != nil {
			refused = err
		}
		h, err := w.c.next(sent, at)
		if err != nil {
			<-sent.Done() // whatever the reason, liteservers are not pressed
		}
		cancel()
		if ctx.Err() != nil {
			return Account{}, fmt.Errorf("lite: send: not confirmed: %w", errors.Join(ctx.Err(), refused))
		}
		if err != nil {
			continue // a liteserver's silence; the message is sent again
		}
		at = h.Seqno
		now, _, err := w.c.accountAt(ctx, h, w.addr)
		if err != nil {
			continue
		}
		n, err := seqno(now)
		if err != nil {
			return Account{}, fmt.Errorf("lite: wallet: seqno: %w", err)
		}
		if now.Active && n > x.seqno {
			return now, nil
		}
		if now.StateTime.Unix() >= x.validUntil {
			return Account{}, errors.Join(ErrExpired, refused)
		}
	}
}

// find returns the wallet's transaction that took x in.
func (w *Wallet) find(ctx context.Context, before, after Account, x *external) (*Tx, error) {
	txs, err := w.c.transactionsOf(ctx, after, before.LastLT)
	if err != nil {
		return nil, err
	}
	for _, tx := range txs {
		if x.in(tx) {
			return &tx, nil
		}
	}
	return nil, ErrReplaced
}

// follow checks that each message left the wallet and what its destination made of it.
func (w *Wallet) follow(ctx context.Context, tx *Tx, msgs []Message) error {
	if !tx.Success {
		return &RefusedError{To: w.addr, ExitCode: tx.ExitCode, Reason: "the wallet failed"}
	}
	if len(tx.Out) != len(msgs) {
		return &RefusedError{To: w.addr, Reason: fmt.Sprintf("the wallet sent %d of %d messages, for want of coins", len(tx.Out), len(msgs))}
	}
	for i, m := range tx.Out {
		if m.To != msgs[i].To || m.Amount != msgs[i].Amount {
			return fmt.Errorf("lite: send: message %d: got %d nano to %s, want %d to %s", i, m.Amount, m.To, msgs[i].Amount, msgs[i].To)
		}
		got, err := w.c.arrival(ctx, m)
		if err != nil {
			return err
		}
		switch {
		case got.Bounced:
			return &RefusedError{To: m.To, ExitCode: got.ExitCode, Reason: "it sent the value back"}
		case !got.Success && !got.Skipped:
			return &RefusedError{To: m.To, ExitCode: got.ExitCode, Reason: "it failed, and kept the value"}
		case got.Skipped && msgs[i].StateInit != nil:
			return &RefusedError{To: m.To, Reason: "it was not deployed"}
		}
	}
	return nil
}

// arrival waits for the transaction that took m in.
func (c *Client) arrival(ctx context.Context, m TxMessage) (*Tx, error) {
	h, _, err := c.head(ctx)
	for err == nil {
		var a Account
		if a, _, err = c.accountAt(ctx, h, m.To); err != nil {
			break
		}
		var txs []Tx
		if txs, err = c.transactionsOf(ctx, a, m.CreatedLT); err != nil {
			break
		}
		for _, tx := range txs {
			if tx.In != nil && tx.In.Hash == m.Hash {
				return &tx, nil
			}
		}
		h, err = c.next(ctx, h.Seqno)
	}
	return nil, fmt.Errorf("lite: message to %s: not seen to arrive: %w", m.To, err)
}

// next waits for a proven head after block seqno.
func (c *Client) next(ctx context.Context, seqno uint32) (header, error) {
	for {
		h, _, err := c.headAfter(ctx, seqno+1)
		if ctx.Err() != nil {
			return header{}, ctx.Err()
		}
		if ls := (ton.LSError{}); errors.As(err, &ls) && ls.Code == 652 {
			continue // it waited in vain; blocks can be slow
		}
		if err == nil && h.Seqno <= seqno {
			err = ErrStale
		}
		return h, err
	}
}

// push hands an external to a liteserver. An error says little: after the
// message was executed every liteserver refuses it.
func (c *Client) push(ctx context.Context, boc []byte) error {
	_, err := ask[ton.SendMessageStatus](ctx, c, 0, ton.SendMessage{Body: boc})
	return err
}
