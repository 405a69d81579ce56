package softtee_test

import (
	"bytes"
	"context"
	"testing"
	"time"

	"cocoon/attestation"
	"cocoon/attestation/softtee"

	"github.com/google/go-cmp/cmp"
)

var now = time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)

func newWorld(t testing.TB) *softtee.World {
	t.Helper()
	w, err := softtee.New(now)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func check(t *testing.T, r *softtee.Roots, m *softtee.Machine, at time.Time) *attestation.Result {
	t.Helper()
	ev, err := m.Quote(t.Context(), [64]byte{7})
	if err != nil {
		t.Fatal(err)
	}
	v, err := r.Verifier(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return v.VerifyCPUEvidence(&ev, at)
}

// A worker process loads the world's file, and a proxy the public one; both
// are the same world as the process that made it.
func TestProcessesShareAWorld(t *testing.T) {
	w := newWorld(t)
	file, err := w.Save()
	if err != nil {
		t.Fatal(err)
	}
	worker, err := softtee.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	proxy, err := softtee.LoadPublic(w.Public())
	if err != nil {
		t.Fatal(err)
	}
	worker.Clock = func() time.Time { return now }
	for _, tee := range []attestation.TEE{attestation.TDX, attestation.SNP} {
		m := worker.Machine(tee)
		if diff := cmp.Diff(w.Machine(tee).Launch(), m.Launch()); diff != "" {
			t.Errorf("%s: launch after Load (-want +got):\n%s", tee, diff)
		}
		if w.Machine(tee).PlatformID() != m.PlatformID() {
			t.Errorf("%s: Load changed the platform id", tee)
		}
		res := check(t, proxy, m, now)
		if res.Verdict != attestation.Accepted || res.Assurance != attestation.AssuranceTest {
			t.Errorf("%s: got %s with assurance %q: %v", tee, res.Verdict, res.Assurance, res.Checks)
		}
		if res.Platform != attestation.Digest(m.PlatformID()) {
			t.Errorf("%s: platform: got %x, want %x", tee, res.Platform, m.PlatformID())
		}
		second := worker.MachineAt(tee, 1)
		if res := check(t, proxy, second, now); res.Verdict != attestation.Accepted || res.Platform == attestation.Digest(m.PlatformID()) {
			t.Errorf("%s: second machine: got %s on platform %x: %v", tee, res.Verdict, res.Platform, res.Checks)
		}
	}
	if !worker.RebuilderKey().Equal(w.RebuilderKey()) {
		t.Error("Load changed the rebuilder's key")
	}
	seed := w.RebuilderKey().Seed()
	if bytes.Contains(w.Public(), seed) || len(w.Public()) >= len(file) {
		t.Error("the public file holds what is secret")
	}
}

func TestNoWorldIsTrustedByAnother(t *testing.T) {
	w, other := newWorld(t), newWorld(t)
	for _, tee := range []attestation.TEE{attestation.TDX, attestation.SNP} {
		if res := check(t, other.Roots(), w.Machine(tee), now); res.Verdict != attestation.NotAuthentic {
			t.Errorf("%s: got %s, want %s", tee, res.Verdict, attestation.NotAuthentic)
		}
		if res := check(t, &softtee.Roots{}, w.Machine(tee), now); res.Verdict != attestation.NotAuthentic {
			t.Errorf("%s: zero roots: got %s, want %s", tee, res.Verdict, attestation.NotAuthentic)
		}
		if cmp.Equal(w.Launch(tee), other.Launch(tee)) {
			t.Errorf("%s: two worlds measure the same", tee)
		}
	}
}

// A devnet runs for weeks: documents are signed anew before a policy finds them old.
func TestCollateralIsIssuedAnewEachDay(t *testing.T) {
	w := newWorld(t)
	m := w.Machine(attestation.TDX)
	at := now
	m.Clock = func() time.Time { return at }
	quote := func() attestation.CPUEvidence {
		ev, err := m.Quote(t.Context(), [64]byte{})
		if err != nil {
			t.Fatal(err)
		}
		return ev
	}
	first := quote()
	at = now.Add(23 * time.Hour)
	if again := quote(); !bytes.Equal(again.TDX.TCBInfo, first.TDX.TCBInfo) {
		t.Error("collateral was issued anew within the day")
	}
	for range 20 {
		at = at.Add(3 * 24 * time.Hour)
		if res := check(t, w.Roots(), m, at); res.Verdict != attestation.Accepted {
			t.Fatalf("%s: got %s: %v", at, res.Verdict, res.Checks)
		}
	}
}

func TestQuoteRefuses(t *testing.T) {
	w := newWorld(t)
	if _, err := w.Machine("sgx").Quote(t.Context(), [64]byte{}); err == nil {
		t.Error("a machine of no known technology quoted")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.Machine(attestation.TDX).Quote(ctx, [64]byte{}); err == nil {
		t.Error("quoted after cancel")
	}
}

func TestFilesAreRefused(t *testing.T) {
	w := newWorld(t)
	file, err := w.Save()
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"empty": nil, "public": w.Public(), "cut short": file[:len(file)-1], "trailing byte": append(bytes.Clone(file), 0),
	} {
		if _, err := softtee.Load(b); err == nil {
			t.Errorf("Load read a file that is %s", name)
		}
	}
	for name, b := range map[string][]byte{"empty": nil, "private": file, "trailing byte": append(w.Public(), 0)} {
		if _, err := softtee.LoadPublic(b); err == nil {
			t.Errorf("LoadPublic read a file that is %s", name)
		}
	}
}

func FuzzLoadPublic(f *testing.F) {
	f.Add(newWorld(f).Public())
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := softtee.LoadPublic(b)
		if err == nil && len(r.CPUVerifiers()) != 2 {
			t.Fatal("roots without verifiers")
		}
	})
}
