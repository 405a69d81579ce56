package attestation

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"

	"cocoon/attestation/internal/testtrust"
)

// Verdict is the answer to "may this be given a key". Its zero value is no answer.
type Verdict string

// The three verdicts.
const (
	Accepted      Verdict = "accepted"
	NotAcceptable Verdict = "not_acceptable" // real evidence that the policy refuses
	NotAuthentic  Verdict = "not_authentic"  // not what it claims to be
)

// Assurance says what stands behind evidence. Its zero value is neither.
type Assurance string

// Hardware is a vendor's own root; test is a software root.
const (
	AssuranceHardware Assurance = "hardware"
	AssuranceTest     Assurance = "test"
)

// CPUClaims is what authenticated CPU evidence says. It means nothing unless
// the checks in the same report passed.
type CPUClaims struct {
	Assurance   Assurance
	Product     string // "tdx", or AMD's product line
	PlatformKey []byte // PPID (TDX) or CHIP_ID (SNP)
	ReportData  [64]byte
	Launch      Launch    // measurements, as a release lists them
	Signed      [32]byte  // SHA-256 of the part of the quote that is signed
	ValidFrom   time.Time // latest issue date of the collateral used
	ValidUntil  time.Time // when the first piece of collateral expires or grows too old
	TCBStatus   string
	Advisories  []string
}

// CPUVerifier authenticates one vendor's CPU evidence, and applies the
// policy's section on it. It records every check of Names for its TEE.
type CPUVerifier interface {
	TEE() TEE
	VerifyCPU(ev *CPUEvidence, p Policy, now time.Time, r *Report) CPUClaims
}

// Config makes a Verifier.
type Config struct {
	Policy *Policy       // the client's own; nil for the strict default
	CPU    []CPUVerifier // by TEE; evidence of another TEE is refused
	Chain  ChainVerifier // nil: beacons cannot be proven, so nothing is complete
	Test   testtrust.Permission
}

// Verifier verifies evidence under one policy. Its zero value refuses everything.
type Verifier struct{ cfg Config }

// NewVerifier checks that the policy can be combined.
func NewVerifier(c Config) (*Verifier, error) {
	if _, err := Combine(c.Policy); err != nil {
		return nil, err
	}
	if c.Policy != nil { // later changes to the caller's are the caller's
		p := c.Policy.clone()
		c.Policy = &p
	}
	c.CPU = slices.Clone(c.CPU)
	return &Verifier{c}, nil
}

// Expect is the context of one verification: what the caller wants proven.
type Expect struct {
	Now      time.Time     // the caller's clock
	Nonce    [32]byte      // the nonce sent with Attest
	Fresh    bool          // the CPU quote must carry Nonce itself
	WorkerID Address       // the worker that was dialled; zero: not asked
	Registry *RegistryView // nil: not given
	Record   *RecordView   // nil: not given
}

// Result is one verification's outcome, for showing. Only Verified opens a channel.
type Result struct {
	Verdict   Verdict   `json:"verdict"`
	Assurance Assurance `json:"assurance"`
	Complete  bool      `json:"complete"` // every context (image, binding, chain) was given and checked
	Checks    []Check   `json:"checks"`
	TEE       TEE       `json:"tee"`
	Product   string    `json:"product,omitempty"`
	TCBStatus string    `json:"tcb_status,omitempty"`
	Advisory  []string  `json:"advisories,omitempty"`
	Platform  Digest    `json:"platform_id"`
	Bundle    Digest    `json:"bundle_sha256"`
	Expires   time.Time `json:"expires"`

	verified *Verified
}

// Verified is the proof that verification succeeded, and completely. Only
// this package makes one; its zero value, and nil, are refused everywhere.
type Verified struct {
	ok        bool
	keyset    *Keyset
	raw       []byte
	digest    [32]byte
	bundle    [32]byte
	config    *WorkerConfig
	release   *Release
	assurance Assurance
	platform  [32]byte
	expires   time.Time
	behind    time.Duration // how far the caller's clock was behind the newest proven block
}

// ErrNotVerified is the error of every refusal by Result.Verified.
var ErrNotVerified = errors.New("worker not verified")

// Verified returns the proof, or an error that names the first failed check.
func (r *Result) Verified() (*Verified, error) {
	if r == nil || r.verified == nil || !r.verified.ok {
		return nil, fmt.Errorf("%w: %s", ErrNotVerified, r.why())
	}
	return r.verified, nil
}

func (r *Result) why() string {
	if r == nil {
		return "nothing was verified"
	}
	for _, o := range []Outcome{Fail, Skip} {
		for _, c := range r.Checks {
			if c.Outcome == o {
				return string(r.Verdict) + ": " + c.String()
			}
		}
	}
	return string(r.Verdict)
}

// Err returns nil if the verdict is accepted, else an error naming the first failed check.
func (r *Result) Err() error {
	if r != nil && r.Verdict == Accepted {
		return nil
	}
	return fmt.Errorf("%w: %s", ErrNotVerified, r.why())
}

// Keyset is the attested keyset. The caller must not change it.
func (v *Verified) Keyset() *Keyset { return v.keyset }

// KeysetBytes is the keyset's canonical CBOR, as hashed. The caller must not change it.
func (v *Verified) KeysetBytes() []byte { return v.raw }

// KeysetDigest is SHA-256 of the keyset's canonical CBOR.
func (v *Verified) KeysetDigest() [32]byte { return v.digest }

// BundleDigest is SHA-256 of the bundle that was verified.
func (v *Verified) BundleDigest() [32]byte { return v.bundle }

// WorkerConfig is the config document the keyset commits to. The caller must not change it.
func (v *Verified) WorkerConfig() *WorkerConfig { return v.config }

// Release is the manifest of the image. The caller must not change it.
func (v *Verified) Release() *Release { return v.release }

// Assurance says what stands behind the evidence.
func (v *Verified) Assurance() Assurance { return v.assurance }

// Platform is the machine's id.
func (v *Verified) Platform() [32]byte { return v.platform }

// Expires is when the first thing that v rests on runs out, by a clock that is
// right. Current also allows for a caller's clock that is slow.
func (v *Verified) Expires() time.Time { return v.expires }

// Current returns nil if v is a success of Verify and has not expired at now.
// It is asked before every job, with the clock that Verify was given.
func (v *Verified) Current(now time.Time) error {
	switch {
	case v == nil || !v.ok:
		return ErrNotVerified
	case !now.Add(v.behind).Before(v.expires):
		return fmt.Errorf("%w: expired at %s", ErrNotVerified, v.expires.UTC().Format(time.RFC3339))
	}
	return nil
}

// Verify makes every check on a bundle and returns what it found. It never
// fails otherwise: evidence that cannot be read is not authentic. It works on a
// copy, so that what was verified is what the caller's bundle held at the call.
func (v *Verifier) Verify(b *Bundle, e Expect) *Result {
	if b == nil {
		return unreadable("keyset.parse", errors.New("no bundle"))
	}
	raw := b.Encode()
	own, err := ParseBundle(raw)
	if err != nil {
		return unreadable("keyset.parse", err)
	}
	j := &job{v: v, b: own, e: e, now: e.Now}
	j.run()
	return j.result(sha256.Sum256(raw))
}

// unreadable is the result of evidence that no check could be made on.
func unreadable(name string, err error) *Result {
	var r Report
	r.Error(name, err)
	return &Result{Verdict: NotAuthentic, Checks: r.Checks()}
}

// VerifyCPUEvidence makes the checks on one quote or report alone. Its result
// is never complete: it says nothing about whose evidence this is.
func (v *Verifier) VerifyCPUEvidence(ev *CPUEvidence, now time.Time) *Result {
	if ev == nil || ev.TEE != TDX && ev.TEE != SNP {
		return unreadable("assurance.allowed", errors.New("no evidence of a known technology"))
	}
	j := &job{v: v, b: &Bundle{CPU: *ev}, e: Expect{Now: now}, now: now, alone: true}
	j.policy, _ = Combine(v.cfg.Policy)
	j.cpu()
	j.assurance()
	return j.result([32]byte{})
}

// job is one verification in progress.
type job struct {
	v        *Verifier
	b        *Bundle
	e        Expect
	alone    bool      // CPU evidence alone: nothing else was asked
	now      time.Time // max(clock, newest proven block time)
	beacon   time.Time // when the beacon was made; zero until it is proven
	r        Report
	policy   Effective
	keyset   *Keyset
	config   *WorkerConfig
	release  *Release
	claims   CPUClaims
	platform [32]byte
	expires  time.Time
}

// until lowers the time at which the result expires.
func (j *job) until(t time.Time) {
	if j.expires.IsZero() || !t.IsZero() && t.Before(j.expires) {
		j.expires = t
	}
}

func (j *job) run() {
	j.beaconProof()
	if g := j.e.Registry; g != nil {
		j.proven(g.ProvenAt)
	}
	if rec := j.e.Record; rec != nil {
		j.proven(rec.ProvenAt)
	}
	j.effectivePolicy()
	j.beaconAge()
	j.keysetChecks()
	j.cpu()
	j.assurance()
	j.binding()
	j.image()
	j.models()
	j.chainAges()
}

// proven raises now to the time of a proven block.
func (j *job) proven(t time.Time) {
	if t.After(j.now) {
		j.now = t
	}
}

// beaconProof sets beacon when the beacon was proven.
func (j *job) beaconProof() {
	k, err := ParseKeyset(j.b.Keyset)
	if !j.r.Error("keyset.parse", err) {
		return
	}
	j.keyset = k
	if j.v.cfg.Chain == nil {
		j.r.Skip("beacon.proof", "no chain to prove it on")
		return
	}
	t, err := j.v.cfg.Chain.VerifyBeacon(k.Beacon, j.b.BeaconProof)
	if j.r.Error("beacon.proof", err) {
		j.beacon = t
		j.proven(t)
	}
}

// beaconAge is asked once every proven time and every floor is known.
func (j *job) beaconAge() {
	if j.beacon.IsZero() {
		j.r.Skip("beacon.fresh", "the beacon was not proven")
		return
	}
	limit := time.Duration(j.policy.p.Ages.Beacon)
	if j.e.Fresh {
		limit = time.Duration(j.policy.p.Ages.BeaconFresh)
	}
	age := j.now.Sub(j.beacon)
	if j.r.Expect("beacon.fresh", age <= limit, age.Round(time.Second), fmt.Sprintf("at most %s", limit)) {
		j.until(j.beacon.Add(limit))
	}
}

// effectivePolicy joins the client's policy with the registry's live floors.
func (j *job) effectivePolicy() {
	var floors []*Policy
	err := func() error {
		if j.e.Registry == nil {
			return nil
		}
		docs := make(map[[32]byte][]byte, len(j.b.PolicyFloors))
		for _, d := range j.b.PolicyFloors {
			docs[sha256.Sum256(d)] = d
		}
		for key, en := range j.e.Registry.Entries {
			if en.Kind != EntryPolicyFloor || !en.Live(j.now) {
				continue
			}
			doc, ok := docs[key]
			if !ok {
				return fmt.Errorf("policy floor %x: document not given", key[:8])
			}
			p, err := ParsePolicy(doc)
			if err != nil {
				return fmt.Errorf("policy floor %x: %w", key[:8], err)
			}
			floors = append(floors, p)
		}
		return nil
	}()
	if err == nil {
		j.policy, err = Combine(j.v.cfg.Policy, floors...)
	}
	switch {
	case err != nil:
		j.r.Error("registry.policy-floor", err)
		j.policy, _ = Combine(j.v.cfg.Policy) // the client's own still judges the rest: this check has failed
	case j.e.Registry == nil && !j.standalone():
		j.r.Skip("registry.policy-floor", "no registry state given")
	default:
		j.r.Error("registry.policy-floor", nil)
	}
}

// standalone reports whether the client chose to do without a registry.
func (j *job) standalone() bool {
	return j.v.cfg.Policy != nil && j.v.cfg.Policy.Registry == "none"
}

func (j *job) keysetChecks() {
	if j.keyset == nil {
		j.r.Skip("keyset.current", "no keyset")
		return
	}
	from, to := time.Unix(j.keyset.NotBefore, 0), time.Unix(j.keyset.NotAfter, 0)
	ok := !j.now.Before(from) && j.now.Before(to) && !j.e.Now.IsZero() // no clock: nothing is known to be recent
	j.r.Expect("keyset.current", ok, j.now.UTC().Format(time.RFC3339), fmt.Sprintf("%s to %s", from.UTC().Format(time.RFC3339), to.UTC().Format(time.RFC3339)))
	j.until(to)
}

func (j *job) cpu() {
	for _, c := range j.v.cfg.CPU {
		if c != nil && c.TEE() == j.b.CPU.TEE && j.policy.Valid() {
			var r Report
			j.claims = c.VerifyCPU(&j.b.CPU, j.policy.Policy(), j.now, &r)
			for _, made := range r.checks {
				if n := info(made.Name); n != nil && n.TEE != c.TEE() { // not its question
					made = Check{Name: made.Name, Outcome: Fail, Reason: fmt.Sprintf("answered by the %s verifier", c.TEE())}
				}
				j.r.add(made)
			}
			j.until(j.claims.ValidUntil)
			if len(j.claims.PlatformKey) > 0 { // else it stays zero, which no record and no policy allows
				j.platform = PlatformID(j.claims.Product, j.claims.PlatformKey)
			}
			return
		}
	}
	name := "tdx.parse"
	if j.b.CPU.TEE == SNP {
		name = "snp.parse"
	}
	j.r.Skip(name, fmt.Sprintf("no verifier for %q", j.b.CPU.TEE))
}

func (j *job) assurance() {
	got := j.claims.Assurance
	ok := got == AssuranceHardware || got == AssuranceTest && j.v.cfg.Test.Granted()
	j.r.Expect("assurance.allowed", ok, fmt.Sprintf("%q", got), fmt.Sprintf("%q", AssuranceHardware))
}
