package request

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// chatFields are the fields of POST /v1/chat/completions that go through: all
// of OpenAI's, and the sampling extras of vLLM, SGLang and llama-server. A nil
// reader bounds the size alone.
func chatFields() map[string]func(c *Checked, param string, raw json.RawMessage) error {
	return map[string]func(*Checked, string, json.RawMessage) error{
		"model":    func(c *Checked, p string, raw json.RawMessage) (err error) { c.Model, err = readString(p, raw); return },
		"messages": (*Checked).messages,
		"tools":    (*Checked).tools, "functions": (*Checked).functions,
		"tool_choice": grammar, "function_call": grammar, "parallel_tool_calls": boolean,
		"response_format": responseFormat, "prediction": grammar,
		"stream":         func(c *Checked, p string, raw json.RawMessage) error { return readBool(p, raw, &c.Stream) },
		"stream_options": known("include_usage", "include_obfuscation", "continuous_usage_stats"),
		"n": func(c *Checked, p string, raw json.RawMessage) error {
			return readInt(p, raw, 1, maxChoices, &c.Choices)
		},
		"max_tokens": (*Checked).maxTokens, "max_completion_tokens": (*Checked).maxTokens,
		"logprobs": boolean, "top_logprobs": bounded(0, maxTopLogprobs),
		"temperature": number, "top_p": number, "frequency_penalty": number, "presence_penalty": number,
		"logit_bias": logitBias, "stop": stops, "seed": number,
		"reasoning_effort": label, "verbosity": label, "service_tier": label, "user": label, "metadata": label,
		"safety_identifier": label, "prompt_cache_key": label, "prompt_cache_retention": label, "store": boolean,
		"modalities": label, "audio": label, "web_search_options": label,

		"top_k": number, "min_p": number, "typical_p": number, "repetition_penalty": number, "length_penalty": number,
		"min_tokens": bounded(0, 1<<32), "stop_token_ids": label, "ignore_eos": boolean,
		"skip_special_tokens": boolean, "spaces_between_special_tokens": boolean, "include_stop_str_in_output": boolean,
		"structured_outputs": grammar, "guided_json": grammar, "guided_regex": grammar, "guided_grammar": grammar,
		"guided_choice": grammar, "grammar": grammar, "json_schema": grammar, "regex": grammar, "ebnf": grammar,
	}
}

// chat reads the body's fields in the order of their names, so that of several
// faults always the same one is told.
func (c *Checked) chat(o object) error {
	fields := chatFields()
	names := make([]string, 0, len(o))
	for k := range o {
		names = append(names, k)
	}
	slices.Sort(names)
	for _, k := range names {
		read, ok := fields[k]
		if !ok {
			return unknown("", k)
		}
		if isNull(o[k]) {
			continue
		}
		if err := read(c, k, o[k]); err != nil {
			return err
		}
	}
	if c.Model == "" {
		return refuse("model", "missing_required_parameter", "model: missing")
	}
	if c.Messages == 0 {
		return refuse("messages", "missing_required_parameter", "messages: want at least one")
	}
	return nil
}

func (c *Checked) maxTokens(param string, raw json.RawMessage) error {
	var n uint64
	if err := readInt(param, raw, 1, 1<<32, &n); err != nil {
		return err
	}
	if c.MaxTokens == 0 || n < c.MaxTokens {
		c.MaxTokens = n
	}
	return nil
}

func (c *Checked) messages(param string, raw json.RawMessage) error {
	list, err := readList(param, raw, maxMessages)
	if err != nil {
		return err
	}
	c.Messages = uint64(len(list))
	for i, raw := range list {
		at := fmt.Sprintf("messages[%d]", i)
		m, err := readObject(at, raw)
		if err != nil {
			return err
		}
		for k, raw := range m {
			switch k {
			case "role", "name", "tool_call_id", "refusal", "reasoning", "reasoning_content":
				if !isNull(raw) {
					_, err = readString(at+"."+k, raw)
				}
			case "content":
				err = c.content(at+".content", raw)
			case "tool_calls":
				_, err = readObjects(at+".tool_calls", raw, maxTools, "id", "type", "function", "custom", "index")
			case "function_call":
				err = known("name", "arguments")(c, at+".function_call", raw)
			case "audio":
				err = known("id")(c, at+".audio", raw)
			case "annotations":
				_, err = readObjects(at+".annotations", raw, maxParts, "type", "url_citation")
			default:
				err = unknown(at, k)
			}
			if err != nil {
				return err
			}
		}
		if _, ok := m["role"]; !ok {
			return refuse(at+".role", "missing_required_parameter", "%s.role: missing", at)
		}
	}
	return nil
}

// content reads a message's content: null, a string, or a list of parts.
func (c *Checked) content(param string, raw json.RawMessage) error {
	if isNull(raw) || len(raw) > 0 && raw[0] == '"' {
		return nil
	}
	parts, err := readList(param, raw, maxParts)
	if err != nil {
		return invalid(param, "a string or a list of parts")
	}
	for i, raw := range parts {
		at := fmt.Sprintf("%s[%d]", param, i)
		p, err := readObject(at, raw)
		if err != nil {
			return err
		}
		if err := c.part(at, p); err != nil {
			return err
		}
	}
	return nil
}

func (c *Checked) part(at string, p object) error {
	kind, err := readString(at+".type", p["type"])
	if err != nil {
		return err
	}
	if len(p) != 2 || kind != "type" && p[kind] == nil {
		return invalid(at, "a type and the one field it names")
	}
	switch kind {
	case "text", "refusal":
		_, err := readString(at+"."+kind, p[kind])
		return err
	case "image_url", "video_url", "audio_url":
		return c.medium(at+"."+kind, p[kind], "url", "detail")
	case "input_audio":
		return c.medium(at+"."+kind, p[kind], "data", "format")
	case "file":
		return c.medium(at+"."+kind, p[kind], "file_data", "filename")
	}
	return invalid(at+".type", "text, refusal, image_url, video_url, audio_url, input_audio or file")
}

// medium counts one medium, whose bytes are in field. An engine that followed
// a URL would tell its server of the prompt, and reach where the worker can.
func (c *Checked) medium(at string, raw json.RawMessage, field, label string) error {
	o, err := readObject(at, raw)
	if err != nil {
		return err
	}
	for k := range o {
		if k != field && k != label {
			return unknown(at, k)
		}
	}
	data, err := readString(at+"."+field, o[field])
	if err != nil {
		return err
	}
	// input_audio holds bare base64; everything else is a URL.
	if bare := field == "data"; !bare && !strings.HasPrefix(data, "data:") || bare && strings.Contains(data, ":") {
		return refuse(at+"."+field, "invalid_value", "%s.%s: want the medium itself, in a data: URL", at, field)
	}
	if c.Media++; c.Media > maxMedia {
		return refuse("messages", "too_large", "messages: want at most %d media", maxMedia)
	}
	c.MediaSize += uint64(len(data))
	return nil
}

func (c *Checked) tools(param string, raw json.RawMessage) error {
	list, err := readObjects(param, raw, maxTools, "type", "function", "custom")
	if err != nil {
		return err
	}
	for i, t := range list {
		at := fmt.Sprintf("%s[%d].function", param, i)
		if f, ok := t["function"]; ok && !isNull(f) {
			if err := known("name", "description", "parameters", "strict")(c, at, f); err != nil {
				return err
			}
			o, err := readObject(at, f)
			if err != nil {
				return err
			}
			if err := grammar(c, at+".parameters", o["parameters"]); err != nil {
				return err
			}
		}
		if err := grammar(c, fmt.Sprintf("%s[%d].custom", param, i), t["custom"]); err != nil {
			return err
		}
	}
	c.Tools += uint64(len(list))
	return nil
}

func (c *Checked) functions(param string, raw json.RawMessage) error {
	list, err := readObjects(param, raw, maxTools, "name", "description", "parameters")
	if err != nil {
		return err
	}
	for i, f := range list {
		if err := grammar(c, fmt.Sprintf("%s[%d].parameters", param, i), f["parameters"]); err != nil {
			return err
		}
	}
	c.Tools += uint64(len(list))
	return nil
}
