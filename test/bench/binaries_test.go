package bench

import (
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
)

// maxWorkerBytes bounds what an image measures and a reader must trust.
const maxWorkerBytes = 25 << 20

// build makes a command as the image does: static and stripped.
func build(tb testing.TB, command string) string {
	tb.Helper()
	out := filepath.Join(tb.TempDir(), command)
	cmd := exec.Command("go", "build", "-ldflags=-s -w", "-o", out, "cocoon/cmd/"+command)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	if b, err := cmd.CombinedOutput(); err != nil {
		tb.Fatalf("go build %s: %v\n%s", command, err, b)
	}
	return out
}

func TestWorkerBinaryIsStaticAndSmall(t *testing.T) {
	t.Parallel()
	path := build(t, "cocoon-worker")
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() > maxWorkerBytes {
		t.Errorf("size: got %d bytes, want at most %d", info.Size(), maxWorkerBytes)
	}
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			t.Error("it names a dynamic loader, want a static binary")
		}
	}
	if libs, err := f.ImportedLibraries(); err != nil || len(libs) > 0 {
		t.Errorf("imported libraries: got %v, %v, want none", libs, err)
	}
}

// BenchmarkSize reports binaries' sizes.
func BenchmarkSize(b *testing.B) {
	for _, command := range []string{"cocoon-worker", "cocoon"} {
		info, err := os.Stat(build(b, command))
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(info.Size())/1e6, command+"-MB")
	}
	b.ReportMetric(0, "ns/op")
}

// BenchmarkIdle reports what a proxy and a worker hold in memory when nothing
// is asked of them, after one job and with a session open.
func BenchmarkIdle(b *testing.B) {
	if runtime.GOOS != "linux" {
		b.Skip("memory is read from /proc")
	}
	_, ours, _ := paths(b, 0)
	newLoad(b, ours, 256, 0).run(1, 1, false)
	for _, p := range ours.hops {
		b.ReportMetric(float64(p.used().RSS)/1e6, p.name+"-MB")
		p.ask("trim")
		b.ReportMetric(float64(p.used().RSS)/1e6, p.name+"-trimmed-MB")
	}
	b.ReportMetric(0, "ns/op")
}
