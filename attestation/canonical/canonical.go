// Package canonical is the one CBOR codec of this project.
//
// It writes RFC 8949 section 4.2 core deterministic CBOR and reads nothing
// else: a document that would not re-encode to the very same bytes (unknown or
// repeated keys, another key order, longer integers, indefinite lengths,
// trailing bytes) is refused, so that one value has one digest. It bounds size
// and nesting; what the values mean is for its callers to check.
package canonical

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/fxamacker/cbor/v2"
)

// ErrNotCanonical says that bytes decode, but are not the encoding this package writes.
var ErrNotCanonical = errors.New("cbor: not core deterministic encoding")

type codec struct {
	enc cbor.EncMode
	dec cbor.DecMode
}

var modes = mustModes()

func mustModes() codec {
	eo := cbor.CoreDetEncOptions()
	eo.NilContainers = cbor.NilContainerAsEmpty // a nil list and an empty one are one value
	enc, err := eo.EncMode()
	if err != nil {
		panic(err) // constant options
	}
	dec, err := cbor.DecOptions{
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		IndefLength:       cbor.IndefLengthForbidden,
		TagsMd:            cbor.TagsForbidden,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
		MaxNestedLevels:   8,
		MaxArrayElements:  65536,
		MaxMapPairs:       4096,
		UTF8:              cbor.UTF8RejectInvalid,
		FieldNameMatching: cbor.FieldNameMatchingCaseSensitive,
	}.DecMode()
	if err != nil {
		panic(err)
	}
	return codec{enc, dec}
}

// Marshal encodes v, a struct with `cbor:"name"` text keys or a plain value.
func Marshal(v any) ([]byte, error) { return modes.enc.Marshal(v) }

// MustMarshal is Marshal for types of this project that cannot fail.
func MustMarshal(v any) []byte {
	b, err := modes.enc.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("canonical: encode %T: %v", v, err))
	}
	return b
}

// Unmarshal decodes exactly one value of at most max bytes into v.
// The error names what was being read.
func Unmarshal(what string, b []byte, max int, v any) error {
	if len(b) > max {
		return fmt.Errorf("%s: size: got %d bytes, want at most %d", what, len(b), max)
	}
	if err := modes.dec.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	again, err := modes.enc.Marshal(v)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if !bytes.Equal(again, b) {
		return fmt.Errorf("%s: %w", what, ErrNotCanonical)
	}
	return nil
}

// LP returns x with its length before it, as a u64 in big-endian order (DESIGN section 3).
func LP(x []byte) []byte {
	return append(binary.BigEndian.AppendUint64(make([]byte, 0, 8+len(x)), uint64(len(x))), x...)
}
