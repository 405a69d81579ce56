// Package devchain is a local TON network: one validator, one masterchain and
// one basechain shard, whose contracts run in tonutils-go's TVM and whose state
// is served over the real liteserver protocol.
//
// To a client it is a network like mainnet: a global config names an init
// block, blocks are signed, account states come with Merkle proofs, messages
// between contracts arrive in a later block, fees and gas are mainnet's (its
// config of 2026-05-14 with the validator set and the network id replaced).
// Everything that happened is in one journal, and replaying it yields the same
// block hashes, so a process killed at any instant loses at most the external
// messages that no block held yet.
//
// It does not show consensus, several shards, or blocks that a validator would
// accept: value flow and message descriptors are empty, and state updates name
// the two states without the difference between them. Its validator's key lies
// in its folder, so it secures nothing.
package devchain

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"cocoon/attestation"

	"github.com/xssnick/tonutils-go/tlb"
	"github.com/xssnick/tonutils-go/ton"
	"github.com/xssnick/tonutils-go/tvm"
	"github.com/xssnick/tonutils-go/tvm/cell"
)

// Pacing and memory when a Config leaves them zero.
const (
	defaultBlockInterval = 200 * time.Millisecond
	defaultIdleInterval  = 3 * time.Second
	defaultKeepBlocks    = 1000
)

// Bounds on what a liteserver client may hand in.
const (
	maxExternalBytes = 64 << 10
	maxPending       = 4096
)

// Config says where a chain lives and how it runs. GlobalID, Genesis and
// KeyBlockEvery are written into the journal when the folder is empty; later
// the journal's own are used, and another GlobalID is an error.
type Config struct {
	Dir      string // folder for keys and journal, made with mode 0700
	GlobalID int32  // config param 19 of the new network, never zero
	Genesis  []GenesisAccount

	// KeyBlockEvery makes each n-th masterchain block a key block, as a change
	// of config or validators does on mainnet. Zero: the first block alone.
	KeyBlockEvery uint32

	// Simplex signs blocks as TON's newer consensus does, over a finalize vote,
	// instead of over the block's id. It concerns answers alone, not blocks.
	Simplex bool

	Now           func() time.Time // block time; nil is the wall clock
	BlockInterval time.Duration    // between blocks while messages wait; zero is 200 ms
	IdleInterval  time.Duration    // between empty blocks; zero is 3 s
	KeepBlocks    uint32           // states and blocks kept in memory; zero is 1000
}

// GenesisAccount exists from the first block on, without a transaction.
type GenesisAccount struct {
	Address   attestation.Address
	Balance   uint64         // nano
	StateInit *tlb.StateInit // nil: no code; else its hash must be the address
}

// Chain is a running network. All methods may be called concurrently.
type Chain struct {
	cfg  Config
	keys keyring
	log  *journal

	mu       sync.RWMutex
	network  network
	vm       *tvm.TVM
	accounts map[attestation.Address]*account
	states   *cell.AugmentedDictionary // shard accounts of the newest block
	oldMC    *cell.AugmentedDictionary // masterchain blocks before the newest
	queue    []*cell.Cell              // internal messages for the next block
	blocks   map[uint32]*height
	keySeqs  []uint32
	head     uint32
	lt       uint64
	changed  chan struct{} // closed when a block is added

	externals [][]byte
	mints     []mint
	faults    Faults
	broken    error // the journal refused a write: nothing more may be mined

	wake chan struct{}
}

// height is what one step of the chain made: a shard block and the
// masterchain block that commits to it.
type height struct{ master, shard *block }

// Open reads the journal in cfg.Dir and replays it, or founds a new network if
// there is none. Close the chain when done.
func Open(cfg Config) (*Chain, error) {
	if cfg.GlobalID == 0 {
		return nil, errors.New("devchain: global_id: got 0, want the network's id")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.BlockInterval <= 0 {
		cfg.BlockInterval = defaultBlockInterval
	}
	if cfg.IdleInterval <= 0 {
		cfg.IdleInterval = defaultIdleInterval
	}
	if cfg.KeepBlocks == 0 {
		cfg.KeepBlocks = defaultKeepBlocks
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("devchain: %w", err)
	}
	keys, err := loadKeys(cfg.Dir)
	if err != nil {
		return nil, err
	}
	c := &Chain{
		cfg: cfg, keys: keys, vm: tvm.NewTVM(),
		accounts: map[attestation.Address]*account{},
		blocks:   map[uint32]*height{},
		changed:  make(chan struct{}),
		wake:     make(chan struct{}, 1),
	}
	c.log, err = openJournal(cfg.Dir, c.replay)
	if err != nil {
		return nil, err
	}
	if c.head == 0 {
		err = c.found()
	}
	if err == nil && c.network.globalID != cfg.GlobalID {
		err = fmt.Errorf("devchain: global_id: got %d, want %d as in %s", cfg.GlobalID, c.network.globalID, cfg.Dir)
	}
	if err != nil {
		c.log.close()
		return nil, err
	}
	return c, nil
}

// Close releases the journal; what is mined is already durable.
func (c *Chain) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.broken = errors.New("devchain: closed")
	return c.log.close()
}

// GlobalID is the network's id.
func (c *Chain) GlobalID() int32 { return c.network.globalID }

// Head is the id of the newest masterchain block.
func (c *Chain) Head() *ton.BlockIDExt {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.blocks[c.head].master.id.Copy()
}

// Run mines until ctx ends: soon when messages wait, else slowly, so that
// proofs of recent time stay fresh. It returns nil when ctx ended, and an error
// when a block could not be made durable.
func (c *Chain) Run(ctx context.Context) error {
	timer := time.NewTimer(c.cfg.BlockInterval)
	defer timer.Stop()
	last := time.Now()
	for {
		pause := c.cfg.IdleInterval
		if c.Pending() > 0 {
			pause = c.cfg.BlockInterval
		}
		timer.Reset(time.Until(last.Add(pause)))
		select {
		case <-ctx.Done():
			return nil
		case <-c.wake:
		case <-timer.C:
			if err := c.Mine(); err != nil {
				return err
			}
			last = time.Now()
		}
	}
}

// Pending counts the messages that the next block will try to deliver.
func (c *Chain) Pending() int {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return len(c.externals) + len(c.mints) + len(c.queue)
}

// Mine makes one shard block and the masterchain block over it. The journal
// has the block before anybody can see it.
func (c *Chain) Mine() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.broken != nil {
		return c.broken
	}
	rec := blockRecord{Time: c.blockTime(), Externals: c.externals, Mints: c.mints}
	if err := c.log.append(record{Block: &rec}); err != nil {
		c.broken = fmt.Errorf("devchain: journal: %w", err)
		return c.broken
	}
	c.externals, c.mints = nil, nil
	if err := c.apply(rec); err != nil {
		c.broken = err
		return err
	}
	close(c.changed)
	c.changed = make(chan struct{})
	return nil
}

// Mint gives addr amount nano out of nothing in the next block, by a
// non-bounceable message from the zero address.
func (c *Chain) Mint(addr attestation.Address, amount uint64) {
	c.mu.Lock()
	c.mints = append(c.mints, mint{To: addr, Amount: amount})
	c.mu.Unlock()
	c.nudge()
}

// blockTime is now in unix seconds, never before the last block.
func (c *Chain) blockTime() uint32 {
	now := uint32(c.cfg.Now().Unix())
	if h := c.blocks[c.head]; h != nil && now < h.master.time {
		return h.master.time
	}
	return now
}

func (c *Chain) nudge() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}
