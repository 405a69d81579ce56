package attestation

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// Whoever writes a policy floor must not be able to hang its readers.
func TestPolicyBombs(t *testing.T) {
	const n = 1<<20 - 64
	for name, doc := range map[string]string{
		"nested arrays":       "x = " + strings.Repeat("[", n),
		"nested tables":       "x = " + strings.Repeat("{a=", n/3),
		"a dotted key":        "a" + strings.Repeat(".a", n/2) + " = 1",
		"a dotted header":     "[a" + strings.Repeat(".a", n/2) + "]",
		"a spaced dotted key": "a" + strings.Repeat(" . a", n/4) + " = 1",
		"a quoted dotted key": `"a"` + strings.Repeat(`."a"`, n/4) + " = 1",
		"hidden by a literal": "x = ['''a'b\"c''', {a" + strings.Repeat(".a", n/3) + "=1}] #\"",
		"hidden by a string":  "x = [\"\"\"a\"b'c\"\"\", {a" + strings.Repeat(".a", n/3) + "=1}] #'",
		"hidden by an escape": `x = ["\"", {a` + strings.Repeat(".a", n/3) + `=1}] #"`,
		"hidden in a comment": "# '\na" + strings.Repeat(".a", n/3) + "=1 # '",
		"many headers":        strings.Repeat("[[a]]\n", n/60),
		"a huge number":       "x = " + strings.Repeat("1", n),
		"too long":            strings.Repeat("#", MaxPolicyBytes+1),
	} {
		start := time.Now()
		_, err := ParsePolicy([]byte(doc))
		if err == nil {
			t.Errorf("%s: read", name)
			continue
		}
		if d := time.Since(start); d > 20*time.Second {
			t.Errorf("%s: took %s", name, d)
		}
		if len(err.Error()) > 1000 {
			t.Errorf("%s: an error of %d bytes", name, len(err.Error()))
		}
	}
}

func TestPolicyReadsAsWritten(t *testing.T) {
	z := strings.Repeat("00", 32)
	for doc, want := range map[string]string{
		"releases = []\nReleases = [\"" + z + "\"]\n":              "unknown key",
		"RELEASE_FLOOR = 1":                                        "unknown key",
		"[TDX]\nmin_eval_number = 1":                               "unknown key",
		"[tdx]\nMin_eval_number = 1":                               "unknown key",
		"[snp.min_tcb.Genoa]\nSNP = 1":                             "unknown key",
		"[snp.min_tcb.genoa]\nsnp = 99":                            "snp.min_tcb",
		"[snp.min_tcb.Siena]\nsnp = 99":                            "snp.min_tcb",
		"[snp.min_mitigations]\ngenoa = 1":                         "snp.min_mitigations",
		"[snp.min_tcb.Genoa]\nsnp = 256":                           "256",
		"rebuilders = [\"" + z + "\"]":                             "rebuilders",
		"[ages]\nregistry = 3600":                                  "duration",
		"release_floor = -1":                                       "-1",
		"x = \"\"\"\n\"\"\"":                                       "strings",
		"x = \"a\nb\"":                                             "strings",
		"[snp.min_mitigations]\nGenoa = -1":                        "min_mitigations",
		"[tdx]\nmin_eval_number = -1":                              "range",
		"[models]\nseed = \"conflict\"":                            "weights_root",
		"[models]\n\"a b\" = \"unmeasured\"":                       "models",
		"[models]\nseed = \"unmeasured\"\nseed = \"unmeasured\"\n": "seed",
	} {
		if _, err := ParsePolicy([]byte(doc)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", doc, err, want)
		}
	}
	p, err := ParsePolicy([]byte("# it's fine\n[models]\n\"Org/Model-1.5\" = \"unmeasured\" # \"\n[snp.min_tcb.Genoa]\nsnp = 99\n[snp.min_mitigations]\nTurin = 0x3f\n"))
	if err != nil || p.Models["Org/Model-1.5"] != Unmeasured || p.SNP.MinTCB["Genoa"].SNP != 99 || p.SNP.MinMitigations["Turin"] != 0x3f {
		t.Errorf("got %+v, %v", p, err)
	}
	e, err := Combine(p, &Policy{SNP: SNPPolicy{MinMitigations: map[string]uint64{"Turin": 0x40, "Genoa": 1}}})
	if m := e.Policy().SNP.MinMitigations; err != nil || m["Turin"] != 0x7f || m["Genoa"] != 1 {
		t.Errorf("mitigations: got %v, %v, want the union", m, err)
	}
}

// What a policy's holder does with it is no other verification's concern.
func TestEffectivePolicyIsACopy(t *testing.T) {
	file := &Policy{TDX: TDXPolicy{TCBStatuses: []string{"UpToDate", "SWHardeningNeeded", "OutOfDate"}}, Models: map[string]string{"m": Unmeasured}}
	e, err := Combine(file)
	if err != nil {
		t.Fatal(err)
	}
	p := e.Policy()
	p.TDX.TCBStatuses[0], p.Models["m"], p.SNP.MinTCB["Genoa"] = "Revoked", conflict, SNPTCB{}
	if _, err := e.Describe(); err != nil {
		t.Fatal(err)
	}
	q := e.Policy()
	if q.TDX.TCBStatuses[0] != "UpToDate" || q.Models["m"] != Unmeasured || q.SNP.MinTCB["Genoa"] == (SNPTCB{}) {
		t.Errorf("a caller changed the policy in force: %+v", q)
	}
	if !slices.Equal(file.TDX.TCBStatuses, []string{"UpToDate", "SWHardeningNeeded", "OutOfDate"}) {
		t.Errorf("the file was changed: %v", file.TDX.TCBStatuses)
	}
	e, err = Combine(&Policy{TDX: TDXPolicy{TCBStatuses: []string{"Revoked", "UpToDate"}}})
	if err != nil || !slices.Equal(e.Policy().TDX.TCBStatuses, []string{"UpToDate"}) {
		t.Errorf("Revoked: got %v, %v", e.Policy().TDX.TCBStatuses, err)
	}
}
