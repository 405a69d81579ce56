package payout_test

import (
	"errors"
	"math"
	"math/big"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"

	"cocoon/attestation"
	"cocoon/contracts/payout"
)

func TestCost(t *testing.T) {
	const million = payout.TokensPerPrice
	prices := attestation.Prices{Prompt: 10, Cached: 1, Completion: 100, Reasoning: 1000}
	for name, c := range map[string]struct {
		usage  attestation.Usage
		prices attestation.Prices
		want   uint64
	}{
		"nothing":                   {attestation.Usage{}, prices, 0},
		"free":                      {attestation.Usage{Prompt: 5, Completion: 5}, attestation.Prices{}, 0},
		"one of each":               {attestation.Usage{Prompt: 2 * million, Cached: million, Completion: 2 * million, Reasoning: million}, prices, 1111},
		"cached is not prompt too":  {attestation.Usage{Prompt: million, Cached: million}, prices, 1},
		"reasoning, not completion": {attestation.Usage{Completion: million, Reasoning: million}, prices, 1000},
		"up to a whole nano":        {attestation.Usage{Prompt: 1}, prices, 1},
		"rounded once":              {attestation.Usage{Prompt: 1, Completion: 1}, prices, 1},
		"just above":                {attestation.Usage{Prompt: 100_001}, prices, 2},
		"exact":                     {attestation.Usage{Prompt: 100_000}, prices, 1},
		"largest":                   {attestation.Usage{Prompt: million}, attestation.Prices{Prompt: math.MaxUint64}, math.MaxUint64},
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := payout.Cost(c.usage, c.prices); err != nil || got != c.want {
				t.Errorf("got %d %v, want %d", got, err, c.want)
			}
		})
	}
}

func TestCostRefuses(t *testing.T) {
	huge := attestation.Prices{Prompt: math.MaxUint64, Cached: math.MaxUint64, Completion: math.MaxUint64, Reasoning: math.MaxUint64}
	for name, c := range map[string]struct {
		usage    attestation.Usage
		overflow bool
	}{
		"more cached than prompt":        {attestation.Usage{Prompt: 1, Cached: 2}, false},
		"more reasoning than completion": {attestation.Usage{Completion: 1, Reasoning: 2}, false},
		"one nano too much":              {attestation.Usage{Prompt: payout.TokensPerPrice, Completion: 1}, true},
		"beyond 64 bits":                 {attestation.Usage{Prompt: payout.TokensPerPrice + 1}, true},
		"beyond 128 bits":                {attestation.Usage{Prompt: math.MaxUint64, Completion: math.MaxUint64}, true},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := payout.Cost(c.usage, huge)
			if err == nil || errors.Is(err, payout.ErrOverflow) != c.overflow {
				t.Errorf("got %d %v, want an error (overflow %t)", got, err, c.overflow)
			}
		})
	}
}

// Against arbitrary precision.
func TestCostIsExact(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	number := func() uint64 { return rnd.Uint64() >> rnd.UintN(64) }
	overflows := 0
	for range 20_000 {
		u := attestation.Usage{Prompt: number(), Completion: number()}
		u.Cached = min(number(), u.Prompt)
		u.Reasoning = min(number(), u.Completion)
		p := attestation.Prices{Prompt: number(), Cached: number(), Completion: number(), Reasoning: number()}
		sum := new(big.Int)
		for _, x := range [][2]uint64{{u.Prompt - u.Cached, p.Prompt}, {u.Cached, p.Cached}, {u.Completion - u.Reasoning, p.Completion}, {u.Reasoning, p.Reasoning}} {
			sum.Add(sum, new(big.Int).Mul(new(big.Int).SetUint64(x[0]), new(big.Int).SetUint64(x[1])))
		}
		sum.Add(sum, big.NewInt(payout.TokensPerPrice-1))
		sum.Div(sum, big.NewInt(payout.TokensPerPrice))
		got, err := payout.Cost(u, p)
		if !sum.IsUint64() {
			overflows++
			if !errors.Is(err, payout.ErrOverflow) {
				t.Fatalf("%+v at %+v: got %d %v, want an overflow", u, p, got, err)
			}
			continue
		}
		if err != nil || got != sum.Uint64() {
			t.Fatalf("%+v at %+v: got %d %v, want %s", u, p, got, err, sum)
		}
		ceiling, err := payout.Ceiling(u.Prompt, u.Completion, p)
		if err == nil && ceiling < got {
			t.Fatalf("%+v at %+v: ceiling %d below the cost %d", u, p, ceiling, got)
		}
	}
	if overflows < 100 || overflows > 19_000 {
		t.Errorf("overflows: got %d of 20000, want both kinds", overflows)
	}
}

func address(n byte) attestation.Address { return attestation.NewAddress(0, [32]byte{n}) }

func TestSettle(t *testing.T) {
	a, b := address(1), address(2)
	log1, log2 := [32]byte{1}, [32]byte{2}
	receipts := []payout.Receipt{
		{Channel: b, LogID: log1, Index: 0, Cost: 7},
		{Channel: a, LogID: log1, Index: 0, Cost: 10},
		{Channel: a, LogID: log1, Index: 1, Cost: 20},
		{Channel: a, LogID: log2, Index: 0, Cost: 30},
	}
	for name, c := range map[string]struct {
		receipts []payout.Receipt
		vouchers []payout.Voucher
		payouts  []payout.Payout
		want     []payout.Account
		fails    []payout.Inequality
	}{
		"nothing": {nil, nil, nil, []payout.Account{}, nil},
		"adds up": {
			receipts,
			[]payout.Voucher{{a, 50}, {a, 100}, {a, 90}, {b, 7}},
			[]payout.Payout{{a, 40}, {a, 60}},
			[]payout.Account{{Channel: a, Settled: 60, Vouchers: 100, Payouts: 100, Unused: 40}, {Channel: b, Settled: 7, Vouchers: 7}},
			nil,
		},
		"more settled than promised": {
			receipts[:1], []payout.Voucher{{b, 6}}, nil,
			[]payout.Account{{Channel: b, Settled: 7, Vouchers: 6}},
			[]payout.Inequality{payout.SettledWithinVouchers},
		},
		"more paid than promised": {
			nil, []payout.Voucher{{b, 6}}, []payout.Payout{{b, 7}},
			[]payout.Account{{Channel: b, Vouchers: 6, Payouts: 7, Unused: 6}},
			[]payout.Inequality{payout.PayoutsWithinVouchers},
		},
		"both, and another channel": {
			receipts, []payout.Voucher{{a, 60}}, []payout.Payout{{b, 1}, {a, 61}},
			[]payout.Account{{Channel: a, Settled: 60, Vouchers: 60, Payouts: 61}, {Channel: b, Settled: 7, Payouts: 1}},
			[]payout.Inequality{payout.PayoutsWithinVouchers, payout.SettledWithinVouchers, payout.PayoutsWithinVouchers},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := payout.Settle(c.receipts, c.vouchers, c.payouts)
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
			var fails []payout.Inequality
			for _, a := range got {
				for _, e := range split(a.Check()) {
					var i *payout.ImbalanceError
					if !errors.As(e, &i) || i.Channel != a.Channel {
						t.Fatalf("got %v, want an imbalance of %s", e, a.Channel)
					}
					fails = append(fails, i.Fails)
				}
			}
			if diff := cmp.Diff(c.fails, fails); diff != "" {
				t.Error(diff)
			}
			if (err != nil) != (len(c.fails) > 0) {
				t.Errorf("error: got %v", err)
			}
		})
	}
}

func split(err error) []error {
	if j, ok := err.(interface{ Unwrap() []error }); ok {
		return j.Unwrap()
	}
	return nil
}

func TestSettleRefuses(t *testing.T) {
	a := address(1)
	twice := []payout.Receipt{{Channel: a, Index: 3, Cost: 1}, {Channel: a, Index: 3, Cost: 2}}
	if got, err := payout.Settle(twice, []payout.Voucher{{a, 10}}, nil); err == nil || got != nil {
		t.Errorf("a receipt twice: got %v %v, want an error alone", got, err)
	}
	most := []payout.Receipt{{Channel: a, Cost: math.MaxUint64}, {Channel: a, Index: 1, Cost: 1}}
	if got, err := payout.Settle(most, nil, nil); !errors.Is(err, payout.ErrOverflow) || got != nil {
		t.Errorf("settled beyond 64 bits: got %v %v", got, err)
	}
	if got, err := payout.Settle(nil, nil, []payout.Payout{{a, math.MaxUint64}, {a, 1}}); !errors.Is(err, payout.ErrOverflow) || got != nil {
		t.Errorf("payouts beyond 64 bits: got %v %v", got, err)
	}
}
