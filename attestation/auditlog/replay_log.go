package auditlog

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"cocoon/attestation"
)

// logState is one log while it is replayed.
type logState struct {
	boot    Boot
	id      Hash
	first   bool
	ok      bool // the tree is the one that was signed
	cp      Checkpoint
	raw     []byte
	hashes  tlog.HashReader
	roots   map[uint64]Hash
	later   Checkpoint // read since, if the log grew meanwhile
	pred    *PredecessorEntry
	summary int // in Report.Logs
	keysets map[Hash]*keysetState
	bundles []*bundleState
	covers  []cover

	laterHashes tlog.HashReader
}

// keysetState is a keyset that the log holds.
type keysetState struct {
	attestation.Keyset
	digest   Hash
	leaf     uint64 // of its first entry
	closed   uint64 // leaf of its epoch-closed entry; 0 is open, since leaf 0 is the predecessor's
	receipts uint64
	attested bool
}

type bundleState struct {
	leaf   uint64
	digest Hash
	keyset *keysetState
}

// cover is an anchor that proves the leaves below size to be older than it.
type cover struct {
	by   time.Time
	size uint64
}

// indexed is an entry and its leaf.
type indexed struct {
	leaf  uint64
	entry Entry
}

// readLog verifies the checkpoint, recomputes the tree and takes in everything but receipts.
func (r *replay) readLog(l *logState) {
	log := hexID(l.id)
	var err error
	if l.raw, err = r.src.Checkpoint(r.ctx, l.id); err == nil {
		l.cp, err = ParseCheckpoint(l.raw, l.boot.LogPublicKey)
	}
	if err != nil {
		r.find(Finding{Name: "log.checkpoint", Log: log, Reason: err.Error()})
		return
	}
	l.hashes, l.roots, l.keysets = hashReader(r.ctx, r.src, l.cp), make(map[uint64]Hash), make(map[Hash]*keysetState)
	var entries []indexed
	sum := LogSummary{Boot: l.boot.Number, LogID: log, Size: l.cp.Size, Root: hexID(l.cp.Root)}
	var bad []Finding
	err = readLeaves(r.ctx, r.src, l.cp, func(i uint64, leaf []byte) error {
		e, err := ParseEntry(leaf)
		if err != nil {
			if len(bad) < MaxFindings {
				bad = append(bad, Finding{Name: "log.entry", Log: log, Subject: fmt.Sprintf("leaf %d", i), Reason: err.Error()})
			}
			return nil
		}
		if _, ok := e.(ReceiptEntry); ok {
			sum.Receipts++
			return nil
		}
		if len(entries) == maxEntriesKept {
			return fmt.Errorf("got more than %d entries that are not receipts", maxEntriesKept)
		}
		entries = append(entries, indexed{i, e})
		return nil
	})
	if err != nil {
		r.find(Finding{Name: "log.tree", Log: log, Reason: err.Error()})
		return
	}
	l.ok = true
	for _, f := range bad {
		r.find(f)
	}
	for _, e := range entries {
		r.entry(l, e)
	}
	if l.pred == nil && l.cp.Size > 0 {
		r.find(Finding{Name: "log.entry", Log: log, Subject: "leaf 0", Reason: "it does not name the predecessor"})
	}
	sum.Keysets = uint64(len(l.keysets))
	if sum.Receipts > 0 && len(l.keysets) == 0 {
		r.find(Finding{Name: "log.attested", Log: log, Reason: "no keyset stands behind its receipts"})
	}
	l.summary = len(r.Logs)
	r.Logs = append(r.Logs, sum)
	for _, raw := range r.cfg.Checkpoints {
		if c, err := ParseCheckpoint(raw, l.boot.LogPublicKey); err == nil {
			r.checkpoint(l, c, raw, Finding{Log: log, Subject: "a checkpoint seen elsewhere"})
		}
	}
}

// maxEntriesKept bounds the entries of one log that are not receipts: ten years of epochs.
const maxEntriesKept = 1 << 20

func (r *replay) entry(l *logState, e indexed) {
	f := Finding{Log: hexID(l.id), Subject: fmt.Sprintf("leaf %d", e.leaf)}
	switch v := e.entry.(type) {
	case PredecessorEntry:
		if e.leaf != 0 {
			f.Name, f.Reason = "log.entry", "a predecessor that is not the first leaf"
			r.find(f)
			return
		}
		l.pred = &v
	case EpochClosedEntry:
		for _, k := range l.keysets {
			if k.Epoch == v.Epoch && k.closed == 0 {
				k.closed = e.leaf
			}
		}
	case KeysetEntry:
		r.keyset(l, e.leaf, v, f)
	}
}

// keyset takes in a keyset entry and its bundle. The bundle is verified later, when its time is known.
func (r *replay) keyset(l *logState, leaf uint64, e KeysetEntry, f Finding) {
	b, err := r.bundle(e.Bundle)
	if err != nil {
		f.Name, f.Reason = "bundle.present", err.Error()
		r.find(f)
		return
	}
	f.Name = "bundle.keyset"
	k, err := attestation.ParseKeyset(b.Keyset)
	if err == nil {
		switch digest := sha256.Sum256(b.Keyset); {
		case digest != e.Keyset:
			err = fmt.Errorf("keyset: got %x, the entry names %x", digest, e.Keyset)
		case k.Epoch != e.Epoch:
			err = fmt.Errorf("epoch: got %d, the entry names %d", k.Epoch, e.Epoch)
		case k.LogPublicKey != l.boot.LogPublicKey:
			err = fmt.Errorf("log_public_key: got %x, want %x", k.LogPublicKey, l.boot.LogPublicKey)
		case k.WorkerID != l.boot.WorkerID:
			err = fmt.Errorf("worker_id: got %s, want %s", k.WorkerID, l.boot.WorkerID)
		case k.BootID != l.boot.BootID:
			err = fmt.Errorf("boot_id: got %x, want %x", k.BootID, l.boot.BootID)
		}
	}
	if err != nil {
		f.Reason = err.Error()
		r.find(f)
		return
	}
	ks := l.keysets[e.Keyset]
	if ks == nil {
		ks = &keysetState{Keyset: *k, digest: e.Keyset, leaf: leaf}
		ks.HPKEPublicKey = nil // a kilobyte that nothing here asks for
		for _, other := range l.keysets {
			if other.Epoch == ks.Epoch || other.Epoch > ks.Epoch && other.leaf < leaf {
				f.Name, f.Reason = "bundle.epoch", fmt.Sprintf("epoch %d after epoch %d at leaf %d", ks.Epoch, other.Epoch, other.leaf)
				r.find(f)
				break
			}
		}
		l.keysets[e.Keyset] = ks
	}
	if ks.closed != 0 {
		f.Name, f.Reason = "bundle.epoch", fmt.Sprintf("epoch %d was closed at leaf %d", ks.Epoch, ks.closed)
		r.find(f)
	}
	l.bundles = append(l.bundles, &bundleState{leaf, e.Bundle, ks})
}

// bundle reads a bundle and holds it to its digest.
func (r *replay) bundle(digest Hash) (*attestation.Bundle, error) {
	raw, err := r.src.Bundle(r.ctx, digest)
	if err != nil {
		return nil, err
	}
	if got := sha256.Sum256(raw); got != digest {
		return nil, fmt.Errorf("bundle: SHA-256: got %x, want %x", got, digest)
	}
	return attestation.ParseBundle(raw)
}

// checkpoint compares a signed checkpoint of l with the tree.
// f says where it came from. It reports whether the two agree.
func (r *replay) checkpoint(l *logState, c Checkpoint, raw []byte, f Finding) bool {
	hashes := l.hashes
	if c.Size > l.cp.Size {
		if hashes = r.grown(l, c.Size); hashes == nil {
			f.Name, f.Got, f.Want = "log.truncated", fmt.Sprintf("%d leaves", l.cp.Size), fmt.Sprintf("at least %d, as signed", c.Size)
			r.find(f)
			return false
		}
	}
	root, ok := l.roots[c.Size]
	if !ok {
		var err error
		if root, err = rootAt(c.Size, hashes); err != nil {
			f.Name, f.Reason = "log.tree", err.Error()
			r.find(f)
			return false
		}
		if len(l.roots) >= 4096 {
			clear(l.roots)
		}
		l.roots[c.Size] = root
	}
	if root == c.Root {
		return true
	}
	f.Name, f.Got, f.Want = "log.fork", fmt.Sprintf("root %x at size %d", root, c.Size), fmt.Sprintf("%x, as signed", c.Root)
	r.find(f)
	if len(r.Forks) < MaxFindings {
		if p, err := ProveFork(r.ctx, r.src, l.boot.LogPublicKey, raw, l.raw); err == nil && p != nil {
			r.Forks = append(r.Forks, p)
		}
	}
	return false
}

// grown reads the checkpoint again, of a log that may still be running. It
// returns nil unless the log now reaches size and extends what was replayed.
func (r *replay) grown(l *logState, size uint64) tlog.HashReader {
	if l.later.Size < size {
		raw, err := r.src.Checkpoint(r.ctx, l.id)
		if err != nil {
			return nil
		}
		c, err := ParseCheckpoint(raw, l.boot.LogPublicKey)
		if err != nil || c.Size < size {
			return nil
		}
		hashes := hashReader(r.ctx, r.src, c)
		if root, err := rootAt(l.cp.Size, hashes); err != nil || root != l.cp.Root {
			return nil
		}
		l.later, l.laterHashes = c, hashes
	}
	return l.laterHashes
}

// chain checks that each boot's log names the one before as it stands, and
// hands on what that proves: an anchor over a log's first leaf also covers
// everything its predecessor's checkpoint does.
func (r *replay) chain() {
	for i := len(r.logs) - 1; i >= 0; i-- {
		l := r.logs[i]
		if l.pred == nil {
			continue
		}
		f := Finding{Name: "log.predecessor", Log: hexID(l.id), Subject: fmt.Sprintf("boot %d", l.boot.Number)}
		if i == 0 {
			if *l.pred != (PredecessorEntry{}) {
				f.Got, f.Want = "log "+hexID(l.pred.LogID), "none before the first boot"
				r.find(f)
			}
			continue
		}
		before := r.logs[i-1]
		switch {
		case l.pred.LogID != before.id:
			f.Got, f.Want = "log "+hexID(l.pred.LogID), "log "+hexID(before.id)
			r.find(f)
		case !before.ok:
			f.Reason = "the predecessor could not be read"
			r.skip(f)
		case before.cp.Size > l.pred.Size: // somebody hid leaves from the boot
			f.Name, f.Got, f.Want = "log.truncated", fmt.Sprintf("%d leaves named", l.pred.Size), fmt.Sprintf("%d, which the predecessor signed", before.cp.Size)
			r.find(f)
		default:
			named := Checkpoint{before.id, l.pred.Size, l.pred.Root}
			if l.pred.Size == 0 && l.pred.Root == (Hash{}) {
				continue // the boot before ended before its log began
			}
			if r.predecessorRoot(before, named, f) {
				if by, ok := l.provenBy(0); ok {
					before.covers = append(before.covers, cover{by, named.Size})
				}
			}
		}
	}
}

func (r *replay) predecessorRoot(before *logState, named Checkpoint, f Finding) bool {
	if named.Size > before.cp.Size {
		f.Name, f.Got, f.Want = "log.truncated", fmt.Sprintf("%d leaves", before.cp.Size), fmt.Sprintf("at least %d, as the next boot names", named.Size)
		r.find(f)
		return false
	}
	root, err := rootAt(named.Size, before.hashes)
	if err != nil {
		f.Reason = err.Error()
		r.find(f)
		return false
	}
	if root != named.Root {
		f.Got, f.Want = fmt.Sprintf("root %x at size %d", named.Root, named.Size), fmt.Sprintf("%x", root)
		r.find(f)
		return false
	}
	return true
}

// provenBy is the time of the first anchor that covers a leaf.
func (l *logState) provenBy(leaf uint64) (time.Time, bool) {
	var by time.Time
	for _, c := range l.covers {
		if c.size > leaf && (by.IsZero() || c.by.Before(by)) {
			by = c.by
		}
	}
	return by, !by.IsZero()
}

// bundles verifies every bundle as of the start of its keyset's validity,
// which lies between its beacon and the anchor that covers its leaf.
func (r *replay) bundles() {
	for _, l := range r.logs {
		for _, b := range l.bundles {
			r.verifyBundle(l, b)
		}
		for _, k := range l.sortedKeysets() {
			if k.receipts == 0 || k.attested || r.cfg.VerifyBundle == nil {
				continue
			}
			r.find(Finding{Name: "receipt.attested", Log: hexID(l.id), Subject: fmt.Sprintf("keyset %x", k.digest), Reason: fmt.Sprintf("%d receipts hang from a key that no accepted bundle attests", k.receipts)})
		}
	}
	if r.cfg.VerifyBundle == nil {
		r.skip(Finding{Name: "bundle.verify", Reason: "nothing to verify bundles with"})
	}
}

func (l *logState) sortedKeysets() []*keysetState {
	var all []*keysetState
	for _, k := range l.keysets {
		all = append(all, k)
	}
	slices.SortFunc(all, func(a, b *keysetState) int { return bytes.Compare(a.digest[:], b.digest[:]) })
	return all
}

func (r *replay) verifyBundle(l *logState, b *bundleState) {
	at := time.Unix(b.keyset.NotBefore, 0).UTC()
	f := Finding{Log: hexID(l.id), Subject: fmt.Sprintf("leaf %d", b.leaf)}
	sum := BundleSummary{LogID: hexID(l.id), Leaf: b.leaf, Bundle: hexID(b.digest), Epoch: b.keyset.Epoch, At: at.Unix(), Receipts: b.keyset.receipts}
	by, ok := l.provenBy(b.leaf)
	switch {
	case !ok:
		f.Name, f.Reason = "bundle.time", "time unproven: no anchor covers the leaf"
		r.skip(f)
	case by.Before(at):
		f.Name, f.Got, f.Want = "bundle.time", "not before "+at.Format(time.RFC3339), "at most "+by.UTC().Format(time.RFC3339)+", when it was anchored"
		r.find(f)
	default:
		sum.ProvenBy = by.Unix()
	}
	f.Got, f.Want, f.Reason = "", "", ""
	if r.cfg.VerifyBundle != nil {
		f.Name = "bundle.verify"
		doc, err := r.bundle(b.digest)
		var res *attestation.Result
		if err == nil {
			if res = r.cfg.VerifyBundle(doc, at); res == nil {
				err = errors.New("no result")
			} else {
				sum.Verdict, sum.Assurance = res.Verdict, res.Assurance
				err = res.Err()
			}
		}
		switch {
		case err != nil:
			f.Reason = err.Error()
			r.find(f)
		case !res.Complete:
			_, err := res.Verified()
			f.Reason = fmt.Sprintf("accepted, but not complete: %v", err)
			r.skip(f)
			b.keyset.attested = true
		default:
			b.keyset.attested = true
		}
	}
	r.Bundles = append(r.Bundles, sum)
}
