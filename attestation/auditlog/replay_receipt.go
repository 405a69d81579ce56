package auditlog

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"time"
)

// sealGrace is how long after not_after an HPKE key still opens jobs (DESIGN section 4).
const sealGrace = 60 * time.Second

// chunk is a run of one section's receipts on its way through the goroutines
// that verify signatures.
type chunk struct {
	log  *logState
	sec  *section
	in   []item
	out  []checked
	err  error // reading ended here
	done chan struct{}
}

// item is a receipt as it was disclosed.
type item struct {
	cose     []byte
	conflict bool // somebody else shows another receipt at this place
}

// checked is what can be said of a receipt by itself and its log's keysets.
type checked struct {
	digest, leafHash Hash
	parsed, conflict bool
	index, cost      uint64
	finished         int64 // Unix milliseconds
	keyset           *keysetState
	named            *named    // nil: it names no sound checkpoint
	faults           []Finding // with Name, Got, Want and Reason alone
}

// named is a checkpoint that receipts name. Neighbours share one.
type named struct {
	Checkpoint
	raw []byte
}

func (c *checked) fault(name, got, want string) {
	c.faults = append(c.faults, Finding{Name: name, Got: got, Want: want})
}

func (c *checked) failed(name string, err error) {
	c.faults = append(c.faults, Finding{Name: name, Reason: err.Error()})
}

// work verifies chunks until the replay ends.
func (r *replay) work() {
	for {
		select {
		case <-r.ctx.Done():
			return
		case c := <-r.jobs:
			c.out = make([]checked, len(c.in))
			var last *named
			var scratch []byte
			for i, it := range c.in {
				c.out[i].leafHash, scratch = hashLeaf(scratch, it.cose)
				last = r.check(c, it, last, &c.out[i])
			}
			c.in = nil
			close(c.done)
		}
	}
}

// check makes every check on one receipt that needs no other receipt. It
// returns the checkpoint to try first on the next one.
func (r *replay) check(ch *chunk, it item, last *named, c *checked) *named {
	c.digest, c.conflict = sha256.Sum256(it.cose), it.conflict
	e, rec, err := parseReceipt(it.cose)
	if err != nil {
		c.failed("receipt.parse", err)
		return last
	}
	c.parsed, c.index, c.cost, c.finished = true, rec.Index, rec.Cost, rec.Finished
	if rec.Channel != ch.sec.Channel || rec.LogID != ch.sec.LogID {
		c.fault("receipt.section", fmt.Sprintf("channel %s of log %x", rec.Channel, rec.LogID), "those of the section")
	}
	k := ch.log.keysets[rec.KeysetDigest]
	if k == nil {
		c.fault("receipt.keyset", fmt.Sprintf("keyset %x", rec.KeysetDigest), "one that the log holds")
	} else {
		c.keyset = k
		if err := e.verify(k.SigningPublicKey); err != nil {
			c.failed("receipt.signature", err)
		}
		r.checkAgainstKeyset(&rec, k, c)
	}
	if r.cfg.Cost != nil && rec.Status != StatusRefused {
		if want, err := r.cfg.Cost(rec.Usage, rec.Prices); err != nil {
			c.failed("receipt.cost", err)
		} else if want != rec.Cost {
			c.fault("receipt.cost", fmt.Sprint(rec.Cost), fmt.Sprint(want))
		}
	}
	if len(rec.Checkpoint) == 0 {
		return last
	}
	if last == nil || !bytes.Equal(last.raw, rec.Checkpoint) {
		cp, err := ParseCheckpoint(rec.Checkpoint, ch.log.boot.LogPublicKey)
		if err != nil {
			c.failed("receipt.checkpoint", err)
			return last
		}
		last = &named{cp, rec.Checkpoint}
	}
	c.named = last
	return last
}

func (r *replay) checkAgainstKeyset(rec *Receipt, k *keysetState, c *checked) {
	if rec.WorkerID != k.WorkerID {
		c.fault("receipt.worker", rec.WorkerID.String(), k.WorkerID.String())
	}
	model := rec.Status == StatusRefused // perhaps for its model
	for _, m := range k.Models {
		model = model || m == rec.Model
	}
	if !model {
		c.fault("receipt.model", fmt.Sprintf("%s %s", rec.Model.Name, rec.Model.WeightsRoot), "a model of the keyset")
	}
	from, to := k.NotBefore*1000, k.NotAfter*1000+sealGrace.Milliseconds()
	if rec.Started < from || rec.Started > to {
		c.fault("receipt.time", fmt.Sprintf("started at %d", rec.Started), fmt.Sprintf("%d to %d", from, to))
	}
}
