package auditlog

import (
	"encoding/hex"
	"encoding/json"
	"fmt"

	"cocoon/attestation"
)

// Finding is one thing that does not add up, or, in Report.Unchecked, that
// could not be checked.
type Finding struct {
	Name    string `json:"name"`              // of the check, such as "receipt.cost"; see Checks
	Log     string `json:"log,omitempty"`     // log id in hex
	Channel string `json:"channel,omitempty"` // raw address
	Subject string `json:"subject,omitempty"` // what failed: a leaf, a receipt's index, a digest
	Got     string `json:"got,omitempty"`
	Want    string `json:"want,omitempty"`
	Reason  string `json:"reason,omitempty"`
}

func (f Finding) String() string {
	s := f.Name
	if f.Subject != "" {
		s += " (" + f.Subject + ")"
	}
	if f.Got != "" || f.Want != "" {
		s += fmt.Sprintf(": got %s, want %s", f.Got, f.Want)
	}
	if f.Reason != "" {
		s += ": " + f.Reason
	}
	if f.Channel != "" {
		s += ", channel " + f.Channel
	}
	if f.Log != "" {
		s += ", log " + f.Log
	}
	return s
}

// Sums are one channel's money, in nano.
type Sums struct {
	Channel  attestation.Address `json:"channel"`
	Receipts uint64              `json:"receipts"` // disclosed
	Settled  uint64              `json:"settled"`  // sum of the costs of the sound ones
	Vouchers uint64              `json:"vouchers"` // highest cumulative amount signed, as far as shown
	Payouts  uint64              `json:"payouts"`  // sum of what redemptions paid
	Unused   uint64              `json:"unused"`   // vouchers - settled
	Anchors  uint64              `json:"anchors"`  // redemptions
	Matched  uint64              `json:"matched"`  // of them, those whose head was recomputed
	Whole    bool                `json:"whole"`    // every receipt was disclosed, as far as anchors can tell
}

// LogSummary is what was recomputed of one log.
type LogSummary struct {
	Boot     uint64 `json:"boot"`
	LogID    string `json:"log_id"`
	Size     uint64 `json:"size"`
	Root     string `json:"root"`
	Receipts uint64 `json:"receipts"` // leaves of that kind
	Found    uint64 `json:"found"`    // of them, those whose receipt was disclosed
	Keysets  uint64 `json:"keysets"`
}

// BundleSummary is one bundle of a log and what became of it.
type BundleSummary struct {
	LogID     string                `json:"log_id"`
	Leaf      uint64                `json:"leaf"`
	Bundle    string                `json:"bundle"`
	Epoch     uint64                `json:"epoch"`
	At        int64                 `json:"at"`        // Unix seconds at which it was verified
	ProvenBy  int64                 `json:"proven_by"` // of the first anchor that covers the leaf; 0: time unproven
	Verdict   attestation.Verdict   `json:"verdict,omitempty"`
	Assurance attestation.Assurance `json:"assurance,omitempty"`
	Receipts  uint64                `json:"receipts"` // disclosed receipts that hang from its keyset
}

// Report is a replay's outcome. Its JSON is the same for the same inputs.
type Report struct {
	OK        bool              `json:"ok"` // there are no findings
	Logs      []LogSummary      `json:"logs"`
	Bundles   []BundleSummary   `json:"bundles"`
	Channels  []Sums            `json:"channels"`
	Findings  []Finding         `json:"findings"`  // at most MaxFindings of each name
	Unchecked []Finding         `json:"unchecked"` // the same
	Counts    map[string]uint64 `json:"counts"`    // of all findings, by name
	Forks     []*ForkProof      `json:"forks"`     // in hex
}

// MaxFindings of one name are kept; the others are counted.
const MaxFindings = 64

// JSON returns the report, indented, with a final newline.
func (r *Report) JSON() ([]byte, error) {
	b, err := json.MarshalIndent(r, "", "  ")
	return append(b, '\n'), err
}

// CheckInfo describes a named check of a replay.
type CheckInfo struct{ Name, Doc string }

// Checks lists the names that findings have.
func Checks() []CheckInfo {
	return []CheckInfo{
		{"log.boot", "boot records name different logs of one worker"},
		{"log.checkpoint", "the log has a checkpoint, signed by the key its id names"},
		{"log.tree", "the leaves hash to the checkpoint's root"},
		{"log.entry", "every leaf is an entry of a known kind, and the first names the predecessor"},
		{"log.predecessor", "the log names the boot before it, with the root that boot signed"},
		{"log.truncated", "no checkpoint was signed for more leaves than are there"},
		{"log.fork", "no two signed checkpoints contradict each other"},
		{"log.attested", "a bundle attests the log's key"},
		{"bundle.present", "the bundle of every keyset entry is there"},
		{"bundle.keyset", "the bundle holds the keyset that the entry names, of this epoch, worker and log"},
		{"bundle.epoch", "epochs do not run backwards, have one keyset each, and none is opened after its close"},
		{"bundle.time", "an anchor proves that the bundle existed by then"},
		{"bundle.verify", "the bundle verifies at its proven time"},
		{"receipt.parse", "the receipt is in its one encoding"},
		{"receipt.section", "the receipt is of the channel and log it was disclosed under"},
		{"receipt.conflict", "everybody who discloses an index shows the same receipt"},
		{"receipt.duplicate", "no receipt is disclosed twice"},
		{"receipt.index", "indices count up from 0 in each channel and log"},
		{"receipt.keyset", "the keyset was logged before the receipt"},
		{"receipt.signature", "the keyset's key signed the receipt"},
		{"receipt.attested", "an accepted bundle attests that key"},
		{"receipt.worker", "the receipt names the keyset's worker"},
		{"receipt.model", "the receipt names a model of the keyset, and its root"},
		{"receipt.time", "the job began while the keyset was in force"},
		{"receipt.checkpoint", "the checkpoint it names is the log's, and older than its own leaf"},
		{"receipt.cost", "cost is counts x prices"},
		{"receipt.leaf", "the log holds the receipt's digest"},
		{"receipt.void", "the receipt was logged before its epoch closed"},
		{"receipt.undisclosed", "every receipt leaf's receipt was disclosed"},
		{"receipt.log", "the log of a disclosed receipt is among the source's"},
		{"disclosure.read", "what was disclosed can be read to its end"},
		{"channel.base", "the voucher counted as spent at boot is known"},
		{"channel.vouchers", "settled cost is covered by vouchers"},
		{"channel.payouts", "payouts are covered by vouchers"},
		{"channel.voucher", "disclosed vouchers verify"},
		{"anchor.head", "the head that was redeemed is one that the receipts have"},
		{"anchor.settled", "the redeemed amount covers the receipts under its head"},
		{"anchor.paid", "what was paid so far is at most the redeemed amount"},
	}
}

// reporter collects findings and keeps their number in bounds.
type reporter struct {
	Report
	unchecked map[string]uint64
}

func newReporter() *reporter {
	return &reporter{Report: Report{
		Logs: []LogSummary{}, Bundles: []BundleSummary{}, Channels: []Sums{}, Findings: []Finding{}, Unchecked: []Finding{},
		Counts: map[string]uint64{}, Forks: []*ForkProof{},
	}, unchecked: map[string]uint64{}}
}

func (r *reporter) find(f Finding) {
	r.Counts[f.Name]++
	if r.Counts[f.Name] <= MaxFindings {
		r.Findings = append(r.Findings, f)
	}
}

func (r *reporter) skip(f Finding) {
	r.unchecked[f.Name]++
	if r.unchecked[f.Name] <= MaxFindings {
		r.Unchecked = append(r.Unchecked, f)
	}
}

func hexID(id [32]byte) string { return hex.EncodeToString(id[:]) }
