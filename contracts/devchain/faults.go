package devchain

// Faults makes the network misbehave, for tests of those who rely on it. The
// chain itself stays sound: only what is answered or accepted changes.
type Faults struct {
	CorruptSignature   bool   // block signatures do not verify
	LieAccount         bool   // account states carry another balance than the proven one
	HideAccount        bool   // accounts are said to be absent, under a proof that prunes the path to them
	RelabelHead        bool   // the head's id names a seqno one above its header's
	FreezeHead         uint32 // not zero: this masterchain seqno is said to be the newest
	DropExternals      int    // this many accepted externals are lost
	DuplicateExternals bool   // each external is delivered twice
}

// SetFaults replaces the faults in force.
func (c *Chain) SetFaults(f Faults) {
	c.mu.Lock()
	c.faults = f
	c.mu.Unlock()
}

// copies says how often the next accepted external is delivered.
func (f *Faults) copies() int {
	switch {
	case f.DropExternals > 0:
		f.DropExternals--
		return 0
	case f.DuplicateExternals:
		return 2
	}
	return 1
}
