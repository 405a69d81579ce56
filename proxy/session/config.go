package session

import (
	"context"
	"io"
	"time"

	"cocoon/attestation"
	"cocoon/attestation/channel"
	"cocoon/contracts"
	"cocoon/enclave/api"
	"cocoon/proxy/ledger"
)

// Chain reads proven state. Whatever it returns was proven from a block that
// the client's trust store reaches; how old that may be, the callers check.
type Chain interface {
	// Registry is the network's registry, or nil for a client without one.
	Registry(ctx context.Context) (*attestation.RegistryView, error)
	// Record is a worker's record and when it was proven. It returns
	// view.ErrAbsent if there is none.
	Record(ctx context.Context, workerID attestation.Address) (contracts.WorkerRecord, time.Time, error)
	// Channel is a payment channel, its balance in nano, and when both were
	// proven. It returns view.ErrAbsent if nothing was deployed there.
	Channel(ctx context.Context, address attestation.Address) (s contracts.ChannelState, balance uint64, provenAt time.Time, err error)
	// GlobalID is the network's.
	GlobalID(ctx context.Context) (int32, error)
}

// Opener opens payment channels from the client's wallet.
type Opener interface {
	// Client is the wallet: it may close a channel, and gets what is left.
	Client() attestation.Address
	// OpenChannel deploys the channel with deposit nano above the reserve, and
	// returns once the chain proves it open. Opening it again is no error.
	OpenChannel(ctx context.Context, init contracts.ChannelInit, deposit uint64) error
}

// Config is what every session of a client shares.
type Config struct {
	Verifier *attestation.Verifier
	Ledger   *ledger.Ledger
	Chain    Chain
	Opener   Opener // nil: channels must be in the ledger already
	Deposit  uint64 // nano above the reserve, for a channel that Opener opens
	// MaxOpenings is how many channels may be opened in a day, to all workers
	// together; 0 for DefaultMaxOpenings.
	MaxOpenings int
	MaxPrice    uint64        // nano per million tokens of any kind; a model that costs more is not offered. 0 for no bound
	Shape       channel.Shape // the zero value pads and paces
	Restore     bool          // adopt own vouchers and receipts that the ledger has lost
	Dialer      api.Dialer
	Now         func() time.Time
	Rand        io.Reader
}

// DefaultMaxOpenings is how many channels may be opened in openingsPeriod.
const (
	DefaultMaxOpenings = 16
	openingsPeriod     = 24 * time.Hour
)

// spareJobs is how many jobs a session keeps prepared.
const spareJobs = 4

// Time limits. They bound a peer that says nothing, and no answer.
const (
	connectTimeout = 20 * time.Second
	helloTimeout   = 20 * time.Second // from a job's opening to the worker's first frame
	stateAge       = 10 * time.Minute // of a channel's proven state (DESIGN section 5)
	stateRefresh   = 5 * time.Second  // between looks at a channel that cannot pay
	unprovenWait   = 500 * time.Millisecond
	unprovenTries  = 20 // unprovenWait apart, for a worker to see a new channel
	paidTries      = 4  // unprovenWait apart, for this client to see a redeem
)
