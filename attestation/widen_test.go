package attestation

import (
	"crypto/ed25519"
	"encoding/hex"
	"slices"
	"testing"
)

// A registry's owner writes the policy floors. By themselves they must not
// vouch for anything: each row is a floor that tries to.
func TestAPolicyFloorOnlyNarrows(t *testing.T) {
	unmeasured := func(s *scene) {
		s.keyset.Models = []Model{{Name: "seed", WeightsRoot: Unmeasured}}
		s.config.Models = s.keyset.Models
	}
	for name, tt := range map[string]struct {
		check string
		spoil func(*scene)
	}{
		"pins a release that no rebuilder signed": {"image.allowed", func(s *scene) {
			d := s.release.Digest()
			s.signers, s.floors = nil, []string{`releases = ["` + hex.EncodeToString(d[:]) + `"]`}
		}},
		"names its own rebuilder": {"image.allowed", func(s *scene) {
			s.policy = nil
			s.floors = []string{`rebuilders = ["` + hex.EncodeToString(s.signers[0].Public().(ed25519.PublicKey)) + `"]`}
		}},
		"names its own rebuilder beside a file's": {"image.allowed", func(s *scene) {
			s.policy.Rebuilders = []Digest{{1}}
			s.floors = []string{`rebuilders = ["` + hex.EncodeToString(s.signers[0].Public().(ed25519.PublicKey)) + `"]`}
		}},
		"allows unmeasured weights": {"model.weights", func(s *scene) {
			unmeasured(s)
			s.floors = []string{"[models]\nseed = \"unmeasured\"\n"}
		}},
		"pins a model for a client without a registry": {"model.weights", func(s *scene) {
			s.policy.Registry, s.policy.Releases = "none", []Digest{Digest(s.release.Digest())}
			s.floors = []string{"[models]\nseed = \"" + s.keyset.Models[0].WeightsRoot + "\"\n"}
		}},
		"does without the registry": {"registry.policy-floor", func(s *scene) {
			s.floors = []string{"registry = \"none\"\n"}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			tt.spoil(s)
			refused(t, s.verify(t), tt.check)
		})
	}
	wide, err := ParsePolicy([]byte("[ages]\ncollateral = \"9000h\"\nregistry = \"9000h\"\nbeacon = \"9000h\"\nbeacon_fresh = \"9000h\"\n" +
		"[tdx]\ntcb_statuses = [\"UpToDate\", \"OutOfDate\"]\n[snp]\nproducts = [\"Milan\", \"Genoa\"]\nallow_smt = true\n[snp.min_tcb.Genoa]\nsnp = 1\n"))
	if err != nil {
		t.Fatal(err)
	}
	no := false
	e, err := Combine(&Policy{SNP: SNPPolicy{AllowSMT: &no}}, wide)
	if err != nil {
		t.Fatal(err)
	}
	p := e.Policy()
	if p.Ages != Default().Ages || !slices.Equal(p.TDX.TCBStatuses, []string{"UpToDate"}) || !slices.Equal(p.SNP.Products, []string{"Genoa"}) ||
		*p.SNP.AllowSMT || p.SNP.MinTCB["Genoa"] != Default().SNP.MinTCB["Genoa"] {
		t.Errorf("a wide floor widened the policy: %+v", p)
	}
}

// A rebuilder's word is for a release that the registry lists. Without a
// registry only the client's own pin will do.
func TestWithoutARegistryAReleaseIsPinned(t *testing.T) {
	s := newScene(t)
	s.policy.Registry, s.policy.Models = "none", map[string]string{"seed": s.keyset.Models[0].WeightsRoot}
	refused(t, s.verify(t), "image.allowed")
	s.policy.Releases = []Digest{Digest(s.release.Digest())}
	accepted(t, s.verify(t))
}

// An empty list is a list: it allows nothing.
func TestEmptyListsAllowNothing(t *testing.T) {
	for doc, check := range map[string]string{
		"releases = []":             "image.allowed",
		"rebuilders = []":           "image.allowed",
		"platforms = []":            "platform.allowed",
		"[tdx]\ntcb_statuses = []":  "",
		"[snp]\nproducts = []":      "",
		"releases = []\nmodels={}":  "image.allowed",
		"banned_platforms = []\n#x": "",
	} {
		p, err := ParsePolicy([]byte(doc))
		if err != nil {
			t.Fatalf("%q: %v", doc, err)
		}
		s := newScene(t)
		if p.Rebuilders == nil {
			p.Rebuilders = s.policy.Rebuilders
		}
		s.policy = p
		if res := s.verify(t); check != "" {
			refused(t, res, check)
		}
		e, err := Combine(p)
		if err != nil {
			t.Fatal(err)
		}
		shown, err := e.Describe()
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParsePolicy([]byte(shown))
		if err != nil {
			t.Fatalf("%q is shown as %q: %v", doc, shown, err)
		}
		if (again.Releases == nil) != (p.Releases == nil) || (again.Platforms == nil) != (p.Platforms == nil) ||
			(again.Rebuilders == nil) != (p.Rebuilders == nil) || len(again.TDX.TCBStatuses) != len(e.Policy().TDX.TCBStatuses) ||
			again.TDX.TCBStatuses == nil || again.SNP.Products == nil {
			t.Errorf("%q is shown as\n%s", doc, shown)
		}
	}
	e, err := Combine(&Policy{TDX: TDXPolicy{TCBStatuses: []string{}}})
	if err != nil || len(e.Policy().TDX.TCBStatuses) != 0 {
		t.Errorf("no TCB status: got %v, %v", e.Policy().TDX.TCBStatuses, err)
	}
}
