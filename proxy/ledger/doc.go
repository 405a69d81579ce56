// Package ledger keeps a client's money durable: its channels and their keys,
// every voucher it signed, its open jobs and its receipts, in one SQLite file.
//
// It promises that no voucher leaves it before the voucher is on disk, that a
// channel has one signer (the file is locked), that what it signs for a
// channel never falls, and that after kill -9 at any instant it goes on from
// the highest voucher that anyone outside can hold. Blinding keys and cache
// salts are derived from one secret and stored nowhere.
//
// It does not protect against whoever can read the file (mode 0600, in a
// folder of mode 0700): it holds the channels' keys. Nor does it verify
// receipts; package session does before it hands them in.
package ledger
