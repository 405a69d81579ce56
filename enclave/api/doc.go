// Package api is what a client and a worker say to each other: the gRPC service
// cocoon.v1.Worker over one attested TLS connection (DESIGN sections 3 and 4).
//
// It carries bytes and bounds them; it neither seals nor verifies. Register
// serves a WorkerServer; Dial makes the client's end. A server promises its
// worker that nothing but Attest is called on a connection before Attest
// succeeded there. A client promises that a Conn is one TLS connection, whose
// EKM and key it states, and that it is dead for good when that connection is:
// nothing is retried on another, so a reconnect attests again.
//
// It does not protect what travels in Attest, GetReceipts and GetEvidence from
// whoever ends the TLS connection, nor anything from a peer that was not
// verified: only attestation/channel does.
package api
