package auditlog

import "cocoon/attestation"

// Finding is one thing that does not add up, or, in Report.Unchecked, that
// could not be checked.
type Finding struct {
	Name    string `json:"name"`              // of the check, such as "receipt.cost"
	Log     string `json:"log,omitempty"`     // log id in hex
	Channel string `json:"channel,omitempty"` // raw address
	Subject string `json:"subject,omitempty"` // what failed: a leaf, a receipt's index, a digest
	Got     string `json:"got,omitempty"`
	Want    string `json:"want,omitempty"`
	Reason  string `json:"reason,omitempty"`
}

// Sums are one channel's money, in nano.
type Sums struct {
	Channel  attestation.Address `json:"channel"`
	Receipts uint64              `json:"receipts"`
	Settled  uint64              `json:"settled"`  // sum of the costs of its sound receipts
	Vouchers uint64              `json:"vouchers"` // highest cumulative amount signed
	Payouts  uint64              `json:"payouts"`  // sum of what redemptions paid
	Unused   uint64              `json:"unused"`   // vouchers - settled
	Whole    bool                `json:"whole"`    // every receipt under every anchor was disclosed
}

// LogSummary is what was recomputed of one log.
type LogSummary struct {
	Boot     uint64 `json:"boot"`
	LogID    string `json:"log_id"`
	Size     uint64 `json:"size"`
	Root     string `json:"root"`
	Receipts uint64 `json:"receipts"` // leaves of that kind
	Keysets  uint64 `json:"keysets"`
}

// Report is a replay's outcome. Its JSON is the same for the same inputs.
type Report struct {
	OK        bool         `json:"ok"` // no findings
	Logs      []LogSummary `json:"logs"`
	Channels  []Sums       `json:"channels"`
	Findings  []Finding    `json:"findings"`
	Unchecked []Finding    `json:"unchecked"`
}
