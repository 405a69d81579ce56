// Package meter decides how far a worker may go on a client's money.
//
// A client pays first: vouchers, signed by its channel's key, raise a channel's
// credit, and a job spends it in one prompt and windows of completion tokens.
// The package promises that no token is granted which credit does not cover,
// over all jobs that run at once on a channel; that what was counted as spent
// at boot is never sold twice; that a voucher counts only if the channel would
// pay it and its head is this worker's own; and that what a job is billed is
// at most what was granted to it (DESIGN section 5).
//
// It reads no clock, opens no connection and stores nothing: its caller makes
// vouchers and receipts durable, and says what the chain has proven. It does
// not check that a token was worth its price.
package meter

import (
	"fmt"
	"sync"
	"time"

	"cocoon/attestation"
)

// What a window is and how long a job waits for the next one (DESIGN section 5).
const (
	Window     = 256             // completion tokens
	CreditWait = 5 * time.Second // without credit, before a job is aborted
)

// Bounds used where Config leaves them zero.
const (
	DefaultMaxJobs     = 256  // open jobs per channel
	DefaultMaxChannels = 4096 // channels per boot
)

// Names of refusals.
const (
	VoucherParse     = "voucher.parse"     // not a voucher at all
	VoucherNetwork   = "voucher.network"   // of another TON network
	VoucherChannel   = "voucher.channel"   // of another channel
	VoucherSignature = "voucher.signature" // not by the channel's client key
	VoucherLog       = "voucher.log"       // its head is over another worker's or boot's log
	VoucherHead      = "voucher.head"      // its head is not ours at the stated count
	VoucherBalance   = "voucher.balance"   // more than the channel can pay
	CreditShort      = "credit.short"      // the opening voucher does not cover prompt and first window
	CreditTimeout    = "credit.timeout"    // no voucher for the next window in time
	CeilingPrompt    = "ceiling.prompt"    // more prompt tokens than the signed terms allow
	CeilingComplete  = "ceiling.completion"
	CeilingTotal     = "ceiling.total"
	LimitJobs        = "limit.jobs"
	LimitChannels    = "limit.channels"
)

// Refusal is money or a count that does not suffice. Nothing was granted.
type Refusal struct {
	Name      string // one of the names above
	Got, Want string
}

func (r *Refusal) Error() string { return fmt.Sprintf("%s: got %s, want %s", r.Name, r.Got, r.Want) }

func refuse(name string, got, want any) error {
	return &Refusal{name, fmt.Sprint(got), fmt.Sprint(want)}
}

// Timer starts one wait of d; fired delivers once, unless stop comes before.
type Timer func(d time.Duration) (fired <-chan time.Time, stop func() bool)

// Config is what a meter needs.
type Config struct {
	GlobalID    int32    // of the TON network that vouchers must name
	LogID       [32]byte // of this boot's log
	Timer       Timer    // measures CreditWait
	MaxJobs     int      // open jobs per channel; 0 for DefaultMaxJobs
	MaxChannels int      // 0 for DefaultMaxChannels
}

// Meter counts for all channels of one boot. It is safe for concurrent use.
type Meter struct {
	cfg      Config
	mu       sync.Mutex
	accounts map[attestation.Address]*Account
}

// New makes an empty meter.
func New(cfg Config) (*Meter, error) {
	if cfg.Timer == nil {
		return nil, fmt.Errorf("meter: timer: got none")
	}
	if cfg.LogID == [32]byte{} {
		return nil, fmt.Errorf("meter: log id: got zero")
	}
	if cfg.MaxJobs <= 0 {
		cfg.MaxJobs = DefaultMaxJobs
	}
	if cfg.MaxChannels <= 0 {
		cfg.MaxChannels = DefaultMaxChannels
	}
	return &Meter{cfg: cfg, accounts: map[attestation.Address]*Account{}}, nil
}

// Account returns a channel's account, or nil if it was not opened.
func (m *Meter) Account(channel attestation.Address) *Account {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.accounts[channel]
}

// Accounts lists all accounts, in no order.
func (m *Meter) Accounts() []*Account {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]*Account, 0, len(m.accounts))
	for _, a := range m.accounts {
		out = append(out, a)
	}
	return out
}
