// Package bench measures the system against the plain shape of itself: two
// hops of net/http/httputil.ReverseProxy with TLS 1.3 between them, in front of
// the same engine. Everything is a ratio of two measurements in one run on one
// machine, taken in turns; README.md says what each figure is.
//
// Without -bench, go test runs every scenario once at a small size and checks
// that the answers are right. It asserts no times.
package bench

import (
	"flag"
	"fmt"
	"os"
	"testing"
)

var (
	rounds   = flag.Int("rounds", 5, "paired rounds per benchmark; figures are medians over them")
	profiles = flag.String("profiles", "", "folder for a CPU profile of each process of each cell; profiling slows all of them")
)

// roles are what this program does as a process of a measured path.
var roles = map[string]func(*child) error{
	"engine":      engineRole,
	"plain-front": plainFrontRole,
	"plain-back":  plainBackRole,
	"worker":      workerRole,
	"proxy":       proxyRole,
}

func TestMain(m *testing.M) {
	if name := os.Getenv(roleEnv); name != "" {
		if err := runRole(roles[name]); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}
