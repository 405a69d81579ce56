package session

import (
	"errors"
	"sync"

	"cocoon/attestation/channel"
	"cocoon/contracts/payout"
	"cocoon/proxy/ledger"
)

// Window is how many completion tokens a client pays ahead (DESIGN section 5).
const Window = 256

// lookahead is how many tokens are left of a window when the next one is bought.
const lookahead = 128

// windows counts the completion tokens that a job wants paid, and has paid.
type windows struct {
	ceiling uint64

	mu     sync.Mutex
	wanted uint64 // whole windows, up to the ceiling
	bought uint64 // beyond the first window
	buying bool
	err    error // why buying stopped
}

// want takes how far the answer has come, and reports whether the caller must
// start buyWindows.
func (w *windows) want(tokens uint64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	grew := false
	for w.wanted < w.ceiling && tokens+lookahead > w.wanted {
		w.wanted = min(w.wanted+Window, w.ceiling)
		grew = true
	}
	start := grew && !w.buying && w.err == nil
	w.buying = w.buying || start
	return start
}

// next is the count to buy next; ok is false, and buying over, if there is none.
func (w *windows) next(err error) (to uint64, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		w.err = err
	}
	if w.err != nil || w.bought == w.wanted {
		w.buying = false
		return 0, false
	}
	w.bought = w.wanted
	return w.wanted, true
}

// failed is why buying stopped, unless the job simply ended.
func (w *windows) failed() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if errors.Is(w.err, ledger.ErrJobEnded) {
		return nil
	}
	return w.err
}

// buyWindows buys what is wanted until nothing is. The disk is waited for here,
// not where tokens pass.
func (j *Job) buyWindows() {
	to, ok := j.windows.next(nil)
	for ok {
		to, ok = j.windows.next(j.buy(to))
	}
}

// buy signs and sends the voucher for so many completion tokens.
func (j *Job) buy(tokens uint64) error {
	nano, err := payout.Ceiling(j.terms.PromptCeiling, tokens, j.terms.Prices)
	if err != nil {
		return err
	}
	c, err := j.signer.Raise(j.s.logID, j.id, nano)
	if err != nil {
		return err
	}
	u := channel.VoucherUpdate{Voucher: c.Voucher, LogID: c.LogID, Count: c.Count}
	return j.pacer.Put(j.ctx, channel.Frame{Type: channel.FrameVoucher, Data: u.Encode()})
}
