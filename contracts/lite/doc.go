// Package lite reads a TON network through liteservers, and sends to it,
// believing nothing but proofs.
//
// What its Client returns was signed by the network's validators: from the init
// block of a global config, over links from key block to key block, to the
// newest masterchain block, from there by Merkle proofs to shards, accounts and
// configuration, and by hash chain to transactions. A Snapshot holds all of
// that in one file and verifies without a network; a beacon is one masterchain
// block with its proof, small enough to travel with evidence. No get-method is
// ever called, since nothing proves its answer.
//
// It does not show that a head is recent: a liteserver may withhold newer
// blocks, so callers bound Block.Time against a clock of their own. It does not
// protect against validators of the network who sign two histories. Whoever
// writes the global config, or adds to KeyBlocks, chooses the network.
package lite
