// Package sevsnp authenticates AMD SEV-SNP attestation reports, offline.
//
// It promises to users of a Verifier that a report whose snp.* checks all
// passed was signed by a VCEK or VLEK that chains to a pinned AMD root, for
// the chip and TCB version that the certificate names, and that the guest and
// platform satisfy the policy. Roots are explicit: nothing that a sender
// supplies is ever trusted for being there.
//
// It does not say whose report it is: that the report data bind a keyset, and
// that the launch measurement is of a known image, package attestation checks.
// What a host may write without changing the measurement is not judged, and no
// image may act on it: HOST_DATA, family and image ids, guest SVN, and the keys
// of an ID block.
// It does not protect against an attacker who probes the memory bus, nor, on
// the Milan line, against one who has extracted the chip's root seed
// (arXiv 2605.12990), which is why that line is off by default.
//
// Source: AMD SEV Secure Nested Paging Firmware ABI Specification, 56860,
// revision 1.58, tables 10 (guest policy), 23 (report); AMD VCEK and KDS
// Interface Specification, 57230.
package sevsnp
