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

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
)

// The production proxy does not take a software vendor's word, and says which
// root is missing: when it starts, and to whoever asks.
func TestProductionProxyRefusesSoftwareHardware(t *testing.T) {
	for _, tt := range []struct{ tee, check string }{{"tdx", "tdx.root"}, {"snp", "snp.root"}} {
		t.Run(tt.tee, func(t *testing.T) {
			t.Parallel()
			n := start(t, t.TempDir(), "--tee", tt.tee)
			d, dir := n.describe(), filepath.Join(t.TempDir(), "client")
			cmd := exec.Command(filepath.Join(bin, "cocoon"), "proxy", "--listen", "127.0.0.1:0", "--dir", dir,
				"--worker", d.Worker, "--ton-config", d.TONConfig, "--registry", d.Registry)
			stdout, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() { cmd.Process.Kill(); cmd.Wait() }()
			sc := bufio.NewScanner(stdout)
			var base string
			for sc.Scan() && !strings.HasPrefix(sc.Text(), "worker ") {
				if s, ok := strings.CutPrefix(sc.Text(), "serving "); ok {
					base, _, _ = strings.Cut(s, ",")
				}
			}
			if !strings.Contains(sc.Text(), "refused") || !strings.Contains(sc.Text(), tt.check) {
				t.Errorf("got %q, want a refusal that names %s", sc.Text(), tt.check)
			}
			token, err := os.ReadFile(filepath.Join(dir, "token"))
			if err != nil {
				t.Fatal(err)
			}
			c := openai.NewClient(option.WithBaseURL(base), option.WithAPIKey(string(token)), option.WithMaxRetries(0))
			_, err = ask(context.Background(), &c, "cocoon-toy", "hi", 8)
			if !strings.Contains(detail(err), tt.check) {
				t.Errorf("a request: got %v%s, want an error that names %s", err, detail(err), tt.check)
			}
			// The devnet's own client, which holds the software roots, is served.
			if got, err := ask(context.Background(), n.client(), "cocoon-toy", greedy[0].ask, 32); err != nil || got.Choices[0].Message.Content != greedy[0].answer {
				t.Errorf("the devnet's own client: %v, %v", got, err)
			}
		})
	}
}

// A worker's vouchers become a payout, which anchors its log.
func TestPayout(t *testing.T) {
	n := start(t, t.TempDir())
	page, err := n.client().Models.List(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range greedy {
		if _, err := ask(context.Background(), n.client(), page.Data[0].ID, g.ask, 64); err != nil {
			t.Fatal(err)
		}
	}
	disclosed := filepath.Join(t.TempDir(), "receipts.cbor")
	dir := filepath.Dir(n.describe().TokenFile)
	if out, errOut, code := cocoon(t, "receipts", "export", "--dir", dir, "--out", disclosed); code != 0 {
		t.Fatalf("receipts export: %d %s%s", code, out, errOut)
	}
	list, _, _ := cocoon(t, "receipts", "list", "--dir", dir)
	if strings.Count(list, "status ok") != len(greedy) {
		t.Errorf("receipts list: got %q, want %d", list, len(greedy))
	}
	n.stop() // the host redeems what the worker handed out when it ended
	n.boot()
	d := n.describe()
	report, code := audit(t, d, "--disclosure", disclosed)
	if code != 0 {
		t.Errorf("audit: exit %d, findings %s", code, report.Findings)
	}
	for _, ch := range report.Channels {
		if ch.Payouts == 0 || ch.Payouts != ch.Vouchers || ch.Matched != ch.Anchors || ch.Anchors == 0 {
			t.Errorf("got %+v, want vouchers paid out, and anchors that match the receipts", ch)
		}
	}
	// Without the software roots the money still adds up, and the evidence does not.
	stdout, _, code := cocoon(t, "audit", "--log", d.Log, "--ton-config", d.TONConfig, "--registry", d.Registry)
	if code != 6 || !strings.Contains(stdout, "tdx.root") {
		t.Errorf("audit under Intel's own root: exit %d, %s", code, stdout)
	}
}

// audit runs `cocoon audit` over a network's log and chain.
func audit(t *testing.T, d description, more ...string) (out auditReport, code int) {
	t.Helper()
	args := append([]string{"audit", "--log", d.Log, "--ton-config", d.TONConfig, "--registry", d.Registry, "--test-roots", d.TestRoots, "--rebuilder", d.Rebuilder, "--json"}, more...)
	stdout, stderr, code := cocoon(t, args...)
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
		Anchors  uint64 `json:"anchors"`
		Matched  uint64 `json:"matched"`
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
