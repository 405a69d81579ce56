package attestation

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"
)

// binding ties the quote, the keyset, the documents and the machine together.
func (j *job) binding() {
	b, k := j.b, j.keyset
	if k == nil {
		for _, n := range []string{"binding.report-data", "binding.gpu-digest", "binding.config", "config.allowed", "gpu.evidence"} {
			j.r.Skip(n, "no keyset")
		}
		return
	}
	want := ReportData(b.Keyset, b.Nonce)
	j.r.Expect("binding.report-data", j.claims.ReportData == want, fmt.Sprintf("%x", j.claims.ReportData), fmt.Sprintf("%x", want))
	gpus := GPUEvidenceDigest(b.GPUs)
	j.r.Expect("binding.gpu-digest", k.GPUEvidenceDigest == gpus, fmt.Sprintf("%x", k.GPUEvidenceDigest), fmt.Sprintf("%x", gpus))
	// Evidence that nothing here can authenticate is a failed check, not a skipped one.
	j.r.Expect("gpu.evidence", len(b.GPUs) == 0 && k.GPUCount == 0, fmt.Sprintf("%d GPUs in evidence, %d in the keyset", len(b.GPUs), k.GPUCount), "no GPU, or verified evidence for each")

	sum := sha256.Sum256(b.Config)
	j.r.Expect("binding.config", k.ConfigDigest == sum, fmt.Sprintf("%x", sum), fmt.Sprintf("%x", k.ConfigDigest))
	j.configAllowed()
	j.expected()
}

func (j *job) configAllowed() {
	k := j.keyset
	c, err := ParseWorkerConfig(j.b.Config)
	if err == nil {
		switch {
		case c.WorkerID != k.WorkerID:
			err = fmt.Errorf("worker_id: config has %s, keyset has %s", c.WorkerID, k.WorkerID)
		case c.PayoutAddress != k.PayoutAddress:
			err = fmt.Errorf("payout_address: config has %s, keyset has %s", c.PayoutAddress, k.PayoutAddress)
		case c.GPUCount != k.GPUCount:
			err = fmt.Errorf("gpu_count: config has %d, keyset has %d", c.GPUCount, k.GPUCount)
		case !slices.Equal(c.Models, k.Models):
			err = fmt.Errorf("models: config and keyset differ")
		}
	}
	if j.r.Error("config.allowed", err) {
		j.config = c
	}
}

// expected compares with what the caller asked for and what the chain says.
func (j *job) expected() {
	k, e := j.keyset, j.e
	zero := [32]byte{}
	switch {
	case e.Fresh:
		j.r.Expect("binding.nonce", j.b.Nonce == e.Nonce && e.Nonce != zero, fmt.Sprintf("%x", j.b.Nonce), fmt.Sprintf("%x", e.Nonce))
	default:
		ok := j.b.Nonce == zero || j.b.Nonce == e.Nonce
		j.r.Expect("binding.nonce", ok, fmt.Sprintf("%x", j.b.Nonce), "zeros, or the nonce that was sent")
	}
	if e.WorkerID.IsZero() {
		j.r.Skip("binding.worker", "no worker was named")
	} else {
		j.r.Expect("binding.worker", k.WorkerID == e.WorkerID, k.WorkerID, e.WorkerID)
	}
	if e.Record == nil {
		j.r.Skip("binding.platform", "no worker record given")
		j.r.Skip("binding.payout", "no worker record given")
	} else {
		ok := e.Record.WorkerID == k.WorkerID && e.Record.PlatformID == j.platform && j.platform != zero
		limit := time.Duration(j.policy.p.Ages.Registry)
		recent := !e.Record.ProvenAt.IsZero() && j.now.Sub(e.Record.ProvenAt) <= limit
		j.r.Expect("binding.platform", ok && recent && j.now.Before(e.Record.Expiry), fmt.Sprintf("%x", j.platform),
			fmt.Sprintf("%x of record %s, proven at most %s ago, which runs to %s", e.Record.PlatformID, e.Record.WorkerID, limit, e.Record.Expiry.UTC().Format(time.RFC3339)))
		j.r.Expect("binding.payout", e.Record.Payout == k.PayoutAddress, k.PayoutAddress, e.Record.Payout)
		j.until(e.Record.Expiry)
		j.until(e.Record.ProvenAt.Add(limit))
	}
	p := j.policy.p
	id := Digest(j.platform)
	ok := j.policy.Valid() && j.platform != zero && !slices.Contains(p.BannedPlatforms, id) && (p.Platforms == nil || slices.Contains(p.Platforms, id))
	j.r.Expect("platform.allowed", ok, fmt.Sprintf("%x", id), "a platform on the policy's list, if there is one, and not banned")
}

// errNoRegistry says that a check needs context that was not given.
var errNoRegistry = errors.New("no registry state given")

// image decides whether the measurements are of a release that may run.
func (j *job) image() {
	rel, err := ParseRelease(j.b.Release)
	if err != nil {
		j.r.Error("image.allowed", err)
		return
	}
	p := j.policy.p
	digest := sha256.Sum256(j.b.Release)
	if err := j.releaseAllowed(p, digest, rel); errors.Is(err, errNoRegistry) {
		j.r.Skip("image.allowed", err.Error())
	} else {
		j.r.Error("image.allowed", err)
	}

	match := false
	for i := range rel.Launches {
		match = match || sameLaunch(&rel.Launches[i], &j.claims.Launch)
	}
	got := launchString(&j.claims.Launch)
	if n := len(j.b.EventLog); n > 0 {
		// A log explains registers. Until something here replays one, it explains nothing.
		match, got = false, fmt.Sprintf("%s and an event log of %d bytes that nothing replays", got, n)
	}
	j.r.Expect("image.measurement", match, got, fmt.Sprintf("one of the %d shapes of release %s", len(rel.Launches), rel.Name))

	j.release = rel
	floor := p.ReleaseFloor
	if rel.Number >= floor && j.e.Registry == nil && p.Registry != "none" {
		j.r.Skip("image.floor", errNoRegistry.Error())
		return
	}
	if j.e.Registry != nil {
		floor = max(floor, j.e.Registry.ReleaseFloor)
	}
	j.r.Expect("image.floor", rel.Number >= floor && j.policy.Valid(), rel.Number, fmt.Sprintf("%d or more", floor))
}

// releaseAllowed: a file pin, or the registry together with an independent
// rebuilder whose key is pinned outside it, so that the registry's owner alone
// cannot ship a backdoor.
func (j *job) releaseAllowed(p Policy, digest [32]byte, rel *Release) error {
	pinned := slices.Contains(j.policy.pins.Releases, Digest(digest))
	if p.Releases != nil && !slices.Contains(p.Releases, Digest(digest)) {
		return fmt.Errorf("release %x is not among the %d pinned", digest[:8], len(p.Releases))
	}
	if p.Registry == "none" && !pinned {
		return fmt.Errorf("release %x is not pinned, and the policy does without a registry", digest[:8])
	}
	if !pinned && !j.vouched(p.Rebuilders) {
		return fmt.Errorf("release %x: no signature by any of %d pinned rebuilders", digest[:8], len(p.Rebuilders))
	}
	if p.Registry == "none" {
		return nil
	}
	if j.e.Registry == nil {
		return errNoRegistry
	}
	en, ok := j.e.Registry.Entries[digest]
	if !ok || en.Kind != EntryRelease || !en.Live(j.now) {
		return fmt.Errorf("release %x is not in force in the registry", digest[:8])
	}
	if en.Meta != ReleaseMeta(rel.Number) {
		return fmt.Errorf("release %x: number: manifest has %d, registry has another", digest[:8], rel.Number)
	}
	return nil
}

// vouched reports whether one of the rebuilders signed the release.
func (j *job) vouched(rebuilders []Digest) bool {
	for _, s := range j.b.ReleaseSignatures {
		if slices.Contains(rebuilders, Digest(s.Key)) && VerifyReleaseSignature(s, j.b.Release) {
			return true
		}
	}
	return false
}

func sameLaunch(want, got *Launch) bool {
	if want.TEE != got.TEE || !bytes.Equal(want.MRTD, got.MRTD) || !bytes.Equal(want.Measurement, got.Measurement) || len(want.RTMR) != len(got.RTMR) {
		return false
	}
	for i := range want.RTMR {
		if !bytes.Equal(want.RTMR[i], got.RTMR[i]) {
			return false
		}
	}
	return len(want.MRTD)+len(want.Measurement) > 0
}

func launchString(l *Launch) string {
	if l.TEE == SNP {
		return fmt.Sprintf("measurement %x", l.Measurement)
	}
	return fmt.Sprintf("mrtd %x", l.MRTD)
}

// models maps each name to one root, through the registry or the local policy.
func (j *job) models() {
	if j.keyset == nil {
		j.r.Skip("model.weights", "no keyset")
		return
	}
	err := func() (missing error) {
		p := j.policy.p
		for _, m := range j.keyset.Models {
			if want, ok := p.Models[m.Name]; ok && want != m.WeightsRoot {
				return fmt.Errorf("model %s: weights root: got %s, want %s", m.Name, m.WeightsRoot, want)
			}
			pinned := j.policy.pins.Models[m.Name] == m.WeightsRoot // the client's own written choice
			if m.WeightsRoot == Unmeasured {
				if pinned {
					continue
				}
				return fmt.Errorf("model %s: weights are unmeasured", m.Name)
			}
			if p.Registry == "none" {
				if !pinned {
					return fmt.Errorf("model %s: no weights root is pinned", m.Name)
				}
				continue
			}
			switch err := j.registryModel(m); {
			case errors.Is(err, errNoRegistry):
				missing = err // another model may yet be refused
			case err != nil:
				return err
			}
		}
		return missing
	}()
	if errors.Is(err, errNoRegistry) {
		j.r.Skip("model.weights", err.Error())
		return
	}
	j.r.Error("model.weights", err)
}

func (j *job) registryModel(m Model) error {
	if j.e.Registry == nil {
		return errNoRegistry
	}
	name, key := sha256.Sum256([]byte(m.Name)), ModelKey(m)
	roots, found := 0, false
	for k, en := range j.e.Registry.Entries {
		if en.Kind == EntryModel && en.Meta == name && en.Live(j.now) {
			roots++
			found = found || k == key
		}
	}
	switch {
	case !found:
		return fmt.Errorf("model %s: weights root %s is not in force in the registry", m.Name, m.WeightsRoot)
	case roots > 1:
		return fmt.Errorf("model %s: the registry holds %d roots for one name", m.Name, roots)
	}
	return nil
}

// chainAges bounds the age of the registry's state. What was proven holds, at
// the longest, until the registry's own schedule next changes it.
func (j *job) chainAges() {
	g := j.e.Registry
	p := j.policy.p
	if g != nil {
		for _, en := range g.Entries {
			for _, at := range []int64{en.NotBefore, en.RevokedAt} {
				if t := time.Unix(at, 0); t.After(j.now) {
					j.until(t)
				}
			}
		}
	}
	if p.Registry == "none" && j.policy.Valid() {
		j.r.Expect("registry.fresh", true, "none", "none") // the policy stands alone by choice
		return
	}
	if g == nil {
		j.r.Skip("registry.fresh", "no registry state given")
		return
	}
	limit := time.Duration(p.Ages.Registry)
	if j.r.Expect("registry.fresh", !g.ProvenAt.IsZero() && j.now.Sub(g.ProvenAt) <= limit, j.now.Sub(g.ProvenAt).Round(time.Second), fmt.Sprintf("at most %s", limit)) {
		j.until(g.ProvenAt.Add(limit))
	}
}
