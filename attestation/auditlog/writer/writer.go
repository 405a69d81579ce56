// Package writer appends to a worker's log and signs its checkpoints.
//
// It promises that an index it returns is durable, and that every checkpoint
// it signs extends the one before. It keeps one log per boot in one folder; it
// does not protect against a host that rolls the folder back, which the next
// boot's predecessor entry and the clients' receipts bring to light.
package writer

import (
	"context"
	"crypto/ed25519"
	"errors"
	"time"

	"cocoon/attestation/auditlog"
)

// Config makes a Log.
type Config struct {
	Dir      string             // the log's own folder; made if absent
	Key      ed25519.PrivateKey // the boot's log key: it signs checkpoints and nothing else
	Interval time.Duration      // between checkpoints; 0 is a second, the floor is 100 ms
}

// Log is a log open for appending. It is safe for concurrent use.
type Log struct{}

// Open opens or makes the log of c.Key in c.Dir.
func Open(ctx context.Context, c Config) (*Log, error) {
	return nil, errors.New("log writer: not complete")
}

// LogID names the log.
func (l *Log) LogID() [32]byte { return [32]byte{} }

// Append adds an entry and returns its index once it is durable. A checkpoint
// that covers it follows within the interval.
func (l *Log) Append(ctx context.Context, e auditlog.Entry) (uint64, error) {
	return 0, errors.New("log writer: not complete")
}

// Checkpoint is the latest signed checkpoint. It is never empty.
func (l *Log) Checkpoint() []byte { return nil }

// WaitCheckpoint returns the first checkpoint it sees that covers index.
func (l *Log) WaitCheckpoint(ctx context.Context, index uint64) ([]byte, error) {
	return nil, errors.New("log writer: not complete")
}

// Close publishes a checkpoint over everything appended, and ends the log.
func (l *Log) Close(ctx context.Context) error { return errors.New("log writer: not complete") }
