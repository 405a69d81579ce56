package canonical

import (
	"bytes"
	"encoding/hex"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
)

type inner struct {
	A uint64 `cbor:"a"`
}

// every holds one field of each kind that the project's documents have.
type every struct {
	B  []byte   `cbor:"b"`
	D  [4]byte  `cbor:"d"`
	F  bool     `cbor:"f"`
	I  int64    `cbor:"i"`
	L  []inner  `cbor:"l"`
	P  *inner   `cbor:"p"`
	S  string   `cbor:"s"`
	U  uint64   `cbor:"u"`
	U8 uint8    `cbor:"u8"`
	X  [][]byte `cbor:"x"`
}

func full() every {
	return every{[]byte{1}, [4]byte{1, 2, 3, 4}, true, -5, []inner{{7}}, &inner{8}, "s", math.MaxUint64, 255, [][]byte{{9}}}
}

func TestRoundTrip(t *testing.T) {
	for _, v := range []every{full(), {}, {I: math.MinInt64}} {
		raw := MustMarshal(v)
		var got every
		if err := Unmarshal("every", raw, 1<<10, &got); err != nil {
			t.Fatalf("%x: %v", raw, err)
		}
		if again := MustMarshal(got); !bytes.Equal(again, raw) {
			t.Errorf("got %x, want %x", again, raw)
		}
	}
	a, b := MustMarshal(every{}), MustMarshal(every{B: []byte{}, L: []inner{}, X: [][]byte{}})
	if diff := cmp.Diff(a, b); diff != "" {
		t.Errorf("nil and empty are two values:\n%s", diff)
	}
}

// Each row is the one-field map {key: value} with a value that no encoder of
// this package writes for that key's kind.
func TestOneValueHasOneEncoding(t *testing.T) {
	type u struct {
		V uint64 `cbor:"v"`
	}
	type i struct {
		V int64 `cbor:"v"`
	}
	type u8 struct {
		V uint8 `cbor:"v"`
	}
	type d struct {
		V [4]byte `cbor:"v"`
	}
	type by struct {
		V []byte `cbor:"v"`
	}
	type s struct {
		V string `cbor:"v"`
	}
	type p struct {
		V *inner `cbor:"v"`
	}
	type l struct {
		V []inner `cbor:"v"`
	}
	type f struct {
		V bool `cbor:"v"`
	}
	for _, tt := range []struct {
		name, value string
		into        any
	}{
		{"1 in two bytes", "1801", new(u)},
		{"1 in nine bytes", "1b0000000000000001", new(u)},
		{"a negative number for an unsigned one", "20", new(u)},
		{"a float for an integer", "f93c00", new(u)},
		{"a float of 64 bits", "fb3ff0000000000000", new(u)},
		{"NaN", "f97e00", new(u)},
		{"infinity", "f97c00", new(i)},
		{"null for a number", "f6", new(u)},
		{"undefined for a number", "f7", new(u)},
		{"true for a number", "f5", new(u)},
		{"a simple value for a number", "e5", new(u)},
		{"a simple value of two bytes", "f8ff", new(u)},
		{"a bignum", "c24101", new(u)},
		{"text for a number", "6131", new(u)},
		{"2^63 for a signed number", "1b8000000000000000", new(i)},
		{"-2^63-1 for a signed number", "3b8000000000000000", new(i)},
		{"256 for a byte", "190100", new(u8)},
		{"an array of too few bytes", "43010203", new(d)},
		{"an array of too many bytes", "450102030405", new(d)},
		{"an array of numbers for bytes", "8401020304", new(d)},
		{"null for fixed bytes", "f6", new(d)},
		{"text for fixed bytes", "6461626364", new(d)},
		{"null for bytes", "f6", new(by)},
		{"text for bytes", "6161", new(by)},
		{"an array of numbers for a byte string", "8101", new(by)},
		{"bytes in chunks", "5f4101ff", new(by)},
		{"bytes longer than there are", "5a7fffffff00", new(by)},
		{"bytes for text", "4161", new(s)},
		{"text that is not UTF-8", "61ff", new(s)},
		{"text in chunks", "7f6161ff", new(s)},
		{"undefined for a pointer", "f7", new(p)},
		{"an empty map for a pointer", "a0", new(p)},
		{"a list for a pointer", "80", new(p)},
		{"null for a list", "f6", new(l)},
		{"a list of no known length", "9fff", new(l)},
		{"a list longer than there is", "9a7fffffff", new(l)},
		{"a null in a list", "81f6", new(l)},
		{"a map with an unknown key", "81a2616101616202", new(l)},
		{"a map with a key twice", "81a2616101616101", new(l)},
		{"a map with a key in another case", "81a1614101", new(l)},
		{"a map with a key of bytes", "81a1416101", new(l)},
		{"a map with a number for a key", "81a10001", new(l)},
		{"deep nesting", "818181818181818181818181a1616101", new(l)},
		{"a tag", "d9d9f700", new(u)},
		{"1 for true", "01", new(f)},
		{"null for a truth", "f6", new(f)},
		{"nothing", "", new(u)},
		{"a byte after it", "0100", new(u)},
	} {
		raw, err := hex.DecodeString("a16176" + tt.value)
		if err != nil {
			t.Fatal(err)
		}
		if err := Unmarshal("row", raw, 1<<10, tt.into); err == nil {
			t.Errorf("%s: %x was read as %+v", tt.name, raw, tt.into)
		}
	}
	var e every
	if err := Unmarshal("every", MustMarshal(full()), 10, &e); err == nil {
		t.Error("a document over its bound was read")
	}
}

// What was decoded is the reader's own.
func TestDecodedBytesAreCopies(t *testing.T) {
	raw := MustMarshal(full())
	var e every
	if err := Unmarshal("every", raw, 1<<10, &e); err != nil {
		t.Fatal(err)
	}
	for i := range raw {
		raw[i] = 0
	}
	if diff := cmp.Diff(full(), e); diff != "" {
		t.Errorf("writing to the document changed what was read (-want +got):\n%s", diff)
	}
}

func FuzzUnmarshal(f *testing.F) {
	f.Add(MustMarshal(full()))
	f.Add(MustMarshal(every{}))
	f.Fuzz(func(t *testing.T, b []byte) {
		var e every
		if err := Unmarshal("every", b, 1<<12, &e); err == nil && !bytes.Equal(MustMarshal(e), b) {
			t.Error("another encoding was read")
		}
	})
}
