package auditlog

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strconv"

	"golang.org/x/mod/sumdb/note"

	"cocoon/attestation"
)

// MaxCheckpointBytes bounds a signed checkpoint.
const MaxCheckpointBytes = 1 << 10

// Checkpoint is a log's size and root as its key signed them
// (C2SP tlog-checkpoint: a signed note of three lines, with one signature).
type Checkpoint struct {
	LogID [32]byte
	Size  uint64
	Root  [32]byte
}

// Origin is the first line of a log's checkpoints, and the name of its key.
func Origin(logID [32]byte) string { return "cocoon/log/" + hex.EncodeToString(logID[:]) }

// text is the signed part of the note.
func (c Checkpoint) text() string {
	return Origin(c.LogID) + "\n" + strconv.FormatUint(c.Size, 10) + "\n" + base64.StdEncoding.EncodeToString(c.Root[:]) + "\n"
}

// SignCheckpoint signs a checkpoint with the log's key, whose id it must carry.
func SignCheckpoint(key ed25519.PrivateKey, c Checkpoint) ([]byte, error) {
	s, err := NoteSigner(key)
	if err != nil {
		return nil, err
	}
	if s.Name() != Origin(c.LogID) {
		return nil, fmt.Errorf("checkpoint: log_id: got %x, want that of the key", c.LogID)
	}
	return note.Sign(&note.Note{Text: c.text()}, s)
}

// ParseCheckpoint verifies a checkpoint under the log's public key. It refuses
// another origin, extension lines, further signatures and any other spelling.
func ParseCheckpoint(raw []byte, logPublicKey [32]byte) (Checkpoint, error) {
	if len(raw) > MaxCheckpointBytes {
		return Checkpoint{}, fmt.Errorf("checkpoint: size: got %d bytes, want at most %d", len(raw), MaxCheckpointBytes)
	}
	c, err := unverifiedCheckpoint(raw)
	if err != nil {
		return Checkpoint{}, err
	}
	if id := attestation.LogID(logPublicKey); c.LogID != id {
		return Checkpoint{}, fmt.Errorf("checkpoint: log id: got %x, want %x", c.LogID, id)
	}
	v, err := noteVerifier(logPublicKey)
	if err != nil {
		return Checkpoint{}, err
	}
	n, err := note.Open(raw, note.VerifierList(v))
	if err != nil {
		return Checkpoint{}, fmt.Errorf("checkpoint: %w", err)
	}
	if len(n.Sigs) != 1 || len(n.UnverifiedSigs) != 0 {
		return Checkpoint{}, fmt.Errorf("checkpoint: signatures: got %d of the log and %d others, want 1 and 0", len(n.Sigs), len(n.UnverifiedSigs))
	}
	// note drops repeated signatures and reads loose base64.
	sig, err := base64.StdEncoding.Strict().DecodeString(n.Sigs[0].Base64)
	if err != nil || string(raw) != c.text()+"\n— "+v.Name()+" "+base64.StdEncoding.EncodeToString(sig)+"\n" {
		return Checkpoint{}, fmt.Errorf("checkpoint: signature is not in its one spelling")
	}
	return c, nil
}

// unverifiedCheckpoint reads the three lines, in their one spelling.
func unverifiedCheckpoint(raw []byte) (Checkpoint, error) {
	lines := bytes.SplitN(raw, []byte("\n"), 5)
	if len(lines) != 5 || len(lines[3]) != 0 {
		return Checkpoint{}, fmt.Errorf("checkpoint: got %d lines before the signature, want 3", len(lines)-1)
	}
	var c Checkpoint
	id, ok := bytes.CutPrefix(lines[0], []byte("cocoon/log/"))
	if n, err := hex.Decode(c.LogID[:], id[:min(len(id), 64)]); !ok || err != nil || n != 32 {
		return Checkpoint{}, fmt.Errorf("checkpoint: origin: got %.90q, want cocoon/log/HEX", lines[0])
	}
	var err error
	if c.Size, err = strconv.ParseUint(string(lines[1]), 10, 63); err != nil {
		return Checkpoint{}, fmt.Errorf("checkpoint: tree size: got %.24q, want a number", lines[1])
	}
	root, err := base64.StdEncoding.Strict().DecodeString(string(lines[2]))
	if err != nil || len(root) != 32 {
		return Checkpoint{}, fmt.Errorf("checkpoint: root: got %.60q, want 32 bytes in base64", lines[2])
	}
	c.Root = [32]byte(root)
	if !bytes.HasPrefix(raw, []byte(c.text()+"\n")) {
		return Checkpoint{}, fmt.Errorf("checkpoint: text is not in its one spelling")
	}
	return c, nil
}

// NoteSigner makes the signer of a log's checkpoints from its key.
func NoteSigner(key ed25519.PrivateKey) (note.Signer, error) {
	if len(key) != ed25519.PrivateKeySize {
		return nil, fmt.Errorf("log key: got %d bytes, want %d", len(key), ed25519.PrivateKeySize)
	}
	pub := [32]byte(key.Public().(ed25519.PublicKey))
	v, err := noteVerifier(pub)
	if err != nil {
		return nil, err
	}
	return noteSigner{v, key}, nil
}

type noteSigner struct {
	v   note.Verifier
	key ed25519.PrivateKey
}

func (s noteSigner) Name() string                    { return s.v.Name() }
func (s noteSigner) KeyHash() uint32                 { return s.v.KeyHash() }
func (s noteSigner) Sign(msg []byte) ([]byte, error) { return ed25519.Sign(s.key, msg), nil }

func noteVerifier(logPublicKey [32]byte) (note.Verifier, error) {
	vkey, err := note.NewEd25519VerifierKey(Origin(attestation.LogID(logPublicKey)), logPublicKey[:])
	if err != nil {
		return nil, fmt.Errorf("log key: %w", err)
	}
	return note.NewVerifier(vkey)
}
