package main

import (
	"context"
	"fmt"
	"io"

	"cocoon/attestation"
)

func runPolicy(_ context.Context, args []string, stdout, stderr io.Writer) error {
	fs := flags("policy", "[--policy FILE]", "cocoon policy --policy policy.toml", stderr)
	file := fs.String("policy", "", "a TOML policy `file`, which can only narrow the built-in one but for tdx.tcb_statuses and snp.products")
	if err := parse(fs, args); err != nil {
		return err
	}
	p, err := readPolicy(*file)
	if err != nil {
		return err
	}
	e, err := attestation.Combine(p)
	if err != nil {
		return err
	}
	s, err := e.Describe()
	if err != nil {
		return err
	}
	_, err = fmt.Fprint(stdout, s)
	return err
}
