package channel

import (
	"crypto/sha256"
	"fmt"
	"sync"
)

// DefaultReplayJobs bounds the jobs of one key epoch: 436 a second over its
// ten minutes and the minute after, at about 100 bytes of memory each.
const DefaultReplayJobs = 1 << 18

// Replay is the set of encapsulated keys and job ids that one HPKE key has
// seen. Make one per EpochKeys, and keep it as long. It forgets nothing before
// Close: when it is full, it refuses. Its zero value refuses everything.
type Replay struct {
	mu   sync.Mutex
	max  int
	jobs map[[16]byte]struct{}
	encs map[[32]byte]struct{} // by SHA-256
}

// NewReplay makes a set for at most max jobs.
func NewReplay(max int) *Replay {
	return &Replay{max: max, jobs: make(map[[16]byte]struct{}), encs: make(map[[32]byte]struct{})}
}

// Close forgets everything and refuses from now on. It is for when the key is
// gone, while connections may still hold on to the epoch.
func (r *Replay) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.jobs, r.encs = nil, nil
}

// add records both or refuses, as one step.
func (r *Replay) add(job [16]byte, enc []byte) error {
	if r == nil {
		return refuse("open.full", "no replay set was made")
	}
	sum := sha256.Sum256(enc)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.jobs == nil {
		return refuse("open.full", "no replay set was made, or it was closed")
	}
	if _, seen := r.jobs[job]; seen {
		return refuse("open.replay", "job id %x was seen under this key", job)
	}
	if _, seen := r.encs[sum]; seen {
		return refuse("open.replay", "encapsulated key was seen under this key")
	}
	if len(r.jobs) >= r.max {
		return &RefusedError{"open.full", fmt.Errorf("%d jobs were opened under this key", len(r.jobs))}
	}
	r.jobs[job], r.encs[sum] = struct{}{}, struct{}{}
	return nil
}
