package gguf

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"math"
	"math/bits"
	"unicode/utf8"
)

// Bounds on what a file may claim. Each is far above any published llama
// model and small enough that a hostile header costs little.
const (
	maxHeader   = 128 << 20 // bytes before the tensor data
	maxEntries  = 1 << 16   // metadata entries, and tensors
	maxKey      = 256       // bytes in a metadata key or tensor name
	maxString   = 1 << 20   // bytes in one string value
	maxArray    = 1 << 20   // elements in one array
	maxAlign    = 1 << 16
	maxElements = 1 << 40 // elements in one tensor
)

// Tensor element types (ggml.h, enum ggml_type) that this engine reads.
const (
	typeF32  = 0
	typeF16  = 1
	typeQ8_0 = 8
)

// tensorInfo places one tensor in the file.
type tensorInfo struct {
	name   string
	dims   []int // innermost first, as GGUF stores them
	typ    uint32
	offset int64 // from the start of the tensor data
	size   int64 // bytes
}

func (t tensorInfo) elements() int {
	n := 1
	for _, d := range t.dims {
		n *= d
	}
	return n
}

// header is everything before the tensor data. Metadata values are uint64,
// int64, float64, bool, string, or a slice of one of these.
type header struct {
	meta    map[string]any
	tensors []tensorInfo // in file order, back to back but for alignment
	align   int64
	end     int64 // bytes of header, padding included
}

// stream reads a file once, front to back, and hashes every byte on the way:
// storage that answers two reads differently cannot make the engine run
// weights other than those whose digest it states.
type stream struct {
	r    *bufio.Reader
	sum  hash.Hash
	pos  int64
	size int64
	buf  [8]byte
}

func newStream(r io.ReaderAt, size int64) *stream {
	return &stream{r: bufio.NewReaderSize(io.NewSectionReader(r, 0, size), 1<<20), sum: sha256.New(), size: size}
}

// read fills p or fails; the caller has bounded len(p).
func (s *stream) read(p []byte) error {
	if int64(len(p)) > s.size-s.pos {
		return fmt.Errorf("gguf: file truncated at byte %d: got %d bytes, want %d", s.pos, s.size-s.pos, len(p))
	}
	if _, err := io.ReadFull(s.r, p); err != nil {
		return fmt.Errorf("gguf: reading byte %d: %w", s.pos, err)
	}
	s.sum.Write(p)
	s.pos += int64(len(p))
	return nil
}

// skip reads n bytes of alignment padding, which must be zero.
func (s *stream) skip(n int64) error {
	if n < 0 || n > maxAlign {
		return fmt.Errorf("gguf: padding at byte %d: got %d bytes, want at most %d", s.pos, n, maxAlign)
	}
	p := make([]byte, n)
	if err := s.read(p); err != nil {
		return err
	}
	for _, b := range p {
		if b != 0 {
			return fmt.Errorf("gguf: padding before byte %d is not zero", s.pos)
		}
	}
	return nil
}

// digest is the hex SHA-256 of all bytes read.
func (s *stream) digest() string { return hex.EncodeToString(s.sum.Sum(nil)) }

func (s *stream) u8() (uint8, error) {
	err := s.read(s.buf[:1])
	return s.buf[0], err
}

func (s *stream) u16() (uint16, error) {
	err := s.read(s.buf[:2])
	return binary.LittleEndian.Uint16(s.buf[:]), err
}

func (s *stream) u32() (uint32, error) {
	err := s.read(s.buf[:4])
	return binary.LittleEndian.Uint32(s.buf[:]), err
}

func (s *stream) u64() (uint64, error) {
	err := s.read(s.buf[:8])
	return binary.LittleEndian.Uint64(s.buf[:]), err
}

// count reads a u64 that must not exceed limit, nor need more than the rest
// of the file at unit bytes each.
func (s *stream) count(field string, limit, unit int64) (int, error) {
	n, err := s.u64()
	if err != nil {
		return 0, err
	}
	if n > uint64(limit) || int64(n) > (s.size-s.pos)/unit {
		return 0, fmt.Errorf("gguf: %s: got %d at byte %d, want at most %d and within the file", field, n, s.pos, limit)
	}
	return int(n), nil
}

func (s *stream) str(field string, limit int64) (string, error) {
	n, err := s.count(field+" length", limit, 1)
	if err != nil {
		return "", err
	}
	p := make([]byte, n)
	if err := s.read(p); err != nil {
		return "", err
	}
	return string(p), nil
}

// parseHeader reads a GGUF version 3 header (ggml, docs/gguf.md), and leaves s
// at the first byte of tensor data.
func parseHeader(s *stream) (*header, error) {
	magic, err := s.u32()
	if err != nil {
		return nil, err
	}
	if magic != 0x46554747 { // "GGUF", little-endian
		return nil, errors.New("gguf: not a GGUF file: wrong magic")
	}
	version, err := s.u32()
	if err != nil {
		return nil, err
	}
	if version != 3 {
		return nil, fmt.Errorf("gguf: version: got %d, want 3", version)
	}
	tensors, err := s.count("tensor count", maxEntries, 24)
	if err != nil {
		return nil, err
	}
	entries, err := s.count("metadata count", maxEntries, 13)
	if err != nil {
		return nil, err
	}
	h := &header{meta: make(map[string]any), align: 32}
	for range entries {
		if err := h.readEntry(s); err != nil {
			return nil, err
		}
	}
	if v, ok := h.meta["general.alignment"]; ok {
		a, ok := v.(uint64)
		if !ok || a < 8 || a > maxAlign || bits.OnesCount64(a) != 1 {
			return nil, fmt.Errorf("gguf: general.alignment: got %v, want a power of two from 8 to %d", v, maxAlign)
		}
		h.align = int64(a)
	}
	seen := make(map[string]bool)
	var next int64
	for range tensors {
		t, err := readTensorInfo(s)
		if err != nil {
			return nil, err
		}
		if seen[t.name] {
			return nil, fmt.Errorf("gguf: tensor %q: named twice", t.name)
		}
		seen[t.name] = true
		if t.offset != next {
			return nil, fmt.Errorf("gguf: tensor %q: offset: got %d, want %d", t.name, t.offset, next)
		}
		if t.size > s.size-next {
			return nil, fmt.Errorf("gguf: tensor %q: got %d bytes, which is beyond the file", t.name, t.size)
		}
		next = alignUp(next+t.size, h.align)
		h.tensors = append(h.tensors, t)
	}
	if err := s.skip(alignUp(s.pos, h.align) - s.pos); err != nil {
		return nil, err
	}
	if h.end = s.pos; h.end > maxHeader {
		return nil, fmt.Errorf("gguf: header: got %d bytes, want at most %d", h.end, maxHeader)
	}
	if got, want := s.size-h.end, next; got != want {
		// The last tensor's padding may be left off.
		if n := len(h.tensors); n == 0 || got != h.tensors[n-1].offset+h.tensors[n-1].size {
			return nil, fmt.Errorf("gguf: tensor data: got %d bytes, want %d", got, want)
		}
	}
	return h, nil
}

func alignUp(n, a int64) int64 { return (n + a - 1) &^ (a - 1) }

func (h *header) readEntry(s *stream) error {
	key, err := s.str("metadata key", maxKey)
	if err != nil {
		return err
	}
	if key == "" || !utf8.ValidString(key) {
		return fmt.Errorf("gguf: metadata key before byte %d is empty or not UTF-8", s.pos)
	}
	if _, ok := h.meta[key]; ok {
		return fmt.Errorf("gguf: metadata key %q: given twice", key)
	}
	typ, err := s.u32()
	if err != nil {
		return err
	}
	var v any
	if typ == 9 {
		v, err = readArray(s, key)
	} else {
		v, err = readScalar(s, key, typ)
	}
	if err != nil {
		return err
	}
	if s.pos > maxHeader {
		return fmt.Errorf("gguf: header: more than %d bytes", maxHeader)
	}
	h.meta[key] = v
	return nil
}

// readScalar reads one value of a non-array type (gguf_metadata_value_type).
func readScalar(s *stream, key string, typ uint32) (any, error) {
	switch typ {
	case 0:
		v, err := s.u8()
		return uint64(v), err
	case 1:
		v, err := s.u8()
		return int64(int8(v)), err
	case 2:
		v, err := s.u16()
		return uint64(v), err
	case 3:
		v, err := s.u16()
		return int64(int16(v)), err
	case 4:
		v, err := s.u32()
		return uint64(v), err
	case 5:
		v, err := s.u32()
		return int64(int32(v)), err
	case 6:
		v, err := s.u32()
		return float64(math.Float32frombits(v)), err
	case 7:
		v, err := s.u8()
		if err == nil && v > 1 {
			err = fmt.Errorf("gguf: metadata %q: boolean: got %d, want 0 or 1", key, v)
		}
		return v == 1, err
	case 8:
		return s.str(fmt.Sprintf("metadata %q", key), maxString)
	case 10:
		return s.u64()
	case 11:
		v, err := s.u64()
		return int64(v), err
	case 12:
		v, err := s.u64()
		return math.Float64frombits(v), err
	}
	return nil, fmt.Errorf("gguf: metadata %q: type: got %d, want 0 to 12", key, typ)
}

func readArray(s *stream, key string) (any, error) {
	typ, err := s.u32()
	if err != nil {
		return nil, err
	}
	sizes := []int64{1, 1, 2, 2, 4, 4, 4, 1, 8, 0, 8, 8, 8}
	if int(typ) >= len(sizes) || typ == 9 {
		return nil, fmt.Errorf("gguf: metadata %q: array element type: got %d, want a scalar or string", key, typ)
	}
	n, err := s.count(fmt.Sprintf("metadata %q", key), maxArray, sizes[typ])
	if err != nil {
		return nil, err
	}
	switch typ {
	case 8:
		return readSlice[string](s, key, typ, n)
	case 6, 12:
		return readSlice[float64](s, key, typ, n)
	case 7:
		return readSlice[bool](s, key, typ, n)
	case 1, 3, 5, 11:
		return readSlice[int64](s, key, typ, n)
	}
	return readSlice[uint64](s, key, typ, n)
}

func readSlice[T any](s *stream, key string, typ uint32, n int) ([]T, error) {
	out := make([]T, 0, n)
	for range n {
		v, err := readScalar(s, key, typ)
		if err != nil {
			return nil, err
		}
		out = append(out, v.(T))
		if s.pos > maxHeader {
			return nil, fmt.Errorf("gguf: header: more than %d bytes", maxHeader)
		}
	}
	return out, nil
}

func readTensorInfo(s *stream) (tensorInfo, error) {
	var t tensorInfo
	var err error
	if t.name, err = s.str("tensor name", maxKey); err != nil {
		return t, err
	}
	nd, err := s.u32()
	if err != nil {
		return t, err
	}
	if nd < 1 || nd > 4 {
		return t, fmt.Errorf("gguf: tensor %q: dimensions: got %d, want 1 to 4", t.name, nd)
	}
	elements := int64(1)
	for range nd {
		d, err := s.u64()
		if err != nil {
			return t, err
		}
		if d == 0 || d > maxElements || elements > maxElements/int64(d) {
			return t, fmt.Errorf("gguf: tensor %q: dimension %d: want at least 1 and at most %d elements in all", t.name, d, int64(maxElements))
		}
		elements *= int64(d)
		t.dims = append(t.dims, int(d))
	}
	if t.typ, err = s.u32(); err != nil {
		return t, err
	}
	switch t.typ {
	case typeF32:
		t.size = elements * 4
	case typeF16:
		t.size = elements * 2
	case typeQ8_0:
		if t.dims[0]%32 != 0 {
			return t, fmt.Errorf("gguf: tensor %q: row: got %d elements, want a multiple of 32 for Q8_0", t.name, t.dims[0])
		}
		t.size = elements / 32 * 34
	default:
		return t, fmt.Errorf("gguf: tensor %q: type: got %d, want F32 (0), F16 (1) or Q8_0 (8)", t.name, t.typ)
	}
	off, err := s.u64()
	if err != nil {
		return t, err
	}
	if off > uint64(s.size) {
		return t, fmt.Errorf("gguf: tensor %q: offset: got %d, want within the file's %d bytes", t.name, off, s.size)
	}
	t.offset = int64(off)
	return t, nil
}
