package request_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"cocoon/attestation"
	"cocoon/enclave/engine"
	"cocoon/enclave/request"
)

// with is a sound body with more fields.
func with(fields string) string {
	if fields != "" {
		fields = "," + fields
	}
	return `{"model":"toy","messages":[{"role":"user","content":"hi"}]` + fields + `}`
}

// message is a body with one message of that content.
func message(content string) string {
	return `{"model":"toy","messages":[{"role":"user","content":` + content + `}]}`
}

func TestAllowedBodies(t *testing.T) {
	one := request.Checked{Model: "toy", Choices: 1, Messages: 1}
	edit := func(f func(*request.Checked)) request.Checked {
		c := one
		f(&c)
		return c
	}
	for _, tt := range []struct {
		name, body string
		want       request.Checked
	}{
		{"least", with(""), one},
		{"streaming", with(`"stream":true,"stream_options":{"include_usage":true}`), edit(func(c *request.Checked) { c.Stream = true })},
		{"sampling", with(`"temperature":0.5,"top_p":1,"top_k":40,"min_p":0.1,"seed":-7,"stop":["a","b"],"presence_penalty":-1,"frequency_penalty":1,"repetition_penalty":1.1,"logit_bias":{"5":-100}`), one},
		{"the lower of two limits", with(`"max_tokens":9,"max_completion_tokens":5`), edit(func(c *request.Checked) { c.MaxTokens = 5 })},
		{"choices and log probabilities", with(`"n":8,"logprobs":true,"top_logprobs":20`), edit(func(c *request.Checked) { c.Choices = 8 })},
		{"labels", with(`"user":"u","metadata":{"a":"b"},"service_tier":"auto","store":false,"safety_identifier":"s","prompt_cache_key":"k","reasoning_effort":"low"`), one},
		{"nulls", with(`"temperature":null,"stop":null,"tools":null,"n":null`), one},
		{"a schema", with(`"response_format":{"type":"json_schema","json_schema":{"name":"n","schema":{"type":"object","properties":{"url":{"type":"string"}}},"strict":true}}`), one},
		{"tools", with(`"tools":[{"type":"function","function":{"name":"f","description":"d","parameters":{"type":"object"},"strict":true}}],"tool_choice":{"type":"function","function":{"name":"f"}},"parallel_tool_calls":true`), edit(func(c *request.Checked) { c.Tools = 1 })},
		{"functions", with(`"functions":[{"name":"f","parameters":{}}],"function_call":"auto"`), edit(func(c *request.Checked) { c.Tools = 1 })},
		{"a conversation", `{"model":"toy","messages":[{"role":"system","content":"s"},{"role":"assistant","content":null,"tool_calls":[{"id":"1","type":"function","function":{"name":"f","arguments":"{}"}}]},{"role":"tool","tool_call_id":"1","content":[{"type":"text","text":"t"}]}]}`, edit(func(c *request.Checked) { c.Messages = 3 })},
		{"an image", message(`[{"type":"text","text":"see"},{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA","detail":"low"}}]`), edit(func(c *request.Checked) { c.Media, c.MediaSize = 1, 26 })},
		{"a sound", message(`[{"type":"input_audio","input_audio":{"data":"AAAA","format":"wav"}}]`), edit(func(c *request.Checked) { c.Media, c.MediaSize = 1, 4 })},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := request.Check(engine.ChatCompletions, []byte(tt.body))
			if err != nil {
				t.Fatal(err)
			}
			tt.want.Size = uint64(len(tt.body))
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestRefusedBodies(t *testing.T) {
	secret := "my secret prompt"
	for _, tt := range []struct {
		name, body  string
		code, param string
	}{
		{"nothing", ``, "invalid_json", ""},
		{"a list", `[]`, "invalid_json", ""},
		{"null", `null`, "invalid_json", ""},
		{"cut off", `{"model":"toy"`, "invalid_json", ""},
		{"trailing bytes", with("") + "x", "invalid_json", ""},
		{"a second object", with("") + with(""), "invalid_json", ""},
		{"not UTF-8", with(`"user":"` + "\xff" + `"`), "invalid_json", ""},
		{"a key twice", with(`"n":1,"n":2`), "invalid_json", ""},
		{"a key twice, spelt apart", with(`"n":1,"\u006e":2`), "invalid_json", ""},
		{"a key twice, far inside", with(`"metadata":{"a":{"b":1,"b":2}}`), "invalid_json", ""},
		{"too deep", with(`"metadata":` + strings.Repeat("[", 60) + strings.Repeat("]", 60)), "too_deep", ""},
		{"too large", with(`"user":"` + strings.Repeat("x", request.MaxBytes) + `"`), "too_large", ""},
		{"no model", `{"messages":[{"role":"user","content":"x"}]}`, "missing_required_parameter", "model"},
		{"no messages", `{"model":"toy"}`, "missing_required_parameter", "messages"},
		{"an empty list of messages", `{"model":"toy","messages":[]}`, "missing_required_parameter", "messages"},
		{"too many messages", `{"model":"toy","messages":[` + strings.TrimSuffix(strings.Repeat(`{"role":"user","content":""},`, 4097), ",") + `]}`, "too_large", "messages"},
		{"an unknown field", with(`"kv_transfer_params":{}`), "unknown_parameter", "kv_transfer_params"},
		{"another case of a field", with(`"Temperature":1`), "unknown_parameter", ""},
		{"a field named like a prompt", with(`"` + secret + `":1`), "unknown_parameter", ""},
		{"an engine's own salt", with(`"cache_salt":"x"`), "unknown_parameter", "cache_salt"},
		{"an unknown field of a message", `{"model":"toy","messages":[{"role":"user","content":"x","prefix":true}]}`, "unknown_parameter", "messages[0].prefix"},
		{"a message without a role", `{"model":"toy","messages":[{"content":"x"}]}`, "missing_required_parameter", "messages[0].role"},
		{"an unknown field of a tool", with(`"tools":[{"type":"function","function":{"name":"f","code":"x"}}]`), "unknown_parameter", "tools[0].function.code"},
		{"a tool's schema too large", with(`"tools":[{"type":"function","function":{"name":"f","parameters":{"x":"` + strings.Repeat("a", 64<<10) + `"}}}]`), "too_large", "tools[0].function.parameters"},
		{"a function's schema too large", with(`"functions":[{"name":"f","parameters":{"x":"` + strings.Repeat("a", 64<<10) + `"}}]`), "too_large", "functions[0].parameters"},
		{"a custom tool's grammar too large", with(`"tools":[{"type":"custom","custom":{"x":"` + strings.Repeat("a", 64<<10) + `"}}]`), "too_large", "tools[0].custom"},
		{"an unknown kind of tool", with(`"tools":[{"type":"mcp","server_url":"http://x"}]`), "unknown_parameter", "tools[0].server_url"},
		{"an unknown stream option", with(`"stream_options":{"x":1}`), "unknown_parameter", "stream_options.x"},
		{"too many choices", with(`"n":9`), "invalid_value", "n"},
		{"no choice", with(`"n":0`), "invalid_value", "n"},
		{"too many log probabilities", with(`"top_logprobs":21`), "invalid_value", "top_logprobs"},
		{"a limit of nothing", with(`"max_tokens":0`), "invalid_value", "max_tokens"},
		{"a negative limit", with(`"max_completion_tokens":-1`), "invalid_value", "max_completion_tokens"},
		{"a word for a number", with(`"temperature":"` + secret + `"`), "invalid_value", "temperature"},
		{"a word for a boolean", with(`"stream":"yes"`), "invalid_value", "stream"},
		{"a large grammar", with(`"guided_grammar":"` + strings.Repeat("x", 65<<10) + `"`), "too_large", "guided_grammar"},
		{"a large schema", with(`"response_format":{"type":"json_schema","json_schema":"` + strings.Repeat("x", 65<<10) + `"}`), "too_large", "response_format"},
		{"large metadata", with(`"metadata":"` + strings.Repeat("x", 17<<10) + `"`), "too_large", "metadata"},
		{"many stops", with(`"stop":["` + strings.Repeat(`a","`, 17) + `a"]`), "too_large", "stop"},
		{"an image on the web", message(`[{"type":"image_url","image_url":{"url":"https://evil/` + secret + `"}}]`), "invalid_value", "messages[0].content[0].image_url.url"},
		{"an image on the host", message(`[{"type":"image_url","image_url":{"url":"file:///etc/passwd"}}]`), "invalid_value", "messages[0].content[0].image_url.url"},
		{"a sound on the web", message(`[{"type":"input_audio","input_audio":{"data":"http://x","format":"wav"}}]`), "invalid_value", "messages[0].content[0].input_audio.data"},
		{"a file of an account", message(`[{"type":"file","file":{"file_id":"f"}}]`), "unknown_parameter", "messages[0].content[0].file.file_id"},
		{"an image as a bare string", message(`[{"type":"image_url","image_url":"https://x"}]`), "invalid_value", "messages[0].content[0].image_url"},
		{"a part with more than its kind", message(`[{"type":"text","text":"x","image_url":{"url":"https://x"}}]`), "invalid_value", "messages[0].content[0]"},
		{"an unknown part", message(`[{"type":"web","web":"x"}]`), "invalid_value", "messages[0].content[0].type"},
		{"content that is a number", message(`5`), "invalid_value", "messages[0].content"},
		{"too many media", message(`[` + strings.TrimSuffix(strings.Repeat(`{"type":"image_url","image_url":{"url":"data:,"}},`, 65), ",") + `]`), "too_large", "messages"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := request.Check(engine.ChatCompletions, []byte(tt.body))
			var bad *engine.RequestError
			if !errors.As(err, &bad) {
				t.Fatalf("got %v, want a request error", err)
			}
			if bad.Status != 400 || bad.Code != tt.code || bad.Param != tt.param {
				t.Errorf("got %d %s of %q (%s), want 400 %s of %q", bad.Status, bad.Code, bad.Param, bad.Message, tt.code, tt.param)
			}
			if strings.Contains(fmt.Sprint(bad), secret) {
				t.Errorf("the error quotes the prompt: %v", bad)
			}
		})
	}
}

func TestUnknownEndpoint(t *testing.T) {
	_, err := request.Check("embeddings", []byte(with("")))
	var bad *engine.RequestError
	if !errors.As(err, &bad) || bad.Status != 404 {
		t.Errorf("got %v, want 404", err)
	}
}

func TestPromptBound(t *testing.T) {
	a := attestation.Allowances{Message: 10, Tool: 100, Medium: 1000}
	for _, tt := range []struct {
		c    request.Checked
		want uint64
	}{
		{request.Checked{Size: 50, Messages: 2}, 70},
		{request.Checked{Size: 50, Messages: 1, Tools: 3}, 360},
		{request.Checked{Size: 5000, MediaSize: 4900, Messages: 1, Media: 2}, 2110},
	} {
		if got, err := tt.c.PromptBound(a); err != nil || got != tt.want {
			t.Errorf("%+v: got %d, %v, want %d", tt.c, got, err, tt.want)
		}
	}
	if _, err := (request.Checked{Messages: 4096}).PromptBound(attestation.Allowances{Message: 1 << 20}); err == nil {
		t.Errorf("a bound beyond 32 bits was given")
	}
}

func FuzzCheck(f *testing.F) {
	for _, s := range []string{
		with(""), with(`"tools":[{"type":"function","function":{"name":"f"}}],"n":2,"stop":"x"`),
		message(`[{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}}]`), `{`, `[]`, `{"messages":5}`, with(`"n":1,"n":2`),
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		c, err := request.Check(engine.ChatCompletions, body)
		var bad *engine.RequestError
		switch {
		case err == nil:
			if c.Size != uint64(len(body)) || c.MediaSize > c.Size || c.Messages == 0 || c.Model == "" {
				t.Errorf("passed as %+v, of %d bytes", c, len(body))
			}
			again, err := request.Check(engine.ChatCompletions, body)
			if err != nil || again != c {
				t.Errorf("checked twice: %+v, then %+v, %v", c, again, err)
			}
		case !errors.As(err, &bad) || bad.Status < 400 || bad.Status > 499:
			t.Errorf("got %v, want a request error", err)
		}
	})
}
