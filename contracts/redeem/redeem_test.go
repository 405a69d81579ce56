package redeem_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"cocoon/attestation"
	"cocoon/contracts"
	"cocoon/contracts/lite"
	"cocoon/contracts/redeem"
)

var (
	clientKey = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, 32))
	payee     = attestation.NewAddress(0, [32]byte{2})
	redeemer  = attestation.NewAddress(0, [32]byte{3})
)

// host is one with vouchers, a chain to look at and a wallet.
type host struct {
	t        *testing.T
	vouchers map[attestation.Address][]byte
	accounts map[attestation.Address]lite.Account
	from     attestation.Address
	refuse   error
	sent     [][]lite.Message
	log      bytes.Buffer
}

func (h *host) Vouchers(context.Context) (map[attestation.Address][]byte, error) {
	return h.vouchers, nil
}

func (h *host) Account(_ context.Context, a attestation.Address) (lite.Account, error) {
	acc, ok := h.accounts[a]
	if !ok {
		return acc, errors.New("no liteserver answers")
	}
	return acc, nil
}

func (h *host) Address() attestation.Address { return h.from }

func (h *host) Send(_ context.Context, msgs []lite.Message) error {
	h.sent = append(h.sent, msgs)
	return h.refuse
}

// channel opens one, with a voucher that edit may spoil before it is signed.
func (h *host) channel(n byte, deposit, cumulative uint64, state func(*contracts.ChannelState), key ed25519.PrivateKey) attestation.Address {
	h.t.Helper()
	init := contracts.ChannelInit{
		Nonce: [32]byte{n}, WorkerID: attestation.NewAddress(0, [32]byte{9}), ClientKey: [32]byte(clientKey.Public().(ed25519.PublicKey)),
		Client: attestation.NewAddress(0, [32]byte{8}), Payout: payee, Redeemer: redeemer, CloseDelay: contracts.CloseDelay,
	}
	addr, err := init.Address()
	if err != nil {
		h.t.Fatal(err)
	}
	s := contracts.ChannelState{Init: init}
	if state != nil {
		state(&s)
	}
	data, err := s.Data()
	if err != nil {
		h.t.Fatal(err)
	}
	h.accounts[addr] = lite.Account{Address: addr, Exists: true, Active: true, Code: contracts.ChannelCode(), Data: data, Balance: deposit + contracts.Reserve, At: lite.Block{Time: time.Unix(1, 0)}}
	v, err := contracts.SignVoucher(key, contracts.Voucher{GlobalID: -239, Channel: addr, Cumulative: cumulative})
	if err != nil {
		h.t.Fatal(err)
	}
	if h.vouchers[addr], err = v.MarshalBinary(); err != nil {
		h.t.Fatal(err)
	}
	return addr
}

func newHost(t *testing.T) *host {
	return &host{t: t, from: payee, vouchers: map[attestation.Address][]byte{}, accounts: map[attestation.Address]lite.Account{}}
}

func (h *host) once() ([]redeem.Due, error) {
	return redeem.Once(h.t.Context(), redeem.Config{Vouchers: h, Accounts: h, Sender: h, Logger: slog.New(slog.NewTextHandler(&h.log, nil))})
}

const fee = contracts.RedeemFee

// What a channel would refuse costs a fee at every tick, for ever: it is not sent.
func TestNothingIsSentThatWouldBeRefused(t *testing.T) {
	_, other, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		make func(h *host)
		log  string
	}{
		"a voucher of another key": {func(h *host) { h.channel(1, 1e9, 5e8, nil, other) }, "signature"},
		"another wallet":           {func(h *host) { h.channel(1, 1e9, 5e8, nil, clientKey); h.from = attestation.NewAddress(0, [32]byte{7}) }, "sender"},
		"dust":                     {func(h *host) { h.channel(1, 1e9, 10*fee-1, nil, clientKey) }, ""},
		"dust of a closing channel": {func(h *host) {
			h.channel(1, 1e9, fee, func(s *contracts.ChannelState) { s.CloseAt = 5 }, clientKey)
		}, ""},
		"a large voucher on an empty channel": {func(h *host) { h.channel(1, 0, 5e8, nil, clientKey) }, ""},
		"what was paid":                       {func(h *host) { h.channel(1, 1e9, 5e8, func(s *contracts.ChannelState) { s.Paid = 5e8 }, clientKey) }, ""},
		"a closed channel": {func(h *host) {
			h.channel(1, 1e9, 5e8, func(s *contracts.ChannelState) { s.Closed = true }, clientKey)
		}, ""},
		"an account that is no channel": {func(h *host) {
			a := h.channel(1, 1e9, 5e8, nil, clientKey)
			acc := h.accounts[a]
			acc.Code = contracts.WorkerCode()
			h.accounts[a] = acc
		}, "code"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			c.make(h)
			if due, err := h.once(); err != nil || len(due) != 0 || len(h.sent) != 0 {
				t.Errorf("got %d due, %d sent, %v", len(due), len(h.sent), err)
			}
			if !strings.Contains(h.log.String(), c.log) {
				t.Errorf("log %q does not say %q", h.log.String(), c.log)
			}
		})
	}
}

// A wallet that runs short must not lose what a close threatens to many small
// channels; and one bad channel holds up no other.
func TestWhatIsUrgentGoesFirst(t *testing.T) {
	h := newHost(t)
	h.from = redeemer
	small := h.channel(1, 1e9, 10*fee, nil, clientKey)
	large := h.channel(2, 1e9, 5e8, nil, clientKey)
	closing := h.channel(3, 1e9, 2*fee, func(s *contracts.ChannelState) { s.CloseAt = 5 }, clientKey)
	bad := h.channel(4, 1e9, 5e8, nil, clientKey)
	delete(h.accounts, bad)
	due, err := h.once()
	if err != nil || len(h.sent) != 1 {
		t.Fatalf("got %d sends, %v", len(h.sent), err)
	}
	var got []attestation.Address
	for i, m := range h.sent[0] {
		got = append(got, m.To)
		if m.Amount != fee || !m.Bounce || due[i].Channel != m.To {
			t.Errorf("message %d: %d nano, bounce %t", i, m.Amount, m.Bounce)
		}
	}
	if want := []attestation.Address{closing, large, small}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if due[0].Amount != 2*fee || due[1].Amount != 5e8 || due[2].Amount != 10*fee {
		t.Errorf("amounts: got %+v", due)
	}
}

// A batch that failed in part does not keep the next one back.
func TestBatches(t *testing.T) {
	h := newHost(t)
	for n := range 201 {
		h.channel(byte(n), 1e9, 5e8, nil, clientKey)
	}
	h.refuse = errors.New("one was refused")
	if _, err := h.once(); !errors.Is(err, h.refuse) || len(h.sent) != 2 || len(h.sent[0]) != 200 || len(h.sent[1]) != 1 {
		t.Errorf("got %d sends, %v", len(h.sent), err)
	}
}
