package lite

import (
	"bytes"
	"crypto/ed25519"
	"testing"
	"time"

	"cocoon/attestation"
	"cocoon/contracts"

	"github.com/xssnick/tonutils-go/tlb"
	"github.com/xssnick/tonutils-go/tvm/cell"
)

// A stranger may carry the signed body in an envelope of his own. If that were
// not recognized, Send would report a payment as not made that was made.
func TestSignedBodyIsKnownInAnyEnvelope(t *testing.T) {
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, ed25519.SeedSize))
	addr, init, err := walletOf(key.Public().(ed25519.PublicKey), -777)
	if err != nil {
		t.Fatal(err)
	}
	w := &Wallet{key: key, globalID: -777, init: init, addr: addr}
	if w.ton, err = contracts.ToTON(addr); err != nil {
		t.Fatal(err)
	}
	sign := func(nano uint64) (*external, *tlb.ExternalMessage) {
		x, err := w.sign(Account{}, []Message{{To: attestation.NewAddress(0, [32]byte{9}), Amount: nano}}, time.Unix(1_800_000_000, 0))
		if err != nil {
			t.Fatal(err)
		}
		root, err := cell.FromBOC(x.boc)
		if err != nil {
			t.Fatal(err)
		}
		var m tlb.Message
		if err := tlb.Parse(&m, root); err != nil {
			t.Fatal(err)
		}
		return x, m.Msg.(*tlb.ExternalMessage)
	}
	mine, msg := sign(5)
	_, other := sign(6)
	msg.StateInit, msg.ImportFee = nil, tlb.FromNanoTONU(3)
	root, err := tlb.ToCell(msg)
	if err != nil {
		t.Fatal(err)
	}
	in, err := readMessage(root)
	if err != nil {
		t.Fatal(err)
	}
	if !mine.in(Tx{In: &in}) {
		t.Error("the same body in another envelope: got another message")
	}
	if mine.in(Tx{In: &TxMessage{Body: other.Body}}) {
		t.Error("another body: got the same message")
	}
	in.Internal = true
	for name, tx := range map[string]Tx{"nothing in": {}, "internal": {In: &in}, "short": {In: &TxMessage{Body: cell.BeginCell().EndCell()}}} {
		if mine.in(tx) {
			t.Errorf("%s: got the same message", name)
		}
	}
}
