// Package enclave serves jobs inside a confidential VM.
//
// Serve makes keys that never leave the process, has the machine attest them,
// and runs sealed jobs on an engine for clients who pay first. It promises a
// client that its prompt reaches the engine alone, that no token is billed
// which its signed terms and vouchers do not cover, and that every job that was
// opened ends in a signed receipt, which is in the public log before the next
// but one checkpoint. It promises the machine's owner that no job runs unpaid
// beyond what DESIGN section 5 names. Nothing of a prompt or an answer reaches a
// log, an error or the host's store.
//
// It does not protect a prompt from a faulty engine, which sees plaintext, nor,
// from a crash, the owner's vouchers of the last VoucherFlush and the log's
// leaves since the last checkpoint.
package enclave

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"time"

	"cocoon/attestation"
	"cocoon/attestation/auditlog"
	"cocoon/attestation/auditlog/writer"
	"cocoon/attestation/channel"
	"cocoon/enclave/engine"
	"cocoon/enclave/evidence"
	"cocoon/enclave/meter"
)

// Defaults of a Config's tuning, and numbers that DESIGN fixes.
const (
	DefaultEpochLength  = attestation.MaxEpoch
	DefaultJobCeiling   = 10 * time.Minute
	DefaultVoucherFlush = 60 * time.Second
	DefaultDrain        = 30 * time.Second
	DefaultMaxJobs      = 1024

	channelFresh   = 10 * time.Minute // oldest proof that a channel is open
	channelRefresh = time.Minute      // between looks at served channels
	hpkeGrace      = 60 * time.Second // an HPKE key's life beyond not_after
	clockSkew      = 30 * time.Second // how far not_before lies back
	beaconTimeout  = 30 * time.Second
	quoteTimeout   = 30 * time.Second
	stopGrace      = time.Second     // for an engine to stop, before its job is settled without it
	freshInterval  = 5 * time.Second // between fresh quotes for one channel
)

// Release is what a bundle says about the image: documents that the worker
// passes on, and that clients judge.
type Release struct {
	Manifest     []byte // canonical CBOR of an attestation.Release
	Signatures   []attestation.ReleaseSignature
	PolicyFloors [][]byte // TOML documents that the registry names by digest
}

// Log is a boot's log. writer.Log is one.
type Log interface {
	Append(ctx context.Context, e auditlog.Entry) (uint64, error)
	// WaitCheckpoint returns a signed checkpoint that covers the entry at index.
	WaitCheckpoint(ctx context.Context, index uint64) ([]byte, error)
	Checkpoint() []byte
	Close(ctx context.Context) error
}

// HostStore is what the host keeps for the worker. A Put that returned is
// durable. host.Store is one. What it gives back is believed only as far as
// signatures and digests bear it out.
type HostStore interface {
	LogDir(logID [32]byte) string
	Predecessor(ctx context.Context) (auditlog.PredecessorEntry, error)
	LastBoot(ctx context.Context) (auditlog.Boot, bool, error)
	PutBoot(ctx context.Context, b auditlog.Boot) error
	Vouchers(ctx context.Context) (map[attestation.Address][]byte, error)
	PutVoucher(ctx context.Context, channel attestation.Address, raw []byte) error
	PutBase(ctx context.Context, logID [32]byte, channel attestation.Address, base [32]byte) error
	PutReceipts(ctx context.Context, logID [32]byte, channel attestation.Address, from uint64, list [][]byte) error
	Receipt(ctx context.Context, logID [32]byte, channel attestation.Address, index uint64) ([]byte, error)
	PutBundle(ctx context.Context, raw []byte) error
	Bundle(ctx context.Context, digest [32]byte) ([]byte, error)
}

// Config is what Serve needs. Fields without a default are required.
type Config struct {
	Listener net.Listener // taken over: Serve closes it
	Worker   attestation.WorkerConfig
	Release  Release
	Evidence evidence.Source
	Chain    Chain
	Store    HostStore
	Engine   engine.Engine // must have every model of Worker, under the same weights root

	// OpenLog opens the boot's log; nil is writer.Open in Store's folder, with
	// LogInterval between checkpoints (0: writer's default).
	OpenLog     func(ctx context.Context, key ed25519.PrivateKey) (Log, error)
	LogInterval time.Duration

	EpochLength  time.Duration // of a keyset; 0 is DefaultEpochLength, the most
	JobCeiling   time.Duration // longest job; 0 is DefaultJobCeiling
	VoucherFlush time.Duration // between flushes of vouchers to Store; 0 is DefaultVoucherFlush
	Drain        time.Duration // for open jobs at shutdown; 0 is DefaultDrain
	MaxJobs      int           // open jobs; 0 is DefaultMaxJobs
	MaxChannels  int           // channels per boot; 0 is meter.DefaultMaxChannels

	Now    func() time.Time // nil is time.Now
	Timer  meter.Timer      // nil is the real one
	Tick   meter.Timer      // delivers every d until stopped; nil is the real one
	Rand   io.Reader        // nil is crypto/rand.Reader; else safe for concurrent use
	Logger *slog.Logger     // event codes and counts, never content; nil discards
	Ready  func(Boot)       // called once when connections are served; may be nil
}

// Boot names what Serve has made at its start.
type Boot struct {
	Addr         net.Addr
	Number       uint64
	BootID       [32]byte
	LogID        [32]byte
	LogPublicKey [32]byte
}

// complete checks what is required and fills in defaults.
func (c *Config) complete() error {
	for name, missing := range map[string]bool{
		"listener": c.Listener == nil, "evidence": c.Evidence == nil, "chain": c.Chain == nil,
		"store": c.Store == nil, "engine": c.Engine == nil,
	} {
		if missing {
			return fmt.Errorf("worker: %s: got none", name)
		}
	}
	if _, err := attestation.ParseWorkerConfig(c.Worker.Encode()); err != nil {
		return fmt.Errorf("worker: %w", err)
	}
	if err := c.checkModels(); err != nil {
		return err
	}
	if c.Worker.GPUCount != 0 {
		return fmt.Errorf("worker: gpu_count: got %d, want 0: this worker gathers no GPU evidence", c.Worker.GPUCount)
	}
	for _, d := range []struct {
		name      string
		value     *time.Duration
		def, most time.Duration
	}{
		{"epoch length", &c.EpochLength, DefaultEpochLength, attestation.MaxEpoch},
		{"job ceiling", &c.JobCeiling, DefaultJobCeiling, time.Hour},
		{"voucher flush", &c.VoucherFlush, DefaultVoucherFlush, time.Hour},
		{"drain", &c.Drain, DefaultDrain, time.Hour},
	} {
		if *d.value == 0 {
			*d.value = d.def
		}
		if *d.value < time.Second || *d.value > d.most {
			return fmt.Errorf("worker: %s: got %s, want 1s to %s", d.name, *d.value, d.most)
		}
	}
	if c.MaxJobs <= 0 {
		c.MaxJobs = DefaultMaxJobs
	}
	c.defaults()
	return nil
}

func (c *Config) defaults() {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Timer == nil {
		c.Timer = func(d time.Duration) (<-chan time.Time, func() bool) {
			t := time.NewTimer(d)
			return t.C, t.Stop
		}
	}
	if c.Tick == nil {
		c.Tick = func(d time.Duration) (<-chan time.Time, func() bool) {
			t := time.NewTicker(d)
			return t.C, func() bool { t.Stop(); return true }
		}
	}
	if c.Rand == nil {
		c.Rand = rand.Reader
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.OpenLog == nil {
		c.OpenLog = func(ctx context.Context, key ed25519.PrivateKey) (Log, error) {
			id := attestation.LogID([32]byte(key.Public().(ed25519.PublicKey)))
			return writer.Open(ctx, writer.Config{Dir: c.Store.LogDir(id), Key: key, Interval: c.LogInterval})
		}
	}
}

// checkModels: what the config says to clients is what the engine has loaded.
func (c *Config) checkModels() error {
	roots := map[string]string{}
	for _, m := range c.Engine.Models() {
		roots[m.Name] = m.WeightsRoot
	}
	for _, m := range c.Worker.Models {
		root, ok := roots[m.Name]
		if !ok {
			return fmt.Errorf("worker: model %s: the engine has not loaded it", m.Name)
		}
		if root != m.WeightsRoot {
			return fmt.Errorf("worker: model %s: weights root: engine has %s, config says %s", m.Name, root, m.WeightsRoot)
		}
	}
	return nil
}

// price is the least that the worker takes for a model.
func (c *Config) price(model string) (attestation.Model, attestation.Prices, bool) {
	for i, m := range c.Worker.Models {
		if m.Name == model {
			return m, c.Worker.Prices[i].Min, true
		}
	}
	return attestation.Model{Name: model}, attestation.Prices{}, false
}

// random fills b.
func (c *Config) random(b []byte) error {
	if _, err := io.ReadFull(c.Rand, b); err != nil {
		return fmt.Errorf("worker: randomness: %w", err)
	}
	return nil
}

// errStopped is the cause of everything that a shutdown ends.
var errStopped = errors.New("worker: stopped")

// replayJobs bounds the jobs of one epoch.
const replayJobs = channel.DefaultReplayJobs
