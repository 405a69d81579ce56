package refusals

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A port that is taken ends the whole network with one clear line, before
// anything of it has begun.
func TestPortAlreadyTaken(t *testing.T) {
	bin := filepath.Join(t.TempDir(), "cocoon-devnet")
	if out, err := exec.Command("go", "build", "-o", bin, "cocoon/cmd/cocoon-devnet").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer ln.Close()
	addr := ln.Addr().String()
	for name, args := range map[string][]string{
		"a port already taken":                  nil,
		"a port already taken, with a question": {"--ask", "hello"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "net")
			cmd := exec.Command(bin, append([]string{"--dir", dir, "--listen", addr}, args...)...)
			cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			var stdout, stderr strings.Builder
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			err := cmd.Run()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != 1 {
				t.Fatalf("got %v, want exit status 1\n%s", err, &stderr)
			}
			line := stderr.String()
			if strings.Count(line, "\n") != 1 || !strings.Contains(line, "error: --listen "+addr+": the port is already taken") || stdout.Len() != 0 {
				t.Errorf("got %q and %q on standard output, want one line about the port", line, &stdout)
			}
			if err := syscall.Kill(-cmd.Process.Pid, 0); !errors.Is(err, syscall.ESRCH) {
				t.Errorf("processes of its group: got %v, want none left", err)
			}
			for _, name := range []string{"devnet.json", "network.json", "keys", "clients"} {
				if _, err := os.Stat(filepath.Join(dir, name)); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("%s was left behind: %v", name, err)
				}
			}
		})
	}
}
