// Command testreport reads `go test -json` on standard input, prints what
// failed and what was skipped, and fails on a skip that is not expected.
//
//	go test -json ./... | go run ./test/cmd/testreport -allowed-skips .ci/allowed-skips
//
// The file holds one "package/Test" per line, # begins a comment.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
)

type event struct {
	Action, Package, Test, Output string
	Elapsed                       float64
}

func main() {
	allowed := flag.String("allowed-skips", "", "file of tests that may be skipped")
	flag.Parse()
	ok, err := report(os.Stdin, os.Stdout, *allowed)
	if err != nil {
		fmt.Fprintln(os.Stderr, "testreport: error:", err)
		os.Exit(1)
	}
	if !ok {
		os.Exit(1)
	}
}

func report(in io.Reader, out io.Writer, allowedFile string) (bool, error) {
	allowed := map[string]bool{}
	if allowedFile != "" {
		b, err := os.ReadFile(allowedFile)
		if err != nil {
			return false, err
		}
		for _, l := range strings.Split(string(b), "\n") {
			if l, _, _ = strings.Cut(l, "#"); strings.TrimSpace(l) != "" {
				allowed[strings.TrimSpace(l)] = true
			}
		}
	}
	var passed, failed, skipped int
	ok := true
	output := map[string]*strings.Builder{}
	sc := bufio.NewScanner(in)
	sc.Buffer(nil, 1<<24)
	for sc.Scan() {
		var e event
		if err := json.Unmarshal(sc.Bytes(), &e); err != nil {
			fmt.Fprintln(out, sc.Text()) // a build error
			continue
		}
		id := e.Package + "/" + e.Test
		if output[id] == nil {
			output[id] = &strings.Builder{}
		}
		switch e.Action {
		case "output", "build-output":
			output[id].WriteString(e.Output)
			continue
		case "fail", "build-fail":
			ok = false
			fmt.Fprintf(out, "FAIL %s\n%s", strings.TrimSuffix(id, "/"), output[id])
		case "skip":
			if e.Test == "" {
				break // a package without tests
			}
			verdict := "allowed"
			if !allowed[id] {
				verdict, ok = "NOT ALLOWED", false
			}
			fmt.Fprintf(out, "SKIP (%s) %s\n%s", verdict, id, output[id])
		case "pass":
			if e.Test == "" {
				fmt.Fprintf(out, "ok  %s %.1fs\n", e.Package, e.Elapsed)
			}
		}
		if e.Test != "" {
			switch e.Action {
			case "pass":
				passed++
			case "fail":
				failed++
			case "skip":
				skipped++
			}
		}
		if e.Action == "pass" || e.Action == "fail" || e.Action == "skip" {
			delete(output, id)
		}
	}
	fmt.Fprintf(out, "%d passed, %d failed, %d skipped\n", passed, failed, skipped)
	return ok && passed > 0, sc.Err()
}
