package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"cocoon/attestation/auditlog"
	"cocoon/proxy/ledger"
)

func runReceipts(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	fs := flags("receipts", "list|export [flags]", "cocoon receipts export --out receipts.cbor", stderr)
	dir := fs.String("dir", defaultDir(), "the installation's `folder`")
	out := fs.String("out", "", "export: the `file` to write, for an auditor")
	if len(args) == 0 {
		fs.Usage()
		return usageError(errors.New("receipts: want list or export"), "")
	}
	verb := args[0]
	if verb == "-h" || verb == "--help" {
		fs.Usage()
		return nil
	}
	if err := parse(fs, args[1:]); err != nil {
		return err
	}
	l, err := ledger.OpenForReading(filepath.Join(*dir, "ledger"))
	if err != nil {
		return err
	}
	defer l.CloseReading()
	switch verb {
	case "list":
		return listReceipts(ctx, l, stdout)
	case "export":
		if *out == "" {
			return usageError(errors.New("receipts export: --out is required"), "cocoon receipts export --out receipts.cbor")
		}
		return exportReceipts(ctx, l, *out)
	}
	return usageError(fmt.Errorf("receipts: got %q, want list or export", verb), "")
}

func listReceipts(ctx context.Context, l *ledger.Ledger, w io.Writer) error {
	list, err := l.Receipts(ctx, ledger.Query{})
	if err != nil {
		return err
	}
	for _, r := range list {
		c, err := auditlog.ParseReceipt(r.COSE)
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "%s job %x model %s status %s prompt %d completion %d cost %d nano worker %s\n",
			time.UnixMilli(r.Finished).UTC().Format(time.RFC3339), r.JobID, r.Model, r.Status, c.Usage.Prompt, c.Usage.Completion, r.Cost, c.WorkerID)
	}
	return nil
}

// exportReceipts leaves no file behind unless it is whole.
func exportReceipts(ctx context.Context, l *ledger.Ledger, path string) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".receipts-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	w, err := auditlog.NewDisclosureWriter(f)
	if err == nil {
		err = l.Disclose(ctx, w)
	}
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
