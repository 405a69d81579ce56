package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"cocoon": main})
}

// vectors finds the folder of captured evidence, or "".
func vectors(t *testing.T) string {
	dir := os.Getenv("COCOON_VECTORS")
	if dir == "" {
		dir, _ = filepath.Abs(filepath.Join("..", "..", "..", "shared", "vectors"))
	}
	if _, err := os.Stat(filepath.Join(dir, "tdx")); err != nil {
		if os.Getenv("COCOON_REQUIRE_VECTORS") != "" {
			t.Fatalf("captured evidence is required: %v", err)
		}
		return ""
	}
	return dir
}

func TestScripts(t *testing.T) {
	scripts(t, "testdata/script", "")
}

// Real evidence from the command line, with the verdict that it must get.
func TestVectorScripts(t *testing.T) {
	dir := vectors(t)
	if dir == "" {
		t.Skip("no captured evidence (set COCOON_VECTORS)")
	}
	scripts(t, "testdata/vectors", dir)
}

func scripts(t *testing.T, dir, vectors string) {
	testscript.Run(t, testscript.Params{
		Dir:                 dir,
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			e.Vars = append(e.Vars, "VECTORS="+vectors, "HOME="+e.WorkDir, "XDG_CONFIG_HOME="+e.WorkDir)
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			// code N CMD...: the command ends with exit code N.
			"code": func(ts *testscript.TestScript, neg bool, args []string) {
				if neg || len(args) < 2 {
					ts.Fatalf("usage: code N COMMAND...")
				}
				err := ts.Exec(args[1], args[2:]...)
				got := 0
				if e, ok := err.(interface{ ExitCode() int }); ok {
					got = e.ExitCode()
				} else if err != nil {
					ts.Fatalf("%v", err)
				}
				if want := args[0]; want != string(rune('0'+got)) {
					ts.Fatalf("exit code: got %d, want %s", got, want)
				}
			},
		},
	})
}
