package contracts

import (
	"fmt"

	"github.com/xssnick/tonutils-go/tlb"
	"github.com/xssnick/tonutils-go/tvm/cell"

	"cocoon/attestation"
)

// maxCloseDelay keeps a client's money from being locked for longer, in seconds.
const maxCloseDelay = 30 * 24 * 3600

// ChannelInit is what a channel is deployed with and never changes (DESIGN section 5).
type ChannelInit struct {
	Nonce      [32]byte            // random: the same parties never meet at one address twice
	WorkerID   attestation.Address // the worker's record
	ClientKey  [32]byte            // Ed25519, signs vouchers
	Client     attestation.Address // may start a close; what is left goes here
	Payout     attestation.Address // what vouchers move goes here; may redeem and release
	Redeemer   attestation.Address // may redeem
	CloseDelay uint32              // seconds between StartClose and FinishClose
}

// Check refuses initial data with which a channel cannot work.
func (i ChannelInit) Check() error {
	if err := CheckClientKey(i.ClientKey); err != nil {
		return fmt.Errorf("channel: %w", err)
	}
	if i.CloseDelay == 0 || i.CloseDelay > maxCloseDelay {
		return fmt.Errorf("channel: close delay: got %d s, want 1 to %d", i.CloseDelay, maxCloseDelay)
	}
	for _, a := range []struct {
		name string
		addr attestation.Address
	}{{"worker id", i.WorkerID}, {"client", i.Client}, {"payout", i.Payout}, {"redeemer", i.Redeemer}} {
		if a.addr.IsZero() {
			return fmt.Errorf("channel: %s: got the zero address", a.name)
		}
	}
	return nil
}

// StateInit is what a deploying message carries.
func (i ChannelInit) StateInit() (*tlb.StateInit, error) {
	if err := i.Check(); err != nil {
		return nil, err
	}
	data, err := ChannelState{Init: i}.Data()
	if err != nil {
		return nil, err
	}
	return &tlb.StateInit{Code: ChannelCode(), Data: data}, nil
}

// Address is where the channel lives.
func (i ChannelInit) Address() (attestation.Address, error) {
	s, err := i.StateInit()
	if err != nil {
		return attestation.Address{}, err
	}
	return addressOf(s)
}

// ChannelState is a channel's data. Its balance is the account's, not the data's.
type ChannelState struct {
	Init    ChannelInit
	Paid    uint64 // nano, what redeems have moved so far
	CloseAt uint32 // Unix seconds from which anyone may finish the close; 0 while none was started
	Closed  bool   // a tombstone, for ever
}

// Data builds the data cell (Channel in schema.tlb).
func (s ChannelState) Data() (*cell.Cell, error) {
	parties := cell.BeginCell()
	terms := cell.BeginCell()
	root := cell.BeginCell()
	for _, err := range []error{
		parties.StoreSlice(s.Init.Nonce[:], 256),
		storeAddress(parties, "worker id", s.Init.WorkerID),
		storeAddress(parties, "client", s.Init.Client),
		terms.StoreSlice(s.Init.ClientKey[:], 256),
		storeAddress(terms, "payout", s.Init.Payout),
		storeAddress(terms, "redeemer", s.Init.Redeemer),
		terms.StoreUInt(uint64(s.Init.CloseDelay), 32),
		terms.StoreRef(parties.EndCell()),
		root.StoreCoins(s.Paid),
		root.StoreUInt(uint64(s.CloseAt), 32),
		root.StoreBoolBit(s.Closed),
		root.StoreRef(terms.EndCell()),
	} {
		if err != nil {
			return nil, fmt.Errorf("channel: %w", err)
		}
	}
	return root.EndCell(), nil
}

// ParseChannel reads the code and data of the account at addr, as they were proven. It checks the code's hash
// and that addr is where the initial data deploy, so a look-alike with money already marked as paid is refused.
func ParseChannel(addr attestation.Address, code, data *cell.Cell) (ChannelState, error) {
	if err := checkCode("channel", code, ChannelCodeHash); err != nil {
		return ChannelState{}, err
	}
	s, err := parseChannelData(data)
	if err != nil {
		return ChannelState{}, fmt.Errorf("channel: data: %w", err)
	}
	want, err := s.Init.Address()
	if err != nil {
		return ChannelState{}, err
	}
	if addr != want {
		return ChannelState{}, fmt.Errorf("channel: address: got %s, want %s, where its initial data deploy", addr, want)
	}
	return s, nil
}

func parseChannelData(data *cell.Cell) (ChannelState, error) {
	var s ChannelState
	if err := ordinary(data, 3); err != nil {
		return s, err
	}
	root := read(data)
	s.Paid = root.coins("paid")
	s.CloseAt = uint32(root.uint("close at", 32))
	s.Closed = root.uint("closed", 1) == 1
	termsCell := root.ref("terms")
	if err := root.end(); err != nil {
		return s, err
	}
	terms := read(termsCell)
	s.Init.ClientKey = terms.bytes32("client key")
	s.Init.Payout = terms.address("payout")
	s.Init.Redeemer = terms.address("redeemer")
	s.Init.CloseDelay = uint32(terms.uint("close delay", 32))
	partiesCell := terms.ref("parties")
	if err := terms.end(); err != nil {
		return s, err
	}
	parties := read(partiesCell)
	s.Init.Nonce = parties.bytes32("nonce")
	s.Init.WorkerID = parties.address("worker id")
	s.Init.Client = parties.address("client")
	if err := parties.end(); err != nil {
		return s, err
	}
	built, err := s.Data()
	return s, same(data, built, err)
}
