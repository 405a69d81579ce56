// Package session is one attested connection to one worker, and the jobs on it.
//
// Connect dials, attests, verifies and opens a Session; Fund finds or opens the
// channel that pays for its jobs and compares accounts with the worker; Start
// runs a job. It promises that no byte of a request is sealed before the worker
// was verified and the evidence is still current; that each job's cost was
// covered by a voucher on disk before it left, at most one prompt and one
// window ahead; and that an answer ends in a receipt that matches the signed
// terms and every byte that was sent and received, or in an error.
//
// It does not choose workers or retry: package route and package proxy do.
// What a worker sends between two receipts is believed to be its answer; that
// the answer is good, nothing here can tell.
package session
