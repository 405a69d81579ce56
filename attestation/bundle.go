package attestation

import (
	"crypto/sha256"
	"fmt"

	"cocoon/attestation/canonical"
)

// TEE names a CPU's confidential-VM technology.
type TEE string

// The two that this project verifies. The zero value is neither.
const (
	TDX TEE = "tdx" // Intel Trust Domain Extensions
	SNP TEE = "snp" // AMD SEV-SNP
)

// Limits of a bundle.
const (
	BundleVersion    = 1
	MaxBundleBytes   = 8 << 20
	maxEvidenceBytes = 1 << 20
	maxGPUs          = 32
)

// TDXCollateral is what Intel's provisioning service says about a platform,
// as it was signed: JSON bodies in the exact bytes, PEM chains leaf first,
// CRLs in DER.
type TDXCollateral struct {
	TCBInfo               []byte `cbor:"tcb_info"`           // the tcbInfo object's exact JSON bytes
	TCBInfoSignature      []byte `cbor:"tcb_info_signature"` // 64 bytes r‖s
	TCBInfoIssuerChain    []byte `cbor:"tcb_info_issuer_chain"`
	QEIdentity            []byte `cbor:"qe_identity"` // the enclaveIdentity object's exact JSON bytes
	QEIdentitySignature   []byte `cbor:"qe_identity_signature"`
	QEIdentityIssuerChain []byte `cbor:"qe_identity_issuer_chain"`
	PCKCRL                []byte `cbor:"pck_crl"` // DER
	PCKCRLIssuerChain     []byte `cbor:"pck_crl_issuer_chain"`
	RootCACRL             []byte `cbor:"root_ca_crl"` // DER
}

// SNPCollateral is AMD's endorsement of a chip.
type SNPCollateral struct {
	VEK  []byte `cbor:"vek"`  // VCEK or VLEK, DER
	ASK  []byte `cbor:"ask"`  // ASK, SEV-VLEK CA, DER
	ARK  []byte `cbor:"ark"`  // DER; never trusted for being here
	CRL  []byte `cbor:"crl"`  // DER, signed by the ARK
	VLEK bool   `cbor:"vlek"` // VEK is a VLEK
}

// CPUEvidence is one quote or report with its vendor's collateral.
type CPUEvidence struct {
	TEE   TEE            `cbor:"tee"`
	Quote []byte         `cbor:"quote"`
	TDX   *TDXCollateral `cbor:"tdx"` // null unless TEE is tdx; null then: collateral was not given
	SNP   *SNPCollateral `cbor:"snp"` // null unless TEE is snp
}

// GPUEvidence is one GPU's or NVSwitch's report and chain.
type GPUEvidence struct {
	Kind   string `cbor:"kind"` // "gpu" or "switch"
	Arch   string `cbor:"arch"`
	Report []byte `cbor:"report"`
	Chain  []byte `cbor:"chain"` // PEM
}

// GPUEvidenceDigest is SHA-256 of the ordered list's canonical CBOR. No GPUs
// is the digest of the empty list.
func GPUEvidenceDigest(list []GPUEvidence) [32]byte {
	return sha256.Sum256(canonical.MustMarshal(list))
}

// Bundle is everything that a verifier needs without a vendor's network, and
// that an auditor replays years later. Inner documents stay in the bytes that
// were hashed or signed.
type Bundle struct {
	Version           uint64             `cbor:"version"`
	Keyset            []byte             `cbor:"keyset"`
	Config            []byte             `cbor:"config"`
	Nonce             [32]byte           `cbor:"nonce"` // the CPU quote's own; zeros when the quote is cached
	CPU               CPUEvidence        `cbor:"cpu"`
	EventLog          []byte             `cbor:"event_log"`
	GPUs              []GPUEvidence      `cbor:"gpus"`
	Release           []byte             `cbor:"release"`
	ReleaseSignatures []ReleaseSignature `cbor:"release_signatures"`
	PolicyFloors      [][]byte           `cbor:"policy_floors"` // TOML documents that the registry names by digest
	BeaconProof       []byte             `cbor:"beacon_proof"`
}

// Encode returns the bundle's canonical CBOR.
func (b *Bundle) Encode() []byte { return canonical.MustMarshal(b) }

// Digest is SHA-256 of the bundle's canonical CBOR: its name in the log.
func (b *Bundle) Digest() [32]byte { return sha256.Sum256(b.Encode()) }

// ParseBundle reads a bundle and bounds its parts; it believes none of them.
func ParseBundle(raw []byte) (*Bundle, error) {
	var b Bundle
	if err := canonical.Unmarshal("bundle", raw, MaxBundleBytes, &b); err != nil {
		return nil, err
	}
	if b.Version != BundleVersion {
		return nil, fmt.Errorf("bundle: version: got %d, want %d", b.Version, BundleVersion)
	}
	for name, part := range map[string][]byte{"cpu.quote": b.CPU.Quote, "event_log": b.EventLog, "beacon_proof": b.BeaconProof} {
		if len(part) > maxEvidenceBytes {
			return nil, fmt.Errorf("bundle: %s: got %d bytes, want at most %d", name, len(part), maxEvidenceBytes)
		}
	}
	if len(b.GPUs) > maxGPUs {
		return nil, fmt.Errorf("bundle: gpus: got %d, want at most %d", len(b.GPUs), maxGPUs)
	}
	if len(b.ReleaseSignatures) > 32 || len(b.PolicyFloors) > 8 {
		return nil, fmt.Errorf("bundle: got %d release signatures and %d policy floors, want at most 32 and 8", len(b.ReleaseSignatures), len(b.PolicyFloors))
	}
	switch {
	case b.CPU.TEE == TDX && b.CPU.SNP == nil, b.CPU.TEE == SNP && b.CPU.TDX == nil:
	default:
		return nil, fmt.Errorf("bundle: cpu: got tee %.20q with tdx collateral %t and snp collateral %t", b.CPU.TEE, b.CPU.TDX != nil, b.CPU.SNP != nil)
	}
	return &b, nil
}
