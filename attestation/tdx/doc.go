// Package tdx authenticates Intel TDX quotes and applies a policy's TDX section.
//
// It promises that each tdx.* check stands for itself: authenticity is decided
// from signatures alone and at no particular time, freshness and TCB status are
// decided apart, so that an old platform fails tdx.tcb and nothing else. It
// needs no network: collateral comes with the evidence, in the bytes that
// Intel signed, and is believed only down from the pinned Intel SGX Root CA.
//
// Sources: Intel TDX DCAP Quoting Library API (quote v4 and v5), Intel TDX
// Module 1.5 ABI (TDREPORT, ATTRIBUTES, XFAM), Intel PCS API v4 (TCB info and
// enclave identity, and how a TCB level is chosen), Intel SGX PCK Certificate
// and CRL Profile. The TCB verdict is this package's own: the pinned
// go-tdx-guest ignores the platform level of TDX 1.5 modules.
//
// It does not protect against physical attacks on the platform, says nothing
// about what the measurements mean, and cannot tell one TD of an image from
// another: that is the report data's work (package attestation).
package tdx
