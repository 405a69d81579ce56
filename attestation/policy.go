package attestation

import (
	"encoding/hex"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/BurntSushi/toml"
)

// Digest is 32 bytes that read as hex in TOML and JSON.
type Digest [32]byte

// MarshalText writes 64 hex digits.
func (d Digest) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(d[:])), nil }

// UnmarshalText reads 64 hex digits.
func (d *Digest) UnmarshalText(b []byte) error {
	raw, err := hex.DecodeString(string(b))
	if err != nil || len(raw) != 32 {
		return fmt.Errorf("digest: got %d characters, want 64 hex digits", len(b))
	}
	*d = Digest(raw)
	return nil
}

// Duration reads as "168h" in TOML.
type Duration time.Duration

// MarshalText writes Go's duration form.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText reads Go's duration form; it must be positive.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil || v <= 0 {
		return fmt.Errorf("duration: got %.40q, want a positive one such as 24h", b)
	}
	*d = Duration(v)
	return nil
}

// Policy is what a client demands. Absent fields (nil, zero) constrain
// nothing by themselves; Combine fills in the strict defaults. An empty list
// is not absent: it allows nothing.
//
// Widening: TDX.TCBStatuses and SNP.Products replace the default where a file
// sets them (never with Revoked). Everything else can only narrow it.
type Policy struct {
	Registry        string            `toml:"registry,omitempty" json:"registry,omitempty"` // "required" or "none": then pins stand alone
	Releases        []Digest          `toml:"releases" json:"releases,omitzero"`            // pinned manifest digests
	ReleaseFloor    uint64            `toml:"release_floor,omitempty" json:"release_floor,omitempty"`
	Rebuilders      []Digest          `toml:"rebuilders" json:"rebuilders,omitzero"`    // Ed25519 keys
	Models          map[string]string `toml:"models,omitempty" json:"models,omitempty"` // name -> weights root
	Platforms       []Digest          `toml:"platforms" json:"platforms,omitzero"`      // allow-list of platform ids
	BannedPlatforms []Digest          `toml:"banned_platforms" json:"banned_platforms,omitzero"`
	Ages            Ages              `toml:"ages,omitempty" json:"ages"`
	TDX             TDXPolicy         `toml:"tdx,omitempty" json:"tdx"`
	SNP             SNPPolicy         `toml:"snp,omitempty" json:"snp"`
}

// Ages are the oldest that proofs may be.
type Ages struct {
	Collateral  Duration `toml:"collateral,omitempty" json:"collateral"`     // TCB info, QE identity, PCK CRL
	Registry    Duration `toml:"registry,omitempty" json:"registry"`         // proven registry state
	Beacon      Duration `toml:"beacon,omitempty" json:"beacon"`             // with a cached quote
	BeaconFresh Duration `toml:"beacon_fresh,omitempty" json:"beacon_fresh"` // with a quote over the client's nonce
}

// TDXPolicy is the part of a policy about Intel TDX.
type TDXPolicy struct {
	TCBStatuses   []string `toml:"tcb_statuses" json:"tcb_statuses,omitzero"`
	MinEvalNumber uint32   `toml:"min_eval_number,omitempty" json:"min_eval_number,omitempty"`
}

// SNPTCB is one AMD TCB version, field by field. FMC exists on Turin only.
type SNPTCB struct {
	FMC        uint8 `toml:"fmc,omitempty" json:"fmc,omitempty"`
	Bootloader uint8 `toml:"bootloader,omitempty" json:"bootloader"`
	TEE        uint8 `toml:"tee,omitempty" json:"tee"`
	SNP        uint8 `toml:"snp,omitempty" json:"snp"`
	Microcode  uint8 `toml:"microcode,omitempty" json:"microcode"`
}

// SNPPolicy is the part of a policy about AMD SEV-SNP.
type SNPPolicy struct {
	Products []string          `toml:"products" json:"products,omitzero"`          // "Genoa" (also Bergamo, Siena), "Turin", "Milan"
	MinTCB   map[string]SNPTCB `toml:"min_tcb,omitempty" json:"min_tcb,omitempty"` // by processor: those and "Bergamo" (also Siena)
	// MinMitigations are bits that both mitigation vectors of a report must hold, by
	// processor as above. Reports before version 5 have none.
	MinMitigations map[string]uint64 `toml:"min_mitigations,omitempty" json:"min_mitigations,omitempty"`
	AllowSMT       *bool             `toml:"allow_smt,omitempty" json:"allow_smt,omitempty"` // absent: allowed
}

// MaxPolicyBytes bounds a policy file.
const MaxPolicyBytes = 1 << 20

// ParsePolicy reads a TOML policy; an unknown key is an error.
func ParsePolicy(b []byte) (*Policy, error) {
	if len(b) > MaxPolicyBytes {
		return nil, fmt.Errorf("policy: size: got %d bytes, want at most %d", len(b), MaxPolicyBytes)
	}
	if err := checkShape(string(b)); err != nil {
		return nil, fmt.Errorf("policy: %w", err)
	}
	var p Policy
	md, err := toml.Decode(string(b), &p)
	if err != nil {
		return nil, fmt.Errorf("policy: %.300s", err.Error()) // it quotes what it could not read, whole
	}
	if un := md.Undecoded(); len(un) > 0 {
		return nil, fmt.Errorf("policy: unknown key %.80q", un[0].String())
	}
	for _, k := range md.Keys() { // the decoder reads any case: then one field could be written twice
		if !exactCase(k) {
			return nil, fmt.Errorf("policy: unknown key %.80q, want it in lower case", k.String())
		}
	}
	if p.ReleaseFloor > math.MaxInt64 { // the decoder wraps negative numbers
		return nil, fmt.Errorf("policy: release_floor: got %d, want 0 or more", int64(p.ReleaseFloor))
	}
	for cpu, bits := range p.SNP.MinMitigations {
		if bits > math.MaxInt64 {
			return nil, fmt.Errorf("policy: snp.min_mitigations: %.40q: got %d, want 0 or more", cpu, int64(bits))
		}
	}
	if slices.Contains(p.TDX.TCBStatuses, "Revoked") {
		return nil, fmt.Errorf("policy: tdx.tcb_statuses: Revoked can never be allowed")
	}
	for _, s := range p.TDX.TCBStatuses {
		if !slices.Contains(tcbStatuses, s) {
			return nil, fmt.Errorf("policy: tdx.tcb_statuses: got %.40q, want one of %v", s, tcbStatuses)
		}
	}
	if err := p.check(); err != nil {
		return nil, err
	}
	return &p, nil
}

// check bounds the values of a policy, whoever made it.
func (p *Policy) check() error {
	if p.Registry != "" && p.Registry != "required" && p.Registry != "none" {
		return fmt.Errorf("policy: registry: got %.40q, want \"required\" or \"none\"", p.Registry)
	}
	for _, s := range p.SNP.Products {
		if !slices.Contains(snpProducts, s) {
			return fmt.Errorf("policy: snp.products: got %.40q, want one of %v", s, snpProducts)
		}
	}
	for cpu := range p.SNP.MinTCB {
		if !slices.Contains(snpProcessors, cpu) {
			return fmt.Errorf("policy: snp.min_tcb: got %.40q, want one of %v", cpu, snpProcessors)
		}
	}
	for cpu := range p.SNP.MinMitigations {
		if !slices.Contains(snpProcessors, cpu) {
			return fmt.Errorf("policy: snp.min_mitigations: got %.40q, want one of %v", cpu, snpProcessors)
		}
	}
	if slices.Contains(p.Rebuilders, Digest{}) {
		return fmt.Errorf("policy: rebuilders: got a key of zeros, which anybody can sign for")
	}
	for name, root := range p.Models {
		if err := CheckModelName(name); err != nil {
			return fmt.Errorf("policy: models: %w", err)
		}
		if err := checkWeightsRoot(root); err != nil {
			return fmt.Errorf("policy: models: %s: %w", name, err)
		}
	}
	return nil
}

var (
	tcbStatuses   = []string{"UpToDate", "SWHardeningNeeded", "ConfigurationNeeded", "ConfigurationAndSWHardeningNeeded", "OutOfDate", "OutOfDateConfigurationNeeded"}
	snpProducts   = []string{"Genoa", "Turin", "Milan"}
	snpProcessors = []string{"Genoa", "Bergamo", "Turin", "Milan"}
)

// Default is the strict built-in policy. It names no releases or roots, so by
// itself, with no registry, it accepts nothing.
func Default() *Policy {
	return &Policy{
		Registry: "required",
		Ages: Ages{
			Collateral:  Duration(7 * 24 * time.Hour),
			Registry:    Duration(time.Hour),
			Beacon:      Duration(15 * time.Minute),
			BeaconFresh: Duration(time.Hour),
		},
		TDX: TDXPolicy{TCBStatuses: []string{"UpToDate"}},
		SNP: SNPPolicy{
			Products: []string{"Genoa", "Turin"},
			// AMD has no service that says which TCB is current, so these floors are this
			// project's own: the versions that fleets ran after bulletin AMD-SB-3019 (signature
			// verification of microcode). A processor without a floor is refused.
			MinTCB: map[string]SNPTCB{
				"Milan":   {Bootloader: 4, SNP: 24, Microcode: 0xdb},
				"Genoa":   {Bootloader: 9, SNP: 23, Microcode: 0x54},
				"Bergamo": {Bootloader: 9, SNP: 23, Microcode: 0x1b},
				"Turin":   {FMC: 1, Bootloader: 1, TEE: 1, SNP: 4, Microcode: 0x51},
			},
		},
	}
}
