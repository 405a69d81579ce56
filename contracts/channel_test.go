package contracts_test

import (
	"testing"

	"cocoon/attestation"
	"cocoon/contracts"
)

var (
	client   = person(0xc1)
	payee    = person(0xa1)
	redeemer = person(0xa2)
	stranger = person(0x66)
	workerID = person(0x10)
)

const (
	clientKeySeed = 7
	coin          = 1_000_000_000
)

// channel is a deployed channel and its client's key.
type channel struct {
	*account
	init contracts.ChannelInit
}

func channelInit() contracts.ChannelInit {
	return contracts.ChannelInit{
		Nonce: [32]byte{9}, WorkerID: workerID, ClientKey: [32]byte(testKey(clientKeySeed)[32:]),
		Client: client, Payout: payee, Redeemer: redeemer, CloseDelay: contracts.CloseDelay,
	}
}

// openChannel deploys a channel with that much on it beyond the deployment's fees, give or take.
func openChannel(t testing.TB, value uint64) *channel {
	t.Helper()
	return deployChannel(t, channelInit(), value)
}

func deployChannel(t testing.TB, init contracts.ChannelInit, value uint64) *channel {
	t.Helper()
	s := must(init.StateInit())
	a := newAccount(t, must(init.Address()))
	if o := a.deliver(a.message(client, value, contracts.TopUpBody(), s)); !o.acted {
		t.Fatalf("deploy: exit %d", o.exit)
	}
	return &channel{a, init}
}

func (c *channel) parse() (contracts.ChannelState, uint64) {
	c.t.Helper()
	code, data, balance := c.state()
	s, err := contracts.ParseChannel(c.addr, code, data)
	if err != nil {
		c.t.Fatal(err)
	}
	return s, balance
}

func (c *channel) voucher(cumulative uint64) contracts.SignedVoucher {
	c.t.Helper()
	return c.sign(contracts.Voucher{GlobalID: globalID, Channel: c.addr, Cumulative: cumulative, ReceiptsHead: [32]byte{1}})
}

func (c *channel) sign(v contracts.Voucher) contracts.SignedVoucher {
	c.t.Helper()
	return must(contracts.SignVoucher(testKey(clientKeySeed), v))
}

func (c *channel) redeem(from attestation.Address, v contracts.SignedVoucher) outcome {
	c.t.Helper()
	return c.send(from, contracts.RedeemFee, must(contracts.RedeemBody(v)))
}
