package devchain

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"cocoon/attestation"
	"cocoon/attestation/canonical"

	"github.com/google/go-cmp/cmp"
	"github.com/xssnick/tonutils-go/tlb"
	"github.com/xssnick/tonutils-go/tvm/cell"
)

func somebody(b byte) attestation.Address {
	return attestation.NewAddress(0, [32]byte(bytes.Repeat([]byte{b}, 32)))
}

// hashes are the ids of all blocks, for comparison.
func hashes(c *Chain) []string {
	var out []string
	for n := uint32(1); n <= c.head; n++ {
		h := c.blocks[n]
		out = append(out, fmt.Sprintf("%d %x %x %x", n, h.master.id.RootHash, h.master.id.FileHash, h.shard.id.RootHash))
	}
	return out
}

// contract is a state init whose code accepts everything and does nothing.
func contract(t testing.TB) (attestation.Address, *tlb.StateInit) {
	t.Helper()
	init := &tlb.StateInit{Code: cell.BeginCell().EndCell(), Data: cell.BeginCell().MustStoreUInt(7, 32).EndCell()}
	root, err := tlb.ToCell(init)
	if err != nil {
		t.Fatal(err)
	}
	return attestation.NewAddress(0, root.HashKey()), init
}

func TestReplayMakesTheSameBlocks(t *testing.T) {
	addr, init := contract(t)
	cfg := Config{
		Dir: t.TempDir(), GlobalID: -5, KeyBlockEvery: 3,
		Genesis: []GenesisAccount{{Address: addr, Balance: 500, StateInit: init}, {Address: somebody(2), Balance: 9}},
	}
	c := open(t, cfg)
	for i := range 10 {
		c.Mint(somebody(byte(i%3)), 1_000_000_000)
		c.Mint(addr, 50_000_000)
		if err := c.Mine(); err != nil {
			t.Fatal(err)
		}
	}
	want, keys := hashes(c), c.keys
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	again := open(t, cfg)
	if diff := cmp.Diff(want, hashes(again)); diff != "" {
		t.Errorf("blocks (-before +after):\n%s", diff)
	}
	if !again.keys.liteserver.Equal(keys.liteserver) || !again.keys.validator.Equal(keys.validator) {
		t.Error("keys changed")
	}
	if err := again.Mine(); err != nil {
		t.Error(err)
	}
	if len(want) != 11 || again.head != 12 {
		t.Errorf("blocks: got %d, then %d, want 11 and 12", len(want), again.head)
	}
	for _, name := range []string{keysName, journalName} {
		st, err := os.Stat(filepath.Join(cfg.Dir, name))
		if err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: got mode %v and %v, want 0600", name, st.Mode(), err)
		}
	}
}

func TestTornTailIsCutOff(t *testing.T) {
	cfg := Config{Dir: t.TempDir(), GlobalID: -5}
	c := open(t, cfg)
	var sizes []int64
	path := filepath.Join(cfg.Dir, journalName)
	for range 3 {
		if err := c.Mine(); err != nil {
			t.Fatal(err)
		}
		st, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, st.Size())
	}
	want := hashes(c)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	check := func(what string, journal []byte, blocks int) {
		t.Helper()
		if err := os.WriteFile(path, journal, 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := Open(cfg)
		if err != nil {
			t.Errorf("%s: %v", what, err)
			return
		}
		defer c.Close()
		if diff := cmp.Diff(want[:blocks], hashes(c)); diff != "" {
			t.Errorf("%s: blocks (-want +got):\n%s", what, diff)
		}
		if err := c.Mine(); err != nil {
			t.Errorf("%s: mine on: %v", what, err)
		}
	}
	for cut := sizes[1] + 1; cut < sizes[2]; cut++ {
		check(fmt.Sprintf("cut at %d", cut), whole[:cut], 3)
	}
	check("zeros after the end", append(bytes.Clone(whole), make([]byte, 100)...), 4)
	flipped := bytes.Clone(whole)
	flipped[len(flipped)-1] ^= 1
	check("last record damaged", flipped, 3)

	flipped = bytes.Clone(whole)
	flipped[sizes[0]-1] ^= 1
	if err := os.WriteFile(path, flipped, 0o600); err != nil {
		t.Fatal(err)
	}
	if c, err := Open(cfg); err == nil {
		c.Close()
		t.Error("a record in the middle damaged: got no error")
	}
}

func TestOpenRefusesWhatIsNotItsOwn(t *testing.T) {
	addr, init := contract(t)
	for name, cfg := range map[string]Config{
		"no global id":         {},
		"another's state init": {GlobalID: 1, Genesis: []GenesisAccount{{Address: somebody(1), StateInit: init}}},
		"masterchain account":  {GlobalID: 1, Genesis: []GenesisAccount{{Address: attestation.NewAddress(-1, addr.ID())}}},
		"an account twice":     {GlobalID: 1, Genesis: []GenesisAccount{{Address: addr}, {Address: addr}}},
	} {
		cfg.Dir = t.TempDir()
		if c, err := Open(cfg); err == nil {
			c.Close()
			t.Errorf("%s: got no error", name)
		}
	}
	cfg := Config{Dir: t.TempDir(), GlobalID: -5}
	first := open(t, cfg)
	if c, err := Open(cfg); err == nil {
		c.Close()
		t.Error("a folder in use: got no error")
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	cfg.GlobalID = -6
	if c, err := Open(cfg); err == nil {
		c.Close()
		t.Error("another global id: got no error")
	}
}

func TestTimeNeverGoesBack(t *testing.T) {
	now := clock{t: time.Unix(1_800_000_000, 0)}
	c := open(t, Config{Now: now.now})
	now.t = now.t.Add(-time.Hour)
	if err := c.Mine(); err != nil {
		t.Fatal(err)
	}
	if got := c.blocks[c.head].master.time; got != 1_800_000_000 {
		t.Errorf("got %d, want the first block's 1800000000", got)
	}
}

func TestOldBlocksAreForgotten(t *testing.T) {
	c := open(t, Config{KeepBlocks: 10, KeyBlockEvery: 16})
	for range 40 {
		if err := c.Mine(); err != nil {
			t.Fatal(err)
		}
	}
	// 32 to 41 are recent; key blocks are kept, since proofs start at them.
	var kept []uint32
	for n := range c.blocks {
		kept = append(kept, n)
	}
	slices.Sort(kept)
	if diff := cmp.Diff([]uint32{1, 16, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41}, kept); diff != "" {
		t.Errorf("blocks (-want +got):\n%s", diff)
	}
}

const victimDir = "DEVCHAIN_TEST_VICTIM"

// TestKilledProcessLosesNoBlock kills a process that mines as fast as it can,
// and finds every block that it had shown.
func TestKilledProcessLosesNoBlock(t *testing.T) {
	if dir := os.Getenv(victimDir); dir != "" {
		mineForever(dir)
	}
	dir := t.TempDir()
	for round := range 3 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKilledProcessLosesNoBlock$")
		cmd.Env = append(os.Environ(), victimDir+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var shown []string
		for lines := bufio.NewScanner(out); len(shown) < 15*(round+1) && lines.Scan(); {
			shown = append(shown, lines.Text())
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // killed
		if len(shown) == 0 {
			t.Fatal("the victim mined nothing")
		}
		c, err := Open(Config{Dir: dir, GlobalID: -5})
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range shown {
			var n uint32
			var hash string
			if _, err := fmt.Sscan(strings.TrimSpace(line), &n, &hash); err != nil {
				t.Fatal(err)
			}
			if h := c.blocks[n]; h == nil || hex.EncodeToString(h.master.id.RootHash) != hash {
				t.Fatalf("round %d: block %d was shown, and is lost or another", round, n)
			}
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func mineForever(dir string) {
	c, err := Open(Config{Dir: dir, GlobalID: -5})
	for n := byte(0); err == nil; n++ {
		c.Mint(somebody(n), 1_000_000)
		if err = c.Mine(); err == nil {
			id := c.Head()
			fmt.Printf("%d %x\n", id.SeqNo, id.RootHash)
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// FuzzJournal reads foreign bytes as a journal: what it accepts, it would have written.
func FuzzJournal(f *testing.F) {
	dir := f.TempDir()
	c := open(f, Config{Dir: dir})
	c.Mint(somebody(1), 5)
	if err := c.Mine(); err != nil {
		f.Fatal(err)
	}
	whole, err := os.ReadFile(filepath.Join(dir, journalName))
	if err != nil {
		f.Fatal(err)
	}
	last := 8 + len(canonical.MustMarshal(record{Block: &blockRecord{Time: c.blocks[c.head].master.time, Mints: []mint{{To: somebody(1), Amount: 5}}}}))
	f.Add(whole[len(whole)-last:])
	f.Add([]byte{0, 0, 0, 1, 0, 0, 0, 0, 0xf6})
	f.Fuzz(func(t *testing.T, raw []byte) {
		var again []byte
		end, err := readRecords(bytes.NewReader(raw), int64(len(raw)), func(r record) error {
			b, err := encodeRecord(r)
			again = append(again, b...)
			return err
		})
		if err == nil && !bytes.Equal(again, raw[:end]) {
			t.Errorf("got %x, want %x", again, raw[:end])
		}
	})
}
