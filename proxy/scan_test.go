package proxy

import (
	"encoding/json"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"cocoon/attestation"
)

func TestReadRequest(t *testing.T) {
	for name, c := range map[string]struct {
		body string
		want request // without Size
	}{
		"least":            {`{"model":"m"}`, request{Model: "m", Choices: 1}},
		"stream":           {` { "stream" : true , "model" : "m" } `, request{Model: "m", Stream: true, Choices: 1}},
		"not a stream":     {`{"stream":false,"model":"m"}`, request{Model: "m", Choices: 1}},
		"escaped names":    {`{"\u006dodel":"\u006d","str\u0065am":true}`, request{Model: "m", Stream: true, Choices: 1}},
		"ceilings":         {`{"model":"m","max_tokens":9,"max_completion_tokens":7,"n":2}`, request{Model: "m", Choices: 2, Max: 14}},
		"null ceilings":    {`{"model":"m","max_tokens":null,"n":null}`, request{Model: "m", Choices: 1}},
		"enough":           {`{"model":"m","max_tokens":2147483647,"n":100}`, request{Model: "m", Choices: 100, Max: math.MaxInt32}},
		"deeper is not it": {`{"x":{"model":"a","stream":true},"model":"m","y":["stream",{"n":3}]}`, request{Model: "m", Choices: 1}},
		"counts":           {`{"model":"m","messages":[{"role":"user","content":"}]\"{"},{}],"tools":[{},{}],"functions":[{"a":[1]}]}`, request{Model: "m", Choices: 1, Messages: 2, Tools: 3}},
		"media": {`{"model":"m","messages":[{"content":[{"type":"text","text":"t"},{"type":"image_url","image_url":{"url":"data:,x\/y","detail":"low"}},{"input_audio":{"data":"AAAA"},"type":"input_audio"}]}]}`,
			request{Model: "m", Choices: 1, Messages: 1, Media: 2, Inline: 9 + 4}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := readRequest([]byte(c.body))
			c.want.Size = uint64(len(c.body))
			if diff := cmp.Diff(c.want, got); err != nil || diff != "" {
				t.Errorf("%v\n%s", err, diff)
			}
		})
	}
	for name, body := range map[string]string{
		"nothing": "", "a string": `"model"`, "trailing": `{"model":"m"}x`, "no model": `{}`, "a number for a model": `{"model":1}`,
		"a fraction": `{"model":"m","max_tokens":1.5}`, "a text": `{"model":"m","n":"1"}`, "zero": `{"model":"m","max_tokens":0}`,
		"too much": `{"model":"m","max_tokens":4294967296}`, "too many": `{"model":"m","n":129}`, "a path": `{"model":"../../etc passwd"}`,
	} {
		if _, err := readRequest([]byte(body)); err == nil {
			t.Errorf("%s: %s was read", name, body)
		}
	}
}

func TestPromptCeilingIsABoundInABucket(t *testing.T) {
	a := attestation.Allowances{Message: 16, Tool: 64, Medium: 1024}
	for _, c := range []struct {
		q    request
		want uint64
	}{
		{request{Size: 1}, 256},
		{request{Size: 256}, 256},
		{request{Size: 257}, 512},
		{request{Size: 200, Messages: 4}, 512},              // 264
		{request{Size: 5000, Inline: 4900, Media: 1}, 1280}, // 1124
		{request{Size: 1025}, 1280},                         // steps of a quarter of the power of two below
		{request{Size: 1 << 20}, 1 << 20},
		{request{Size: 1<<20 + 1}, 1<<20 + 1<<18},
		{request{Size: 1, Messages: 1 << 62}, math.MaxUint32},
		{request{Size: 1, Inline: 9}, 256},
	} {
		if got := c.q.promptCeiling(a); got != c.want {
			t.Errorf("%+v: got %d, want %d", c.q, got, c.want)
		}
	}
}

// FuzzReadRequest holds the scan against encoding/json.
func FuzzReadRequest(f *testing.F) {
	for _, s := range []string{
		`{"model":"m","stream":true,"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:,"}}]}],"max_tokens":3}`,
		`{"model":"m","tools":[{"a":{"b":[{}]}}],"x":"\\\"","n":2}`, `{"a":[],"b":{},"model":"\ud83d\ude00"}`, `[]`, `{`, "{\"model\":\"m\"}\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		q, err := readRequest(body)
		if err != nil {
			return
		}
		var doc map[string]json.RawMessage
		if json.Unmarshal(body, &doc) != nil {
			t.Fatalf("read what is no object: %q", body)
		}
		if strings.Count(string(body), `"model"`) != 1 || strings.Contains(string(body), `\`) {
			return // a repeated key is the worker's to refuse
		}
		var model string
		if json.Unmarshal(doc["model"], &model) != nil || model != q.Model {
			t.Errorf("model: got %q, want %q", q.Model, model)
		}
		var list []json.RawMessage
		if strings.Count(string(body), `"messages"`) == 1 && json.Unmarshal(doc["messages"], &list) == nil && uint64(len(list)) != q.Messages {
			t.Errorf("messages: got %d, want %d", q.Messages, len(list))
		}
		if q.promptCeiling(attestation.Allowances{Message: 1, Tool: 1, Medium: 1}) < min(q.Size-min(q.Inline, q.Size), math.MaxUint32) {
			t.Errorf("prompt ceiling is below the body's %d bytes", q.Size)
		}
	})
}
