package channel

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// FrameType says what a frame carries. Its zero value is no type.
type FrameType uint8

// Frame types. A new one is a new version of the job's info string.
const (
	FrameOpen    FrameType = 1 // client, first and once: OpenRequest
	FrameBody    FrameType = 2 // client: more of the body; Last on its last part
	FrameVoucher FrameType = 3 // client: VoucherUpdate
	FrameCancel  FrameType = 4 // client: stop; no data
	FrameFiller  FrameType = 5 // either end: nothing, to be skipped

	FrameHello   FrameType = 16 // worker, first and once: Hello
	FrameData    FrameType = 17 // worker: u32 tokens so far, then answer bytes (AppendData, ParseData)
	FrameError   FrameType = 18 // worker: JobError
	FrameReceipt FrameType = 19 // worker, last and once: COSE_Sign1; the one frame with Last
)

func (t FrameType) String() string {
	switch t {
	case FrameOpen:
		return "open"
	case FrameBody:
		return "body"
	case FrameVoucher:
		return "voucher"
	case FrameCancel:
		return "cancel"
	case FrameFiller:
		return "filler"
	case FrameHello:
		return "hello"
	case FrameData:
		return "data"
	case FrameError:
		return "error"
	case FrameReceipt:
		return "receipt"
	}
	return fmt.Sprintf("type %d", uint8(t))
}

// Frame is one message inside the seal. Last, from a client, ends the body
// (on FrameOpen or FrameBody); from a worker, it ends the job (on FrameReceipt).
type Frame struct {
	Type FrameType
	Last bool
	Data []byte
}

// Sizes of a frame, in bytes. A sealed frame's plaintext is
// type u8 ‖ last u8 ‖ u32 length ‖ data ‖ zeros.
const (
	headerBytes = 6
	tagBytes    = 16
	nonceBytes  = 32 // worker_nonce, before the ciphertext of answer frame 0

	MaxWireBytes = 256 << 10                                          // longest sealed frame
	MaxFrameData = MaxWireBytes - headerBytes - tagBytes - nonceBytes // longest Frame.Data
)

// appendPlain appends f's plaintext, padded with zeros to size bytes (at least
// its own length), and leaves room for the tag.
func appendPlain(dst []byte, f Frame, size int) []byte {
	last := byte(0)
	if f.Last {
		last = 1
	}
	start := len(dst)
	dst = slices.Grow(dst, size+tagBytes)
	dst = append(dst, byte(f.Type), last)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(f.Data)))
	dst = append(dst, f.Data...)
	return append(dst, make([]byte, size-(len(dst)-start))...)
}

// parsePlain reads a plaintext. The frame's Data is a part of p.
func parsePlain(p []byte) (Frame, error) {
	if len(p) < headerBytes {
		return Frame{}, fmt.Errorf("frame: size: got %d bytes, want at least %d", len(p), headerBytes)
	}
	if p[1] > 1 {
		return Frame{}, fmt.Errorf("frame: last: got %d, want 0 or 1", p[1])
	}
	n := binary.BigEndian.Uint32(p[2:])
	rest := p[headerBytes:]
	if uint64(n) > uint64(len(rest)) {
		return Frame{}, fmt.Errorf("frame: length: got %d, want at most %d", n, len(rest))
	}
	if !allZeros(rest[n:]) {
		return Frame{}, fmt.Errorf("frame: padding is not zeros")
	}
	return Frame{Type: FrameType(p[0]), Last: p[1] == 1, Data: rest[:n:n]}, nil
}

func allZeros(b []byte) bool {
	var or uint64
	for ; len(b) >= 8; b = b[8:] {
		or |= binary.NativeEndian.Uint64(b)
	}
	for _, c := range b {
		or |= uint64(c)
	}
	return or == 0
}

// AppendData appends FrameData's data: the completion tokens generated so far
// as u32 big-endian, then answer bytes.
func AppendData(dst []byte, tokens uint32, answer []byte) []byte {
	return append(binary.BigEndian.AppendUint32(dst, tokens), answer...)
}

// ParseData reads FrameData's data. The answer is a part of b.
func ParseData(b []byte) (tokens uint32, answer []byte, err error) {
	if len(b) < 4 {
		return 0, nil, fmt.Errorf("data: size: got %d bytes, want at least 4", len(b))
	}
	return binary.BigEndian.Uint32(b), b[4:], nil
}
