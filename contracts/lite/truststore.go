package lite

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

const (
	trustVersion  = 1
	maxTrustBytes = 16 << 20
	saveEvery     = time.Minute // of chain time, unless a key block is new
)

// trustStore is the file that keeps what was proven, so that a restart neither
// walks the chain again nor believes an older head. It needs no secrecy, but
// whoever can write it chooses the network. An empty path keeps nothing.
type trustStore struct {
	path  string
	init  BlockID
	saved time.Time // time of the newest block on disk
	keys  int
}

// trustDoc is the file: JSON, hashes as byte arrays in base64.
type trustDoc struct {
	Version   int         `json:"version"`
	KeyBlocks []trustedID `json:"key_blocks"` // the config's init block among them
	Newest    trustedID   `json:"newest"`
	Time      int64       `json:"time"` // of Newest, unix seconds; 0 when no head was proven yet
}

type trustedID struct {
	Seqno    uint32 `json:"seqno"`
	RootHash []byte `json:"root_hash"`
	FileHash []byte `json:"file_hash"`
}

func (t trustedID) id() (BlockID, error) {
	if len(t.RootHash) != 32 || len(t.FileHash) != 32 {
		return BlockID{}, fmt.Errorf("block %d: hashes: got %d and %d bytes, want 32", t.Seqno, len(t.RootHash), len(t.FileHash))
	}
	return BlockID{Seqno: t.Seqno, RootHash: [32]byte(t.RootHash), FileHash: [32]byte(t.FileHash)}, nil
}

func toTrusted(b BlockID) trustedID {
	return trustedID{Seqno: b.Seqno, RootHash: b.RootHash[:], FileHash: b.FileHash[:]}
}

// load returns what the file holds, or init alone when there is no file.
func (s *trustStore) load(init BlockID) (KeyBlocks, header, error) {
	s.init = init
	trust, err := TrustKeyBlocks(init)
	if err != nil || s.path == "" {
		return trust, header{}, err
	}
	f, err := os.Open(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return trust, header{}, nil
	}
	if err != nil {
		return KeyBlocks{}, header{}, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxTrustBytes))
	if err != nil {
		return KeyBlocks{}, header{}, err
	}
	trust, top, err := parseTrust(raw, init)
	if err != nil {
		return KeyBlocks{}, header{}, fmt.Errorf("trust file %s: %w", s.path, err)
	}
	s.saved, s.keys = top.Time, len(trust.ids)
	return trust, top, nil
}

func parseTrust(raw []byte, init BlockID) (KeyBlocks, header, error) {
	var doc trustDoc
	if err := json.Unmarshal(raw, &doc); err != nil {
		return KeyBlocks{}, header{}, err
	}
	if doc.Version != trustVersion {
		return KeyBlocks{}, header{}, fmt.Errorf("version: got %d, want %d", doc.Version, trustVersion)
	}
	var trust KeyBlocks
	for _, t := range doc.KeyBlocks {
		id, err := t.id()
		if err != nil {
			return KeyBlocks{}, header{}, err
		}
		if trust, err = trust.with(id); err != nil {
			return KeyBlocks{}, header{}, err
		}
	}
	if !trust.Contains(init) {
		return KeyBlocks{}, header{}, fmt.Errorf("got another network's, want init block %s; remove the file if the config is right", init)
	}
	if doc.Time == 0 {
		return trust, header{}, nil
	}
	id, err := doc.Newest.id()
	if err != nil {
		return KeyBlocks{}, header{}, err
	}
	return trust, header{Block: Block{Seqno: id.Seqno, RootHash: id.RootHash, FileHash: id.FileHash, Time: time.Unix(doc.Time, 0).UTC()}}, nil
}

// note saves when a key block is new, or a while has passed.
func (s *trustStore) note(trust KeyBlocks, top header) error {
	if len(trust.ids) == s.keys && top.Time.Sub(s.saved) < saveEvery {
		return nil
	}
	return s.save(trust, top)
}

// save replaces the file in one step.
func (s *trustStore) save(trust KeyBlocks, top header) error {
	if s.path == "" {
		return nil
	}
	doc := trustDoc{Version: trustVersion, Newest: toTrusted(top.ID())}
	if !top.Time.IsZero() {
		doc.Time = top.Time.Unix()
	}
	for _, id := range trust.ids {
		doc.KeyBlocks = append(doc.KeyBlocks, toTrusted(id))
	}
	raw, err := json.Marshal(doc)
	if err != nil {
		return err
	}
	if err := replaceFile(s.path, raw); err != nil {
		return fmt.Errorf("lite: trust file: %w", err)
	}
	s.saved, s.keys = top.Time, len(trust.ids)
	return nil
}

func replaceFile(path string, raw []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(raw)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}
