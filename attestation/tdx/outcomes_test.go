package tdx_test

import (
	"slices"
	"strings"

	"cocoon/attestation"

	"github.com/google/go-cmp/cmp/cmpopts"
)

var sortStrings = cmpopts.SortSlices(strings.Compare)

// outcomes lists the names of failed and skipped checks, in their order.
func outcomes(res *attestation.Result) (fail, skip []string) {
	for _, c := range res.Checks {
		switch c.Outcome {
		case attestation.Fail:
			fail = append(fail, c.Name)
		case attestation.Skip:
			skip = append(skip, c.Name)
		}
	}
	return fail, slices.DeleteFunc(skip, func(n string) bool { return !strings.HasPrefix(n, "tdx.") })
}
