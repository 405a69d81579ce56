package enclave

import (
	"context"
	"fmt"

	"cocoon/attestation/auditlog"
)

// publish makes a receipt durable: its digest in the log, itself at the host.
// It goes on though the client be gone.
func (j *job) publish(index uint64, cose []byte) error {
	ctx := context.WithoutCancel(j.s.abort)
	digest := auditlog.ReceiptDigest(cose)
	if _, err := j.s.log.Append(ctx, auditlog.ReceiptEntry{Digest: digest}); err != nil {
		return fmt.Errorf("worker: log: receipt: %w", err)
	}
	if err := j.s.cfg.Store.PutReceipt(ctx, j.s.logID, j.sealed.Channel(), index, cose); err != nil {
		return fmt.Errorf("worker: host store: receipt: %w", err)
	}
	j.s.receipts.put(j.sealed.Channel(), index, digest)
	j.account.Published(index)
	return nil
}
