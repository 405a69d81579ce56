package request_test

import (
	"strings"
	"testing"

	"cocoon/enclave/engine"
	"cocoon/enclave/request"
)

// BenchmarkCheck reads a body with a 2 KB prompt.
func BenchmarkCheck(b *testing.B) {
	body := []byte(`{"model":"toy","max_tokens":256,"stream":true,"stream_options":{"include_usage":true},"messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"` +
		strings.Repeat("All work and no play. ", 93) + `"}]}`)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := request.Check(engine.ChatCompletions, body); err != nil {
			b.Fatal(err)
		}
	}
}
