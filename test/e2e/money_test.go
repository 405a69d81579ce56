package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The production proxy does not take a software vendor's word, and says which
// root is missing.
func TestProductionProxyRefusesSoftwareHardware(t *testing.T) {
	n := start(t, t.TempDir())
	d := n.describe()
	for _, tee := range []struct{ check string }{{"tdx.root"}} {
		cmd := exec.Command(filepath.Join(bin, "cocoon"), "proxy", "--listen", "127.0.0.1:0", "--dir", t.TempDir(),
			"--worker", d.Worker, "--ton-config", d.TONConfig, "--registry", d.Registry)
		var said strings.Builder
		stdout, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stderr = &said
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		sc := bufio.NewScanner(stdout)
		for sc.Scan() {
			said.WriteString(sc.Text() + "\n")
		}
		err = cmd.Wait()
		if err == nil || !strings.Contains(said.String(), tee.check) {
			t.Errorf("got %v:\n%s\nwant a refusal that names %s", err, said.String(), tee.check)
		}
		if code := cmd.ProcessState.ExitCode(); code != 3 {
			t.Errorf("exit code: got %d, want 3 (not authentic)", code)
		}
	}
}

// audit runs `cocoon audit` over a network's log and chain.
func audit(t *testing.T, d description) (out auditReport, code int) {
	t.Helper()
	stdout, stderr, code := cocoon(t, "audit", "--log", d.Log, "--ton-config", d.TONConfig, "--registry", d.Registry, "--test-roots", d.TestRoots, "--rebuilder", d.Rebuilder, "--json")
	if err := json.Unmarshal([]byte(stdout), &out); err != nil {
		t.Fatalf("audit: %v\n%s%s", err, stdout, stderr)
	}
	return out, code
}

// auditReport is the part of the audit's JSON that these tests read.
type auditReport struct {
	Findings []json.RawMessage `json:"findings"`
	Channels []struct {
		Channel  string `json:"channel"`
		Settled  uint64 `json:"settled"`
		Vouchers uint64 `json:"vouchers"`
		Payouts  uint64 `json:"payouts"`
		Unused   uint64 `json:"unused"`
	} `json:"channels"`
}

// Every role dies in mid-stream, one after the other; afterwards log and chain
// alone, without any ledger, add up.
func TestKillEachRole(t *testing.T) {
	dir := t.TempDir()
	n := start(t, dir)
	ctx := context.Background()
	for _, role := range []string{"worker", "proxy", "chain", "host"} {
		c := n.client()
		page, err := c.Models.List(ctx)
		if err != nil {
			t.Fatalf("before %s dies: %v", role, err)
		}
		model := page.Data[0].ID
		s := c.Chat.Completions.NewStreaming(ctx, params(model, "Tell me a long story about a dragon and a king.", 256))
		if !s.Next() {
			t.Fatalf("before %s dies: %v", role, s.Err())
		}
		n.kill(role)
		for s.Next() {
		}
		s.Close()
		if got, err := ask(ctx, n.client(), model, greedy[0].ask, 64); err != nil || got.Choices[0].Message.Content != greedy[0].answer {
			t.Fatalf("after %s was killed and restarted: %v, %v%s\n%s", role, got, err, detail(err), n.said())
		}
	}
	// The whole network dies at once, as in a power cut, and comes back.
	n.cmd.Process.Kill()
	<-n.done
	n.boot()
	page, err := n.client().Models.List(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ask(ctx, n.client(), page.Data[0].ID, greedy[1].ask, 64); err != nil || got.Choices[0].Message.Content != greedy[1].answer {
		t.Fatalf("after a power cut: %v, %v%s\n%s", got, err, detail(err), n.said())
	}
	d := n.describe()
	if err := os.RemoveAll(filepath.Join(dir, "clients")); err != nil {
		t.Fatal(err)
	}
	report, code := audit(t, d)
	if code != 0 || len(report.Findings) != 0 {
		t.Errorf("audit: exit %d, findings %s", code, report.Findings)
	}
	if len(report.Channels) == 0 {
		t.Fatal("audit: no channel was found")
	}
	for _, ch := range report.Channels {
		if ch.Settled == 0 || ch.Settled > ch.Vouchers || ch.Payouts > ch.Vouchers || ch.Unused != ch.Vouchers-ch.Settled {
			t.Errorf("channel %s does not add up: %+v", ch.Channel, ch)
		}
	}
}
