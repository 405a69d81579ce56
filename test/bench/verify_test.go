package bench

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"cocoon/attestation"
	"cocoon/attestation/softtee"

	sevverify "github.com/google/go-sev-guest/verify"
	"github.com/google/go-tdx-guest/pcs"
	tdxverify "github.com/google/go-tdx-guest/verify"
)

// evidence is a worker's bundle and a client that knows all it takes to accept it.
type evidence struct {
	world    *softtee.World
	raw      []byte
	bundle   *attestation.Bundle
	verifier *attestation.Verifier
	expect   attestation.Expect
}

func newEvidence(tb testing.TB, tee attestation.TEE) *evidence {
	tb.Helper()
	now := time.Now()
	w, err := softtee.New(now)
	if err != nil {
		tb.Fatal(err)
	}
	m := w.Machine(tee)
	config := attestation.WorkerConfig{
		Version: attestation.ConfigVersion, WorkerID: workerID, PayoutAddress: payout, Redeemer: payout,
		Models: models, Prices: []attestation.ModelPrice{{Model: model, Min: prices}}, Engine: attestation.EngineHTTP,
	}
	keyset := attestation.Keyset{
		Version: attestation.KeysetVersion, WorkerID: workerID, BootID: [32]byte{4}, Epoch: 1,
		NotBefore: now.Add(-time.Minute).Unix(), NotAfter: now.Add(9 * time.Minute).Unix(),
		Beacon: attestation.Beacon{Seqno: 7, RootHash: [32]byte{7}}, HPKEPublicKey: make([]byte, attestation.HPKEKeyBytes),
		SigningPublicKey: [32]byte{7}, LogPublicKey: [32]byte{8}, PayoutAddress: payout, Models: models,
		ConfigDigest: config.Digest(), GPUEvidenceDigest: attestation.GPUEvidenceDigest(nil),
	}
	release := attestation.Release{Version: attestation.ReleaseVersion, Number: 1, Name: "r1", Launches: []attestation.Launch{m.Launch()}}
	b := &attestation.Bundle{
		Version: attestation.BundleVersion, Keyset: keyset.Encode(), Config: config.Encode(), Release: release.Encode(), BeaconProof: []byte("proof"),
		ReleaseSignatures: []attestation.ReleaseSignature{attestation.SignRelease(w.RebuilderKey(), release.Encode())},
	}
	if b.CPU, err = m.Quote(tb.Context(), attestation.ReportData(b.Keyset, b.Nonce)); err != nil {
		tb.Fatal(err)
	}
	rebuilder := attestation.Digest(w.RebuilderKey().Public().(ed25519.PublicKey))
	v, err := w.Roots().Verifier(&attestation.Policy{Rebuilders: []attestation.Digest{rebuilder}}, chain{})
	if err != nil {
		tb.Fatal(err)
	}
	return &evidence{world: w, raw: b.Encode(), bundle: b, verifier: v, expect: attestation.Expect{
		Now: now, WorkerID: workerID,
		Registry: &attestation.RegistryView{Address: attestation.NewAddress(0, [32]byte{9}), ProvenAt: now, Entries: map[[32]byte]attestation.RegistryEntry{
			release.Digest():                {Kind: attestation.EntryRelease, Meta: attestation.ReleaseMeta(1)},
			attestation.ModelKey(models[0]): {Kind: attestation.EntryModel, Meta: sha256.Sum256([]byte(model))},
		}},
		Record: &attestation.RecordView{WorkerID: workerID, Payout: payout, PlatformID: m.PlatformID(), Expiry: now.Add(time.Hour), ProvenAt: now},
	}}
}

// verify does all that a client does with a bundle from the wire.
func (e *evidence) verify() error {
	b, err := attestation.ParseBundle(e.raw)
	if err != nil {
		return err
	}
	_, err = e.verifier.Verify(b, e.expect).Verified()
	return err
}

// Get answers as Intel's service would.
func (e *evidence) Get(u string) (map[string][]string, []byte, error) {
	header := func(key string, chain []byte) map[string][]string {
		return map[string][]string{key: {url.QueryEscape(string(chain))}}
	}
	c := e.bundle.CPU.TDX
	switch {
	case strings.Contains(u, "/tcb?"):
		return header(pcs.TcbInfoIssuerChainPhrase, c.TCBInfoIssuerChain), fmt.Appendf(nil, `{"tcbInfo":%s,"signature":"%x"}`, c.TCBInfo, c.TCBInfoSignature), nil
	case strings.Contains(u, "/qe/identity"):
		return header(pcs.SgxQeIdentityIssuerChainPhrase, c.QEIdentityIssuerChain), fmt.Appendf(nil, `{"enclaveIdentity":%s,"signature":"%x"}`, c.QEIdentity, c.QEIdentitySignature), nil
	case strings.Contains(u, "/pckcrl"):
		return header(pcs.SgxPckCrlIssuerChainPhrase, c.PCKCRLIssuerChain), c.PCKCRL, nil
	case strings.HasSuffix(u, ".der"):
		return nil, c.RootCACRL, nil
	}
	return nil, nil, fmt.Errorf("nothing is recorded for %s", u)
}

// pinnedTDX is go-tdx-guest with all its checks on.
func (e *evidence) pinnedTDX(tb testing.TB) func() error {
	_, root := pem.Decode(e.bundle.CPU.TDX.TCBInfoIssuerChain)
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(root) {
		tb.Fatal("no root")
	}
	at := e.expect.Now
	return func() error {
		return tdxverify.RawTdxQuoteContext(tb.Context(), e.bundle.CPU.Quote, &tdxverify.Options{
			CheckRevocations: true, GetCollateral: true, Getter: e, TrustedRoots: roots,
			Now: &tdxverify.TimeSet{PckCertChain: at, TcbInfo: at, QeIdentity: at, PckCrl: at, RootCaCrl: at},
		})
	}
}

// pinnedSNP makes the checks of signatures that go-sev-guest makes: the
// report's by its own function, those of certificates and list as it does.
// Whole, it refuses software certificates for an extension they lack.
func (e *evidence) pinnedSNP(testing.TB) func() error {
	c := e.bundle.CPU.SNP
	return func() error {
		var certs [3]*x509.Certificate
		for i, der := range [][]byte{c.VEK, c.ASK, c.ARK} {
			var err error
			if certs[i], err = x509.ParseCertificate(der); err != nil {
				return err
			}
		}
		vek, ask, ark := certs[0], certs[1], certs[2]
		list, err := x509.ParseRevocationList(c.CRL)
		if err != nil {
			return err
		}
		return errors.Join(sevverify.SnpReportSignature(e.bundle.CPU.Quote, vek),
			vek.CheckSignatureFrom(ask), ask.CheckSignatureFrom(ark), ark.CheckSignatureFrom(ark), list.CheckSignatureFrom(ark))
	}
}

// bare makes the signature checks alone that nobody can leave out, with keys
// of the same kinds and everything parsed.
func (e *evidence) bare(tb testing.TB) func() error {
	if e.bundle.CPU.TEE == attestation.TDX {
		digest := sha256.Sum256([]byte("signed"))
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			tb.Fatal(err)
		}
		sig, err := ecdsa.SignASN1(rand.Reader, k, digest[:])
		if err != nil {
			tb.Fatal(err)
		}
		return func() error {
			// Quote, QE report, PCK, its CA, TCB info, its signer, QE identity, two CRLs.
			for range 9 {
				if !ecdsa.VerifyASN1(&k.PublicKey, digest[:], sig) {
					return errors.New("a good signature did not verify")
				}
			}
			return nil
		}
	}
	c := e.bundle.CPU.SNP
	var certs [3]*x509.Certificate
	for i, der := range [][]byte{c.VEK, c.ASK, c.ARK} {
		var err error
		if certs[i], err = x509.ParseCertificate(der); err != nil {
			tb.Fatal(err)
		}
	}
	list, err := x509.ParseRevocationList(c.CRL)
	if err != nil {
		tb.Fatal(err)
	}
	return func() error {
		return errors.Join(sevverify.SnpReportSignature(e.bundle.CPU.Quote, certs[0]),
			certs[0].CheckSignatureFrom(certs[1]), certs[1].CheckSignatureFrom(certs[2]), list.CheckSignatureFrom(certs[2]))
	}
}

// The three ways of the benchmark accept the same evidence.
func TestVerify(t *testing.T) {
	t.Parallel()
	for _, tee := range []attestation.TEE{attestation.TDX, attestation.SNP} {
		e := newEvidence(t, tee)
		for name, f := range e.ways(t, tee) {
			if err := f(); err != nil {
				t.Errorf("%s: %s: %v", tee, name, err)
			}
		}
	}
}

func (e *evidence) ways(tb testing.TB, tee attestation.TEE) map[string]func() error {
	pinned := e.pinnedTDX
	if tee == attestation.SNP {
		pinned = e.pinnedSNP
	}
	return map[string]func() error{"bundle": e.verify, "library": pinned(tb), "bare": e.bare(tb)}
}

// BenchmarkVerify is one full bundle offline, against what the pinned vendor
// library takes for the quote alone, and against the bare signature checks.
func BenchmarkVerify(b *testing.B) {
	for _, tee := range []attestation.TEE{attestation.TDX, attestation.SNP} {
		b.Run(string(tee), func(b *testing.B) {
			ways := newEvidence(b, tee).ways(b, tee)
			took := map[string][]float64{}
			for b.Loop() {
				for _, name := range []string{"bundle", "library", "bare"} {
					began := time.Now()
					if err := ways[name](); err != nil {
						b.Fatal(err)
					}
					took[name] = append(took[name], microseconds(time.Since(began)))
				}
			}
			us := median(took["bundle"])
			b.ReportMetric(us/median(took["library"]), "x(library)")
			b.ReportMetric(us/median(took["bare"]), "x(bare)")
			b.ReportMetric(us, "us/bundle")
			b.ReportMetric(0, "ns/op")
		})
	}
}
