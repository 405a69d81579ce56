// Package contracts binds Cocoon's three TON contracts: the payment channel between one client and one worker,
// the registry of a network, and the record of a worker.
//
// It promises that whatever one of its parsers returns is exactly what the cells say: code hash checked, the
// channel's and the record's address recomputed from their initial data, every amount within uint64 nano
// (1e-9 coin), every list bounded, nothing left over, and the same cells built again from the value. Exotic
// cells, and so pruned branches of a proof, are refused.
//
// It does not say that the cells are on any chain: prove the account state first (package lite does), never
// trust a get-method. It holds no key, opens no connection and reads no clock.
//
// The sources are in tolk/, their compiled form in build/, the cells in tolk/schema.tlb. A contract's layout is
// part of its code hash: a change makes another contract, which these bindings refuse.
package contracts
