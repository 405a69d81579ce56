package attestation

import "crypto/sha256"

// result draws the verdict from what was recorded, never from what was not.
func (j *job) result(bundle [32]byte) *Result {
	res := &Result{
		Verdict: Accepted, Complete: !j.alone, Assurance: j.claims.Assurance, Checks: j.r.Checks(),
		TEE: j.b.CPU.TEE, Product: j.claims.Product, TCBStatus: j.claims.TCBStatus, Advisory: j.claims.Advisories,
		Platform: Digest(j.platform), Bundle: Digest(bundle), Expires: j.expires,
	}
	for _, n := range names {
		if n.TEE != "" && n.TEE != j.b.CPU.TEE || j.r.Passed(n.Name) {
			continue
		}
		if j.alone && n.TEE == "" && n.Name != "assurance.allowed" {
			continue
		}
		outcome, recorded := j.r.worst(n.Name)
		if !recorded {
			res.Checks = append(res.Checks, Check{Name: n.Name, Reason: "not made: an earlier check failed"})
		}
		switch {
		case outcome == Fail && n.Class == Authenticity:
			res.Verdict = NotAuthentic
		case outcome == Skip && n.Class == Context:
			res.Complete = false
		case res.Verdict == Accepted:
			res.Verdict = NotAcceptable
		}
	}
	for _, c := range res.Checks {
		if c.Outcome != Pass && info(c.Name) == nil && res.Verdict == Accepted {
			res.Verdict = NotAcceptable // a name that nothing here knows is no reason to look away
		}
	}
	if j.alone || res.Verdict != Accepted {
		return res
	}
	if j.claims.ValidUntil.IsZero() || !j.now.Before(j.expires) {
		res.Verdict = NotAcceptable
		res.Checks = append(res.Checks, Check{Name: "keyset.current", Outcome: Fail, Reason: "what the evidence rests on has run out, or says no time"})
		return res
	}
	if res.Complete && j.keyset != nil && j.config != nil && j.release != nil && j.policy.Valid() {
		res.verified = &Verified{
			ok: true, keyset: j.keyset, raw: j.b.Keyset, digest: sha256.Sum256(j.b.Keyset), bundle: bundle,
			config: j.config, release: j.release, assurance: j.claims.Assurance, platform: j.platform, expires: j.expires,
			behind: j.now.Sub(j.e.Now),
		}
	}
	return res
}
