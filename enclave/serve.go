package enclave

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"cocoon/attestation"
	"cocoon/attestation/auditlog"
	"cocoon/contracts"
	"cocoon/enclave/api"
	"cocoon/enclave/meter"
)

// server is one boot.
type server struct {
	cfg       Config
	bound     attestation.Allowances
	checks    contracts.WorkerChecks
	bootID    [32]byte
	secret    [32]byte // of this VM: cache salts
	logKey    [32]byte // public
	logID     [32]byte
	log       Log
	meter     *meter.Meter
	channels  *channels
	receipts  receipts
	publisher *publisher
	fresh     freshLimit
	free      *freeJobs
	bodies    *bodies
	slots     chan struct{} // one per open job

	current atomic.Pointer[epoch]
	live    sync.Map // number -> *epoch whose keys are alive, the current one's too

	fail   context.CancelCauseFunc // ends the boot: what must be durable is not
	group  sync.WaitGroup          // background work
	abort  context.Context         // ends every open job
	cancel context.CancelCauseFunc // of abort

	admission sync.Mutex
	stopped   bool // no new job may begin
	jobs      sync.WaitGroup
}

// Serve runs a worker until ctx ends, then lets open jobs finish for at most
// Drain, hands all vouchers to the host, closes the log and returns nil. It
// returns an error if it cannot start, or if what must be durable (the log, the
// host's store) fails while it runs.
func Serve(ctx context.Context, cfg Config) error {
	if cfg.Listener != nil {
		defer cfg.Listener.Close()
	}
	if err := cfg.complete(); err != nil {
		return err
	}
	s, first, boot, err := start(ctx, cfg)
	if err != nil {
		return err
	}
	return s.serve(ctx, first, boot)
}

// start makes the boot's keys, its log and its first epoch.
func start(ctx context.Context, cfg Config) (*server, *epoch, Boot, error) {
	manifest, err := attestation.ParseRelease(cfg.Release.Manifest)
	if err != nil {
		return nil, nil, Boot{}, fmt.Errorf("worker: %w", err)
	}
	s := &server{
		cfg: cfg, bound: manifest.Allowances,
		checks: contracts.WorkerChecks{WorkerID: cfg.Worker.WorkerID, Payout: cfg.Worker.PayoutAddress, Redeemer: cfg.Worker.Redeemer},
		slots:  make(chan struct{}, cfg.MaxJobs), receipts: newReceipts(), publisher: newPublisher(), fresh: newFreshLimit(), free: newFreeJobs(), bodies: newBodies(),
	}
	var seed [ed25519.SeedSize]byte
	for _, b := range [][]byte{s.bootID[:], s.secret[:], seed[:]} {
		if err := cfg.random(b); err != nil {
			return nil, nil, Boot{}, err
		}
	}
	key := ed25519.NewKeyFromSeed(seed[:])
	clear(seed[:])
	s.logKey = [32]byte(key.Public().(ed25519.PublicKey))
	s.logID = attestation.LogID(s.logKey)
	global, err := cfg.Chain.GlobalID(ctx)
	if err != nil {
		return nil, nil, Boot{}, fmt.Errorf("worker: chain: global id: %w", err)
	}
	if s.meter, err = meter.New(meter.Config{GlobalID: global, LogID: s.logID, Timer: cfg.Timer, MaxChannels: cfg.MaxChannels}); err != nil {
		return nil, nil, Boot{}, err
	}
	stored, err := cfg.Store.Vouchers(ctx)
	if err != nil {
		return nil, nil, Boot{}, fmt.Errorf("worker: host store: vouchers: %w", err)
	}
	s.channels = newChannels(stored)
	boot, err := s.openLog(ctx, key)
	if err != nil {
		return nil, nil, Boot{}, err
	}
	first, err := s.newEpoch(ctx, 1)
	if err != nil {
		return nil, nil, Boot{}, errors.Join(fmt.Errorf("worker: %w", err), s.log.Close(context.WithoutCancel(ctx)))
	}
	return s, first, boot, nil
}

// openLog opens the boot's log. Its first leaf names the boot before; only then
// does the host learn of this boot, so that every boot on record has that leaf.
func (s *server) openLog(ctx context.Context, key ed25519.PrivateKey) (Boot, error) {
	before, err := s.cfg.Store.Predecessor(ctx)
	if err != nil {
		return Boot{}, fmt.Errorf("worker: host store: predecessor: %w", err)
	}
	last, _, err := s.cfg.Store.LastBoot(ctx)
	if err != nil {
		return Boot{}, fmt.Errorf("worker: host store: last boot: %w", err)
	}
	if s.log, err = s.cfg.OpenLog(ctx, key); err != nil {
		return Boot{}, fmt.Errorf("worker: log: %w", err)
	}
	if _, err = s.log.Append(ctx, before); err != nil {
		err = fmt.Errorf("worker: log: predecessor: %w", err)
	} else {
		err = s.cfg.Store.PutBoot(ctx, auditlog.Boot{
			Version: auditlog.BootVersion, Number: last.Number + 1, WorkerID: s.cfg.Worker.WorkerID, BootID: s.bootID,
			LogPublicKey: s.logKey, Started: s.cfg.Now().Unix(),
		})
	}
	if err != nil {
		return Boot{}, errors.Join(err, s.log.Close(context.WithoutCancel(ctx)))
	}
	return Boot{Addr: s.cfg.Listener.Addr(), Number: last.Number + 1, BootID: s.bootID, LogID: s.logID, LogPublicKey: s.logKey}, nil
}

func (s *server) serve(ctx context.Context, first *epoch, boot Boot) error {
	ctx, s.fail = context.WithCancelCause(ctx)
	defer s.fail(nil)
	s.abort, s.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	defer s.cancel(errStopped)

	s.begin(ctx, first)
	g := grpc.NewServer(api.ServerOptions(func() api.Identity { return s.current.Load().identity })...)
	api.Register(g, s)
	s.background(func() error { return s.rotate(ctx) })
	s.background(func() error { return s.watch(ctx) })
	s.background(func() error { return s.flushEvery(ctx) })
	s.background(func() error { return s.publishRounds(ctx) })
	s.group.Go(func() {
		if err := g.Serve(s.cfg.Listener); err != nil && ctx.Err() == nil && !errors.Is(err, net.ErrClosed) {
			s.fail(fmt.Errorf("worker: listener: %w", err))
		}
	})
	s.event("worker.ready", "boot", boot.Number)
	if s.cfg.Ready != nil {
		s.cfg.Ready(boot)
	}
	<-ctx.Done()
	cause := context.Cause(ctx)
	err := s.shutdown(g)
	if !errors.Is(cause, context.Canceled) && !errors.Is(cause, context.DeadlineExceeded) {
		err = errors.Join(cause, err)
	}
	return err
}

// shutdown lets open jobs end, then makes durable what the boot leaves behind.
func (s *server) shutdown(g *grpc.Server) error {
	ctx := context.WithoutCancel(s.abort)
	s.admission.Lock()
	s.stopped = true
	s.admission.Unlock()
	s.event("worker.draining")
	drained := make(chan struct{})
	go func() { s.jobs.Wait(); close(drained) }()
	fired, stop := s.cfg.Timer(s.cfg.Drain)
	select {
	case <-drained:
	case <-fired:
		s.cancel(errStopped)
		<-drained // each settles within stopGrace
	}
	stop()
	s.hangUp(g)
	s.group.Wait()
	err := errors.Join(s.publish(ctx), s.flush(ctx))
	s.live.Range(func(_, e any) bool {
		err = errors.Join(err, s.closeEpoch(ctx, e.(*epoch)))
		return true
	})
	err = errors.Join(err, s.log.Close(ctx))
	s.event("worker.stopped")
	return err
}

// hangUp closes the connections once what was written to them has left.
func (s *server) hangUp(g *grpc.Server) {
	done := make(chan struct{})
	go func() { g.GracefulStop(); close(done) }()
	fired, stop := s.cfg.Timer(stopGrace)
	defer stop()
	select {
	case <-done:
	case <-fired:
		g.Stop()
		<-done
	}
}

// background runs f until the boot ends; its error ends the boot.
func (s *server) background(f func() error) {
	s.group.Go(func() {
		if err := f(); err != nil {
			s.fail(err)
		}
	})
}

// sleep waits for d by the injected timer.
func (s *server) sleep(ctx context.Context, d time.Duration) error {
	fired, stop := s.cfg.Timer(max(d, 0))
	defer stop()
	select {
	case <-fired:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// event logs a code with counts and ids; never content.
func (s *server) event(code string, attrs ...any) {
	s.cfg.Logger.Info(code, attrs...)
}

func sha(b []byte) [32]byte { return sha256.Sum256(b) }
