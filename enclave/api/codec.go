package api

import (
	"fmt"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"

	"cocoon/attestation/canonical"
)

// keptBytes is the longest buffer that a stream keeps between frames.
const keptBytes = 32 << 10

// codec passes frames as they are and messages as canonical CBOR.
type codec struct{ pool mem.BufferPool }

var _ encoding.CodecV2 = codec{}

// frame is one message of Run. Marshal copies b, so that its owner may use it
// again; Unmarshal replaces b's content, so that a stream reads into one buffer.
type frame struct{ b []byte }

func (c codec) Name() string { return "cocoon-v1" }

func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	if f, ok := v.(*frame); ok {
		return mem.BufferSlice{mem.Copy(f.b, c.pool)}, nil
	}
	m, ok := v.(message)
	if !ok {
		return nil, fmt.Errorf("codec: got %T, want a message of cocoon.v1", v)
	}
	b, err := canonical.Marshal(m)
	if err != nil {
		return nil, err
	}
	return mem.BufferSlice{mem.SliceBuffer(b)}, nil
}

func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	if f, ok := v.(*frame); ok {
		if f.b = f.b[:0]; cap(f.b) > keptBytes && data.Len() <= keptBytes {
			f.b = nil
		}
		for _, part := range data {
			f.b = append(f.b, part.ReadOnlyData()...)
		}
		return nil
	}
	m, ok := v.(message)
	if !ok {
		return fmt.Errorf("codec: got %T, want a message of cocoon.v1", v)
	}
	return m.decode(data.Materialize())
}
