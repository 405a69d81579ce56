package auditlog

import (
	"bytes"
	"fmt"
	"strings"

	"cocoon/attestation"
	"cocoon/attestation/canonical"
)

// Limits of a receipt.
const (
	ReceiptVersion  = 1
	MaxReceiptBytes = 4 << 10 // the whole COSE_Sign1
	maxReasonBytes  = 64
)

// Status says how a job ended. The zero value is refused.
type Status string

// Every job that got past the seal ends in one of these.
const (
	StatusOK        Status = "ok"
	StatusRefused   Status = "refused"   // over a ceiling, not allowed, no credit at the start: unbilled
	StatusAborted   Status = "aborted"   // the worker stopped it: no credit, job ceiling
	StatusError     Status = "error"     // the engine failed
	StatusCancelled Status = "cancelled" // the client stopped it
)

// Receipt is what a worker signs at the end of every job (DESIGN section 4).
// Its canonical CBOR is the payload of a COSE_Sign1. A new field is a new Version.
type Receipt struct {
	Version            uint64              `cbor:"version"`
	JobID              [16]byte            `cbor:"job_id"`
	Channel            attestation.Address `cbor:"channel"`
	WorkerID           attestation.Address `cbor:"worker_id"`
	LogID              [32]byte            `cbor:"log_id"`
	Checkpoint         []byte              `cbor:"checkpoint"` // the log's latest signed note; empty only before the first one
	Index              uint64              `cbor:"index"`      // in the tree of this (channel, log id), from 0
	KeysetDigest       [32]byte            `cbor:"keyset_digest"`
	Model              attestation.Model   `cbor:"model"`
	RequestCommitment  [32]byte            `cbor:"request_commitment"`  // Commit under the client's blinding key
	ResponseCommitment [32]byte            `cbor:"response_commitment"` // the same, over the answer
	Usage              attestation.Usage   `cbor:"usage"`
	Prices             attestation.Prices  `cbor:"prices"`
	Cost               uint64              `cbor:"cost"`     // nano-coins
	Started            int64               `cbor:"started"`  // Unix milliseconds
	Finished           int64               `cbor:"finished"` // Unix milliseconds
	FinishReason       string              `cbor:"finish_reason"`
	Status             Status              `cbor:"status"`
}

// check bounds every field by itself. Whether the cost is counts x prices,
// and whose key signed, is asked by whoever holds the terms or the log.
func (r *Receipt) check() error {
	switch {
	case r.Version != ReceiptVersion:
		return fmt.Errorf("receipt: version: got %d, want %d", r.Version, ReceiptVersion)
	case r.JobID == [16]byte{}:
		return fmt.Errorf("receipt: job_id: got zero")
	case r.Channel.IsZero():
		return fmt.Errorf("receipt: channel: got zero")
	case r.WorkerID.IsZero():
		return fmt.Errorf("receipt: worker_id: got zero")
	case r.LogID == [32]byte{}:
		return fmt.Errorf("receipt: log_id: got zero")
	case len(r.Checkpoint) > MaxCheckpointBytes:
		return fmt.Errorf("receipt: checkpoint: got %d bytes, want at most %d", len(r.Checkpoint), MaxCheckpointBytes)
	case r.KeysetDigest == [32]byte{}:
		return fmt.Errorf("receipt: keyset_digest: got zero")
	case len(r.Model.WeightsRoot) > attestation.MaxNameBytes:
		return fmt.Errorf("receipt: model: weights_root: got %d bytes, want at most %d", len(r.Model.WeightsRoot), attestation.MaxNameBytes)
	case r.Usage.Cached > r.Usage.Prompt:
		return fmt.Errorf("receipt: usage: got %d cached of %d prompt tokens", r.Usage.Cached, r.Usage.Prompt)
	case r.Usage.Reasoning > r.Usage.Completion:
		return fmt.Errorf("receipt: usage: got %d reasoning of %d completion tokens", r.Usage.Reasoning, r.Usage.Completion)
	case r.Started <= 0:
		return fmt.Errorf("receipt: started: got %d, want Unix milliseconds", r.Started)
	case r.Finished < r.Started:
		return fmt.Errorf("receipt: finished: got %d, before started %d", r.Finished, r.Started)
	case len(r.FinishReason) > maxReasonBytes || strings.ContainsFunc(r.FinishReason, func(c rune) bool { return c < 0x20 || c > 0x7e }):
		return fmt.Errorf("receipt: finish_reason: got %.80q, want at most %d printable bytes", r.FinishReason, maxReasonBytes)
	}
	if err := attestation.CheckModelName(r.Model.Name); err != nil {
		return fmt.Errorf("receipt: model: %w", err)
	}
	switch r.Status {
	case StatusOK, StatusAborted, StatusError, StatusCancelled:
	case StatusRefused:
		if r.Cost != 0 {
			return fmt.Errorf("receipt: cost: got %d for a refused job, want 0", r.Cost)
		}
	default:
		return fmt.Errorf("receipt: status: got %.20q, want ok, refused, aborted, error or cancelled", r.Status)
	}
	return nil
}

// Equal reports whether two receipts have the same encoding.
func (r Receipt) Equal(o Receipt) bool {
	return bytes.Equal(canonical.MustMarshal(r), canonical.MustMarshal(o))
}
