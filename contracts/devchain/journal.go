package devchain

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"

	"cocoon/attestation"
	"cocoon/attestation/canonical"
)

// journalName is the append-only file that a chain is made from. Each record
// is u32 length ‖ u32 CRC-32C ‖ canonical CBOR, integers big-endian. The first
// is the genesis, every other one block. New fields need a new version number
// in the genesis record.
const (
	journalName    = "journal"
	journalVersion = 1
	maxRecordBytes = 64 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

type record struct {
	Genesis *genesisRecord `cbor:"genesis"`
	Block   *blockRecord   `cbor:"block"`
}

// genesisRecord is the network before its first block.
type genesisRecord struct {
	Version       uint64           `cbor:"version"`
	GlobalID      int32            `cbor:"global_id"`
	Config        []byte           `cbor:"config"` // BoC of the config dictionary
	KeyBlockEvery uint32           `cbor:"key_block_every"`
	Accounts      []genesisAccount `cbor:"accounts"`
	Time          uint32           `cbor:"time"` // unix seconds
}

type genesisAccount struct {
	Address   attestation.Address `cbor:"address"`
	Balance   uint64              `cbor:"balance"`
	StateInit []byte              `cbor:"state_init"` // BoC, empty for none
}

// blockRecord is everything that came from outside into one block.
type blockRecord struct {
	Time      uint32   `cbor:"time"` // unix seconds
	Externals [][]byte `cbor:"externals"`
	Mints     []mint   `cbor:"mints"`
}

type mint struct {
	To     attestation.Address `cbor:"to"`
	Amount uint64              `cbor:"amount"` // nano
}

type journal struct{ f *os.File }

// openJournal hands every whole record to replay, in order. A tail that a
// crash left half-written is cut off; a damaged record elsewhere is an error.
func openJournal(dir string, replay func(record) error) (*journal, error) {
	f, err := os.OpenFile(filepath.Join(dir, journalName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("devchain: %w", err)
	}
	if err := lock(f); err != nil {
		f.Close()
		return nil, fmt.Errorf("devchain: journal: %w", err)
	}
	var end int64
	st, err := f.Stat()
	if err == nil {
		end, err = readRecords(f, st.Size(), replay)
	}
	if err == nil {
		err = f.Truncate(end)
	}
	if err == nil {
		_, err = f.Seek(end, io.SeekStart)
	}
	if err == nil {
		err = syncDir(dir)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("devchain: journal: %w", err)
	}
	return &journal{f}, nil
}

// errTorn says that a record was never written to its end.
var errTorn = errors.New("record is torn")

// readRecords returns where the last whole record ends.
func readRecords(f io.ReaderAt, size int64, replay func(record) error) (end int64, err error) {
	for end < size {
		body, err := readRecord(f, end, size)
		if errors.Is(err, errTorn) {
			return end, nil
		}
		if err != nil {
			return 0, fmt.Errorf("at byte %d: %w", end, err)
		}
		var r record
		if err := canonical.Unmarshal("record", body, maxRecordBytes, &r); err != nil {
			return 0, fmt.Errorf("at byte %d: %w", end, err)
		}
		if err := replay(r); err != nil {
			return 0, fmt.Errorf("at byte %d: %w", end, err)
		}
		end += 8 + int64(len(body))
	}
	return end, nil
}

// readRecord returns errTorn only where nothing whole can follow: the record
// reaches the end of the file or past it, or nothing but zeros is left.
func readRecord(f io.ReaderAt, at, size int64) ([]byte, error) {
	var head [8]byte
	if size-at < int64(len(head)) {
		return nil, errTorn
	}
	if _, err := f.ReadAt(head[:], at); err != nil {
		return nil, err
	}
	n := int64(binary.BigEndian.Uint32(head[:4]))
	if n == 0 || n > maxRecordBytes {
		if zeros, err := onlyZeros(f, at, size); err != nil || zeros {
			return nil, errors.Join(errTorn, err)
		}
		return nil, fmt.Errorf("record length: got %d, want 1 to %d", n, maxRecordBytes)
	}
	if size-at-8 < n {
		return nil, errTorn
	}
	body := make([]byte, n)
	if _, err := f.ReadAt(body, at+8); err != nil {
		return nil, err
	}
	if got, want := crc32.Checksum(body, castagnoli), binary.BigEndian.Uint32(head[4:]); got != want {
		if at+8+n == size {
			return nil, errTorn
		}
		return nil, fmt.Errorf("record checksum: got %08x, want %08x", got, want)
	}
	return body, nil
}

func onlyZeros(f io.ReaderAt, at, size int64) (bool, error) {
	rest, err := io.ReadAll(io.NewSectionReader(f, at, size-at))
	return err == nil && len(bytes.Trim(rest, "\x00")) == 0, err
}

// append returns once r is on disk. After an error the file's end is unknown,
// and no other record may follow.
func (j *journal) append(r record) error {
	raw, err := encodeRecord(r)
	if err != nil {
		return err
	}
	if _, err := j.f.Write(raw); err != nil {
		return err
	}
	return j.f.Sync()
}

func encodeRecord(r record) ([]byte, error) {
	body, err := canonical.Marshal(r)
	if err != nil {
		return nil, err
	}
	if len(body) > maxRecordBytes {
		return nil, fmt.Errorf("record: got %d bytes, want at most %d", len(body), maxRecordBytes)
	}
	raw := binary.BigEndian.AppendUint32(make([]byte, 0, 8+len(body)), uint32(len(body)))
	raw = binary.BigEndian.AppendUint32(raw, crc32.Checksum(body, castagnoli))
	return append(raw, body...), nil
}

func (j *journal) close() error { return j.f.Close() }

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
