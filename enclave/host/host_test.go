package host_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"cocoon/attestation"
	"cocoon/attestation/auditlog"
	"cocoon/attestation/auditlog/writer"
	"cocoon/contracts"
	"cocoon/enclave/host"
)

func testKey(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte(name))
	return ed25519.NewKeyFromSeed(seed[:])
}

func public(k ed25519.PrivateKey) [32]byte { return [32]byte(k.Public().(ed25519.PublicKey)) }

func address(name string) attestation.Address {
	return attestation.NewAddress(0, sha256.Sum256([]byte(name)))
}

func open(t *testing.T, dir string) *host.Store {
	t.Helper()
	s, err := host.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func voucher(t *testing.T, channel attestation.Address, cumulative uint64, head [32]byte) []byte {
	t.Helper()
	v, err := contracts.SignVoucher(testKey("client"), contracts.Voucher{GlobalID: -239, Channel: channel, Cumulative: cumulative, ReceiptsHead: head})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := v.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestVouchersKeepTheHighest(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	a, b := address("a"), address("b")
	if all, err := s.Vouchers(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("empty store: got %v, %v", all, err)
	}
	for _, n := range []uint64{5, 9, 7, 9} {
		if err := s.PutVoucher(t.Context(), a, voucher(t, a, n, [32]byte{byte(n)})); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.PutVoucher(t.Context(), b, voucher(t, b, 1, [32]byte{})); err != nil {
		t.Fatal(err)
	}
	s.Close()
	all, err := open(t, dir).Vouchers(t.Context())
	if err != nil || len(all) != 2 {
		t.Fatalf("got %d vouchers, %v, want 2", len(all), err)
	}
	if !bytes.Equal(all[a], voucher(t, a, 9, [32]byte{9})) {
		t.Errorf("channel a: got %x, want the one over 9", all[a])
	}
}

func TestVouchersAreComparedUnderConcurrency(t *testing.T) {
	s := open(t, t.TempDir())
	a := address("a")
	var wg sync.WaitGroup
	for n := range uint64(20) {
		wg.Go(func() {
			if err := s.PutVoucher(context.Background(), a, voucher(t, a, n+1, [32]byte{})); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	all, err := s.Vouchers(t.Context())
	if err != nil || !bytes.Equal(all[a], voucher(t, a, 20, [32]byte{})) {
		t.Errorf("got %x, %v, want the one over 20", all[a], err)
	}
}

func TestStoreRefuses(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	a := address("a")
	if _, err := host.Open(dir); !errors.Is(err, host.ErrLocked) {
		t.Errorf("a second process: got %v, want ErrLocked", err)
	}
	for name, err := range map[string]error{
		"another channel's voucher": s.PutVoucher(t.Context(), a, voucher(t, address("b"), 1, [32]byte{})),
		"no voucher":                s.PutVoucher(t.Context(), a, []byte("x")),
		"no bundle":                 s.PutBundle(t.Context(), []byte("x")),
		"no receipt":                s.PutReceipts(t.Context(), [32]byte{1}, a, 0, [][]byte{[]byte("x")}),
		"another index":             s.PutReceipts(t.Context(), [32]byte{3}, address("channel"), 1, [][]byte{receipt(t, 0)}),
		"a gap":                     s.PutReceipts(t.Context(), [32]byte{3}, address("channel"), 1, [][]byte{receipt(t, 1)}),
		"another log":               s.PutReceipts(t.Context(), [32]byte{4}, address("channel"), 0, [][]byte{receipt(t, 0)}),
		"a boot out of turn":        s.PutBoot(t.Context(), boot(2)),
	} {
		if err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
	if _, err := s.Bundle(t.Context(), [32]byte{1}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a bundle that is not there: got %v, want fs.ErrNotExist", err)
	}
	if _, err := s.Receipt(t.Context(), [32]byte{1}, a, 0); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a receipt that is not there: got %v, want fs.ErrNotExist", err)
	}
}

func boot(n uint64) auditlog.Boot {
	return auditlog.Boot{Version: auditlog.BootVersion, Number: n, WorkerID: address("worker"), BootID: [32]byte{byte(n)}, LogPublicKey: public(logKey(n)), Started: 1_790_000_000}
}

func logKey(n uint64) ed25519.PrivateKey { return testKey("log " + string(rune('0'+n))) }

func receipt(t *testing.T, index uint64) []byte {
	t.Helper()
	raw, err := auditlog.SignReceipt(testKey("epoch"), auditlog.Receipt{
		Version: auditlog.ReceiptVersion, JobID: [16]byte{1}, Channel: address("channel"), WorkerID: address("worker"), LogID: [32]byte{3}, Index: index,
		KeysetDigest: [32]byte{4}, Model: attestation.Model{Name: "toy", WeightsRoot: attestation.Unmeasured}, Started: 1, Finished: 1, Status: auditlog.StatusOK,
	})
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func bundle() []byte {
	b := attestation.Bundle{Version: attestation.BundleVersion, Keyset: []byte("keyset"), CPU: attestation.CPUEvidence{TEE: attestation.TDX}}
	return b.Encode()
}

// What is put comes back, after the process is gone too; and a damaged file is an error that names it.
func TestRoundTripAndDamage(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	a := address("channel")
	if err := errors.Join(
		s.PutBundle(t.Context(), bundle()), s.PutBundle(t.Context(), bundle()),
		s.PutReceipts(t.Context(), [32]byte{3}, a, 0, [][]byte{receipt(t, 0)}),
		s.PutReceipts(t.Context(), [32]byte{3}, a, 1, [][]byte{receipt(t, 1), receipt(t, 2)}),
		s.PutVoucher(t.Context(), a, voucher(t, a, 5, [32]byte{})),
		s.PutBoot(t.Context(), boot(1)), s.PutBoot(t.Context(), boot(2)),
	); err != nil {
		t.Fatal(err)
	}
	s.Close()
	s = open(t, dir)
	digest := sha256.Sum256(bundle())
	if b, err := s.Bundle(t.Context(), digest); err != nil || !bytes.Equal(b, bundle()) {
		t.Errorf("bundle: %x, %v", b, err)
	}
	for i := range uint64(3) {
		if r, err := s.Receipt(t.Context(), [32]byte{3}, a, i); err != nil || !bytes.Equal(r, receipt(t, i)) {
			t.Errorf("receipt %d: %x, %v", i, r, err)
		}
	}
	if b, ok, err := s.LastBoot(t.Context()); err != nil || !ok || b != boot(2) {
		t.Errorf("last boot: %+v, %t, %v", b, ok, err)
	}

	read := map[string]func() error{
		"bundles/*":      func() error { _, err := s.Bundle(t.Context(), digest); return err },
		"receipts/*/*/*": func() error { _, err := s.Receipt(t.Context(), [32]byte{3}, a, 2); return err },
		"vouchers/*":     func() error { _, err := s.Vouchers(t.Context()); return err },
		"boots/2.cbor":   func() error { _, _, err := s.LastBoot(t.Context()); return err },
	}
	for pattern, again := range read {
		all, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil || len(all) != 1 {
			t.Fatalf("%s: got %d files, want 1", pattern, len(all))
		}
		good, err := os.ReadFile(all[0])
		if err != nil {
			t.Fatal(err)
		}
		for name, bad := range map[string][]byte{"cut": good[:len(good)-1], "empty": {}, "longer": append(bytes.Clone(good), 0), "huge": make([]byte, 9<<20)} {
			if name == "longer" && strings.HasPrefix(pattern, "receipts") {
				continue // a write that never returned: TestUnfinishedReceipt
			}
			if err := os.WriteFile(all[0], bad, 0o600); err != nil {
				t.Fatal(err)
			}
			var d *host.DamagedError
			if err := again(); !errors.As(err, &d) || !strings.HasSuffix(all[0], d.Path) {
				t.Errorf("%s, %s: got %v, want a DamagedError that names it", pattern, name, err)
			}
		}
		if err := os.WriteFile(all[0], good, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := again(); err != nil {
			t.Errorf("%s, restored: %v", pattern, err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "vouchers", hex.EncodeToString(a[:])), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	var d *host.DamagedError
	if err := s.PutVoucher(t.Context(), a, voucher(t, a, 6, [32]byte{})); !errors.As(err, &d) {
		t.Errorf("put over a damaged voucher: got %v, want a DamagedError", err)
	}
}

// What a killed process left of a receipt is not there, and is written over.
func TestUnfinishedReceipt(t *testing.T) {
	dir := t.TempDir()
	a, log := address("channel"), [32]byte{3}
	s := open(t, dir)
	if err := s.PutReceipts(t.Context(), log, a, 0, [][]byte{receipt(t, 0), receipt(t, 1)}); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "receipts", hex.EncodeToString(log[:]), hex.EncodeToString(a[:]), "receipts")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	first := 8 + len(receipt(t, 0))
	for cut := first; cut < len(whole); cut += 100 {
		s.Close()
		if err := os.WriteFile(path, whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		s = open(t, dir)
		if _, err := s.Receipt(t.Context(), log, a, 1); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("cut at %d: got %v, want fs.ErrNotExist", cut, err)
		}
		if r, err := s.Receipt(t.Context(), log, a, 0); err != nil || !bytes.Equal(r, receipt(t, 0)) {
			t.Fatalf("cut at %d: the one before: %x, %v", cut, r, err)
		}
		if err := s.PutReceipts(t.Context(), log, a, 1, [][]byte{receipt(t, 1)}); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, whole) {
			t.Fatalf("cut at %d: got %d bytes, %v, want %d", cut, len(got), err, len(whole))
		}
	}
}

// A file that a killed process left unfinished is not there.
func TestUnfinishedFilesAreNotRead(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	a := address("a")
	if err := s.PutVoucher(t.Context(), a, voucher(t, a, 5, [32]byte{})); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"vouchers/123.tmp", "boots/9.cbor.tmp"} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(filepath.Join(dir, p)), 0o700), os.WriteFile(filepath.Join(dir, p), []byte("half"), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if all, err := s.Vouchers(t.Context()); err != nil || len(all) != 1 {
		t.Errorf("vouchers: got %d, %v, want 1", len(all), err)
	}
	if _, ok, err := s.LastBoot(t.Context()); ok || err != nil {
		t.Errorf("last boot: got %t, %v, want none", ok, err)
	}
}

// Two boots through the store and the writer, audited from the folder and over HTTP.
func TestStoreIsAuditable(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	if p, err := s.Predecessor(t.Context()); err != nil || p != (auditlog.PredecessorEntry{}) {
		t.Errorf("predecessor of the first boot: got %+v, %v, want zeros", p, err)
	}
	var last auditlog.PredecessorEntry
	for n := uint64(1); n <= 2; n++ {
		p, err := s.Predecessor(t.Context())
		if err != nil || p != last {
			t.Fatalf("predecessor of boot %d: got %+v, %v, want %+v", n, p, err, last)
		}
		if err := s.PutBoot(t.Context(), boot(n)); err != nil {
			t.Fatal(err)
		}
		l, err := writer.Open(t.Context(), writer.Config{Dir: s.LogDir(boot(n).LogID()), Key: logKey(n), Interval: writer.MinInterval})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.Append(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		if err := l.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		c, err := auditlog.ParseCheckpoint(l.Checkpoint(), public(logKey(n)))
		if err != nil {
			t.Fatal(err)
		}
		last = auditlog.PredecessorEntry(c)
	}
	base := serve(t, dir)
	web, err := auditlog.NewWeb(base, http.DefaultClient)
	if err != nil {
		t.Fatal(err)
	}
	folder, err := auditlog.OpenFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer folder.Close()
	var reports []string
	for _, src := range []auditlog.Source{web, folder} {
		r, err := auditlog.Replay(t.Context(), src, auditlog.ReplayConfig{})
		if err != nil || !r.OK || len(r.Logs) != 2 || r.Logs[1].Size != 1 {
			t.Fatalf("%T: %+v, %v", src, r, err)
		}
		b, err := r.JSON()
		if err != nil {
			t.Fatal(err)
		}
		reports = append(reports, string(b))
	}
	if reports[0] != reports[1] {
		t.Errorf("over HTTP:\n%s\nfrom the folder:\n%s", reports[0], reports[1])
	}
}

func serve(t *testing.T, dir string) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- host.Serve(ctx, host.ServeConfig{Dir: dir, Listener: ln}) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("serve: %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("serve does not end with its context")
		}
		http.DefaultClient.CloseIdleConnections()
	})
	return "http://" + ln.Addr().String()
}

func TestServeShowsThePublicPartAlone(t *testing.T) {
	dir := t.TempDir()
	outside := filepath.Join(t.TempDir(), "secret")
	id := strings.Repeat("ab", 32)
	files := map[string]string{
		outside: "secret",
		filepath.Join(dir, "logs", id, "checkpoint"):                     "checkpoint",
		filepath.Join(dir, "logs", id, "tile/0/000"):                     "tile",
		filepath.Join(dir, "logs", id, "tile/entries/x001/067.p/12"):     "entries",
		filepath.Join(dir, "logs", id, ".state/treeState"):               "state",
		filepath.Join(dir, "bundles", id+".cbor"):                        "bundle",
		filepath.Join(dir, "boots/1.cbor"):                               "boot",
		filepath.Join(dir, "receipts", id, "00", "receipts"):             "receipt",
		filepath.Join(dir, "vouchers", strings.Repeat("00", 36)):         "voucher",
		filepath.Join(dir, "bundles", strings.Repeat("cd", 32)+".cbor1"): "no",
	}
	for p, text := range files {
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o700), os.WriteFile(p, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(outside, filepath.Join(dir, "boots/2.cbor")); err != nil {
		t.Fatal(err)
	}
	base := serve(t, dir)
	get := func(method, path string) (int, string) {
		t.Helper()
		req, err := http.NewRequest(method, base+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.URL.Opaque = path // unchanged on the wire
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(b)
	}
	for path, want := range map[string]string{
		"/logs/" + id + "/checkpoint":                 "checkpoint",
		"/logs/" + id + "/tile/0/000":                 "tile",
		"/logs/" + id + "/tile/entries/x001/067.p/12": "entries",
		"/bundles/" + id + ".cbor":                    "bundle",
		"/boots/1.cbor":                               "boot",
	} {
		if code, body := get("GET", path); code != 200 || body != want {
			t.Errorf("%s: got %d %q, want 200 %q", path, code, body, want)
		}
		if code, body := get("HEAD", path); code != 200 || body != "" {
			t.Errorf("HEAD %s: got %d %q", path, code, body)
		}
		if code, _ := get("POST", path); code != 405 {
			t.Errorf("POST %s: got %d, want 405", path, code)
		}
	}
	for _, path := range []string{
		"/", "/logs/", "/logs/" + id, "/logs/" + id + "/tile/0", "/logs/" + id + "/.state/treeState", "/logs/" + id + "/tile/../.state/treeState",
		"/receipts/" + id + "/00/receipts", "/vouchers/" + strings.Repeat("00", 36), "/.lock", "/boots/2.cbor", "/boots/3.cbor", "/boots/01.cbor",
		"/logs/" + id + "/tile/0/../../../../receipts/" + id + "/00/receipts", "/%2e%2e/secret", "/../secret", "//boots/1.cbor",
		"/logs/" + strings.ToUpper(id) + "/checkpoint", "/bundles/" + id + ".cbor%00", "/logs/" + id + "/checkpoint%0a", "/bundles/" + strings.Repeat("cd", 32) + ".cbor1",
	} {
		if code, body := get("GET", path); code == 200 || strings.Contains(body, "secret") || strings.Contains(body, "receipt") && code < 400 {
			t.Errorf("%s: got %d %q", path, code, body)
		}
	}
}

func FuzzHandlerPath(f *testing.F) {
	dir := f.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "vouchers"), 0o700); err != nil {
		f.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "vouchers", "x"), []byte("voucher"), 0o600); err != nil {
		f.Fatal(err)
	}
	h, err := host.Handler(dir)
	if err != nil {
		f.Fatal(err)
	}
	f.Add("/vouchers/x")
	f.Add("/logs/../vouchers/x")
	f.Fuzz(func(t *testing.T, path string) {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, &http.Request{Method: "GET", URL: &url.URL{Path: path}})
		if w.Code == http.StatusOK {
			t.Errorf("%q: got %d %q", path, w.Code, w.Body)
		}
	})
}
