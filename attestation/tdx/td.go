package tdx

import (
	"fmt"

	"cocoon/attestation"
)

// TD ATTRIBUTES (Intel TDX Module 1.5 ABI, section 3.4.1).
const (
	attrDebug         = 1 << 0
	attrSEPTVEDisable = 1 << 28 // no #VE on EPT violations that the host provokes
	attrMigratable    = 1 << 29
	attrPKS           = 1 << 30
	attrPerfmon       = 1 << 63

	// allowedAttributes is what a TD may have set. DEBUG and MIGRATABLE have
	// checks of their own; all else (profiling by the host, Key Locker, bits that
	// are reserved today) is off the list.
	allowedAttributes = attrSEPTVEDisable | attrPKS | attrPerfmon
)

// XFAM (Intel TDX Module 1.5 ABI, section 3.4.2): x87 and SSE are always on;
// the rest is what modules of today know.
const (
	fixedXFAM   = 0x3
	allowedXFAM = 0x6dbe7
)

// checkTD applies the rules on how the TD was built.
func checkTD(t *tdReport, r *attestation.Report) {
	r.Expect("tdx.debug-off", t.attributes&attrDebug == 0, fmt.Sprintf("attributes %#x", t.attributes), "DEBUG (bit 0) clear")

	others := t.attributes &^ (attrDebug | attrMigratable)
	r.Expect("tdx.attributes", others&^allowedAttributes == 0 && others&attrSEPTVEDisable != 0,
		fmt.Sprintf("%#x", t.attributes), fmt.Sprintf("SEPT_VE_DISABLE (%#x), and at most %#x", uint64(attrSEPTVEDisable), uint64(allowedAttributes)))

	r.Expect("tdx.xfam", t.xfam&fixedXFAM == fixedXFAM && t.xfam&^allowedXFAM == 0,
		fmt.Sprintf("%#x", t.xfam), fmt.Sprintf("%#x, and at most %#x", fixedXFAM, allowedXFAM))

	// A TDX 1.0 report does not show MRSERVICETD; a TD that is not migratable cannot be bound to one.
	zero := [48]byte{}
	r.Expect("tdx.migration", t.attributes&attrMigratable == 0 && t.mrServiceTD == zero,
		fmt.Sprintf("attributes %#x, mrservicetd %x", t.attributes, t.mrServiceTD), "MIGRATABLE (bit 29) clear, mrservicetd zero")

	r.Expect("tdx.owner", t.mrConfigID == zero && t.mrOwner == zero && t.mrOwnerConfig == zero,
		fmt.Sprintf("mrconfigid %x, mrowner %x, mrownerconfig %x", t.mrConfigID, t.mrOwner, t.mrOwnerConfig), "zeros")
}
