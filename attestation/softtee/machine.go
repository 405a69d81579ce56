package softtee

import (
	"context"
	"fmt"
	"sync"
	"time"

	"cocoon/attestation"
)

// Machine is one software host of a world. A new one is healthy: a strict
// policy accepts its quotes. Its exported fields spoil it, for tests, and
// must not change while it quotes. Quote is safe for concurrent use.
type Machine struct {
	Clock func() time.Time               // dates the collateral; nil: the world's
	TDX   TDXFaults                      // what is wrong, of a TDX machine
	SNP   func(*SNPGuest, *SNPCRL)       // changes a report and its list before they are signed, of an SNP machine
	After func(*attestation.CPUEvidence) // changes bytes after all is signed

	world *World
	tee   attestation.TEE
	ppid  [16]byte
	amd   *AMD
	err   error

	mu     sync.Mutex
	cached *intelCollateral
}

// Machine returns the world's first machine of a technology.
func (w *World) Machine(tee attestation.TEE) *Machine { return w.MachineAt(tee, 0) }

// MachineAt returns the n-th machine of a technology, from 0. Each has a
// platform id of its own, and the same in every process that holds the world.
func (w *World) MachineAt(tee attestation.TEE, n uint) *Machine {
	m := &Machine{world: w, tee: tee, amd: w.amd}
	copy(m.ppid[:], w.derive(fmt.Sprintf("tdx/ppid/%d", n), 16))
	if n > 0 && tee == attestation.SNP {
		other := *w.amd
		copy(other.chipID[:other.hwidSize()], w.derive(fmt.Sprintf("snp/chip/%d", n), other.hwidSize()))
		other.vek, m.err = other.issueVCEK(w.Clock())
		m.amd = &other
	}
	return m
}

// Launch is what the machine's guest measures.
func (m *Machine) Launch() attestation.Launch { return m.world.Launch(m.tee) }

// PlatformID is the machine's id as policies and worker records name it.
func (m *Machine) PlatformID() [32]byte {
	if m.tee == attestation.SNP {
		return m.amd.PlatformID()
	}
	return attestation.PlatformID("tdx", m.ppid[:])
}

// Quote signs report data, and adds all the collateral that verifying takes.
// Collateral is issued anew when it is a day old by the machine's clock.
func (m *Machine) Quote(ctx context.Context, reportData [64]byte) (attestation.CPUEvidence, error) {
	if err := ctx.Err(); err != nil {
		return attestation.CPUEvidence{}, err
	}
	ev, err := m.quote(reportData)
	if err != nil {
		return attestation.CPUEvidence{}, fmt.Errorf("software %s machine: %w", m.tee, err)
	}
	if m.After != nil {
		m.After(&ev)
	}
	return ev, nil
}

func (m *Machine) quote(reportData [64]byte) (attestation.CPUEvidence, error) {
	now := m.now()
	switch {
	case m.err != nil:
		return attestation.CPUEvidence{}, m.err
	case m.tee == attestation.TDX:
		return m.quoteTDX(reportData, now)
	case m.tee == attestation.SNP:
		return m.quoteSNP(reportData, now)
	}
	return attestation.CPUEvidence{}, fmt.Errorf("tee: got %q, want %q or %q", m.tee, attestation.TDX, attestation.SNP)
}

func (m *Machine) now() time.Time {
	if m.Clock != nil {
		return m.Clock()
	}
	return m.world.Clock()
}

func (m *Machine) quoteSNP(reportData [64]byte, now time.Time) (attestation.CPUEvidence, error) {
	g := m.amd.NewSNPGuest([48]byte(m.Launch().Measurement))
	list := SNPCRL{ThisUpdate: now.Add(-issuedBefore), NextUpdate: now.Add(validFor)}
	if m.SNP != nil {
		m.SNP(&g, &list)
	}
	report, err := m.amd.Report(g, reportData)
	if err != nil {
		return attestation.CPUEvidence{}, err
	}
	c, err := m.amd.Collateral(list)
	if err != nil {
		return attestation.CPUEvidence{}, err
	}
	return attestation.CPUEvidence{TEE: attestation.SNP, Quote: report, SNP: c}, nil
}
