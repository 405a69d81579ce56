// Package channel is the sealed job channel between a client and an attested
// worker, both ends (DESIGN sections 3 and 4).
//
// Start with Open, which turns an *attestation.Verified and what one TLS
// connection proved into a *Session; Session.NewJob makes a Job. The worker's
// end is EpochKeys.Accept, which makes a ServerJob. Nothing else makes these,
// and their zero values refuse everything.
//
// It promises the client that only the attested keys can read what a Job seals
// or make what it opens, that the terms, the job id, the channel and this very
// TLS connection are bound into it, and that a gap, a repeat, a reordering or
// an early end of the answer is an error after which the job is dead. It
// promises the worker that a job was signed by the channel's client key for
// this keyset and this connection, once.
//
// Confidentiality is hybrid post-quantum (MLKEM768-X25519 in TLS and in HPKE);
// authenticity is classical (Ed25519). What stays visible to the network and
// to the host: job id, model name, terms, channel, padded lengths, and when a
// job began and ended (see Shape).
package channel
