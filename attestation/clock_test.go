package attestation

import (
	"testing"
	"time"
)

// Every age is measured at max(clock, newest proven block), under the policy
// that the registry's floors have narrowed.
func TestAgesAreOfTheNewestProvenTime(t *testing.T) {
	for name, tt := range map[string]struct {
		check string
		spoil func(*scene)
	}{
		"no clock": {"keyset.current", func(s *scene) { s.expect.Now = time.Time{} }},
		"a floor keeps beacons younger": {"beacon.fresh", func(s *scene) {
			s.floors = []string{"[ages]\nbeacon = \"30s\"\n"}
		}},
		"a slow clock, a recent registry, an old beacon": {"beacon.fresh", func(s *scene) {
			s.expect.Now = sceneNow.Add(-24 * time.Hour)
			s.beacon = sceneNow.Add(-16 * time.Minute)
		}},
		"a slow clock, a recent record, an old registry": {"registry.fresh", func(s *scene) {
			s.expect.Now = sceneNow.Add(-24 * time.Hour)
			s.beacon = sceneNow.Add(-70 * time.Minute)
			s.expect.Registry.ProvenAt = sceneNow.Add(-70 * time.Minute)
		}},
		"a record proven too long ago": {"binding.platform", func(s *scene) {
			s.expect.Record.ProvenAt = sceneNow.Add(-2 * time.Hour)
		}},
		"a floor keeps records younger": {"binding.platform", func(s *scene) {
			s.expect.Record.ProvenAt = sceneNow.Add(-time.Minute)
			s.floors = []string{"[ages]\nregistry = \"30s\"\n"}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			tt.spoil(s)
			refused(t, s.verify(t), tt.check)
		})
	}
}

// A client whose clock is behind the chain must not use keys for longer than
// one whose clock is right.
func TestASlowClockDoesNotLengthenALife(t *testing.T) {
	s := newScene(t)
	s.expect.Now = sceneNow.Add(-24 * time.Hour)
	v := accepted(t, s.verify(t))
	left := v.Expires().Sub(s.expect.Registry.ProvenAt)
	if err := v.Current(s.expect.Now.Add(left - time.Second)); err != nil {
		t.Errorf("before its expiry: %v", err)
	}
	if err := v.Current(s.expect.Now.Add(left)); err == nil {
		t.Error("a clock that is a day behind made keys last a day longer")
	}
}

// Expires is when the first of all that the proof rests on runs out.
func TestExpiresCoversEverything(t *testing.T) {
	soon := sceneNow.Add(20 * time.Second)
	for name, spoil := range map[string]func(*scene){
		"keyset":     func(s *scene) { s.keyset.NotBefore, s.keyset.NotAfter = sceneNow.Unix(), soon.Unix() },
		"collateral": func(s *scene) { s.cpu.until = soon },
		"beacon":     func(s *scene) { s.beacon = soon.Add(-15 * time.Minute) },
		"registry":   func(s *scene) { s.expect.Registry.ProvenAt = soon.Add(-time.Hour) },
		"record":     func(s *scene) { s.expect.Record.Expiry = soon },
		"record's proof": func(s *scene) {
			s.expect.Record.ProvenAt = soon.Add(-time.Hour)
		},
		"a revocation that is due": func(s *scene) {
			s.entries[s.release.Digest()] = RegistryEntry{Kind: EntryRelease, Meta: ReleaseMeta(s.release.Number), RevokedAt: soon.Unix()}
		},
		"a policy floor that is due": func(s *scene) {
			s.entries[[32]byte{77}] = RegistryEntry{Kind: EntryPolicyFloor, NotBefore: soon.Unix()}
		},
	} {
		s := newScene(t)
		spoil(s)
		if v := accepted(t, s.verify(t)); !v.Expires().Equal(soon) {
			t.Errorf("%s: expires %s, want %s", name, v.Expires(), soon)
		}
	}
}
