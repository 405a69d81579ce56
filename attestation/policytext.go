package attestation

import (
	"errors"
	"strings"

	"github.com/BurntSushi/toml"
)

// maxDepth bounds nesting, and the parts of a key: snp.min_tcb.Genoa.snp has 4.
const maxDepth = 4

// checkShape bounds what makes the TOML decoder slow: nesting and dotted keys
// cost it the square of their depth, so that 64 KiB would take it minutes.
// Strings that span lines are refused, and with them every way to hide a key
// from this scan.
func checkShape(doc string) error {
	if strings.Contains(doc, `"""`) || strings.Contains(doc, "'''") {
		return errors.New("strings: got one of many lines, want each on one line")
	}
	var quote byte // of the string that i is in
	comment, depth, dots := false, 0, 0
	for i := 0; i < len(doc); i++ {
		c := doc[i]
		switch {
		case c == '\n':
			if quote != 0 {
				return errors.New("strings: got one of many lines, want each on one line")
			}
			comment, dots = false, 0
		case comment:
		case quote != 0:
			if c == '\\' && quote == '"' {
				i++
			} else if c == quote {
				quote = 0
			}
		case c == '#':
			comment = true
		case c == '"' || c == '\'':
			quote = c
		case c == '[' || c == '{':
			depth, dots = depth+1, 0
		case c == ']' || c == '}':
			depth, dots = depth-1, 0
		case c == '=' || c == ',':
			dots = 0
		case c == '.':
			dots++
		}
		if depth > maxDepth || dots >= maxDepth {
			return errors.New("nesting: got more than 4 levels")
		}
	}
	return nil
}

// exactCase reports whether the parts of a key that are field names are as the
// documents spell them. Names of models and processors are the policy's own.
func exactCase(k toml.Key) bool {
	for i, part := range k {
		own := i == 1 && k[0] == "models" || i == 2
		if !own && part != strings.ToLower(part) {
			return false
		}
	}
	return true
}
