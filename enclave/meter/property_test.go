package meter_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"cocoon/attestation"
	"cocoon/contracts/payout"
	"cocoon/enclave/meter"
)

// TestNoInterleavingOutrunsCredit runs jobs, vouchers and settlements in random
// orders and holds, after each step, the sums that the money rests on.
func TestNoInterleavingOutrunsCredit(t *testing.T) {
	steps := 0
	for seed := range uint64(300) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { steps += interleave(t, rand.New(rand.NewPCG(seed, 1))) })
	}
	if steps < 10_000 {
		t.Errorf("only %d steps were made", steps)
	}
}

// running is what one job made, counted by the test alone.
type running struct {
	j         *meter.Job
	t         meter.Terms
	started   bool
	prompt    uint64
	generated uint64
	bought    uint64
}

func interleave(t *testing.T, r *rand.Rand) (steps int) {
	c := newClient(1)
	prices := attestation.Prices{Prompt: r.Uint64N(3e6), Cached: r.Uint64N(3e6), Completion: r.Uint64N(5e6), Reasoning: r.Uint64N(5e6)}
	paid := r.Uint64N(1000)
	limit := paid + r.Uint64N(20_000)
	a := open(t, newMeter(t, newTimer().wait), c, meter.Opening{Paid: paid, Limit: limit})
	ended, cancel := context.WithCancel(t.Context())
	cancel() // a grant without credit returns at once

	var jobs []*running
	var signed, settled uint64
	signed = paid
	check := func() {
		t.Helper()
		owed := paid + settled
		for _, j := range jobs {
			// What was generated is covered, whatever it will be billed as.
			n, err := payout.Cost(attestation.Usage{Prompt: j.prompt, Completion: j.generated}, prices)
			if err != nil {
				t.Fatal(err)
			}
			owed += n
		}
		if len(jobs) > 0 && owed > signed {
			t.Fatalf("generated %d nano on a credit of %d", owed, signed)
		}
		if paid+settled > signed {
			t.Fatalf("settled %d nano beyond %d, on a credit of %d", settled, paid, signed)
		}
		if got := a.Statement().Settled; got != settled {
			t.Fatalf("statement: settled %d, want %d", got, settled)
		}
	}
	for range 20 + r.IntN(100) {
		steps++
		switch k := r.IntN(10); {
		case k < 2:
			next := signed + r.Uint64N(3000)
			err := a.Credit(c.voucher(t, next), testLog, c.receipts.Count())
			if next > limit {
				if signed < next {
					wantRefusal(t, err, meter.VoucherBalance)
				}
				break
			}
			wantRefusal(t, err, "")
			signed = max(signed, next)
		case k < 4:
			tr := meter.Terms{Prices: prices, Prompt: 1 + r.Uint64N(500), Completion: 1 + r.Uint64N(800)}
			var err error
			if tr.Total, err = payout.Ceiling(tr.Prompt, tr.Completion, prices); err != nil {
				t.Fatal(err)
			}
			if j, err := a.Begin(tr); err == nil {
				jobs = append(jobs, &running{j: j, t: tr, bought: min(meter.Window, tr.Completion)})
			}
		case len(jobs) == 0:
		case k < 5:
			j := jobs[r.IntN(len(jobs))]
			if j.started {
				break
			}
			p := 1 + r.Uint64N(j.t.Prompt)
			wantRefusal(t, j.j.Start(p, r.Uint64N(p+1)), "")
			j.started, j.prompt = true, 0 // its share of cached tokens may be free: count none
		case k < 8:
			j := jobs[r.IntN(len(jobs))]
			if r.IntN(2) == 0 {
				j.j.Buy()
				j.bought = min(j.bought+meter.Window, j.t.Completion)
			}
			for range 1 + r.IntN(300) {
				err := j.j.Grant(ended, j.generated+1)
				if err == nil {
					j.generated++
					if j.generated > j.bought {
						t.Fatalf("granted token %d of %d bought", j.generated, j.bought)
					}
					continue
				}
				if j.generated == j.t.Completion {
					wantRefusal(t, err, meter.CeilingComplete)
				} else if !errors.Is(err, context.Canceled) {
					t.Fatal(err)
				}
				break
			}
		default:
			i := r.IntN(len(jobs))
			j := jobs[i]
			jobs = append(jobs[:i], jobs[i+1:]...)
			// The engine may lie upwards in any count.
			u := attestation.Usage{Prompt: r.Uint64N(2 * j.t.Prompt), Cached: r.Uint64N(100), Completion: j.generated + r.Uint64N(2)*r.Uint64N(2000), Reasoning: r.Uint64N(1000)}
			b := settle(t, a, c, j.j, u)
			settled += b.Cost
			if b.Usage.Prompt > j.t.Prompt || b.Usage.Completion > j.t.Completion || b.Cost > j.t.Total {
				t.Fatalf("bill %+v exceeds the terms %+v", b, j.t)
			}
		}
		check()
	}
	return steps
}
