package contracts_test

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/xssnick/tonutils-go/tvm/cell"

	"cocoon/attestation"
	"cocoon/contracts"
)

var update = flag.Bool("update", false, "write testdata/gas.golden")

// maxRedeemGas is DESIGN section 7's.
const maxRedeemGas = 9000

// TestGas holds what each operation costs, under the mainnet configuration of 2026-05-14, against a table. A
// change of any figure is to be seen and committed: go test -run TestGas -update.
func TestGas(t *testing.T) {
	var table strings.Builder
	fmt.Fprintln(&table, "# operation: gas, fees taken from the account (nano)")
	row := func(name string, o outcome) {
		t.Helper()
		if !o.ran {
			t.Errorf("%s: did not run", name)
		}
		fmt.Fprintf(&table, "%-44s %6d %8d\n", name, o.gas, o.fees)
	}
	// Each constant must stay well above what its operations take.
	bounds := map[string]uint64{
		"channel deploy": contracts.DeployFee, "channel redeem": contracts.RedeemFee, "channel start": contracts.CloseFee,
		"channel finish": contracts.CloseFee, "channel release": contracts.CloseFee,
		"registry": contracts.RegistryFee, "worker": contracts.RegistryFee,
	}
	bounded := 0
	accepted := func(name string, o outcome) outcome {
		t.Helper()
		if !o.acted {
			t.Errorf("%s: exit %d", name, o.exit)
		}
		for prefix, bound := range bounds {
			if strings.HasPrefix(name, prefix) {
				bounded++
				if o.fees > bound*3/4 {
					t.Errorf("%s: got %d nano of fees, want well below %d", name, o.fees, bound)
				}
			}
		}
		row(name, o)
		return o
	}
	refused := func(name string, o outcome) {
		t.Helper()
		if o.acted {
			t.Errorf("%s: was accepted", name)
		}
		row(name, o)
	}
	size := func(name string, a *account) {
		code, data, _ := a.state()
		fmt.Fprintf(&table, "%-44s %6d cells\n", name, cells(code)+cells(data)+1)
	}

	init := channelInit()
	ch := &channel{newAccount(t, must(init.Address())), init}
	accepted("channel deploy", ch.deliver(ch.message(client, coin, contracts.TopUpBody(), must(init.StateInit()))))
	redeems := []outcome{
		accepted("channel redeem, first", ch.redeem(redeemer, ch.voucher(100_000_000))),
		accepted("channel redeem, by the payout", ch.redeem(payee, ch.voucher(200_000_000))),
	}
	refused("channel redeem, replayed", ch.redeem(redeemer, ch.voucher(200_000_000)))
	refused("channel redeem, by a stranger", ch.redeem(stranger, ch.voucher(300_000_000)))
	redeems = append(redeems, accepted("channel redeem, emptying", ch.redeem(redeemer, ch.voucher(1<<63))))
	accepted("channel top-up", ch.send(client, coin, contracts.TopUpBody()))
	accepted("channel start close", ch.send(client, contracts.CloseFee, contracts.StartCloseBody()))
	redeems = append(redeems, accepted("channel redeem, in the window, largest amount", ch.redeem(redeemer, ch.voucher(1<<64-1))))
	ch.now += contracts.CloseDelay
	accepted("channel finish close", ch.send(stranger, contracts.CloseFee, contracts.FinishCloseBody()))
	refused("channel closed", ch.send(client, coin, contracts.TopUpBody()))
	size("channel", ch.account)
	other := openChannel(t, coin)
	accepted("channel release", other.send(payee, contracts.CloseFee, contracts.ReleaseBody()))
	for _, o := range redeems {
		if o.gas > maxRedeemGas {
			t.Errorf("redeem: got %d gas, want at most %d", o.gas, maxRedeemGas)
		}
	}

	for _, entries := range []int{1, contracts.MaxEntries - 1} {
		r := deployRegistry(t, registryInit(entries))
		name := func(op string) string { return fmt.Sprintf("registry of %d: %s", entries, op) }
		propose := func(op contracts.Op) outcome {
			return r.send(owner, contracts.RegistryFee, must(contracts.ProposeBody(op)))
		}
		accepted(name("propose entry"), propose(contracts.SetEntry{Key: [32]byte{0xee}, Kind: attestation.EntryModel}))
		accepted(name("propose owner"), propose(contracts.SetOwner{Owner: stranger}))
		accepted(name("propose floor"), propose(contracts.RaiseFloor{ReleaseFloor: 50}))
		accepted(name("cancel by guardian"), r.send(guardian, contracts.RegistryFee, contracts.CancelBody(1)))
		r.now += contracts.MinRegistryDelay
		accepted(name("execute entry"), r.send(stranger, contracts.RegistryFee, contracts.ExecuteBody(0, nil)))
		accepted(name("execute floor"), r.send(stranger, contracts.RegistryFee, contracts.ExecuteBody(2, nil)))
		accepted(name("revoke"), r.send(guardian, contracts.RegistryFee, contracts.RevokeBody([32]byte{0xee})))
		refused(name("revoke by a stranger"), r.send(stranger, contracts.RegistryFee, contracts.RevokeBody([32]byte{0xee})))
		size(name("size"), r.account)
	}

	w := deployWorker(t, coin)
	accepted("worker set, one model", w.send(owner, contracts.RegistryFee, must(contracts.SetRecordBody(workerRecord(1)))))
	accepted("worker set, eight models, longest endpoint", w.send(owner, contracts.RegistryFee, must(contracts.SetRecordBody(largestRecord()))))
	refused("worker set by a stranger", w.send(stranger, contracts.RegistryFee, must(contracts.SetRecordBody(workerRecord(1)))))
	size("worker, largest", w.account)

	if bounded < 20 {
		t.Errorf("only %d operations were held against a fee constant", bounded)
	}

	const golden = "testdata/gas.golden"
	if *update {
		if err := os.WriteFile(golden, []byte(table.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), table.String()); diff != "" {
		t.Errorf("gas changed (-committed +now):\n%s", diff)
	}
}

// cells counts a tree's distinct cells, as storage is charged.
func cells(root *cell.Cell) int {
	seen := map[string]bool{}
	var walk func(c *cell.Cell)
	walk = func(c *cell.Cell) {
		if seen[string(c.Hash())] {
			return
		}
		seen[string(c.Hash())] = true
		for i := range int(c.RefsNum()) {
			walk(c.MustPeekRef(i))
		}
	}
	walk(root)
	return len(seen)
}
