package auditlog

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"slices"
	"strings"

	"cocoon/attestation"
)

// Folder is a host's store (package enclave/host), or a copy of its public
// part, read in place. It is a Source, and where receipts are there, a Discloser.
type Folder struct {
	objects
	root *os.Root
}

// OpenFolder opens a store for reading. Nothing outside it can be reached through it.
func OpenFolder(dir string) (*Folder, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	f := &Folder{root: root}
	f.objects.get = f.read
	return f, nil
}

// Close closes the folder.
func (f *Folder) Close() error { return f.root.Close() }

func (f *Folder) read(ctx context.Context, path string, max int) ([]byte, error) {
	return readIn(ctx, f.root, path, max)
}

func readIn(ctx context.Context, root *os.Root, path string, max int) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	file, err := root.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	// Most files are small, and two system calls read them.
	b := make([]byte, min(max+1, 8<<10))
	n, err := io.ReadFull(file, b)
	if b = bytes.Clone(b[:n]); err == nil {
		var rest []byte
		rest, err = io.ReadAll(io.LimitReader(file, int64(max)+1-int64(n)))
		b = append(b, rest...)
	} else if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil
	}
	if err != nil {
		return nil, err
	}
	if len(b) > max {
		return nil, fmt.Errorf("%s: size: got more than %d bytes", path, max)
	}
	return b, nil
}

// Sections lists receipts/<log id>/<channel>. A store's owner has all of a
// worker's receipts, so each section counts as whole.
func (f *Folder) Sections(ctx context.Context) ([]Section, error) {
	var all []Section
	logs, err := f.list("receipts")
	if err != nil {
		return nil, err
	}
	for _, l := range logs {
		id, ok := hexName(l, 32)
		if !ok {
			return nil, fmt.Errorf("receipts/%s: name: want a log id in hex", l)
		}
		channels, err := f.list("receipts/" + l)
		if err != nil {
			return nil, err
		}
		for _, c := range channels {
			ch, ok := hexName(c, 36)
			if !ok {
				return nil, fmt.Errorf("receipts/%s/%s: name: want a channel in hex", l, c)
			}
			s := Section{Channel: attestation.Address(ch), LogID: [32]byte(id), Whole: true}
			if s.Base, err = f.base(ctx, s); err != nil {
				return nil, err
			}
			all = append(all, s)
		}
	}
	return all, nil
}

func (f *Folder) base(ctx context.Context, s Section) ([32]byte, error) {
	path := sectionPath(s) + "/base"
	raw, err := f.read(ctx, path, 65)
	if errors.Is(err, fs.ErrNotExist) {
		return [32]byte{}, nil
	}
	if err != nil {
		return [32]byte{}, err
	}
	text, ok := strings.CutSuffix(string(raw), "\n")
	b, good := hexName(text, 32)
	if !ok || !good {
		return [32]byte{}, fmt.Errorf("%s: got %d bytes, want a head in hex", path, len(raw))
	}
	return [32]byte(b), nil
}

func sectionPath(s Section) string {
	return "receipts/" + hex.EncodeToString(s.LogID[:]) + "/" + hex.EncodeToString(s.Channel[:])
}

// Receipts yields a section's receipts from index 0. What is cut off at the
// file's end was never put there for good.
func (f *Folder) Receipts(ctx context.Context, s Section) iter.Seq2[Disclosed, error] {
	return func(yield func(Disclosed, error) bool) {
		path := sectionPath(s) + "/receipts"
		file, err := f.root.Open(path)
		if errors.Is(err, fs.ErrNotExist) { // none was put
			return
		}
		if err != nil {
			yield(Disclosed{}, err)
			return
		}
		defer file.Close()
		in := bufio.NewReaderSize(file, 64<<10)
		for n := 0; ; n++ {
			raw, err := nextReceipt(in)
			if err == nil {
				err = ctx.Err()
			}
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				yield(Disclosed{}, fmt.Errorf("%s: receipt %d: %w", path, n, err))
				return
			}
			if !yield(Disclosed{COSE: raw}, nil) {
				return
			}
		}
	}
}

// nextReceipt reads one receipt after its length. It returns io.EOF also where
// the file ends within one.
func nextReceipt(in io.Reader) ([]byte, error) {
	var head [8]byte
	if _, err := io.ReadFull(in, head[:]); err != nil {
		return nil, ended(err)
	}
	n := binary.BigEndian.Uint64(head[:])
	if n > MaxReceiptBytes {
		return nil, fmt.Errorf("length: got %d, want at most %d", n, MaxReceiptBytes)
	}
	raw := make([]byte, n)
	_, err := io.ReadFull(in, raw)
	return raw, ended(err)
}

func ended(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return io.EOF
	}
	return err
}

// Channels lists the channels that the store holds a voucher of.
func (f *Folder) Channels(ctx context.Context) ([]attestation.Address, error) {
	names, err := f.list("vouchers")
	if err != nil {
		return nil, err
	}
	var all []attestation.Address
	for _, n := range names {
		c, ok := hexName(n, 36)
		if !ok {
			return nil, fmt.Errorf("vouchers/%s: name: want a channel in hex", n)
		}
		all = append(all, attestation.Address(c))
	}
	return all, nil
}

// Vouchers returns the one voucher that the store keeps per channel.
func (f *Folder) Vouchers(ctx context.Context, channel attestation.Address) ([][]byte, error) {
	raw, err := f.read(ctx, "vouchers/"+hex.EncodeToString(channel[:]), maxVoucherBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return [][]byte{raw}, nil
}

// Signer is false: a store holds what the worker handed out last.
func (f *Folder) Signer() bool { return false }

// list returns a folder's names in order, without unfinished files. A folder that is not there is empty.
func (f *Folder) list(dir string) ([]string, error) {
	d, err := f.root.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer d.Close()
	entries, err := d.ReadDir(-1)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".tmp") {
			names = append(names, e.Name())
		}
	}
	slices.SortFunc(names, cmp.Compare[string])
	return names, nil
}

// hexName reads n bytes in lower-case hex.
func hexName(s string, n int) ([]byte, bool) {
	b, err := hex.DecodeString(s)
	return b, err == nil && len(b) == n && hex.EncodeToString(b) == s
}
