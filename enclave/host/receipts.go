package host

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"cocoon/attestation"
	"cocoon/attestation/auditlog"
)

// receiptsName is a section's file. It only grows: many receipts share one
// fsync, where a file for each would cost several.
const receiptsName = "receipts"

const lengthBytes = 8

// sections are the receipts' files that this process has used.
type sections struct {
	mu   sync.Mutex
	ends map[string][]int64 // by path: where each receipt ends in the file
}

// PutReceipts keeps receipts of one (log id, channel), from index from on. It
// must be the index after the last that was put. When it returns an error, none
// or all of them may be kept.
func (s *Store) PutReceipts(ctx context.Context, logID [32]byte, channel attestation.Address, from uint64, list [][]byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	var buf []byte
	for i, cose := range list {
		if err := checkReceipt(cose, logID, channel, from+uint64(i)); err != nil {
			return fmt.Errorf("host store: %w", err)
		}
		buf = append(binary.BigEndian.AppendUint64(buf, uint64(len(cose))), cose...)
	}
	path := filepath.Join(sectionPath(logID, channel), receiptsName)
	s.receipts.mu.Lock()
	defer s.receipts.mu.Unlock()
	ends, err := s.section(path)
	if err != nil {
		return err
	}
	if from != uint64(len(ends)) {
		return fmt.Errorf("host store: %s: index: got %d, want %d", path, from, len(ends))
	}
	at := end(ends)
	if err := s.appendAt(path, at, buf); err != nil {
		delete(s.receipts.ends, path) // what is there now, the file says
		return fmt.Errorf("host store: %s: %w", path, cause(err))
	}
	for _, cose := range list {
		at += lengthBytes + int64(len(cose))
		ends = append(ends, at)
	}
	s.receipts.ends[path] = ends
	return nil
}

func checkReceipt(cose []byte, logID [32]byte, channel attestation.Address, index uint64) error {
	r, err := auditlog.ParseReceipt(cose)
	if err != nil {
		return err
	}
	if r.LogID != logID || r.Channel != channel || r.Index != index {
		return fmt.Errorf("receipt: got log %x, channel %s, index %d, want log %x, channel %s, index %d", r.LogID, r.Channel, r.Index, logID, channel, index)
	}
	return nil
}

func end(ends []int64) int64 {
	if len(ends) == 0 {
		return 0
	}
	return ends[len(ends)-1]
}

// appendAt writes b at the file's end, which is at, durably. What lies beyond
// at is half a receipt, of a write that never returned.
func (s *Store) appendAt(path string, at int64, b []byte) error {
	full := filepath.Join(s.dir, path)
	dir := filepath.Dir(full)
	f, err := os.OpenFile(full, os.O_WRONLY, 0)
	isNew := errors.Is(err, fs.ErrNotExist)
	if isNew {
		if err = s.makeDir(dir); err == nil {
			f, err = os.OpenFile(full, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		}
	}
	if err != nil {
		return err
	}
	err = f.Truncate(at)
	if err == nil {
		_, err = f.WriteAt(b, at)
	}
	if err == nil {
		err = syscall.Fdatasync(int(f.Fd()))
	}
	if err = errors.Join(err, f.Close()); err == nil && isNew {
		err = syncDir(dir)
	}
	return err
}

// section is where a file's receipts end. The caller holds the lock.
func (s *Store) section(path string) ([]int64, error) {
	if ends, ok := s.receipts.ends[path]; ok {
		return ends, nil
	}
	f, err := os.Open(filepath.Join(s.dir, path))
	var ends []int64
	switch {
	case err == nil:
		defer f.Close()
		if ends, err = scanReceipts(f); err != nil {
			return nil, damaged(path, err)
		}
	case !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("host store: %s: %w", path, cause(err))
	}
	if s.receipts.ends == nil {
		s.receipts.ends = map[string][]int64{}
	}
	s.receipts.ends[path] = ends
	return ends, nil
}

// scanReceipts lists where receipts end, up to one that is cut off.
func scanReceipts(f *os.File) ([]int64, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	var ends []int64
	var head [lengthBytes]byte
	for at := int64(0); ; {
		if _, err := f.ReadAt(head[:], at); errors.Is(err, io.EOF) {
			return ends, nil
		} else if err != nil {
			return nil, err
		}
		n := binary.BigEndian.Uint64(head[:])
		if n > auditlog.MaxReceiptBytes {
			return nil, fmt.Errorf("receipt %d: length: got %d, want at most %d", len(ends), n, auditlog.MaxReceiptBytes)
		}
		if at += lengthBytes + int64(n); at > info.Size() {
			return ends, nil
		}
		ends = append(ends, at)
	}
}

// Receipt returns one receipt's COSE bytes. A missing one is fs.ErrNotExist.
func (s *Store) Receipt(ctx context.Context, logID [32]byte, channel attestation.Address, index uint64) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	path := filepath.Join(sectionPath(logID, channel), receiptsName)
	s.receipts.mu.Lock()
	ends, err := s.section(path)
	s.receipts.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if index >= uint64(len(ends)) {
		return nil, fmt.Errorf("host store: %s: receipt %d: %w", path, index, fs.ErrNotExist)
	}
	start := end(ends[:index])
	raw := make([]byte, ends[index]-start)
	f, err := os.Open(filepath.Join(s.dir, path))
	if err != nil {
		return nil, fmt.Errorf("host store: %s: %w", path, cause(err))
	}
	defer f.Close()
	if _, err := f.ReadAt(raw, start); err != nil {
		return nil, damaged(path, err)
	}
	length, cose := raw[:lengthBytes], raw[lengthBytes:]
	if !bytes.Equal(length, binary.BigEndian.AppendUint64(nil, uint64(len(cose)))) {
		return nil, damaged(path, fmt.Errorf("receipt %d: length: got %x, want %d", index, length, len(cose)))
	}
	if err := checkReceipt(cose, logID, channel, index); err != nil {
		return nil, damaged(path, err)
	}
	return cose, nil
}
