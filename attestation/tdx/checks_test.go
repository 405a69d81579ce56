package tdx_test

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"math/big"
	"strings"
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

func verify(t testing.TB, r *softtee.Roots, p *attestation.Policy, ev *attestation.CPUEvidence, at time.Time) *attestation.Result {
	t.Helper()
	v, err := r.Verifier(p, nil)
	if err != nil {
		t.Fatal(err)
	}
	return v.VerifyCPUEvidence(ev, at)
}

func quote(t testing.TB, m *softtee.Machine) attestation.CPUEvidence {
	t.Helper()
	ev, err := m.Quote(t.Context(), [64]byte{1, 2, 3})
	if err != nil {
		t.Fatal(err)
	}
	return ev
}

// attack spoils one thing of an otherwise healthy machine, at a time and under a policy.
type attack struct {
	m      *softtee.Machine
	at     time.Time
	policy *attestation.Policy
}

func ones() (b [48]byte) { b[0] = 1; return b }

func documents(f func(*softtee.Documents)) func(*attack) {
	return func(a *attack) { a.m.TDX.Documents = f }
}

func td(f func(*softtee.TD)) func(*attack) { return func(a *attack) { a.m.TDX.TD = f } }

func qe(f func(*softtee.QE)) func(*attack) { return func(a *attack) { a.m.TDX.QE = f } }

func after(f func(*attestation.CPUEvidence)) func(*attack) {
	return func(a *attack) { a.m.After = f }
}

func statuses(s ...string) *attestation.Policy {
	return &attestation.Policy{TDX: attestation.TDXPolicy{TCBStatuses: s}}
}

// Each row breaks one thing. The check named fails and no other one does, so a
// verifier without that check would accept.
func TestEveryTDXCheckRefuses(t *testing.T) {
	w, other := newWorld(t), newWorld(t)
	strange := other.Machine(attestation.TDX)
	rows := []struct {
		check, name string
		spoil       func(*attack)
	}{
		{"tdx.parse", "a trailing byte", after(func(e *attestation.CPUEvidence) { e.Quote = append(e.Quote, 1) })},
		{"tdx.parse", "a byte in the padding", after(func(e *attestation.CPUEvidence) { e.Quote = append(e.Quote, 0, 0, 7, 0) })},
		{"tdx.parse", "cut short", after(func(e *attestation.CPUEvidence) { e.Quote = e.Quote[:len(e.Quote)-1] })},
		{"tdx.parse", "empty", after(func(e *attestation.CPUEvidence) { e.Quote = nil })},
		{"tdx.parse", "an SGX quote's version", after(func(e *attestation.CPUEvidence) { e.Quote[0] = 3 })},
		{"tdx.parse", "another TEE", after(func(e *attestation.CPUEvidence) { e.Quote[4] = 0 })},
		{"tdx.parse", "another key type", after(func(e *attestation.CPUEvidence) { e.Quote[2] = 3 })},
		{"tdx.parse", "too long", after(func(e *attestation.CPUEvidence) { e.Quote = append(e.Quote, make([]byte, 64<<10)...) })},
		{"tdx.parse", "a byte that no size counts", after(func(e *attestation.CPUEvidence) {
			e.Quote = append(e.Quote, 0)
			grow(e.Quote, sigDataSize, 1)
			grow(e.Quote, certDataSize, 1)
		})},

		{"tdx.root", "another root of the same name", after(func(e *attestation.CPUEvidence) {
			chain := e.Quote[pckChain:]
			at := bytes.LastIndex(chain, []byte("-----BEGIN"))
			setChain(e, append(bytes.Clone(chain[:at]), rootOf(t, quote(t, strange).TDX.TCBInfoIssuerChain)...))
		})},
		{"tdx.root", "text after the chain", after(func(e *attestation.CPUEvidence) { setChain(e, append(bytes.Clone(e.Quote[pckChain:]), '!')) })},
		{"tdx.root", "the machine of another world", func(a *attack) { a.m = strange }},
		{"tdx.root", "no PPID", func(a *attack) { a.m.TDX.Platform = func(p *softtee.Platform) { p.PPID = [16]byte{} } }},
		{"tdx.root", "a PCK that is a CA", func(a *attack) {
			a.m.TDX.PCK = func(c *x509.Certificate) { c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign }
		}},
		{"tdx.root", "a certificate of another name", func(a *attack) {
			a.m.TDX.PCK = func(c *x509.Certificate) { c.Subject.CommonName = "Intel SGX TCB Signing" }
		}},
		{"tdx.root", "no SGX extension", func(a *attack) { a.m.TDX.PCK = func(c *x509.Certificate) { c.ExtraExtensions = nil } }},

		{"tdx.signature", "a flipped bit of the quote's signature", after(func(e *attestation.CPUEvidence) { e.Quote[48+584+4] ^= 1 })},
		{"tdx.signature", "a flipped bit of report data", after(func(e *attestation.CPUEvidence) { e.Quote[48+520] ^= 1 })},
		{"tdx.signature", "a flipped bit of the QE report", after(func(e *attestation.CPUEvidence) { e.Quote[48+584+4+134+64] ^= 1 })},
		{"tdx.signature", "a QE that vouches for another key", qe(func(q *softtee.QE) { q.OtherKey = true })},

		{"tdx.collateral", "a flipped bit of TCB info", after(func(e *attestation.CPUEvidence) { flipEnd(e.TDX.TCBInfo) })},
		{"tdx.collateral", "a flipped bit of QE identity", after(func(e *attestation.CPUEvidence) { flipEnd(e.TDX.QEIdentity) })},
		{"tdx.collateral", "a short signature", after(func(e *attestation.CPUEvidence) { e.TDX.TCBInfoSignature = e.TDX.TCBInfoSignature[:63] })},
		{"tdx.collateral", "TCB info signed by another world", after(func(e *attestation.CPUEvidence) {
			c := quote(t, strange).TDX
			e.TDX.TCBInfo, e.TDX.TCBInfoSignature, e.TDX.TCBInfoIssuerChain = c.TCBInfo, c.TCBInfoSignature, c.TCBInfoIssuerChain
		})},
		{"tdx.collateral", "TCB info issued by a PCK CA", after(func(e *attestation.CPUEvidence) { e.TDX.TCBInfoIssuerChain = e.TDX.PCKCRLIssuerChain })},
		{"tdx.collateral", "of another FMSPC", documents(func(d *softtee.Documents) { d.TCBInfo.FMSPC = "00806F050000" })},
		{"tdx.collateral", "of another PCE", documents(func(d *softtee.Documents) { d.TCBInfo.PCEID = "0001" })},
		{"tdx.collateral", "of SGX", documents(func(d *softtee.Documents) { d.TCBInfo.ID = "SGX" })},
		{"tdx.collateral", "QE identity of SGX", documents(func(d *softtee.Documents) { d.QEIdentity.ID = "QE" })},
		{"tdx.collateral", "another type of TCB", documents(func(d *softtee.Documents) { d.TCBInfo.Type = 1 })},
		{"tdx.collateral", "no levels", documents(func(d *softtee.Documents) { d.TCBInfo.Levels = nil })},
		{"tdx.collateral", "an unknown status", documents(func(d *softtee.Documents) { d.TCBInfo.Levels[0].Status = "Fine" })},
		{"tdx.collateral", "a level of 15 components", documents(func(d *softtee.Documents) { d.TCBInfo.Levels[0].TCB.SGX = d.TCBInfo.Levels[0].TCB.SGX[:15] })},

		{"tdx.crl", "the PCK is revoked", documents(func(d *softtee.Documents) { softtee.Revoke(&d.PCKCRL, d.PCK) })},
		{"tdx.crl", "the PCK's CA is revoked", documents(func(d *softtee.Documents) { softtee.Revoke(&d.RootCACRL, d.CA) })},
		{"tdx.crl", "the TCB signer is revoked", documents(func(d *softtee.Documents) { softtee.Revoke(&d.RootCACRL, d.Signer) })},
		{"tdx.crl", "the QE identity's signer is revoked", func(a *attack) {
			a.m.TDX.QESigner = func(*x509.Certificate) {}
			a.m.TDX.Documents = func(d *softtee.Documents) { softtee.Revoke(&d.RootCACRL, d.QESigner) }
		}},
		{"tdx.crl", "a list in another CA's name", documents(func(d *softtee.Documents) {
			ca := *d.CA
			ca.RawSubject = d.Signer.RawSubject
			d.CA = &ca
		})},
		{"tdx.crl", "a delta list", documents(func(d *softtee.Documents) {
			d.PCKCRL.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 27}, Critical: true, Value: []byte{2, 1, 1}}}
		})},
		{"tdx.crl", "the list of another world", after(func(e *attestation.CPUEvidence) { e.TDX.PCKCRL = quote(t, strange).TDX.PCKCRL })},
		{"tdx.crl", "the root's list in the PCK list's place", after(func(e *attestation.CPUEvidence) { e.TDX.PCKCRL = e.TDX.RootCACRL })},
		{"tdx.crl", "trailing bytes", after(func(e *attestation.CPUEvidence) { e.TDX.RootCACRL = append(e.TDX.RootCACRL, 0) })},

		{"tdx.qe-identity", "a QE with MRSIGNER 0", qe(func(q *softtee.QE) { q.MRSigner = [32]byte{} })},
		{"tdx.qe-identity", "a QE of another product", qe(func(q *softtee.QE) { q.ISVProdID = 1 })},
		{"tdx.qe-identity", "a QE that can be debugged", qe(func(q *softtee.QE) { q.Attributes[0] |= 2 })},
		{"tdx.qe-identity", "a QE with misc features", qe(func(q *softtee.QE) { q.MiscSelect = 1 })},
		{"tdx.qe-identity", "a QE of another vendor", qe(func(q *softtee.QE) { q.VendorID[0] = 0 })},
		{"tdx.qe-identity", "a mask of the wrong length", documents(func(d *softtee.Documents) { d.QEIdentity.MiscSelectMask = "" })},

		{"tdx.collateral-fresh", "TCB info expired", documents(func(d *softtee.Documents) { d.TCBInfo.NextUpdate = now.Add(-time.Second) })},
		{"tdx.collateral-fresh", "TCB info of the future", documents(func(d *softtee.Documents) { d.TCBInfo.IssueDate = now.Add(time.Second) })},
		{"tdx.collateral-fresh", "TCB info of 8 days", documents(func(d *softtee.Documents) { d.TCBInfo.IssueDate = now.AddDate(0, 0, -8) })},
		{"tdx.collateral-fresh", "QE identity expired", documents(func(d *softtee.Documents) { d.QEIdentity.NextUpdate = now.Add(-time.Second) })},
		{"tdx.collateral-fresh", "QE identity of the future", documents(func(d *softtee.Documents) { d.QEIdentity.IssueDate = now.Add(time.Second) })},
		{"tdx.collateral-fresh", "QE identity of 8 days", documents(func(d *softtee.Documents) { d.QEIdentity.IssueDate = now.AddDate(0, 0, -8) })},
		{"tdx.collateral-fresh", "PCK CRL expired", documents(func(d *softtee.Documents) { d.PCKCRL.NextUpdate = now.Add(-time.Second) })},
		{"tdx.collateral-fresh", "PCK CRL of the future", documents(func(d *softtee.Documents) { d.PCKCRL.ThisUpdate = now.Add(time.Second) })},
		{"tdx.collateral-fresh", "PCK CRL of 8 days", documents(func(d *softtee.Documents) { d.PCKCRL.ThisUpdate = now.AddDate(0, 0, -8) })},
		{"tdx.collateral-fresh", "root CRL expired", documents(func(d *softtee.Documents) { d.RootCACRL.NextUpdate = now.Add(-time.Second) })},
		{"tdx.collateral-fresh", "root CRL of the future", documents(func(d *softtee.Documents) { d.RootCACRL.ThisUpdate = now.Add(time.Second) })},
		{"tdx.collateral-fresh", "PCK expired", func(a *attack) {
			a.m.TDX.PCK = func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Second) }
		}},
		{"tdx.collateral-fresh", "PCK not valid yet", func(a *attack) {
			a.m.TDX.PCK = func(c *x509.Certificate) { c.NotBefore = now.Add(time.Second) }
		}},
		{"tdx.collateral-fresh", "a TCB signer that expired", func(a *attack) {
			a.m.TDX.QESigner = func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Second) }
		}},
		{"tdx.collateral-fresh", "a policy of one minute", func(a *attack) {
			a.policy = &attestation.Policy{Ages: attestation.Ages{Collateral: attestation.Duration(time.Minute)}}
		}},
		{"tdx.collateral-fresh", "all of it a month later", func(a *attack) { a.at = now.AddDate(0, 1, 0) }},
		{"tdx.collateral-fresh", "all of it a month before", func(a *attack) { a.at = now.AddDate(0, -1, 0) }},

		{"tdx.eval-number", "below the policy's floor", func(a *attack) {
			a.policy = &attestation.Policy{TDX: attestation.TDXPolicy{MinEvalNumber: 19}}
		}},
		{"tdx.eval-number", "none", documents(func(d *softtee.Documents) { d.TCBInfo.Evaluation, d.QEIdentity.Evaluation = 0, 0 })},
		{"tdx.eval-number", "TCB info rolled back", documents(func(d *softtee.Documents) { d.TCBInfo.Evaluation = 17 })},
		{"tdx.eval-number", "QE identity rolled back", documents(func(d *softtee.Documents) { d.QEIdentity.Evaluation = 17 })},

		{"tdx.module", "another MRSIGNERSEAM", td(func(d *softtee.TD) { d.MRSignerSEAM = ones() })},
		{"tdx.module", "SEAM attributes (a debug module)", td(func(d *softtee.TD) { d.SEAMAttributes = 1 })},
		{"tdx.module", "an unknown module version", td(func(d *softtee.TD) { d.TEETCBSVN[1] = 9 })},
		{"tdx.module", "an update to an unknown module version", func(a *attack) {
			a.m.TDX.V5 = true
			a.m.TDX.TD = func(d *softtee.TD) { d.TEETCBSVN2[1] = 9 }
		}},
		{"tdx.module", "a TDX 1.0 module of another signer", func(a *attack) {
			a.m.TDX.TD = func(d *softtee.TD) { d.TEETCBSVN[1] = 0 }
			a.m.TDX.Documents = func(d *softtee.Documents) { d.TCBInfo.Module.MRSigner = strings.Repeat("11", 48) }
		}},

		{"tdx.tcb", "platform OutOfDate", func(a *attack) { a.m.TDX.TCBStatus = "OutOfDate" }},
		{"tdx.tcb", "platform SWHardeningNeeded", func(a *attack) { a.m.TDX.TCBStatus = "SWHardeningNeeded" }},
		{"tdx.tcb", "platform ConfigurationNeeded", func(a *attack) { a.m.TDX.TCBStatus = "ConfigurationNeeded" }},
		{"tdx.tcb", "platform Revoked", func(a *attack) { a.m.TDX.TCBStatus = "Revoked" }},
		{"tdx.tcb", "platform Revoked under a policy that lists it", func(a *attack) {
			a.m.TDX.TCBStatus, a.policy = "Revoked", statuses("UpToDate", "Revoked")
		}},
		{"tdx.tcb", "an old microcode", func(a *attack) { a.m.TDX.Platform = oldMicrocode; a.m.TDX.Documents = newMicrocode }},
		{"tdx.tcb", "an old PCE", documents(func(d *softtee.Documents) { *d.TCBInfo.Levels[0].TCB.PCESVN = 14 })},
		{"tdx.tcb", "an old TDX component", td(func(d *softtee.TD) { d.TEETCBSVN[2] = 1 })},
		{"tdx.tcb", "module OutOfDate", td(func(d *softtee.TD) { d.TEETCBSVN[0] = 5 })},
		{"tdx.tcb", "module older than every level", td(func(d *softtee.TD) { d.TEETCBSVN[0] = 1 })},
		{"tdx.tcb", "module Revoked", documents(func(d *softtee.Documents) { d.TCBInfo.Modules[1].Levels[0].Status = "Revoked" })},
		{"tdx.tcb", "launched under an old module, updated since", func(a *attack) {
			a.m.TDX.V5 = true
			a.m.TDX.TD = func(d *softtee.TD) { d.TEETCBSVN[0] = 5 }
		}},
		{"tdx.tcb", "running under an old module", func(a *attack) {
			a.m.TDX.V5 = true
			a.m.TDX.TD = func(d *softtee.TD) { d.TEETCBSVN2[0] = 5 }
		}},
		{"tdx.tcb", "an old TDX 1.0 module", td(func(d *softtee.TD) { d.TEETCBSVN = [16]byte{4, 0, 3} })},
		{"tdx.tcb", "QE older than every level", qe(func(q *softtee.QE) { q.ISVSVN = 3 })},
		{"tdx.tcb", "QE OutOfDate", documents(func(d *softtee.Documents) { d.QEIdentity.Levels[0].Status = "OutOfDate" })},
		{"tdx.tcb", "QE Revoked", documents(func(d *softtee.Documents) { d.QEIdentity.Levels[0].Status = "Revoked" })},

		{"tdx.debug-off", "a TD its host can debug", func(a *attack) { a.m.TDX.Debug = true }},
		{"tdx.attributes", "SEPT_VE_DISABLE clear", td(func(d *softtee.TD) { d.Attributes = 0 })},
		{"tdx.attributes", "a profiling bit", td(func(d *softtee.TD) { d.Attributes |= 1 << 5 })},
		{"tdx.attributes", "a reserved bit", td(func(d *softtee.TD) { d.Attributes |= 1 << 40 })},
		{"tdx.xfam", "a fixed bit clear", td(func(d *softtee.TD) { d.XFAM &^= 1 })},
		{"tdx.xfam", "an unknown feature", td(func(d *softtee.TD) { d.XFAM |= 1 << 30 })},
		{"tdx.migration", "a migratable TD", td(func(d *softtee.TD) { d.Attributes |= 1 << 29 })},
		{"tdx.migration", "a service TD", func(a *attack) {
			a.m.TDX.V5 = true
			a.m.TDX.TD = func(d *softtee.TD) { d.MRServiceTD = ones() }
		}},
		{"tdx.owner", "MRCONFIGID", td(func(d *softtee.TD) { d.MRConfigID = ones() })},
		{"tdx.owner", "MROWNER", td(func(d *softtee.TD) { d.MROwner = ones() })},
		{"tdx.owner", "MROWNERCONFIG", td(func(d *softtee.TD) { d.MROwnerConfig = ones() })},
	}
	covered := make(map[string]bool)
	for _, tt := range rows {
		t.Run(tt.check+"/"+tt.name, func(t *testing.T) {
			a := &attack{m: w.Machine(attestation.TDX), at: now}
			tt.spoil(a)
			ev := quote(t, a.m)
			res := verify(t, w.Roots(), a.policy, &ev, a.at)
			fail, _ := outcomes(res)
			if diff := cmp.Diff([]string{tt.check}, fail); diff != "" {
				t.Errorf("failed checks (-want +got):\n%s%v", diff, res.Checks)
			}
			want := attestation.NotAcceptable
			if class(tt.check) == attestation.Authenticity {
				want = attestation.NotAuthentic
			}
			if res.Verdict != want {
				t.Errorf("verdict: got %s, want %s", res.Verdict, want)
			}
			recordedOnce(t, res)
		})
		covered[tt.check] = true
	}
	for _, n := range attestation.Names() {
		if n.TEE == attestation.TDX && !covered[n.Name] {
			t.Errorf("no row makes %s fail", n.Name)
		}
	}
}

// Where a software version 4 quote has its sizes and its chain.
const (
	sigDataSize  = 48 + 584
	certDataSize = sigDataSize + 4 + 128 + 2
	chainSize    = certDataSize + 4 + 384 + 64 + 2 + 32 + 2
	pckChain     = chainSize + 4
)

func grow(b []byte, at, by int) {
	binary.LittleEndian.PutUint32(b[at:], binary.LittleEndian.Uint32(b[at:])+uint32(by))
}

// setChain replaces the PCK chain, which nothing signs.
func setChain(e *attestation.CPUEvidence, chain []byte) {
	by := len(chain) - (len(e.Quote) - pckChain)
	e.Quote = append(bytes.Clone(e.Quote[:pckChain]), chain...)
	for _, at := range []int{sigDataSize, certDataSize, chainSize} {
		grow(e.Quote, at, by)
	}
}

func oldMicrocode(p *softtee.Platform) { p.CPUSVN[0]-- }

// newMicrocode makes Intel ask for what a machine with oldMicrocode does not have.
func newMicrocode(d *softtee.Documents) { d.TCBInfo.Levels[0].TCB.SGX[0].SVN++ }

func flipEnd(b []byte) { b[len(b)-3] ^= 1 }

func class(check string) attestation.Class {
	for _, n := range attestation.Names() {
		if n.Name == check {
			return n.Class
		}
	}
	return attestation.Context
}

// recordedOnce asserts that every tdx.* check was recorded exactly once.
func recordedOnce(t *testing.T, res *attestation.Result) {
	t.Helper()
	count := make(map[string]int)
	for _, c := range res.Checks {
		count[c.Name]++
	}
	for _, n := range attestation.Names() {
		if n.TEE == attestation.TDX && count[n.Name] != 1 {
			t.Errorf("%s was recorded %d times, want once", n.Name, count[n.Name])
		}
	}
}

func TestHealthyMachinesAreAccepted(t *testing.T) {
	w := newWorld(t)
	rows := map[string]func(*attack){
		"version 4":          func(*attack) {},
		"version 5":          func(a *attack) { a.m.TDX.V5 = true },
		"TDX 1.0 module":     td(func(d *softtee.TD) { d.TEETCBSVN = [16]byte{5, 0, 3} }),
		"Processor CA":       func(a *attack) { a.m.TDX.Platform = func(p *softtee.Platform) { p.Processor = true } },
		"zero padding":       after(func(e *attestation.CPUEvidence) { e.Quote = append(e.Quote, make([]byte, 3000)...) }),
		"chain ends in zero": after(func(e *attestation.CPUEvidence) { setChain(e, append(bytes.Clone(e.Quote[pckChain:]), 0)) }),
		"two TCB signers":    func(a *attack) { a.m.TDX.QESigner = func(*x509.Certificate) {} },
		"FMSPC lower case":   documents(func(d *softtee.Documents) { d.TCBInfo.FMSPC = strings.ToLower(d.TCBInfo.FMSPC) }),
		"others revoked": documents(func(d *softtee.Documents) {
			softtee.Revoke(&d.PCKCRL, &x509.Certificate{SerialNumber: big.NewInt(7)})
			softtee.Revoke(&d.RootCACRL, &x509.Certificate{SerialNumber: big.NewInt(8)})
		}),
		"a root CRL of 11 months":          documents(func(d *softtee.Documents) { d.RootCACRL.ThisUpdate = now.AddDate(0, -11, 0) }),
		"OutOfDate where policy allows it": func(a *attack) { a.m.TDX.TCBStatus, a.policy = "OutOfDate", statuses("UpToDate", "OutOfDate") },
		"PKS and PERFMON":                  td(func(d *softtee.TD) { d.Attributes |= 1<<30 | 1<<63 }),
		"six days later":                   func(a *attack) { a.at = now.AddDate(0, 0, 6) },
	}
	for name, spoil := range rows {
		t.Run(name, func(t *testing.T) {
			a := &attack{m: w.Machine(attestation.TDX), at: now}
			spoil(a)
			ev := quote(t, a.m)
			res := verify(t, w.Roots(), a.policy, &ev, a.at)
			if fail, skip := outcomes(res); res.Verdict != attestation.Accepted || len(fail)+len(skip) > 0 {
				t.Fatalf("got %s: %v", res.Verdict, res.Checks)
			}
			if res.Assurance != attestation.AssuranceTest || res.Complete {
				t.Errorf("got assurance %s, complete %t, want test, false", res.Assurance, res.Complete)
			}
			if want := attestation.Digest(a.m.PlatformID()); res.Platform != want {
				t.Errorf("platform: got %x, want %x", res.Platform, want)
			}
			recordedOnce(t, res)
		})
	}
}
