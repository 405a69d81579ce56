package channel

import "time"

// Shape says how much a job's frames tell an observer. The zero value hides
// the most.
//
// With ShapeOn every sealed frame is padded to a fixed size, and once the body
// is out both ends send one constant-size frame per TickInterval, data if any
// is queued, else filler, so that neither the lengths nor the times of tokens
// show (Whisper Leak, arXiv 2511.03675). What still shows: that a job runs, its
// length rounded to EndTicks ticks, and the body's length rounded up to the
// buckets below.
//
// The cost, per shaped job: 80 KiB/s from the worker and 10 KiB/s from the
// client whatever is said; half a tick of delay on average, one at most; an
// answer no faster than one tick frame's payload per tick (about 80 kB/s); and
// up to EndTicks ticks before the receipt.
type Shape uint8

// The two shapes. Unpadded frames show the length and the time of every token
// to whoever sees the connection.
const (
	ShapeOn          Shape = 0
	ShapeOffUnpadded Shape = 1
)

// The shape's constants. Sizes are of sealed frames on the wire, in bytes.
// Longer frames take the next bucket, four times the last, up to MaxWireBytes:
// 512, 2 Ki, 8 Ki, 32 Ki, 128 Ki, 256 Ki from a client and 4 Ki, 16 Ki, 64 Ki,
// 256 Ki from a worker.
const (
	TickInterval    = 50 * time.Millisecond
	ClientTickBytes = 512
	WorkerTickBytes = 4 << 10
	EndTicks        = 8 // a job's last frame leaves on a multiple of this many ticks
)

func (s Shape) valid() bool { return s == ShapeOn || s == ShapeOffUnpadded }

func (s Shape) String() string {
	switch s {
	case ShapeOn:
		return "on"
	case ShapeOffUnpadded:
		return "off"
	}
	return "unknown"
}

// wire is the size that a sealed frame of at least n bytes is sent with.
func (s Shape) wire(floor, n int) int {
	if s == ShapeOffUnpadded {
		return n
	}
	b := floor
	for b < n {
		b *= 4
	}
	return min(b, MaxWireBytes)
}

// fits reports whether n is a size that wire returns.
func (s Shape) fits(floor, n int) bool { return n <= MaxWireBytes && s.wire(floor, n) == n }
