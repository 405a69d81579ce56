// Package softtee is a software vendor world for development and tests: an
// Intel- and an AMD-shaped PKI of its own, machines that quote under it, and
// the roots that verify them.
//
// A World is fresh: its keys are random, so nothing that one world signed
// verifies under the roots of another or of a vendor. Its quotes go through
// the very same verifiers as real ones (packages tdx, sevsnp), and so test
// those, but what they prove is only that somebody holds the world's file:
// verdicts carry assurance "test", and a *Roots is the one thing that can make
// a verifier which accepts that. Programs that must not accept it do not link
// this package.
//
// It protects nothing: the keys of a world lie in a file.
package softtee
