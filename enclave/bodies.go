package enclave

import (
	"sync"

	"cocoon/attestation"
)

// Bounds on the bodies that are held at once, in bytes. Checking and running a
// body takes several times its size.
const (
	maxBodies       = 256 << 20
	maxChannelBytes = 64 << 20 // of one channel
)

// bodies counts the bytes of open jobs' bodies.
type bodies struct {
	mu    sync.Mutex
	total int
	by    map[attestation.Address]int
}

func newBodies() *bodies { return &bodies{by: map[attestation.Address]int{}} }

func (b *bodies) take(channel attestation.Address, n int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.total+n > maxBodies || b.by[channel]+n > maxChannelBytes {
		return false
	}
	b.total += n
	b.by[channel] += n
	return true
}

func (b *bodies) give(channel attestation.Address, n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.total -= n
	if b.by[channel] -= n; b.by[channel] == 0 {
		delete(b.by, channel)
	}
}
