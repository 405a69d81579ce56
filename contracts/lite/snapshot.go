package lite

import (
	"context"
	"errors"
	"fmt"

	"cocoon/attestation"
	"cocoon/attestation/canonical"

	"github.com/xssnick/tonutils-go/tvm/cell"
)

// MaxSnapshotBytes bounds a chain file.
const MaxSnapshotBytes = 256 << 20

const (
	snapshotVersion     = 1
	maxSnapshotAccounts = 10_000
	maxSnapshotLinks    = maxSteps
)

// snapshotDoc is a chain file: one masterchain head, the links that prove it
// from a key block, and accounts at that head with their histories. Canonical
// CBOR; another form is another version.
type snapshotDoc struct {
	Version  uint64            `cbor:"version"`
	Links    []link            `cbor:"links"` // key block to key block, the head last
	Accounts []snapshotAccount `cbor:"accounts"`
}

type snapshotAccount struct {
	Proof        accountProof `cbor:"proof"`
	Transactions [][]byte     `cbor:"transactions"` // BoC each, newest first, down to the first
}

// Snapshot writes a chain file: addrs at the head with all their transactions,
// proven from the init block of the client's global config, so that whoever
// trusts that block, or a later key block, verifies it with OpenSnapshot.
func (c *Client) Snapshot(ctx context.Context, addrs []attestation.Address) ([]byte, error) {
	if len(addrs) > maxSnapshotAccounts {
		return nil, fmt.Errorf("lite: snapshot: got %d accounts, want at most %d", len(addrs), maxSnapshotAccounts)
	}
	h, _, err := c.head(ctx)
	if err != nil {
		return nil, err
	}
	doc := snapshotDoc{Version: snapshotVersion, Links: []link{}, Accounts: []snapshotAccount{}}
	size := 0
	if doc.Links, err = c.snapshotLinks(ctx, h, &size); err != nil {
		return nil, fmt.Errorf("lite: snapshot: %w", err)
	}
	seen := map[attestation.Address]bool{}
	for _, addr := range addrs {
		if seen[addr] {
			continue
		}
		seen[addr] = true
		a, err := c.snapshotAccount(ctx, h, addr, &size)
		if err != nil {
			return nil, fmt.Errorf("lite: snapshot: %w", err)
		}
		doc.Accounts = append(doc.Accounts, a)
	}
	return canonical.Marshal(doc)
}

var errSnapshotSize = fmt.Errorf("got more than %d bytes", MaxSnapshotBytes)

// grow keeps count of the file's size as it is made.
func grow(size *int, n int) error {
	if *size += n; *size > MaxSnapshotBytes-(1<<20) {
		return errSnapshotSize
	}
	return nil
}

func (c *Client) snapshotLinks(ctx context.Context, h header, size *int) ([]link, error) {
	trust, err := TrustKeyBlocks(c.store.init)
	if err != nil {
		return nil, err
	}
	links := []link{}
	_, _, err = c.walk(ctx, trust, h.ID(), func(l link) error {
		links = append(links, l)
		return grow(size, len(l.Header)+len(l.Config)+len(l.Signatures.List)*128+256)
	})
	return links, err
}

func (c *Client) snapshotAccount(ctx context.Context, h header, addr attestation.Address, size *int) (snapshotAccount, error) {
	a, proof, err := c.accountAt(ctx, h, addr)
	if err != nil {
		return snapshotAccount{}, err
	}
	cells, err := c.history(ctx, a, 0)
	if err != nil {
		return snapshotAccount{}, fmt.Errorf("transactions of %s: %w", addr, err)
	}
	s := snapshotAccount{Proof: proof, Transactions: [][]byte{}}
	if err := grow(size, len(proof.Proof)+len(proof.ShardProof)+len(proof.State)+512); err != nil {
		return snapshotAccount{}, err
	}
	for _, t := range cells {
		boc := t.ToBOC()
		if err := grow(size, len(boc)+8); err != nil {
			return snapshotAccount{}, err
		}
		s.Transactions = append(s.Transactions, boc)
	}
	return s, nil
}

// Snapshot is a chain file that was verified. It reads as a Client does.
type Snapshot struct {
	head     header
	trust    KeyBlocks
	accounts map[attestation.Address]Account
	history  map[attestation.Address][]Tx
}

// OpenSnapshot verifies a chain file offline: every link, account and
// transaction in it, from a key block that trust names.
func OpenSnapshot(raw []byte, trust KeyBlocks) (*Snapshot, error) {
	if len(trust.ids) == 0 {
		return nil, fmt.Errorf("snapshot: %w", ErrNoTrust)
	}
	var doc snapshotDoc
	if err := canonical.Unmarshal("snapshot", raw, MaxSnapshotBytes, &doc); err != nil {
		return nil, err
	}
	if doc.Version != snapshotVersion {
		return nil, fmt.Errorf("snapshot: version: got %d, want %d", doc.Version, snapshotVersion)
	}
	if len(doc.Links) == 0 || len(doc.Links) > maxSnapshotLinks || len(doc.Accounts) > maxSnapshotAccounts {
		return nil, fmt.Errorf("snapshot: got %d links and %d accounts, want 1 to %d and at most %d", len(doc.Links), len(doc.Accounts), maxSnapshotLinks, maxSnapshotAccounts)
	}
	s := &Snapshot{trust: trust, accounts: map[attestation.Address]Account{}, history: map[attestation.Address][]Tx{}}
	if err := s.openLinks(doc.Links); err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	for _, a := range doc.Accounts {
		if err := s.openAccount(a); err != nil {
			return nil, fmt.Errorf("snapshot: account %s: %w", a.Proof.Address, err)
		}
	}
	return s, nil
}

// openLinks follows the links, and learns the key blocks they prove. A link
// older than what is trusted, from a key block that is not, is of no use.
func (s *Snapshot) openLinks(links []link) error {
	for i, l := range links[:len(links)-1] {
		from, ok := s.trust.before(l.To.Seqno)
		newest, _ := s.trust.newest()
		if s.trust.Contains(l.To) || (l.To.Seqno < newest.Seqno && (!ok || from != l.Key)) {
			continue
		}
		h, err := l.verify(s.trust)
		if err == nil && !h.key {
			err = errors.New("got a block that is no key block")
		}
		if err == nil {
			s.trust, err = s.trust.with(l.To)
		}
		if err != nil {
			return fmt.Errorf("link %d: %w", i, err)
		}
	}
	h, err := links[len(links)-1].verify(s.trust)
	if err != nil {
		return fmt.Errorf("head: %w", err)
	}
	s.head = h
	return nil
}

func (s *Snapshot) openAccount(doc snapshotAccount) error {
	addr := doc.Proof.Address
	if _, twice := s.accounts[addr]; twice {
		return errors.New("got it twice")
	}
	a, err := doc.Proof.verify(s.head.Block)
	if err != nil {
		return err
	}
	if len(doc.Transactions) > maxTransactions {
		return fmt.Errorf("transactions: got %d, want at most %d", len(doc.Transactions), maxTransactions)
	}
	cells := make([]*cell.Cell, 0, len(doc.Transactions))
	for i, boc := range doc.Transactions {
		if len(boc) > maxTxBytes {
			return fmt.Errorf("transaction %d: got %d bytes, want at most %d", i, len(boc), maxTxBytes)
		}
		root, err := parseBOC(fmt.Sprintf("transaction %d", i), boc)
		if err != nil {
			return err
		}
		cells = append(cells, root)
	}
	txs, err := readHistory(a, cells, 0)
	if err != nil {
		return fmt.Errorf("transactions: %w", err)
	}
	if len(txs) != len(cells) {
		return fmt.Errorf("transactions: got %d, want %d", len(cells), len(txs))
	}
	s.accounts[addr], s.history[addr] = a, txs
	return nil
}

// ErrNotInSnapshot says that a chain file does not speak of an account: it is
// neither present nor proven absent.
var ErrNotInSnapshot = errors.New("lite: account is not in the chain file")

// Head is the masterchain block that the file is about.
func (s *Snapshot) Head(context.Context) (Block, error) { return s.head.Block, nil }

// GlobalID is the network's, from the head's header.
func (s *Snapshot) GlobalID(context.Context) (int32, error) { return s.head.globalID, nil }

// KeyBlocks are those trusted at the start and those that the file proves.
func (s *Snapshot) KeyBlocks() KeyBlocks { return s.trust }

// Account is an account at the head.
func (s *Snapshot) Account(_ context.Context, addr attestation.Address) (Account, error) {
	a, ok := s.accounts[addr]
	if !ok {
		return Account{}, fmt.Errorf("%w: %s", ErrNotInSnapshot, addr)
	}
	return a, nil
}

// Transactions are an account's above afterLT, oldest first.
func (s *Snapshot) Transactions(_ context.Context, addr attestation.Address, afterLT uint64) ([]Tx, error) {
	if _, ok := s.accounts[addr]; !ok {
		return nil, fmt.Errorf("%w: %s", ErrNotInSnapshot, addr)
	}
	txs := s.history[addr]
	for len(txs) > 0 && txs[0].LT <= afterLT {
		txs = txs[1:]
	}
	return append([]Tx(nil), txs...), nil
}
