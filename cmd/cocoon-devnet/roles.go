package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"time"

	"cocoon/attestation"
	"cocoon/attestation/canonical"
	"cocoon/attestation/softtee"
	"cocoon/contracts"
	"cocoon/contracts/lite"
	"cocoon/contracts/redeem"
	"cocoon/contracts/view"
	"cocoon/enclave"
	"cocoon/enclave/host"
)

// redeemEvery is how often the devnet's host looks for something to redeem;
// a host of a real network does so every few minutes.
const redeemEvery = 5 * time.Second

// roleArgs is what a role's process is started with.
type roleArgs struct {
	d      layout
	n      *network
	listen string
	name   string
	log    *slog.Logger
	ready  func() error
}

// runRole is one process of the network.
func runRole(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) == 0 {
		return errors.New("role: got none")
	}
	fs := flag.NewFlagSet("role", flag.ContinueOnError)
	dir := fs.String("dir", "", "")
	a := roleArgs{ready: func() error { _, err := fmt.Fprintln(stdout, readyLine); return err }}
	fs.StringVar(&a.listen, "listen", "", "")
	fs.StringVar(&a.name, "name", "", "")
	if err := fs.Parse(args[1:]); err != nil {
		return err
	}
	a.d = layout(*dir)
	a.n = new(network)
	if err := readJSON(a.d.network(), a.n); err != nil {
		return err
	}
	a.log = roleLog(args[0], stderr)
	roles := map[string]func(context.Context, roleArgs) error{"chain": roleChain, "host": roleHost, "worker": roleWorker, "proxy": roleProxy}
	role, ok := roles[args[0]]
	if !ok {
		return fmt.Errorf("role: got %q", args[0])
	}
	err := role(ctx, a)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// roleLog says what needs attention; nothing in it is content.
func roleLog(role string, w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelWarn})).With("role", role)
}

func roleChain(ctx context.Context, a roleArgs) error {
	genesis, err := a.n.genesis(a.d)
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", a.n.ChainAddr)
	if err != nil {
		return err
	}
	return serveChain(ctx, a.d.chain(), a.n.GlobalID, genesis, ln, a.d.tonConfig(), a.ready)
}

// dialChain connects to the network's chain as any client does.
func dialChain(ctx context.Context, a roleArgs, trust string) (*lite.Client, error) {
	b, err := os.ReadFile(a.d.tonConfig())
	if err != nil {
		return nil, err
	}
	return lite.Dial(ctx, lite.Config{GlobalConfigJSON: b, TrustFile: trust})
}

// roleHost is the machine's owner: it publishes the worker's record, serves its
// log, and redeems its vouchers.
func roleHost(ctx context.Context, a roleArgs) error {
	ln, err := net.Listen("tcp", a.n.HostAddr)
	if err != nil {
		return err
	}
	defer ln.Close()
	c, err := dialChain(ctx, a, "")
	if err != nil {
		return err
	}
	defer c.Close()
	key, err := a.d.key("worker-owner")
	if err != nil {
		return err
	}
	w, err := lite.NewWallet(ctx, c, key)
	if err != nil {
		return err
	}
	if err := publishRecord(ctx, a, c, w); err != nil {
		return err
	}
	tick := time.NewTicker(redeemEvery)
	defer tick.Stop()
	cfg := redeem.Config{Vouchers: host.Reader{Dir: a.d.hostStore()}, Accounts: c, Sender: w, Threshold: contracts.RedeemFee, Logger: a.log}
	done := make(chan struct{})
	go func() {
		defer close(done)
		redeem.Run(ctx, cfg, tick.C)
	}()
	if err := a.ready(); err != nil {
		return err
	}
	err = host.Serve(ctx, host.ServeConfig{Dir: a.d.hostStore(), Listener: ln})
	<-done
	// The worker, which ended first, has flushed its last vouchers.
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastRedeem)
	defer cancel()
	if _, rerr := redeem.Once(last, cfg); rerr != nil {
		a.log.Error("redeem.failed", "error", rerr)
	}
	return err
}

// lastRedeem bounds the redeem at the end.
const lastRedeem = 8 * time.Second

// publishRecord writes the worker's record on chain if it is not there, or soon runs out.
func publishRecord(ctx context.Context, a roleArgs, c *lite.Client, w *lite.Wallet) error {
	_, v, err := view.Record(ctx, c, a.n.WorkerID)
	if err == nil && time.Until(v.Expiry) > 24*time.Hour {
		return nil
	}
	if err != nil && !errors.Is(err, view.ErrAbsent) {
		return err
	}
	world, err := loadWorld(a.d)
	if err != nil {
		return err
	}
	rec := contracts.WorkerRecord{
		Endpoint: a.n.WorkerAddr, Payout: a.n.Payout, PlatformID: world.Machine(a.n.TEE).PlatformID(),
		Expiry: uint32(time.Now().Add(30 * 24 * time.Hour).Unix()),
	}
	for _, m := range a.n.Models {
		rec.Prices = append(rec.Prices, contracts.ModelPrice{Model: contracts.ModelNameHash(m.Name), Prices: prices})
	}
	body, err := contracts.SetRecordBody(rec)
	if err != nil {
		return err
	}
	init := contracts.WorkerInit{Owner: a.n.Payout, Nonce: a.n.WorkerNonce}
	if v != nil {
		return w.Send(ctx, []lite.Message{{To: a.n.WorkerID, Amount: contracts.RegistryFee, Body: body, Bounce: true}})
	}
	state, err := init.StateInit()
	if err != nil {
		return err
	}
	_, err = w.Deploy(ctx, state, ton, body)
	return err
}

func loadWorld(d layout) (*softtee.World, error) {
	b, err := os.ReadFile(d.world())
	if err != nil {
		return nil, err
	}
	return softtee.Load(b)
}

// roleWorker is what runs in the confidential VM, with a software machine's
// quotes in the hardware's place.
func roleWorker(ctx context.Context, a roleArgs) error {
	ln, err := net.Listen("tcp", a.n.WorkerAddr)
	if err != nil {
		return err
	}
	world, err := loadWorld(a.d)
	if err != nil {
		return err
	}
	engine, err := a.n.engines(ctx)
	if err != nil {
		return err
	}
	c, err := dialChain(ctx, a, "")
	if err != nil {
		return err
	}
	defer c.Close()
	store, err := host.Open(a.d.hostStore())
	if err != nil {
		return err
	}
	defer store.Close()
	cfg := attestation.WorkerConfig{
		Version: attestation.ConfigVersion, WorkerID: a.n.WorkerID, PayoutAddress: a.n.Payout, Redeemer: a.n.Payout, Engine: attestation.EngineGGUF,
	}
	if a.n.EngineURL != "" {
		cfg.Engine = attestation.EngineHTTP
	}
	for _, m := range a.n.Models {
		cfg.Models = append(cfg.Models, m.Model)
		cfg.Prices = append(cfg.Prices, attestation.ModelPrice{Model: m.Name, Min: prices})
	}
	var signatures []attestation.ReleaseSignature
	if err := canonical.Unmarshal("release signatures", a.n.Signatures, 1<<16, &signatures); err != nil {
		return err
	}
	return enclave.Serve(ctx, enclave.Config{
		Listener: ln, Worker: cfg, Release: enclave.Release{Manifest: a.n.Release, Signatures: signatures},
		Evidence: world.Machine(a.n.TEE), Chain: enclave.LiteChain(c), Store: store, Engine: engine,
		VoucherFlush: voucherFlush, LogInterval: logInterval, Logger: a.log, Ready: func(enclave.Boot) { a.ready() },
	})
}

// logInterval is short, so that the network is up soon: an epoch begins when its
// keyset is under a checkpoint.
const logInterval = 200 * time.Millisecond

// voucherFlush is shorter than a real worker's minute, so that a payout can be watched.
const voucherFlush = 5 * time.Second
