package devchain

import (
	"crypto/ed25519"
	_ "embed"
	"fmt"
	"hash/crc32"
	"math/big"

	"github.com/xssnick/tonutils-go/tl"
	"github.com/xssnick/tonutils-go/tlb"
	"github.com/xssnick/tonutils-go/ton"
	"github.com/xssnick/tonutils-go/tvm"
	"github.com/xssnick/tonutils-go/tvm/cell"
)

// mainnetConfig is TON mainnet's config dictionary of 2026-05-14 (global
// version 13): config.config_root_boc_base64 of tonutils-go v1.18.0's
// tvm/testdata/transaction_replay_regression.json (MIT).
//
//go:embed mainnet-config.boc
var mainnetConfig []byte

// Config parameters that a network with its own validator must replace.
const (
	paramGlobalID   = 19
	paramCatchain   = 28
	paramValidators = 34
)

const (
	catchainSeqno   = 1
	validatorWeight = 100
)

// network is what a config dictionary and the validator's key amount to.
type network struct {
	globalID      int32
	keyBlockEvery uint32
	config        *cell.Cell
	prepared      *tvm.PreparedBlockchainConfig
	validatorHash uint32 // as block headers name the validator set
}

// devConfig is mainnet's config with one validator and its own network id.
func devConfig(globalID int32, validator ed25519.PublicKey) (*cell.Cell, error) {
	root, err := cell.FromBOC(mainnetConfig)
	if err != nil {
		return nil, err
	}
	adnl := make([]byte, 32)
	one, err := tlb.ToCell(tlb.ValidatorAddr{PublicKey: tlb.SigPubKeyED25519{Key: validator}, Weight: validatorWeight, ADNLAddr: adnl})
	if err != nil {
		return nil, err
	}
	list := cell.NewDict(16)
	if err := list.SetIntKey(big.NewInt(0), one); err != nil {
		return nil, err
	}
	set, err := tlb.ToCell(tlb.ValidatorSetExt{UTimeUntil: 0xffffffff, Total: 1, Main: 1, TotalWeight: validatorWeight, List: list})
	if err != nil {
		return nil, err
	}
	catchain, err := tlb.ToCell(tlb.CatchainConfigV2{McCatchainLifetime: 250, ShardCatchainLifetime: 250, ShardValidatorsLifetime: 1000, ShardValidatorsNum: 1})
	if err != nil {
		return nil, err
	}
	dict := root.AsDict(32)
	for key, value := range map[int64]*cell.Cell{
		paramGlobalID:   cell.BeginCell().MustStoreInt(int64(globalID), 32).EndCell(),
		paramCatchain:   catchain,
		paramValidators: set,
	} {
		if err := dict.SetIntKey(big.NewInt(key), cell.BeginCell().MustStoreRef(value).EndCell()); err != nil {
			return nil, err
		}
	}
	return dict.AsCell(), nil
}

func newNetwork(g genesisRecord, validator ed25519.PublicKey) (network, error) {
	config, err := cell.FromBOC(g.Config)
	if err != nil {
		return network{}, fmt.Errorf("config: %w", err)
	}
	prepared, err := tvm.PrepareBlockchainConfig(config)
	if err != nil {
		return network{}, fmt.Errorf("config: %w", err)
	}
	set, err := tl.Serialize(ton.ValidatorSetHashable{CCSeqno: catchainSeqno, Validators: []ton.ValidatorItemHashable{
		{Key: validator, Weight: validatorWeight, Addr: make([]byte, 32)},
	}}, true)
	if err != nil {
		return network{}, fmt.Errorf("validator set: %w", err)
	}
	return network{
		globalID: g.GlobalID, keyBlockEvery: g.KeyBlockEvery,
		config: config, prepared: prepared,
		validatorHash: crc32.Checksum(set, castagnoli),
	}, nil
}
