package attestation

import (
	"fmt"
	"maps"
	"slices"

	"github.com/BurntSushi/toml"
)

// Effective is a policy with every required field. Its zero value rejects everything.
type Effective struct {
	p     Policy
	pins  Policy // the client's own: only what it names vouches for anything
	valid bool
}

// Policy returns a copy of what is in force.
func (e Effective) Policy() Policy { return e.p.clone() }

// Valid reports whether e was made by Combine.
func (e Effective) Valid() bool { return e.valid }

// Describe returns the policy as TOML.
func (e Effective) Describe() (string, error) {
	b, err := toml.Marshal(e.p)
	return string(b), err
}

// Combine returns the strictest of the built-in defaults, the file (may be
// nil) and the registry's floor documents (DESIGN section 3): allow-sets
// intersect, floors take the maximum, ages the minimum, bans the union. The
// TCB status Revoked is never allowed, whoever lists it.
//
// A floor can take away and never give: the releases and models it lists
// narrow the registry but are no pins, and it names no rebuilder that the file
// does not, so that the registry's owner alone cannot ship a backdoor.
func Combine(file *Policy, floors ...*Policy) (Effective, error) {
	p, pins := *Default(), Policy{}
	if file != nil {
		if err := file.check(); err != nil {
			return Effective{}, err
		}
		pins = file.clone()
		if pins.TDX.TCBStatuses != nil {
			p.TDX.TCBStatuses = pins.TDX.TCBStatuses
		}
		if pins.SNP.Products != nil {
			p.SNP.Products = pins.SNP.Products
		}
		if pins.Registry != "" {
			p.Registry = pins.Registry
		}
		p = narrow(p, pins)
	}
	for _, f := range floors {
		if err := f.checkFloor(); err != nil {
			return Effective{}, err
		}
		q := f.clone()
		if pins.Rebuilders == nil {
			q.Rebuilders = nil // there is no set to narrow
		}
		p = narrow(p, q)
	}
	p.TDX.TCBStatuses = slices.DeleteFunc(slices.Clone(p.TDX.TCBStatuses), func(s string) bool { return s == "Revoked" })
	if len(p.TDX.TCBStatuses) == 0 && len(p.SNP.Products) == 0 {
		return Effective{}, fmt.Errorf("policy: tdx.tcb_statuses and snp.products are both empty: nothing could be accepted")
	}
	return Effective{p.clone(), pins, true}, nil
}

// checkFloor refuses, beside what check does, what only a client's own file may say.
func (p *Policy) checkFloor() error {
	if err := p.check(); err != nil {
		return err
	}
	if p.Registry != "" {
		return fmt.Errorf("policy floor: registry: got %q, want it left to the client", p.Registry)
	}
	for name, root := range p.Models {
		if root == Unmeasured {
			return fmt.Errorf("policy floor: models: %s: got %s, want it left to the client", name, root)
		}
	}
	return nil
}

func narrow(p, q Policy) Policy {
	p.Releases = intersect(p.Releases, q.Releases)
	p.Rebuilders = intersect(p.Rebuilders, q.Rebuilders)
	p.Platforms = intersect(p.Platforms, q.Platforms)
	p.BannedPlatforms = append(slices.Clone(p.BannedPlatforms), q.BannedPlatforms...)
	p.ReleaseFloor = max(p.ReleaseFloor, q.ReleaseFloor)
	p.Ages.Collateral = youngest(p.Ages.Collateral, q.Ages.Collateral)
	p.Ages.Registry = youngest(p.Ages.Registry, q.Ages.Registry)
	p.Ages.Beacon = youngest(p.Ages.Beacon, q.Ages.Beacon)
	p.Ages.BeaconFresh = youngest(p.Ages.BeaconFresh, q.Ages.BeaconFresh)
	p.TDX.TCBStatuses = intersect(p.TDX.TCBStatuses, q.TDX.TCBStatuses)
	p.TDX.MinEvalNumber = max(p.TDX.MinEvalNumber, q.TDX.MinEvalNumber)
	p.SNP.Products = intersect(p.SNP.Products, q.SNP.Products)
	if q.SNP.AllowSMT != nil && !*q.SNP.AllowSMT {
		p.SNP.AllowSMT = q.SNP.AllowSMT
	}
	tcb := make(map[string]SNPTCB, len(p.SNP.MinTCB))
	for _, m := range []map[string]SNPTCB{p.SNP.MinTCB, q.SNP.MinTCB} {
		for k, v := range m {
			o := tcb[k]
			tcb[k] = SNPTCB{max(o.FMC, v.FMC), max(o.Bootloader, v.Bootloader), max(o.TEE, v.TEE), max(o.SNP, v.SNP), max(o.Microcode, v.Microcode)}
		}
	}
	p.SNP.MinTCB = tcb
	mitigations := make(map[string]uint64, len(p.SNP.MinMitigations))
	for _, m := range []map[string]uint64{p.SNP.MinMitigations, q.SNP.MinMitigations} {
		for k, v := range m {
			mitigations[k] |= v
		}
	}
	p.SNP.MinMitigations = mitigations
	models := make(map[string]string, len(p.Models)+len(q.Models))
	for _, m := range []map[string]string{p.Models, q.Models} {
		for name, root := range m {
			if o, ok := models[name]; ok && o != root {
				root = conflict // two roots for one name: no root matches
			}
			models[name] = root
		}
	}
	p.Models = models
	return p
}

// conflict is no weights root, so nothing equals it.
const conflict = "conflict"

func intersect[T comparable](a, b []T) []T {
	if b == nil {
		return a
	}
	if a == nil {
		return b
	}
	out := []T{}
	for _, x := range a {
		if slices.Contains(b, x) {
			out = append(out, x)
		}
	}
	return out
}

func youngest(a, b Duration) Duration {
	if b == 0 || a != 0 && a < b {
		return a
	}
	return b
}

// clone copies p deeply; nil and empty stay what they are.
func (p Policy) clone() Policy {
	p.Releases, p.Rebuilders = slices.Clone(p.Releases), slices.Clone(p.Rebuilders)
	p.Platforms, p.BannedPlatforms = slices.Clone(p.Platforms), slices.Clone(p.BannedPlatforms)
	p.Models, p.SNP.MinTCB, p.SNP.MinMitigations = maps.Clone(p.Models), maps.Clone(p.SNP.MinTCB), maps.Clone(p.SNP.MinMitigations)
	p.TDX.TCBStatuses, p.SNP.Products = slices.Clone(p.TDX.TCBStatuses), slices.Clone(p.SNP.Products)
	if p.SNP.AllowSMT != nil {
		smt := *p.SNP.AllowSMT
		p.SNP.AllowSMT = &smt
	}
	return p
}
