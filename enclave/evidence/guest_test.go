package evidence

import (
	"context"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-configfs-tsm/configfs/configfsi"
	"github.com/google/go-configfs-tsm/configfs/faketsm"

	"cocoon/attestation"
	"cocoon/attestation/softtee"
)

// kernel is configfs-tsm with a software machine behind it.
func kernel(t *testing.T, provider string, quote func([64]byte) []byte) configfsi.Client {
	t.Helper()
	r := faketsm.ReportV7(0)
	r.ReadAttr = func(e *faketsm.ReportEntry, attr string) ([]byte, error) {
		switch attr {
		case "provider":
			return []byte(provider), nil
		case "outblob":
			in := e.InAttrs["inblob"]
			return quote([64]byte(in.Value)), nil
		}
		return nil, os.ErrNotExist
	}
	return &faketsm.Client{Subsystems: map[string]configfsi.Client{"report": r}}
}

func TestGuestQuotesVerify(t *testing.T) {
	now := time.Now()
	world, err := softtee.New(now)
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := world.Roots().Verifier(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	m := world.Machine(attestation.SNP)
	sample, err := m.Quote(context.Background(), [64]byte{})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, der := range map[string][]byte{"vek.pem": sample.SNP.VEK, "ask.pem": sample.SNP.ASK, "ark.pem": sample.SNP.ARK} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "crl.der"), sample.SNP.CRL, 0o600); err != nil {
		t.Fatal(err)
	}
	quote := func(rd [64]byte) []byte {
		ev, err := m.Quote(context.Background(), rd)
		if err != nil {
			t.Error(err)
		}
		return ev.Quote
	}
	g := Guest{Client: kernel(t, "sev_guest\n", quote), Collateral: Folder{dir}}
	want := [64]byte{1, 2, 3}
	ev, err := g.Quote(context.Background(), want)
	if err != nil {
		t.Fatal(err)
	}
	if res := verifier.VerifyCPUEvidence(&ev, now); res.Verdict != attestation.Accepted {
		t.Errorf("got %s: %v", res.Verdict, res.Checks)
	}
	if got := [64]byte(ev.Quote[0x50:0x90]); got != want {
		t.Errorf("report data: got %x, want %x", got, want)
	}

	g.Client = kernel(t, "arm_cca_guest", quote)
	if _, err := g.Quote(context.Background(), want); err == nil || !strings.Contains(err.Error(), "provider") {
		t.Errorf("another technology: got %v, want an error naming the provider", err)
	}
	g.Client, g.Collateral = kernel(t, "sev_guest", quote), Folder{t.TempDir()}
	if _, err := g.Quote(context.Background(), want); err == nil || !strings.Contains(err.Error(), "collateral") {
		t.Errorf("no collateral: got %v, want an error that says so", err)
	}
}
