package gguf

import (
	"errors"
	"fmt"
	"strings"
)

// Markers of ChatML.
const (
	turnStart = "<|im_start|>"
	turnEnd   = "<|im_end|>"
)

// chatML is the one chat format this engine writes:
// <|im_start|>role\ncontent<|im_end|>\n for each message, then the opening of
// the assistant's turn.
type chatML struct {
	start, end int32
	system     string // put first when a conversation opens with no system message
}

// newChatML recognises the model's own template rather than trusting its name:
// it reads the small part of Jinja that ChatML templates are written in and
// refuses whatever else it meets, because a wrong format degrades answers
// without any error.
func newChatML(h *header, t *tokenizer) (*chatML, error) {
	src, ok := h.meta["tokenizer.chat_template"].(string)
	if !ok || src == "" {
		return nil, errors.New("gguf: tokenizer.chat_template: missing; want a ChatML template")
	}
	flat, err := flatten(src)
	if err != nil {
		return nil, fmt.Errorf("gguf: tokenizer.chat_template: not a ChatML template this engine knows: %w", err)
	}
	const turns = "{for}" + turnStart + "{role}\n{content}" + turnEnd
	const open = "{add}" + turnStart + "assistant\n{end}"
	c := &chatML{}
	if rest, ok := strings.CutPrefix(flat, "{for}{default}"+turnStart+"system\n"); ok {
		text, after, ok := strings.Cut(rest, turnEnd)
		if !ok || strings.ContainsAny(text, "{}") {
			return nil, errors.New("gguf: tokenizer.chat_template: default system message is not one ChatML turn")
		}
		c.system = text
		flat = "{for}" + strings.TrimPrefix(strings.TrimPrefix(after, "\n"), "{end}")
	}
	if flat != turns+"\n{end}"+open && flat != turns+"{end}"+open && flat != turns+"\n{end}" {
		return nil, errors.New("gguf: tokenizer.chat_template: not a ChatML template this engine knows")
	}
	if c.start, err = t.control(turnStart); err != nil {
		return nil, err
	}
	if c.end, err = t.control(turnEnd); err != nil {
		return nil, err
	}
	return c, nil
}

// flatten rewrites a template with {for}, {role}, {content}, {default}, {add}
// and {end} in place of its statements, and joins its string expressions.
func flatten(src string) (string, error) {
	if len(src) > 1<<16 {
		return "", errors.New("longer than 64 KiB")
	}
	var out strings.Builder
	variable, trim := "", false
	for src != "" {
		i := strings.Index(src, "{")
		if i < 0 || i+1 == len(src) {
			i = len(src)
		}
		text := src[:i]
		if trim {
			text = strings.TrimLeft(text, " \t\r\n")
		}
		src = src[i:]
		if src == "" {
			out.WriteString(text)
			break
		}
		kind := src[:2]
		closer, ok := map[string]string{"{{": "}}", "{%": "%}"}[kind]
		if !ok {
			return "", fmt.Errorf("unexpected %q", kind)
		}
		body, rest, ok := cutOutsideQuotes(src[2:], closer)
		if !ok {
			return "", errors.New("unclosed expression")
		}
		src = rest
		if b, ok := strings.CutPrefix(body, "-"); ok {
			body, text = b, strings.TrimRight(text, " \t\r\n")
		}
		body, trim = strings.CutSuffix(body, "-")
		body = strings.TrimSpace(body)
		out.WriteString(text)
		if strings.ContainsAny(text, "{}") {
			return "", errors.New("stray brace")
		}
		if kind == "{{" {
			s, err := flattenExpr(body, variable)
			if err != nil {
				return "", err
			}
			out.WriteString(s)
			continue
		}
		words := strings.Join(strings.Fields(body), " ")
		switch f := strings.Fields(body); {
		case len(f) == 4 && f[0] == "for" && f[2] == "in" && f[3] == "messages":
			variable = f[1]
			out.WriteString("{for}")
		case words == "if add_generation_prompt":
			out.WriteString("{add}")
		case words == "if loop.first and messages[0]['role'] != 'system'", words == `if loop.first and messages[0]["role"] != "system"`:
			out.WriteString("{default}")
		case words == "endfor", words == "endif":
			out.WriteString("{end}")
		default:
			return "", errors.New("a statement that is none of ChatML's")
		}
		// Jinja, as chat templates are run, drops the newline after a statement.
		if !trim {
			src = strings.TrimPrefix(src, "\n")
		}
	}
	return out.String(), nil
}

// cutOutsideQuotes splits s at the first sep that stands in no string literal.
func cutOutsideQuotes(s, sep string) (before, after string, ok bool) {
	var quote byte
	for i := 0; i < len(s); i++ {
		switch {
		case quote != 0 && s[i] == '\\':
			i++
		case quote != 0:
			if s[i] == quote {
				quote = 0
			}
		case s[i] == '\'' || s[i] == '"':
			quote = s[i]
		case strings.HasPrefix(s[i:], sep):
			return s[:i], s[i+len(sep):], true
		}
	}
	return s, "", false
}

// flattenExpr joins the terms of a '+' chain.
func flattenExpr(expr, variable string) (string, error) {
	var out strings.Builder
	for {
		term, rest, more := cutOutsideQuotes(expr, "+")
		term = strings.TrimSpace(term)
		field := ""
		if variable != "" {
			field = strings.TrimPrefix(term, variable)
		}
		switch {
		case term != field && (field == "['role']" || field == `["role"]` || field == ".role"):
			out.WriteString("{role}")
		case term != field && (field == "['content']" || field == `["content"]` || field == ".content"):
			out.WriteString("{content}")
		case len(term) >= 2 && (term[0] == '\'' || term[0] == '"') && term[len(term)-1] == term[0]:
			lit := strings.NewReplacer(`\n`, "\n", `\'`, "'", `\"`, `"`).Replace(term[1 : len(term)-1])
			if strings.ContainsAny(lit, `{}\`) {
				return "", errors.New("a string literal with braces or escapes")
			}
			out.WriteString(lit)
		default:
			return "", errors.New("an expression that is none of ChatML's")
		}
		if !more {
			return out.String(), nil
		}
		expr = rest
	}
}

// message is one turn of a conversation.
type message struct{ role, content string }

// encode renders a conversation and the opening of the answer as tokens.
func (c *chatML) encode(t *tokenizer, ms []message) []int32 {
	var out []int32
	if t.addBOS {
		out = append(out, t.bos)
	}
	if c.system != "" && (len(ms) == 0 || ms[0].role != "system") {
		ms = append([]message{{"system", c.system}}, ms...)
	}
	for _, m := range ms {
		out = append(out, c.start)
		out = t.encode(out, m.role+"\n"+m.content, c.start, c.end)
		out = append(out, c.end)
		out = t.encode(out, "\n", c.start, c.end)
	}
	out = append(out, c.start)
	return t.encode(out, "assistant\n", c.start, c.end)
}
