package auditlog_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/veraison/go-cose"

	"cocoon/attestation"
	"cocoon/attestation/auditlog"
	"cocoon/attestation/canonical"
)

var update = flag.Bool("update", false, "write testdata anew")

// vector is one line of testdata/receipts.json. The key is derived in the test from its name.
type vector struct {
	Name    string `json:"name"`
	Key     string `json:"key"`
	Public  string `json:"public"`
	Receipt string `json:"receipt"` // COSE_Sign1, hex
	Digest  string `json:"digest"`
	Error   string `json:"error,omitempty"` // part of what VerifyReceipt says; empty: it verifies
}

func sample() auditlog.Receipt {
	return auditlog.Receipt{
		Version: 1, JobID: [16]byte{1, 2}, Channel: address("channel"), WorkerID: address("worker"), LogID: [32]byte{3},
		Checkpoint: []byte("not looked into here"), Index: 41, KeysetDigest: [32]byte{4},
		Model:             attestation.Model{Name: "toy", WeightsRoot: attestation.Unmeasured},
		RequestCommitment: auditlog.Commit([32]byte{5}, []byte("request")), ResponseCommitment: auditlog.Commit([32]byte{5}, []byte("response")),
		Usage: attestation.Usage{Prompt: 100, Cached: 20, Completion: 300, Reasoning: 50}, Prices: testPrices, Cost: 1990,
		Started: 1_790_000_000_000, Finished: 1_790_000_001_234, FinishReason: "stop", Status: auditlog.StatusOK,
	}
}

func sign(t testing.TB, key ed25519.PrivateKey, r auditlog.Receipt) []byte {
	t.Helper()
	raw, err := auditlog.SignReceipt(key, r)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// signAnything signs what SignReceipt would not.
func signAnything(t testing.TB, key ed25519.PrivateKey, h cose.Headers, payload []byte) []byte {
	t.Helper()
	s, err := cose.NewSigner(cose.AlgorithmEdDSA, key)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := cose.Sign1(nil, s, h, payload, nil)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func headers(r auditlog.Receipt) cose.Headers {
	return cose.Headers{Protected: cose.ProtectedHeader{
		cose.HeaderLabelAlgorithm: cose.AlgorithmEdDSA, cose.HeaderLabelContentType: auditlog.ReceiptContentType, cose.HeaderLabelKeyID: r.KeysetDigest[:],
	}, Unprotected: cose.UnprotectedHeader{}}
}

func vectors(t *testing.T) []vector {
	key := testKey("receipt vectors")
	r := sample()
	good := sign(t, key, r)
	var all []vector
	add := func(name, want string, raw []byte) {
		d := auditlog.ReceiptDigest(raw)
		pub := public(key)
		all = append(all, vector{name, "receipt vectors", hex.EncodeToString(pub[:]), hex.EncodeToString(raw), hex.EncodeToString(d[:]), want})
	}
	add("good", "", good)
	refused := r
	refused.Status, refused.Cost, refused.FinishReason, refused.Usage = auditlog.StatusRefused, 0, "", attestation.Usage{}
	add("refused", "", sign(t, key, refused))
	add("another key", "signature does not verify", sign(t, testKey("other"), r))
	add("trailing byte", "signature", append(bytes.Clone(good), 0))
	add("cut off", "signature", good[:len(good)-1])
	add("untagged", "tagged", good[1:])

	h := headers(r)
	h.Unprotected[int64(4)] = []byte("kid")
	add("unprotected header", "unprotected header", signAnything(t, key, h, canonical.MustMarshal(r)))
	h = headers(r)
	delete(h.Protected, cose.HeaderLabelContentType)
	add("no content type", "protected header", signAnything(t, key, h, canonical.MustMarshal(r)))
	h = headers(r)
	h.Protected[cose.HeaderLabelContentType] = "application/cbor"
	add("another content type", "protected header", signAnything(t, key, h, canonical.MustMarshal(r)))
	h = headers(r)
	h.Protected[cose.HeaderLabelKeyID] = bytes.Repeat([]byte{9}, 32)
	add("another key id", "keyset_digest", signAnything(t, key, h, canonical.MustMarshal(r)))
	h = headers(r)
	h.Protected[int64(99)] = "more"
	add("another protected header", "protected header", signAnything(t, key, h, canonical.MustMarshal(r)))

	payload := canonical.MustMarshal(r)
	add("payload with trailing bytes", "receipt", signAnything(t, key, headers(r), append(bytes.Clone(payload), 0)))
	// index 41 as a two-byte integer
	add("payload with a long integer", "deterministic", signAnything(t, key, headers(r), bytes.Replace(payload, []byte("\x65index\x18\x29"), []byte("\x65index\x19\x00\x29"), 1)))
	add("payload with an unknown field", "receipt", signAnything(t, key, headers(r), bytes.Replace(payload, []byte("\x65index"), []byte("\x65inden"), 1)))

	fields := map[string]struct {
		want string
		f    func(*auditlog.Receipt)
	}{
		"version 2":             {"version", func(r *auditlog.Receipt) { r.Version = 2 }},
		"no job id":             {"job_id", func(r *auditlog.Receipt) { r.JobID = [16]byte{} }},
		"no channel":            {"channel", func(r *auditlog.Receipt) { r.Channel = attestation.Address{} }},
		"no worker":             {"worker_id", func(r *auditlog.Receipt) { r.WorkerID = attestation.Address{} }},
		"no log":                {"log_id", func(r *auditlog.Receipt) { r.LogID = [32]byte{} }},
		"long checkpoint":       {"checkpoint", func(r *auditlog.Receipt) { r.Checkpoint = make([]byte, auditlog.MaxCheckpointBytes+1) }},
		"no keyset":             {"keyset_digest", func(r *auditlog.Receipt) { r.KeysetDigest = [32]byte{} }},
		"bad model":             {"model", func(r *auditlog.Receipt) { r.Model.Name = "a b" }},
		"long weights root":     {"weights_root", func(r *auditlog.Receipt) { r.Model.WeightsRoot = strings.Repeat("x", 200) }},
		"cached above prompt":   {"cached", func(r *auditlog.Receipt) { r.Usage.Cached = 101 }},
		"reasoning above all":   {"reasoning", func(r *auditlog.Receipt) { r.Usage.Reasoning = 301 }},
		"no start":              {"started", func(r *auditlog.Receipt) { r.Started = 0 }},
		"finished before start": {"finished", func(r *auditlog.Receipt) { r.Finished = r.Started - 1 }},
		"odd finish reason":     {"finish_reason", func(r *auditlog.Receipt) { r.FinishReason = "a\x1b[31m" }},
		"no status":             {"status", func(r *auditlog.Receipt) { r.Status = "" }},
		"refused with a cost":   {"cost", func(r *auditlog.Receipt) { r.Status = auditlog.StatusRefused }},
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		bad := r
		fields[name].f(&bad)
		add(name, fields[name].want, signAnything(t, key, headers(bad), canonical.MustMarshal(bad)))
	}
	return all
}

// The committed vectors are what this code makes today, and get their verdicts
// here and from an independent reading of COSE.
func TestReceiptVectors(t *testing.T) {
	const path = "testdata/receipts.json"
	made := vectors(t)
	byName := make(map[string]vector)
	for _, v := range made {
		byName[v.Name] = v
	}
	if *update {
		b, err := json.MarshalIndent(made, "", " ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, append(b, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var all []vector
	if err := json.Unmarshal(b, &all); err != nil {
		t.Fatal(err)
	}
	if len(all) != len(made) || len(all) < 30 {
		t.Fatalf("vectors: got %d, want %d", len(all), len(made))
	}
	for _, v := range all {
		t.Run(v.Name, func(t *testing.T) {
			if d := cmp.Diff(byName[v.Name], v); d != "" {
				t.Errorf("the vector is not what is made now (-now +committed):\n%s", d)
			}
			raw, err := hex.DecodeString(v.Receipt)
			if err != nil {
				t.Fatal(err)
			}
			key := public(testKey(v.Key))
			r, err := auditlog.VerifyReceipt(raw, key)
			if v.Error != "" {
				if err == nil || !strings.Contains(err.Error(), v.Error) {
					t.Errorf("got %v, want an error with %q", err, v.Error)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(sign(t, testKey(v.Key), r), raw) {
				t.Error("signing what was read gives other bytes")
			}
			var m cose.Sign1Message
			if err := m.UnmarshalCBOR(raw); err != nil {
				t.Fatal(err)
			}
			verifier, err := cose.NewVerifier(cose.AlgorithmEdDSA, ed25519.PublicKey(key[:]))
			if err != nil {
				t.Fatal(err)
			}
			if err := m.Verify(nil, verifier); err != nil {
				t.Errorf("go-cose: %v", err)
			}
		})
	}
}

// Every field is under the signature: one changed field, put back into the
// good receipt's envelope, is refused.
func TestEveryFieldIsSigned(t *testing.T) {
	key := testKey("fields")
	good := sign(t, key, sample())
	var m cose.Sign1Message
	if err := m.UnmarshalCBOR(good); err != nil {
		t.Fatal(err)
	}
	changed := map[string]func(*auditlog.Receipt){
		"JobID":              func(r *auditlog.Receipt) { r.JobID[0]++ },
		"Channel":            func(r *auditlog.Receipt) { r.Channel[9]++ },
		"WorkerID":           func(r *auditlog.Receipt) { r.WorkerID[9]++ },
		"LogID":              func(r *auditlog.Receipt) { r.LogID[9]++ },
		"Checkpoint":         func(r *auditlog.Receipt) { r.Checkpoint = []byte("another") },
		"Index":              func(r *auditlog.Receipt) { r.Index++ },
		"KeysetDigest":       func(r *auditlog.Receipt) { r.KeysetDigest[9]++ },
		"Model":              func(r *auditlog.Receipt) { r.Model.Name = "toy2" },
		"RequestCommitment":  func(r *auditlog.Receipt) { r.RequestCommitment[0]++ },
		"ResponseCommitment": func(r *auditlog.Receipt) { r.ResponseCommitment[0]++ },
		"Usage":              func(r *auditlog.Receipt) { r.Usage.Prompt++ },
		"Prices":             func(r *auditlog.Receipt) { r.Prices.Cached++ },
		"Cost":               func(r *auditlog.Receipt) { r.Cost-- },
		"Started":            func(r *auditlog.Receipt) { r.Started-- },
		"Finished":           func(r *auditlog.Receipt) { r.Finished++ },
		"FinishReason":       func(r *auditlog.Receipt) { r.FinishReason = "length" },
		"Status":             func(r *auditlog.Receipt) { r.Status = auditlog.StatusAborted },
	}
	fields := reflect.TypeFor[auditlog.Receipt]()
	if len(changed) != fields.NumField()-1 { // Version has one value
		t.Fatalf("fields: got %d, want %d", len(changed), fields.NumField()-1)
	}
	for name, change := range changed {
		r := sample()
		change(&r)
		forged := cose.Sign1Message{Headers: headers(r), Payload: canonical.MustMarshal(r), Signature: m.Signature}
		raw, err := forged.MarshalCBOR()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := auditlog.ParseReceipt(raw); err != nil {
			t.Errorf("%s: parse: %v", name, err)
		}
		if _, err := auditlog.VerifyReceipt(raw, public(key)); !errors.Is(err, auditlog.ErrReceiptSignature) {
			t.Errorf("%s: got %v, want ErrReceiptSignature", name, err)
		}
	}
}

func TestEveryByteOfAReceiptCounts(t *testing.T) {
	key := testKey("bytes")
	good := sign(t, key, sample())
	for i := range good {
		for _, bit := range []byte{1, 0x80} {
			bad := bytes.Clone(good)
			bad[i] ^= bit
			if _, err := auditlog.VerifyReceipt(bad, public(key)); err == nil {
				t.Errorf("byte %d ^ %#x: got no error", i, bit)
			}
		}
	}
}

func TestSignReceiptRefuses(t *testing.T) {
	r := sample()
	r.Status = "fine"
	if _, err := auditlog.SignReceipt(testKey("x"), r); err == nil || !strings.Contains(err.Error(), "status") {
		t.Errorf("got %v, want an error about the status", err)
	}
	r = sample()
	r.Checkpoint = make([]byte, auditlog.MaxCheckpointBytes+1)
	if _, err := auditlog.SignReceipt(testKey("x"), r); err == nil {
		t.Error("a long checkpoint: got no error")
	}
}

func TestCommitments(t *testing.T) {
	// RFC 4231 test case 1, whose 20-byte key is padded with zeros as HMAC pads it.
	var key [32]byte
	copy(key[:], bytes.Repeat([]byte{0x0b}, 20))
	want := "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"
	if c := auditlog.Commit(key, []byte("Hi There")); hex.EncodeToString(c[:]) != want {
		t.Errorf("got %x, want %s", c, want)
	}
	h := auditlog.NewCommitment(key)
	for _, b := range []byte("Hi There") {
		h.Write([]byte{b})
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != want {
		t.Errorf("in pieces: got %s, want %s", got, want)
	}
	if auditlog.Commit([32]byte{1}, []byte("x")) == auditlog.Commit([32]byte{2}, []byte("x")) {
		t.Error("two blinding keys give one commitment")
	}
}

func FuzzParseReceipt(f *testing.F) {
	key := testKey("fuzz")
	f.Add(sign(f, key, sample()))
	r := sample()
	r.Status, r.Cost = auditlog.StatusRefused, 0
	r.Checkpoint = nil
	f.Add(sign(f, key, r))
	f.Add([]byte("\xd2\x84"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := auditlog.ParseReceipt(b)
		if err != nil {
			return
		}
		// What was accepted has no other spelling: with its signature put back, it is the same bytes.
		again := sign(t, key, r)
		if !bytes.Equal(again[:len(again)-64], b[:len(b)-64]) || len(again) != len(b) {
			t.Errorf("read %x, wrote %x", b, again)
		}
	})
}
