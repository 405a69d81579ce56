package auditlog_test

import (
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/sumdb/tlog"

	"cocoon/attestation"
	"cocoon/attestation/auditlog"
)

// appender is what the worlds of these tests are written with: the real
// writer, or staticLog, which needs no fsync and no timer.
type appender interface {
	Append(context.Context, auditlog.Entry) (uint64, error)
	Checkpoint() []byte
	WaitCheckpoint(context.Context, uint64) ([]byte, error)
	Close(context.Context) error
}

// staticLog builds a log with another library than the writer does, and puts
// its files down when it is closed. Every call of Checkpoint signs what there is.
type staticLog struct {
	dir    string
	key    ed25519.PrivateKey
	leaves [][]byte
	hashes []tlog.Hash
	closed bool
}

func (l *staticLog) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		out[i] = l.hashes[x]
	}
	return out, nil
}

func (l *staticLog) Append(_ context.Context, e auditlog.Entry) (uint64, error) {
	raw, err := auditlog.EncodeEntry(e)
	if err != nil {
		return 0, err
	}
	n := len(l.leaves)
	h, err := tlog.StoredHashes(int64(n), raw, l)
	l.leaves, l.hashes = append(l.leaves, raw), append(l.hashes, h...)
	return uint64(n), err
}

func (l *staticLog) Checkpoint() []byte {
	root, err := tlog.TreeHash(int64(len(l.leaves)), l)
	if err != nil {
		panic(err)
	}
	raw, err := auditlog.SignCheckpoint(l.key, auditlog.Checkpoint{LogID: attestation.LogID(public(l.key)), Size: uint64(len(l.leaves)), Root: [32]byte(root)})
	if err != nil {
		panic(err)
	}
	return raw
}

func (l *staticLog) WaitCheckpoint(context.Context, uint64) ([]byte, error) {
	return l.Checkpoint(), nil
}

func (l *staticLog) Close(context.Context) error {
	if l.closed {
		return nil
	}
	l.closed = true
	errs := []error{l.put("checkpoint", l.Checkpoint())}
	for _, t := range tlog.NewTiles(8, 0, int64(len(l.leaves))) {
		b, err := tlog.ReadTileData(t, l)
		errs = append(errs, err, l.put(strings.Replace(t.Path(), "tile/8/", "tile/", 1), b))
		if t.L == 0 {
			var bundle []byte
			for _, leaf := range l.leaves[t.N*256:][:t.W] {
				bundle = append(binary.BigEndian.AppendUint16(bundle, uint16(len(leaf))), leaf...)
			}
			errs = append(errs, l.put(strings.Replace(t.Path(), "tile/8/0/", "tile/entries/", 1), bundle))
		}
	}
	return errors.Join(errs...)
}

func (l *staticLog) put(path string, b []byte) error {
	path = filepath.Join(l.dir, path)
	return errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, b, 0o644))
}
