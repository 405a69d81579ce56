// Package proxy speaks the client's HTTP API on its own machine: it takes what
// an OpenAI SDK sends, seals it to a verified worker, and streams the answer
// back with its exact cost.
//
// It promises that no request leaves the machine but inside a seal to a worker
// whose evidence was verified, that nothing is spent beyond the caps it was
// given, and that every refusal is an error object in the API's own shape,
// with x-should-retry: false once tokens may have been billed. The local port
// counts as hostile ground (DESIGN section 8.6): a token always, a loopback
// Host, no foreign Origin, JSON alone, no CORS, TLS off loopback.
//
// It does not protect a prompt from other programs of the same user, which can
// read the token. Logs hold ids, counts and error names, never content.
package proxy
