package lite

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"cocoon/attestation"
	"cocoon/contracts"

	"github.com/xssnick/tonutils-go/address"
	"github.com/xssnick/tonutils-go/tlb"
	"github.com/xssnick/tonutils-go/ton"
	"github.com/xssnick/tonutils-go/tvm/cell"
)

// Account is a TON account as the head's state holds it.
type Account struct {
	Address attestation.Address
	Exists  bool       // false: the state holds nothing at this address
	Active  bool       // it has code; an account that exists and is not active is empty or frozen
	Frozen  bool       // its rent ran out
	Code    *cell.Cell // nil unless Active
	Data    *cell.Cell // nil unless Active
	Balance uint64     // nano
	Due     uint64     // nano of unpaid rent
	LastLT  uint64     // of its last transaction; 0 for none
	// LastHash is the last transaction's hash, which holds the one before, and so on.
	LastHash [32]byte
	// StateTime is when the shard's state was made. Messages that end before it
	// will never reach the account.
	StateTime time.Time
	At        Block
}

// Bounds on an account's parts.
const (
	maxProofBytes = 256 << 10
	maxStateBytes = 4 << 20
)

// accountProof ties an account's state to a masterchain block.
type accountProof struct {
	Address    attestation.Address `cbor:"address"`
	Shard      shardID             `cbor:"shard"`
	ShardProof []byte              `cbor:"shard_proof"` // BoC of 2 roots: the block's header, its state down to the shard; empty in the masterchain
	Proof      []byte              `cbor:"proof"`       // BoC of 2 roots: the shard block's header, its state down to the account
	State      []byte              `cbor:"state"`       // BoC of the account, empty for none
}

type shardID struct {
	Shard    int64    `cbor:"shard"`
	Seqno    uint32   `cbor:"seqno"`
	RootHash [32]byte `cbor:"root_hash"`
	FileHash [32]byte `cbor:"file_hash"`
}

// Account reads an account at the head.
func (c *Client) Account(ctx context.Context, addr attestation.Address) (Account, error) {
	h, _, err := c.head(ctx)
	if err != nil {
		return Account{}, err
	}
	a, _, err := c.accountAt(ctx, h, addr)
	return a, err
}

func (c *Client) accountAt(ctx context.Context, h header, addr attestation.Address) (Account, accountProof, error) {
	id := addr.ID()
	st, err := ask[ton.AccountState](ctx, c, h.Seqno, ton.GetAccountState{ID: h.ID().ton(), Account: ton.AccountID{Workchain: addr.Workchain(), ID: id[:]}})
	if err != nil {
		return Account{}, accountProof{}, fmt.Errorf("lite: account %s: %w", addr, err)
	}
	p := accountProof{Address: addr, ShardProof: []byte{}, Proof: toBOC(st.Proof), State: []byte{}}
	if addr.Workchain() != masterchainID {
		if st.Shard == nil || len(st.Shard.RootHash) != 32 || len(st.Shard.FileHash) != 32 {
			return Account{}, accountProof{}, fmt.Errorf("lite: account %s: shard: got no block", addr)
		}
		p.Shard = shardID{Shard: st.Shard.Shard, Seqno: st.Shard.SeqNo, RootHash: [32]byte(st.Shard.RootHash), FileHash: [32]byte(st.Shard.FileHash)}
		p.ShardProof = toBOC(st.ShardProof)
	}
	if st.State != nil {
		p.State = st.State.ToBOC()
	}
	a, err := p.verify(h.Block)
	if err != nil {
		return Account{}, accountProof{}, fmt.Errorf("lite: account %s: %w", addr, err)
	}
	return a, p, nil
}

// verify proves the account, or its absence, at a proven block.
func (p *accountProof) verify(at Block) (a Account, err error) {
	defer recoverParse(&err)
	addr, err := contracts.ToTON(p.Address)
	if err != nil {
		return Account{}, err
	}
	if len(p.ShardProof)+len(p.Proof) > maxProofBytes || len(p.State) > maxStateBytes {
		return Account{}, fmt.Errorf("proof and state: got %d and %d bytes, want at most %d and %d", len(p.ShardProof)+len(p.Proof), len(p.State), maxProofBytes, maxStateBytes)
	}
	root, err := p.shardRoot(at, addr)
	if err != nil {
		return Account{}, err
	}
	proof, err := parseRoots("proof", p.Proof)
	if err != nil {
		return Account{}, err
	}
	state, err := ton.CheckBlockShardStateProof(proof, root[:])
	if err != nil {
		return Account{}, err
	}
	a = Account{Address: p.Address, StateTime: time.Unix(int64(state.GenUTime), 0).UTC(), At: at}
	leaf, err := lookUp(state, p.Address)
	if err != nil || leaf == nil {
		if leaf == nil && err == nil && len(p.State) > 0 {
			err = errors.New("state: got one, want none as proven")
		}
		return a, err
	}
	return a, a.read(leaf, p.State, addr)
}

// shardRoot is the root hash of the block that holds the account's state.
func (p *accountProof) shardRoot(at Block, addr *address.Address) ([32]byte, error) {
	if p.Address.Workchain() == masterchainID {
		if p.Shard != (shardID{}) || len(p.ShardProof) > 0 {
			return [32]byte{}, errors.New("shard: got one, want none in the masterchain")
		}
		return at.RootHash, nil
	}
	roots, err := parseRoots("shard proof", p.ShardProof)
	if err != nil {
		return [32]byte{}, err
	}
	shard := &ton.BlockIDExt{Workchain: p.Address.Workchain(), Shard: p.Shard.Shard, SeqNo: p.Shard.Seqno, RootHash: p.Shard.RootHash[:], FileHash: p.Shard.FileHash[:]}
	return p.Shard.RootHash, ton.CheckShardInMasterProofForAccount(at.ID().ton(), roots, shard, addr)
}

// lookUp finds the account in a proven shard state. Only a path that ends
// without the key proves absence: tonutils-go v1.18.0 takes every failed
// lookup for one, a pruned path among them.
func lookUp(state *tlb.ShardStateUnsplit, addr attestation.Address) (*tlb.ShardAccount, error) {
	if state.Accounts.ShardAccounts == nil {
		return nil, errors.New("accounts: got a pruned branch")
	}
	id := addr.ID()
	value, _, err := state.Accounts.ShardAccounts.LoadValueExtra(cell.BeginCell().MustStoreSlice(id[:], 256).EndCell())
	if errors.Is(err, cell.ErrNoSuchKeyInDict) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("accounts: %w", err)
	}
	var leaf tlb.ShardAccount
	if err := tlb.LoadFromCell(&leaf, value); err != nil {
		return nil, fmt.Errorf("accounts: %w", err)
	}
	return &leaf, nil
}

func (a *Account) read(leaf *tlb.ShardAccount, boc []byte, addr *address.Address) error {
	root, err := parseBOC("state", boc)
	if err != nil {
		return err
	}
	if got, want := root.Hash(), leaf.Account.Hash(0); !bytes.Equal(got, want) {
		return fmt.Errorf("state: hash: got %x, want %x as proven", got, want)
	}
	var st tlb.AccountState
	if err := tlb.Parse(&st, root); err != nil {
		return fmt.Errorf("state: %w", err)
	}
	if len(leaf.LastTransHash) != 32 {
		return errors.New("last transaction: got no hash")
	}
	a.LastLT, a.LastHash = leaf.LastTransLT, [32]byte(leaf.LastTransHash)
	if !st.IsValid {
		return nil // account_none: only its history is there
	}
	if !st.Address.Equals(addr) {
		return fmt.Errorf("state: address: got %s", st.Address.StringRaw())
	}
	if !st.Balance.Nano().IsUint64() {
		return fmt.Errorf("state: balance: got %s nano, want less than 2^64", st.Balance.Nano())
	}
	a.Exists, a.Balance = true, st.Balance.Nano().Uint64()
	if d := st.StorageInfo.DuePayment; d != nil {
		if !d.Nano().IsUint64() {
			return fmt.Errorf("state: due payment: got %s nano, want less than 2^64", d.Nano())
		}
		a.Due = d.Nano().Uint64()
	}
	a.Frozen = st.Status == tlb.AccountStatusFrozen
	if st.Status == tlb.AccountStatusActive {
		a.Active, a.Code, a.Data = true, st.StateInit.Code, st.StateInit.Data
	}
	return nil
}

func toBOC(roots []*cell.Cell) []byte {
	if len(roots) == 0 {
		return []byte{}
	}
	return cell.ToBOCWithOptions(roots, cell.BOCSerializeOptions{})
}

// parseRoots reads the two roots that a path through a block and its state has.
func parseRoots(what string, boc []byte) ([]*cell.Cell, error) {
	roots, err := cell.FromBOCMultiRootWithOptions(boc, cell.BOCParseOptions{MaxCells: len(boc)/2 + 1})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	if len(roots) != 2 {
		return nil, fmt.Errorf("%s: got %d roots, want 2", what, len(roots))
	}
	return roots, nil
}
