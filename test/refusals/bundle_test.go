package refusals

import (
	"bytes"
	"encoding/pem"
	"errors"
	"slices"
	"strings"
	"testing"

	"cocoon/attestation"
	"cocoon/proxy/session"
)

// refused connects through addr and wants the worker refused by the check of
// that name, nothing sent, no channel opened and nothing paid.
func (c *client) refused(t *testing.T, addr string, id attestation.Address, check, text string) {
	t.Helper()
	opened, before := len(c.channels(t)), c.n.wallet(t)
	s, err := session.Connect(t.Context(), &c.cfg, addr, id)
	if err == nil {
		s.Close()
		t.Fatalf("the worker was accepted, want it refused by %s", check)
	}
	var refused *session.NotVerifiedError
	if !errors.As(err, &refused) {
		t.Fatalf("got %v, want a worker that is not verified", err)
	}
	if !strings.Contains(err.Error(), check) || !strings.Contains(err.Error(), text) {
		t.Errorf("error: got %q, want it to name %s and say %q", err, check, text)
	}
	if res := refused.Result; res != nil && res.Verdict != attestation.Accepted {
		if !slices.ContainsFunc(res.Checks, func(k attestation.Check) bool { return k.Name == check && k.Outcome != attestation.Pass }) {
			t.Errorf("checks: %s passed: %v", check, res.Checks)
		}
		if v, err := res.Verified(); v != nil || !errors.Is(err, attestation.ErrNotVerified) {
			t.Errorf("Verified: got %v, %v", v, err)
		}
	}
	if got := len(c.channels(t)) - opened; got != 0 {
		t.Errorf("%d channels were opened", got)
	}
	if after := c.n.wallet(t); after != before {
		t.Errorf("the client's wallet: got %d nano, want %d", after, before)
	}
}

// wallet is what the clients' wallet holds, in nano.
func (n *network) wallet(t testing.TB) uint64 {
	t.Helper()
	a, err := n.client.Account(t.Context())
	must(t, err)
	return a.Balance
}

// flip turns one bit in the middle of a part over.
func flip(b []byte) { b[len(b)/2] ^= 0x10 }

// at flips a bit of the byte at i.
func at(i int) func([]byte) { return func(b []byte) { b[i] ^= 0x10 } }

// A relay that flips a bit in any part of the bundle is caught by the check
// that is about that part.
func TestFlippedBitInTheBundle(t *testing.T) {
	n := newNetwork(t)
	type row struct {
		part  string
		check string
		flip  func(*attestation.Bundle)
	}
	of := func(part func(*attestation.Bundle) []byte, flip func([]byte)) func(*attestation.Bundle) {
		return func(b *attestation.Bundle) { flip(part(b)) }
	}
	keyset := func(f func(*attestation.Keyset)) func(*attestation.Bundle) {
		return func(b *attestation.Bundle) {
			k := sure(attestation.ParseKeyset(b.Keyset))
			f(k)
			b.Keyset = k.Encode()
		}
	}
	common := []row{
		{"keyset/worker id", "binding.report-data", keyset(func(k *attestation.Keyset) { k.WorkerID[9] ^= 1 })},
		{"keyset/boot id", "binding.report-data", keyset(func(k *attestation.Keyset) { k.BootID[9] ^= 1 })},
		{"keyset/epoch", "binding.report-data", keyset(func(k *attestation.Keyset) { k.Epoch ^= 2 })},
		{"keyset/not before", "binding.report-data", keyset(func(k *attestation.Keyset) { k.NotBefore ^= 1 })},
		{"keyset/not after", "binding.report-data", keyset(func(k *attestation.Keyset) { k.NotAfter-- })},
		{"keyset/beacon seqno", "beacon.proof", keyset(func(k *attestation.Keyset) { k.Beacon.Seqno ^= 1 })},
		{"keyset/beacon root hash", "beacon.proof", keyset(func(k *attestation.Keyset) { k.Beacon.RootHash[3] ^= 1 })},
		{"keyset/TLS key", "binding.report-data", keyset(func(k *attestation.Keyset) { k.TLSSPKISHA256[3] ^= 1 })},
		{"keyset/HPKE key", "binding.report-data", keyset(func(k *attestation.Keyset) { k.HPKEPublicKey[700] ^= 1 })},
		{"keyset/signing key", "binding.report-data", keyset(func(k *attestation.Keyset) { k.SigningPublicKey[3] ^= 1 })},
		{"keyset/log key", "binding.report-data", keyset(func(k *attestation.Keyset) { k.LogPublicKey[3] ^= 1 })},
		{"keyset/payout address", "binding.report-data", keyset(func(k *attestation.Keyset) { k.PayoutAddress[9] ^= 1 })},
		{"keyset/weights root", "binding.report-data", keyset(func(k *attestation.Keyset) { k.Models[0].WeightsRoot = weights(0x5f) })},
		{"keyset/config digest", "binding.report-data", keyset(func(k *attestation.Keyset) { k.ConfigDigest[3] ^= 1 })},
		{"keyset/GPU evidence digest", "binding.report-data", keyset(func(k *attestation.Keyset) { k.GPUEvidenceDigest[3] ^= 1 })},
		{"keyset/GPU count", "binding.report-data", keyset(func(k *attestation.Keyset) { k.GPUCount ^= 1 })},
		{"keyset/its encoding", "keyset.parse", of(func(b *attestation.Bundle) []byte { return b.Keyset }, at(0))},
		{"config", "binding.config", of(func(b *attestation.Bundle) []byte { return b.Config }, flip)},
		{"nonce", "binding.report-data", func(b *attestation.Bundle) { b.Nonce[5] ^= 1 }},
		{"GPU evidence", "binding.gpu-digest", func(b *attestation.Bundle) { b.GPUs = []attestation.GPUEvidence{{Kind: "gpu"}} }},
		{"release", "image.allowed", of(func(b *attestation.Bundle) []byte { return b.Release }, func(r []byte) { r[len(r)-1] ^= 1 })},
		{"release signature/key", "image.allowed", func(b *attestation.Bundle) { b.ReleaseSignatures[0].Key[5] ^= 1 }},
		{"release signature/signature", "image.allowed", func(b *attestation.Bundle) { b.ReleaseSignatures[0].Signature[5] ^= 1 }},
		{"policy floor", "registry.policy-floor", of(func(b *attestation.Bundle) []byte { return b.PolicyFloors[0] }, flip)},
		{"beacon proof", "beacon.proof", of(func(b *attestation.Bundle) []byte { return b.BeaconProof }, flip)},
		{"version", "bundle: version", func(b *attestation.Bundle) { b.Version ^= 2 }},
	}
	tdx := []row{
		{"quote/header", "tdx.parse", of(quote, at(0))},
		{"quote/QE vendor id", "tdx.signature", of(quote, at(13))},
		{"quote/user data", "tdx.signature", of(quote, at(30))},
		{"quote/MRTD", "tdx.signature", of(quote, at(48+136))},
		{"quote/RTMR 3", "tdx.signature", of(quote, at(48+136+4*48+3*48))},
		{"quote/attributes", "tdx.signature", of(quote, at(48+120))},
		{"quote/report data", "tdx.signature", of(quote, at(48+520))},
		{"quote/signature", "tdx.signature", of(quote, at(636+5))},
		{"quote/attestation key", "tdx.signature", of(quote, at(636+64+5))},
		{"quote/QE report", "tdx.signature", of(quote, at(636+128+6+100))},
		{"quote/QE report signature", "tdx.signature", of(quote, at(636+128+6+384+5))},
		{"quote/QE auth data", "tdx.signature", of(quote, at(636+128+6+384+64+2+5))},
		{"quote/PCK chain", "tdx.root", of(quote, cert(1))},
		{"quote/PCK chain's root", "tdx.root", of(quote, cert(2))},
		{"TCB info", "tdx.collateral", of(func(b *attestation.Bundle) []byte { return b.CPU.TDX.TCBInfo }, func(b []byte) { b[len(b)/2] ^= 1 })},
		{"TCB info signature", "tdx.collateral", of(func(b *attestation.Bundle) []byte { return b.CPU.TDX.TCBInfoSignature }, flip)},
		{"TCB info issuer chain", "tdx.collateral", of(func(b *attestation.Bundle) []byte { return b.CPU.TDX.TCBInfoIssuerChain }, cert(0))},
		{"TCB info issuer chain's root", "tdx.collateral", of(func(b *attestation.Bundle) []byte { return b.CPU.TDX.TCBInfoIssuerChain }, cert(1))},
		{"QE identity", "tdx.collateral", of(func(b *attestation.Bundle) []byte { return b.CPU.TDX.QEIdentity }, func(b []byte) { b[len(b)/2] ^= 1 })},
		{"QE identity signature", "tdx.collateral", of(func(b *attestation.Bundle) []byte { return b.CPU.TDX.QEIdentitySignature }, flip)},
		{"QE identity issuer chain", "tdx.collateral", of(func(b *attestation.Bundle) []byte { return b.CPU.TDX.QEIdentityIssuerChain }, cert(0))},
		{"QE identity issuer chain's root", "tdx.collateral", of(func(b *attestation.Bundle) []byte { return b.CPU.TDX.QEIdentityIssuerChain }, cert(1))},
		{"PCK CRL", "tdx.crl", of(func(b *attestation.Bundle) []byte { return b.CPU.TDX.PCKCRL }, flip)},
		{"PCK CRL's signature", "tdx.crl", of(func(b *attestation.Bundle) []byte { return b.CPU.TDX.PCKCRL }, func(b []byte) { b[len(b)-5] ^= 1 })},
		{"PCK CRL issuer chain", "tdx.crl", of(func(b *attestation.Bundle) []byte { return b.CPU.TDX.PCKCRLIssuerChain }, cert(0))},
		{"PCK CRL issuer chain's root", "tdx.crl", of(func(b *attestation.Bundle) []byte { return b.CPU.TDX.PCKCRLIssuerChain }, cert(1))},
		{"root CA CRL", "tdx.crl", of(func(b *attestation.Bundle) []byte { return b.CPU.TDX.RootCACRL }, flip)},
	}
	snp := []row{
		{"report/policy", "snp.signature", of(quote, at(0x08))},
		{"report/measurement", "snp.signature", of(quote, at(0x90))},
		{"report/report data", "snp.signature", of(quote, at(0x50))},
		{"report/signature", "snp.signature", of(quote, at(0x2a0+5))},
		{"report/version", "snp.parse", of(quote, at(0))},
		{"VCEK", "snp.root", of(func(b *attestation.Bundle) []byte { return b.CPU.SNP.VEK }, flip)},
		{"ASK", "snp.root", of(func(b *attestation.Bundle) []byte { return b.CPU.SNP.ASK }, flip)},
		{"ARK", "snp.root", of(func(b *attestation.Bundle) []byte { return b.CPU.SNP.ARK }, flip)},
		{"CRL", "snp.crl", of(func(b *attestation.Bundle) []byte { return b.CPU.SNP.CRL }, flip)},
	}
	for _, tee := range []struct {
		tee  attestation.TEE
		rows []row
	}{{attestation.TDX, append(common, tdx...)}, {attestation.SNP, snp}} {
		t.Run(string(tee.tee), func(t *testing.T) {
			w := n.worker(t, setup{tee: tee.tee})
			r := relayTo(t, n, w.addr)
			c := n.newClient(t)
			for _, row := range tee.rows {
				t.Run(row.part, func(t *testing.T) {
					r.spoil = edit(row.flip)
					c.refused(t, r.addr, w.id, row.check, "")
				})
			}
			if got := r.got.Load(); got != 0 {
				t.Errorf("the relay was sent %d calls after Attest", got)
			}
			w.serves(t)
		})
	}
}

// cert flips a bit in the signature of the n-th certificate of a PEM chain, which
// may have other bytes before it.
func cert(n int) func([]byte) {
	return func(b []byte) {
		b = b[bytes.Index(b, []byte("-----BEGIN")):]
		for ; ; n-- {
			block, rest := pem.Decode(b)
			if n > 0 {
				b = rest
				continue
			}
			block.Bytes[len(block.Bytes)-5] ^= 1
			copy(b, pem.EncodeToMemory(block))
			return
		}
	}
}

func quote(b *attestation.Bundle) []byte { return b.CPU.Quote }
