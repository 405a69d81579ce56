// Package auditlog holds what a worker's public log is made of, and replays it.
//
// It promises an auditor that receipts, log entries, checkpoints and heads
// have one encoding each, that every parser refuses anything else, and that
// Replay recomputes a log, its bundles, the receipts that were disclosed and
// the redemptions that anchor them, offline, to the same report every time.
// The package links no writer code: auditlog/writer appends and signs.
//
// It does not protect against what nobody disclosed: the log holds digests
// only, so a report names what it could not check; nor does a receipt prove
// that an answer was good, only who signed for which counts.
package auditlog
