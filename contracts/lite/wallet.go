package lite

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"sync"
	"time"

	"cocoon/attestation"
	"cocoon/contracts"

	"github.com/xssnick/tonutils-go/address"
	"github.com/xssnick/tonutils-go/tlb"
	"github.com/xssnick/tonutils-go/ton/wallet"
	"github.com/xssnick/tonutils-go/tvm/cell"
)

// Limits of wallet V5R1, and of patience.
const (
	maxMessages     = 255
	defaultValidity = time.Minute
	// Mode 3 of SENDRAWMSG: fees are paid apart from the value, and a message
	// that cannot be sent is skipped; V5R1 demands the latter of externals.
	sendMode = 1 + 2
)

// Wallet is a V5R1 wallet, whose key is in this process. One Send is under way
// at a time; another program must not use the same key meanwhile.
type Wallet struct {
	// Validity is how long a signed message may be executed, and the longest
	// that Send tries; zero is a minute. Set it before the first Send.
	Validity time.Duration

	c        *Client
	key      ed25519.PrivateKey
	globalID int32
	init     *tlb.StateInit
	addr     attestation.Address
	ton      *address.Address
	mu       sync.Mutex
}

// Message is one payment or call.
type Message struct {
	To        attestation.Address
	Amount    uint64         // nano
	Body      *cell.Cell     // nil is empty
	StateInit *tlb.StateInit // not nil: deploys To, whose hash it must have
	Bounce    bool           // on failure the value comes back
}

// NewWallet opens the wallet of key on the client's network, whose id is read
// from proven configuration. It need not exist yet: coins sent to its address
// wait there, and the first Send deploys it.
func NewWallet(ctx context.Context, c *Client, key ed25519.PrivateKey) (*Wallet, error) {
	if len(key) != ed25519.PrivateKeySize {
		return nil, fmt.Errorf("lite: wallet: key: got %d bytes, want %d", len(key), ed25519.PrivateKeySize)
	}
	id, err := c.GlobalID(ctx)
	if err != nil {
		return nil, err
	}
	addr, init, err := walletOf(key.Public().(ed25519.PublicKey), id)
	if err != nil {
		return nil, err
	}
	w := &Wallet{c: c, key: key, globalID: id, init: init, addr: addr}
	w.ton, err = contracts.ToTON(addr)
	return w, err
}

// WalletAddress is where the V5R1 wallet of a public key lives on a network.
func WalletAddress(key ed25519.PublicKey, globalID int32) (attestation.Address, error) {
	addr, _, err := walletOf(key, globalID)
	return addr, err
}

func walletOf(key ed25519.PublicKey, globalID int32) (attestation.Address, *tlb.StateInit, error) {
	if len(key) != ed25519.PublicKeySize {
		return attestation.Address{}, nil, fmt.Errorf("lite: wallet: public key: got %d bytes, want %d", len(key), ed25519.PublicKeySize)
	}
	init, err := wallet.GetStateInit(key, wallet.ConfigV5R1Final{NetworkGlobalID: globalID}, 0)
	if err != nil {
		return attestation.Address{}, nil, fmt.Errorf("lite: wallet: %w", err)
	}
	root, err := tlb.ToCell(init)
	if err != nil {
		return attestation.Address{}, nil, fmt.Errorf("lite: wallet: %w", err)
	}
	return attestation.NewAddress(0, root.HashKey()), init, nil
}

// Address is the wallet's own.
func (w *Wallet) Address() attestation.Address { return w.addr }

// Account is the wallet's proven state.
func (w *Wallet) Account(ctx context.Context) (Account, error) { return w.c.Account(ctx, w.addr) }

// Deploy puts a contract on chain with amount nano and a first message, and
// returns its address.
func (w *Wallet) Deploy(ctx context.Context, init *tlb.StateInit, amount uint64, body *cell.Cell) (attestation.Address, error) {
	root, err := tlb.ToCell(init)
	if err != nil {
		return attestation.Address{}, fmt.Errorf("lite: state init: %w", err)
	}
	addr := attestation.NewAddress(0, root.HashKey())
	return addr, w.Send(ctx, []Message{{To: addr, Amount: amount, Body: body, StateInit: init, Bounce: true}})
}

// seqno is the wallet's counter: wallet_v5.tlb, after one bit.
func seqno(a Account) (uint32, error) {
	if !a.Active {
		return 0, nil
	}
	s, err := a.Data.BeginParse()
	if err != nil {
		return 0, err
	}
	if _, err := s.LoadBoolBit(); err != nil {
		return 0, err
	}
	n, err := s.LoadUInt(32)
	return uint32(n), err
}

// external is one signed message to the wallet.
type external struct {
	boc        []byte
	signed     [32]byte // hash of what the signature covers
	seqno      uint32
	validUntil int64 // unix seconds
}

// sign builds the external that makes the wallet send msgs once.
func (w *Wallet) sign(a Account, msgs []Message, validUntil time.Time) (*external, error) {
	if len(msgs) == 0 || len(msgs) > maxMessages {
		return nil, fmt.Errorf("messages: got %d, want 1 to %d", len(msgs), maxMessages)
	}
	if a.Frozen {
		return nil, errors.New("wallet: it is frozen")
	}
	n, err := seqno(a)
	if err != nil {
		return nil, fmt.Errorf("wallet: seqno: %w", err)
	}
	actions := make([]*wallet.Message, len(msgs))
	for i, m := range msgs {
		if actions[i], err = m.action(); err != nil {
			return nil, fmt.Errorf("message %d: %w", i, err)
		}
	}
	list, err := wallet.PackV5OutActions(actions)
	if err != nil {
		return nil, err
	}
	x := &external{seqno: n, validUntil: validUntil.Unix()}
	id := wallet.V5R1ID{NetworkGlobalID: w.globalID}
	payload := cell.BeginCell().MustStoreUInt(0x7369676e, 32).MustStoreUInt(uint64(id.Serialized()), 32).
		MustStoreUInt(uint64(x.validUntil), 32).MustStoreUInt(uint64(n), 32).MustStoreBuilder(list)
	signed := payload.EndCell()
	body := cell.BeginCell().MustStoreBuilder(signed.ToBuilder()).MustStoreSlice(ed25519.Sign(w.key, signed.Hash()), 512).EndCell()
	msg := &tlb.ExternalMessage{DstAddr: w.ton, Body: body}
	if !a.Active {
		msg.StateInit = w.init
	}
	root, err := tlb.ToCell(msg)
	if err != nil {
		return nil, err
	}
	x.boc, x.signed = root.ToBOC(), signed.HashKey()
	return x, nil
}

func (m Message) action() (*wallet.Message, error) {
	to, err := contracts.ToTON(m.To)
	if err != nil {
		return nil, err
	}
	body := m.Body
	if body == nil {
		body = cell.BeginCell().EndCell()
	}
	return &wallet.Message{Mode: sendMode, InternalMessage: &tlb.InternalMessage{
		IHRDisabled: true, Bounce: m.Bounce, DstAddr: to, Amount: tlb.FromNanoTONU(m.Amount), StateInit: m.StateInit, Body: body,
	}}, nil
}

// in reports whether a wallet's transaction took x in. Anybody may put the
// signed body into another envelope, so that only what was signed names it.
func (x *external) in(tx Tx) bool {
	if tx.In == nil || tx.In.Internal || tx.In.Body == nil || tx.In.Body.BitsSize() < 512 {
		return false
	}
	s, err := tx.In.Body.BeginParse()
	if err != nil {
		return false
	}
	bits := s.BitsLeft() - 512
	data, err := s.LoadSlice(bits)
	if err != nil {
		return false
	}
	b := cell.BeginCell()
	if b.StoreSlice(data, bits) != nil {
		return false
	}
	for s.RefsNum() > 0 {
		ref, err := s.LoadRefCell()
		if err != nil || b.StoreRef(ref) != nil {
			return false
		}
	}
	return b.EndCell().HashKey() == x.signed
}
