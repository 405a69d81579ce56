package request

import (
	"encoding/json"
	"fmt"
	"slices"
)

// readObjects reads a list of objects that have none but the named fields, each
// of a bounded size.
func readObjects(param string, raw json.RawMessage, most int, fields ...string) ([]object, error) {
	if isNull(raw) {
		return nil, nil
	}
	list, err := readList(param, raw, most)
	if err != nil {
		return nil, err
	}
	out := make([]object, len(list))
	for i, raw := range list {
		at := fmt.Sprintf("%s[%d]", param, i)
		if out[i], err = readObject(at, raw); err != nil {
			return nil, err
		}
		for k := range out[i] {
			if !slices.Contains(fields, k) {
				return nil, unknown(at, k)
			}
		}
	}
	return out, nil
}

// known reads an object that has none but the named fields.
func known(fields ...string) func(*Checked, string, json.RawMessage) error {
	return func(_ *Checked, param string, raw json.RawMessage) error {
		if isNull(raw) {
			return nil
		}
		o, err := readObject(param, raw)
		if err != nil {
			return err
		}
		for k := range o {
			if !slices.Contains(fields, k) {
				return unknown(param, k)
			}
		}
		return nil
	}
}

// responseFormat bounds a JSON schema and refuses unknown fields around it.
func responseFormat(c *Checked, param string, raw json.RawMessage) error {
	if err := known("type", "json_schema", "schema", "grammar")(c, param, raw); err != nil {
		return err
	}
	return grammar(c, param, raw)
}

// grammar bounds what an engine compiles.
func grammar(_ *Checked, param string, raw json.RawMessage) error {
	if len(raw) > maxGrammarBytes {
		return refuse(param, "too_large", "%s: got %d bytes, want at most %d", param, len(raw), maxGrammarBytes)
	}
	return nil
}

// label bounds what only describes the request.
func label(_ *Checked, param string, raw json.RawMessage) error {
	if len(raw) > maxMetadata {
		return refuse(param, "too_large", "%s: got %d bytes, want at most %d", param, len(raw), maxMetadata)
	}
	return nil
}

func boolean(_ *Checked, param string, raw json.RawMessage) error {
	var b bool
	return readBool(param, raw, &b)
}

func readBool(param string, raw json.RawMessage, to *bool) error {
	if json.Unmarshal(raw, to) != nil {
		return invalid(param, "a boolean")
	}
	return nil
}

func number(_ *Checked, param string, raw json.RawMessage) error {
	var f float64
	if json.Unmarshal(raw, &f) != nil {
		return invalid(param, "a number")
	}
	return nil
}

func bounded(lo, hi uint64) func(*Checked, string, json.RawMessage) error {
	return func(_ *Checked, param string, raw json.RawMessage) error {
		var n uint64
		return readInt(param, raw, lo, hi, &n)
	}
}

func readInt(param string, raw json.RawMessage, lo, hi uint64, to *uint64) error {
	if json.Unmarshal(raw, to) != nil || *to < lo || *to > hi {
		return invalid(param, fmt.Sprintf("an integer from %d to %d", lo, hi))
	}
	return nil
}

func logitBias(_ *Checked, param string, raw json.RawMessage) error {
	var m map[string]float64
	if json.Unmarshal(raw, &m) != nil {
		return invalid(param, "an object of numbers")
	}
	if len(m) > maxBiases {
		return refuse(param, "too_large", "%s: got %d entries, want at most %d", param, len(m), maxBiases)
	}
	return nil
}

func stops(_ *Checked, param string, raw json.RawMessage) error {
	if len(raw) > 0 && raw[0] == '"' {
		return label(nil, param, raw)
	}
	list, err := readList(param, raw, maxStops)
	if err != nil {
		return err
	}
	for i, s := range list {
		if _, err := readString(fmt.Sprintf("%s[%d]", param, i), s); err != nil {
			return err
		}
	}
	return label(nil, param, raw)
}
