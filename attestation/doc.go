// Package attestation decides whether a worker may be given a key.
//
// It holds the documents that evidence is about (Keyset, Config, Release,
// Bundle), the policy a client sets, the named checks, and the verdict. It
// reaches no network and imports no vendor: the packages below it (tdx,
// sevsnp, ...) authenticate one vendor's evidence, and what needs TON is
// asked of its caller through ChainVerifier.
//
// Start with NewVerifier and Verifier.Verify. Success is a *Verified, which
// only Verify makes and only of a verdict that is accepted and complete; the
// zero value of every trust type here rejects. What it does not protect: a
// *Verified says what hardware and image hold the keys, not that the image is
// free of faults, nor that nobody probes the memory bus (see SECURITY.md).
package attestation
