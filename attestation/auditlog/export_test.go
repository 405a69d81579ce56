package auditlog

// ReplayWithLookahead is Replay with another bound on the receipts in memory.
var ReplayWithLookahead = replayWith
