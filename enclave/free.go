package enclave

import (
	"sync"
	"time"

	"google.golang.org/grpc/codes"

	"cocoon/attestation"
	"cocoon/enclave/api"
)

// Jobs that end with nothing to bill cost their client nothing, and the worker
// a receipt, a leaf of its log and a place in its replay set. A channel has
// freeBurst of them, and one more every freeEvery.
const (
	freeBurst = 128
	freeEvery = 500 * time.Millisecond
)

// freeJobs counts them. Only the holder of a channel's key can use them up.
type freeJobs struct {
	mu   sync.Mutex
	full map[attestation.Address]time.Time // when all of freeBurst are there again; of channels with an account, so bounded
}

func newFreeJobs() *freeJobs { return &freeJobs{full: map[attestation.Address]time.Time{}} }

// check refuses a channel that has none left.
func (f *freeJobs) check(channel attestation.Address, now time.Time) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.full[channel].Sub(now) > (freeBurst-1)*freeEvery {
		return api.Refuse(codes.ResourceExhausted, "channel.refusals", "too many of this channel's jobs ended with nothing to bill")
	}
	return nil
}

// spend takes one.
func (f *freeJobs) spend(channel attestation.Address, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	from := f.full[channel]
	if from.Before(now) {
		from = now
	}
	f.full[channel] = from.Add(freeEvery)
}
