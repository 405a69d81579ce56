package devchain

import (
	"bytes"
	"errors"
	"fmt"
	"math/big"

	"cocoon/attestation"

	"github.com/xssnick/tonutils-go/address"
	"github.com/xssnick/tonutils-go/tlb"
	"github.com/xssnick/tonutils-go/tvm"
	"github.com/xssnick/tonutils-go/tvm/cell"
)

// found writes a new network's genesis and mines its first block, the init
// block that clients trust.
func (c *Chain) found() error {
	config, err := devConfig(c.cfg.GlobalID, c.keys.public())
	if err != nil {
		return fmt.Errorf("devchain: config: %w", err)
	}
	g := genesisRecord{
		Version: journalVersion, GlobalID: c.cfg.GlobalID, KeyBlockEvery: c.cfg.KeyBlockEvery,
		Config: config.ToBOC(), Accounts: []genesisAccount{}, Time: c.blockTime(),
	}
	for _, a := range c.cfg.Genesis {
		ga := genesisAccount{Address: a.Address, Balance: a.Balance, StateInit: []byte{}}
		if a.StateInit != nil {
			init, err := tlb.ToCell(a.StateInit)
			if err != nil {
				return fmt.Errorf("devchain: genesis: %s: %w", a.Address, err)
			}
			ga.StateInit = init.ToBOC()
		}
		g.Accounts = append(g.Accounts, ga)
	}
	// Replayed first: a genesis that cannot be is never written.
	if err := c.replay(record{Genesis: &g}); err != nil {
		return fmt.Errorf("devchain: %w", err)
	}
	if err := c.log.append(record{Genesis: &g}); err != nil {
		return fmt.Errorf("devchain: journal: %w", err)
	}
	return nil
}

// replay applies one journal record.
func (c *Chain) replay(r record) error {
	switch {
	case r.Genesis != nil && r.Block == nil && c.head == 0:
		return c.applyGenesis(*r.Genesis)
	case r.Block != nil && r.Genesis == nil && c.head > 0:
		return c.apply(*r.Block)
	}
	return errors.New("record: want one genesis first, then blocks")
}

func (c *Chain) applyGenesis(g genesisRecord) (err error) {
	if g.Version != journalVersion {
		return fmt.Errorf("genesis: version: got %d, want %d", g.Version, journalVersion)
	}
	if c.network, err = newNetwork(g, c.keys.public()); err != nil {
		return fmt.Errorf("genesis: %w", err)
	}
	if c.states, err = cell.NewAugDict(256, tlb.AugShardAccounts{}); err != nil {
		return err
	}
	if c.oldMC, err = cell.NewAugDict(32, oldBlocks{}); err != nil {
		return err
	}
	for _, a := range g.Accounts {
		if err := c.place(a, g.Time); err != nil {
			return fmt.Errorf("genesis: %s: %w", a.Address, err)
		}
	}
	return c.apply(blockRecord{Time: g.Time})
}

// place puts an account into the state that the first block inherits.
func (c *Chain) place(g genesisAccount, now uint32) error {
	if g.Address.Workchain() != 0 || c.accounts[g.Address] != nil {
		return errors.New("want distinct accounts in workchain 0")
	}
	storage := tlb.AccountStorage{Status: tlb.AccountStatusUninit, Balance: tlb.FromNanoTONU(g.Balance)}
	if len(g.StateInit) > 0 {
		root, err := cell.FromBOC(g.StateInit)
		if err != nil {
			return fmt.Errorf("state init: %w", err)
		}
		id := g.Address.ID()
		if !bytes.Equal(root.Hash(), id[:]) {
			return fmt.Errorf("state init: hash: got %x, want the account's id", root.Hash())
		}
		var init tlb.StateInit
		if err := tlb.Parse(&init, root); err != nil {
			return fmt.Errorf("state init: %w", err)
		}
		storage.Status, storage.StateInit = tlb.AccountStatusActive, &init
	}
	storageCell, err := storage.ToCell()
	if err != nil {
		return err
	}
	cells, bits := usage(storageCell)
	addr := toTON(g.Address)
	state, err := tlb.AccountState{
		IsValid: true, Address: addr, AccountStorage: storage,
		StorageInfo: tlb.StorageInfo{
			StorageUsed:  tlb.StorageUsed{CellsUsed: new(big.Int).SetUint64(cells), BitsUsed: new(big.Int).SetUint64(bits)},
			StorageExtra: tlb.StorageExtraNone{}, LastPaid: now,
		},
	}.ToCell()
	if err != nil {
		return err
	}
	prepared, err := tvm.PrepareAccount(&tlb.ShardAccount{Account: state, LastTransHash: make([]byte, 32)}, addr)
	if err != nil {
		return err
	}
	c.accounts[g.Address] = &account{prepared: prepared}
	return c.states.Set(accountKey(g.Address), prepared.ShardAccountCell())
}

// usage counts the distinct cells and bits under root, as storage fees do.
func usage(root *cell.Cell) (cells, bits uint64) {
	seen := map[cell.Hash]bool{}
	var walk func(*cell.Cell)
	walk = func(n *cell.Cell) {
		if seen[n.HashKey()] {
			return
		}
		seen[n.HashKey()] = true
		cells++
		bits += uint64(n.BitsSize())
		for i := range int(n.RefsNum()) {
			walk(n.MustPeekRef(i))
		}
	}
	walk(root)
	return cells, bits
}

func toTON(a attestation.Address) *address.Address {
	id := a.ID()
	return address.NewAddress(0, byte(a.Workchain()), id[:])
}

func fromTON(a *address.Address) (attestation.Address, error) {
	if a == nil || a.Type() != address.StdAddress || a.Anycast() != nil || len(a.Data()) != 32 {
		return attestation.Address{}, fmt.Errorf("address: got %v, want a plain account", a)
	}
	return attestation.NewAddress(a.Workchain(), [32]byte(a.Data())), nil
}

func accountKey(a attestation.Address) *cell.Cell {
	id := a.ID()
	return cell.BeginCell().MustStoreSlice(id[:], 256).EndCell()
}
