package attestation

import (
	"fmt"
	"strings"
	"unicode"
)

// Outcome of a check. The zero value is Skip, which is never a pass.
type Outcome int

const (
	Skip Outcome = iota // not made: Reason says why
	Fail
	Pass
)

func (o Outcome) String() string {
	switch o {
	case Pass:
		return "PASS"
	case Fail:
		return "FAIL"
	}
	return "SKIP"
}

// MarshalText writes PASS, FAIL or SKIP.
func (o Outcome) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

// Check is one named question and its answer.
type Check struct {
	Name    string  `json:"name"`
	Outcome Outcome `json:"outcome"`
	Got     string  `json:"got,omitempty"`
	Want    string  `json:"want,omitempty"`
	Reason  string  `json:"reason,omitempty"`
}

func (c Check) String() string {
	s := fmt.Sprintf("%s %s", c.Outcome, c.Name)
	if c.Outcome != Pass {
		if c.Got != "" || c.Want != "" {
			s += fmt.Sprintf(": got %s, want %s", c.Got, c.Want)
		}
		if c.Reason != "" {
			s += ": " + c.Reason
		}
	}
	return s
}

// Report collects checks in the order they were made.
type Report struct{ checks []Check }

// add is the only way into a report. What it holds is safe to print: much of
// it was written by the other side.
func (r *Report) add(c Check) {
	c.Name, c.Got, c.Want, c.Reason = printable(c.Name), printable(c.Got), printable(c.Want), printable(c.Reason)
	r.checks = append(r.checks, c)
}

const maxText = 512 // bytes of one part of a check

func printable(s string) string {
	if len(s) > maxText {
		s = strings.ToValidUTF8(s[:maxText], "") + "..."
	}
	return strings.Map(func(c rune) rune {
		if !unicode.IsPrint(c) {
			return unicode.ReplacementChar
		}
		return c
	}, s)
}

// Expect records PASS if ok, else FAIL with got and want. It returns ok.
func (r *Report) Expect(name string, ok bool, got, want any) bool {
	c := Check{Name: name, Outcome: Fail, Got: fmt.Sprint(got), Want: fmt.Sprint(want)}
	if ok {
		c.Outcome = Pass
	}
	r.add(c)
	return ok
}

// Error records PASS if err is nil, else FAIL with its text. It returns err == nil.
func (r *Report) Error(name string, err error) bool {
	if err != nil {
		r.add(Check{Name: name, Outcome: Fail, Reason: err.Error()})
		return false
	}
	r.add(Check{Name: name, Outcome: Pass})
	return true
}

// Skip records that a check could not be made.
func (r *Report) Skip(name, reason string) {
	r.add(Check{Name: name, Outcome: Skip, Reason: reason})
}

// Checks returns a copy of what was recorded.
func (r *Report) Checks() []Check { return append([]Check(nil), r.checks...) }

// Passed reports whether name was recorded, and only as PASS.
func (r *Report) Passed(name string) bool {
	seen := false
	for _, c := range r.checks {
		if c.Name == name {
			if c.Outcome != Pass {
				return false
			}
			seen = true
		}
	}
	return seen
}

// worst is the worst outcome recorded under a name: Fail, else Skip, else Pass.
func (r *Report) worst(name string) (worst Outcome, recorded bool) {
	for _, c := range r.checks {
		if c.Name != name {
			continue
		}
		if !recorded || c.Outcome == Fail || c.Outcome == Skip && worst == Pass {
			worst = c.Outcome
		}
		recorded = true
	}
	return worst, recorded
}

// Class says what a failed check means.
type Class int

const (
	Authenticity  Class = iota // the evidence is not what it claims to be
	Acceptability              // it is real, and the policy refuses it
	Context                    // it is real; whether it is the wanted thing was asked
)

// Info describes a named check.
type Info struct {
	Name  string
	Class Class
	TEE   TEE    // the technology it belongs to, empty for all
	Doc   string // what a PASS proves
}

// Names lists every check there is. A verdict needs each one that applies to
// its TEE; a check that was not recorded counts as skipped.
func Names() []Info { return append([]Info(nil), names...) }

func info(name string) *Info {
	for i := range names {
		if names[i].Name == name {
			return &names[i]
		}
	}
	return nil
}

var names = []Info{
	{"tdx.parse", Authenticity, TDX, "the quote is well formed, of a known version, and has no trailing bytes"},
	{"tdx.root", Authenticity, TDX, "the PCK chain ends in the pinned Intel root"},
	{"tdx.signature", Authenticity, TDX, "the quote, its QE report and its attestation key are signed down from the PCK"},
	{"tdx.collateral", Authenticity, TDX, "TCB info and QE identity are signed down from the pinned root, for this FMSPC"},
	{"tdx.crl", Authenticity, TDX, "no certificate of the chain is on its issuer's signed revocation list"},
	{"tdx.qe-identity", Authenticity, TDX, "the quoting enclave is Intel's, not somebody's own"},
	{"tdx.collateral-fresh", Acceptability, TDX, "collateral is neither expired, nor issued in the future, nor older than the policy's age"},
	{"tdx.eval-number", Acceptability, TDX, "tcbEvaluationDataNumber is at least the policy's floor"},
	{"tdx.module", Acceptability, TDX, "MRSIGNERSEAM, SEAM attributes and module version are of a known TDX module"},
	{"tdx.tcb", Acceptability, TDX, "platform, module and QE TCB levels converge to an allowed status"},
	{"tdx.debug-off", Acceptability, TDX, "the TD cannot be debugged by its host"},
	{"tdx.attributes", Acceptability, TDX, "TD attributes: SEPT_VE_DISABLE set, nothing reserved or off the list"},
	{"tdx.xfam", Acceptability, TDX, "XFAM holds the fixed bits and nothing off the list"},
	{"tdx.migration", Acceptability, TDX, "no migration or service TD is bound"},
	{"tdx.owner", Acceptability, TDX, "MRCONFIGID, MROWNER and MROWNERCONFIG are zero"},
	{"snp.parse", Authenticity, SNP, "the report is well formed, of a known version, and has no trailing bytes"},
	{"snp.root", Authenticity, SNP, "the VCEK or VLEK chain ends in the pinned AMD root of its product line"},
	{"snp.signature", Authenticity, SNP, "the report is signed by the VCEK or VLEK"},
	{"snp.crl", Authenticity, SNP, "no certificate of the chain is on the root's signed, unexpired revocation list"},
	{"snp.chip-id", Authenticity, SNP, "CHIP_ID and reported TCB are those of the certificate, and CHIP_ID is not zero"},
	{"snp.product", Acceptability, SNP, "the product line is allowed"},
	{"snp.tcb", Acceptability, SNP, "reported, committed, current and launch TCB reach the policy's minimum, and so do the mitigation vectors"},
	{"snp.vmpl", Acceptability, SNP, "the report was asked for at VMPL 0"},
	{"snp.debug-off", Acceptability, SNP, "the guest cannot be debugged by its host"},
	{"snp.policy", Acceptability, SNP, "guest policy: no migration agent, SMT only if allowed, nothing unknown"},
	{"snp.platform-info", Acceptability, SNP, "platform info holds no bit that the policy does not know or allow"},
	{"gpu.evidence", Acceptability, "", "every GPU and switch is verified, or there is none"},
	{"assurance.allowed", Acceptability, "", "vendor hardware stands behind the evidence"},
	{"keyset.parse", Authenticity, "", "the keyset is canonical and within bounds"},
	{"keyset.current", Acceptability, "", "now lies between not_before and not_after"},
	{"binding.report-data", Authenticity, "", "the CPU quote commits to this keyset and nonce"},
	{"binding.gpu-digest", Authenticity, "", "the keyset commits to this list of GPU evidence"},
	{"binding.config", Authenticity, "", "the keyset commits to this config document"},
	{"binding.nonce", Context, "", "the quote's nonce is the one asked for, or zeros where a cached quote will do"},
	{"binding.worker", Context, "", "the keyset names the worker that was dialled"},
	{"binding.platform", Context, "", "the machine is the one in the worker's record"},
	{"binding.payout", Context, "", "the keyset's payout address is the one in the worker's record"},
	{"config.allowed", Context, "", "the config holds known keys only and agrees with the keyset"},
	{"platform.allowed", Context, "", "the machine is on the policy's list, if there is one, and not banned"},
	{"image.allowed", Context, "", "the release is in the registry and vouched for by a pinned rebuilder, or pinned itself"},
	{"image.measurement", Context, "", "the launch measurements are of a shape in that release"},
	{"image.floor", Context, "", "the release's number is at or above every floor"},
	{"model.weights", Context, "", "each model's weights root is in the registry or pinned, one root for one name"},
	{"registry.fresh", Context, "", "the registry's state was proven recently enough"},
	{"registry.policy-floor", Context, "", "every live policy floor of the registry was found and applied"},
	{"beacon.proof", Context, "", "the beacon is a masterchain block of the trusted network"},
	{"beacon.fresh", Context, "", "the beacon is recent enough: a lower bound on the evidence's age"},
}
