package tdx

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/google/go-tdx-guest/pcs"
)

// tcbStatus is a set of what is wrong with a TCB; the empty set is UpToDate.
// Statuses converge by union, which gives Intel's table (DCAP QVL,
// convergeTcbStatus): OutOfDate hides SWHardeningNeeded, Revoked hides all.
type tcbStatus uint8

const (
	swHardening tcbStatus = 1 << iota
	configuration
	outOfDate
	revoked
)

func statusOf(s pcs.TcbComponentStatus) (tcbStatus, error) {
	switch s {
	case pcs.TcbComponentStatusUpToDate:
		return 0, nil
	case pcs.TcbComponentStatusSwHardeningNeeded:
		return swHardening, nil
	case pcs.TcbComponentStatusConfigurationNeeded:
		return configuration, nil
	case pcs.TcbComponentStatusConfigurationAndSWHardeningNeeded:
		return configuration | swHardening, nil
	case pcs.TcbComponentStatusOutOfDate:
		return outOfDate, nil
	case pcs.TcbComponentStatusOutOfDateConfigurationNeeded:
		return outOfDate | configuration, nil
	case pcs.TcbComponentStatusRevoked:
		return revoked, nil
	}
	return revoked, fmt.Errorf("status %.40q is not known", s)
}

// String is Intel's name for the status.
func (s tcbStatus) String() string {
	has := func(bits tcbStatus) bool { return s&bits == bits }
	switch {
	case has(revoked):
		return string(pcs.TcbComponentStatusRevoked)
	case has(outOfDate | configuration):
		return string(pcs.TcbComponentStatusOutOfDateConfigurationNeeded)
	case has(outOfDate):
		return string(pcs.TcbComponentStatusOutOfDate)
	case has(configuration | swHardening):
		return string(pcs.TcbComponentStatusConfigurationAndSWHardeningNeeded)
	case has(configuration):
		return string(pcs.TcbComponentStatusConfigurationNeeded)
	case has(swHardening):
		return string(pcs.TcbComponentStatusSwHardeningNeeded)
	}
	return string(pcs.TcbComponentStatusUpToDate)
}

// verdict is a TCB's status, with where it came from.
type verdict struct {
	status     tcbStatus
	advisories []string
	from       []string // "platform OutOfDate", "module TDX_01 UpToDate", ...
}

// add converges v with one level that matched.
func (v *verdict) add(what string, l *pcs.TcbLevel) error {
	if l == nil {
		return fmt.Errorf("%s: no TCB level matches", what)
	}
	s, err := statusOf(l.TcbStatus)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	v.status |= s
	v.advisories = append(v.advisories, l.AdvisoryIDs...)
	if from := what + " " + s.String(); !slices.Contains(v.from, from) {
		v.from = append(v.from, from)
	}
	return nil
}

func (v *verdict) String() string { return v.status.String() + " (" + strings.Join(v.from, ", ") + ")" }

// evaluate converges the platform's, the TDX module's and the quoting
// enclave's TCB levels. A TDX 1.5 report has two SVNs of the module: the TD
// was launched under the first, and runs under the second since an update
// that kept it alive. Both count, for what the first could do is done.
func evaluate(c *collateral, p *pck, t *tdReport, qe *qeReport) (*verdict, error) {
	v := new(verdict)
	if err := v.platform(c, p, t.tcbSVN); err != nil {
		return nil, err
	}
	if t.v15 && t.tcbSVN2 != t.tcbSVN {
		var now verdict
		if err := now.platform(c, p, t.tcbSVN2); err != nil {
			return nil, fmt.Errorf("after update: %w", err)
		}
		if v.status&outOfDate != 0 && now.status&outOfDate == 0 {
			v.from = append(v.from, "since updated: relaunch advised")
		}
		v.status |= now.status
		v.advisories = append(v.advisories, now.advisories...)
		v.from = append(v.from, now.from...)
	}
	if err := v.add("qe", byISVSVN(c.qe.TcbLevels, uint32(qe.isvSVN))); err != nil {
		return nil, err
	}
	slices.Sort(v.advisories)
	v.advisories = slices.Compact(v.advisories)
	return v, nil
}

// platform adds the level that svn and the PCK reach, and the module's own.
func (v *verdict) platform(c *collateral, p *pck, svn [16]byte) error {
	if err := v.add("platform", platformLevel(c.tcb.TcbLevels, p, svn)); err != nil {
		return err
	}
	if svn[1] == 0 { // TDX 1.0: the platform's level covers the module
		return nil
	}
	m := moduleIdentity(&c.tcb, svn[1])
	if m == nil {
		return fmt.Errorf("module %s: no TCB level matches", moduleID(svn[1]))
	}
	return v.add("module "+m.ID, byISVSVN(m.TcbLevels, uint32(svn[0])))
}

// platformLevel is the first level all of whose SVNs are reached. Intel lists
// levels best first. With a TDX 1.5 module, components 1 and 2 are the module's
// own SVN and version, which its identity covers.
func platformLevel(levels []pcs.TcbLevel, p *pck, svn [16]byte) *pcs.TcbLevel {
	from := 0
	if svn[1] > 0 {
		from = 2
	}
	for i := range levels {
		t := &levels[i].Tcb
		if reaches(p.cpuSVN, t.SgxTcbcomponents, 0) && p.pceSVN >= t.Pcesvn && reaches(svn[:], t.TdxTcbcomponents, from) {
			return &levels[i]
		}
	}
	return nil
}

func reaches(got []byte, want []pcs.TcbComponent, from int) bool {
	for i := from; i < len(want); i++ {
		if got[i] < want[i].Svn {
			return false
		}
	}
	return true
}

func byISVSVN(levels []pcs.TcbLevel, svn uint32) *pcs.TcbLevel {
	for i := range levels {
		if svn >= levels[i].Tcb.Isvsvn {
			return &levels[i]
		}
	}
	return nil
}

func moduleID(version byte) string { return fmt.Sprintf("TDX_%02X", version) }

func moduleIdentity(t *pcs.TcbInfo, version byte) *pcs.TdxModuleIdentity {
	for i := range t.TdxModuleIdentities {
		if strings.EqualFold(t.TdxModuleIdentities[i].ID, moduleID(version)) {
			return &t.TdxModuleIdentities[i]
		}
	}
	return nil
}

// moduleVersions are those of the module that launched the TD and, where a
// TDX 1.5 report shows it, of the one it runs under now.
func moduleVersions(t *tdReport) []byte {
	if t.v15 && t.tcbSVN2[1] != t.tcbSVN[1] {
		return []byte{t.tcbSVN[1], t.tcbSVN2[1]}
	}
	return []byte{t.tcbSVN[1]}
}

func moduleKnown(info *pcs.TcbInfo, t *tdReport) bool {
	return !slices.ContainsFunc(moduleVersions(t), func(v byte) bool { return v > 0 && moduleIdentity(info, v) == nil })
}

// checkModule says whether the report is of a TDX module that Intel knows.
func checkModule(t *pcs.TcbInfo, td *tdReport) error {
	for _, version := range moduleVersions(td) {
		id := "TDX 1.0"
		want := t.TdxModule
		if version > 0 {
			id = moduleID(version)
			m := moduleIdentity(t, version)
			if m == nil {
				return fmt.Errorf("module version %s: not known to Intel's TCB info", id)
			}
			want = pcs.TdxModule{Mrsigner: m.Mrsigner, Attributes: m.Attributes, AttributesMask: m.AttributesMask}
		}
		if !bytes.Equal(td.mrSignerSEAM[:], want.Mrsigner.Bytes) {
			return fmt.Errorf("module %s: mrsignerseam: got %x, want %x", id, td.mrSignerSEAM, want.Mrsigner.Bytes)
		}
		if !masked(td.seamAttributes[:], want.AttributesMask.Bytes, want.Attributes.Bytes) {
			return fmt.Errorf("module %s: seam attributes: got %x, want %x under mask %x", id, td.seamAttributes, want.Attributes.Bytes, want.AttributesMask.Bytes)
		}
	}
	return nil
}

// intelQE is the vendor id that Intel's quoting enclaves put in a quote's header.
var intelQE = [16]byte{0x93, 0x9a, 0x72, 0x33, 0xf7, 0x9c, 0x4c, 0xa9, 0x94, 0x0a, 0x0d, 0xb3, 0x95, 0x7f, 0x06, 0x07}

// checkQE says whether the quoting enclave is the one that e identifies.
// Without it any owner of one genuine platform could sign TDX quotes.
func checkQE(e *pcs.EnclaveIdentity, q *quote) error {
	r := &q.qe
	switch {
	case q.vendor != intelQE:
		return fmt.Errorf("qe vendor id: got %x, want %x", q.vendor, intelQE)
	case !bytes.Equal(r.mrSigner[:], e.Mrsigner.Bytes):
		return fmt.Errorf("qe mrsigner: got %x, want %x", r.mrSigner, e.Mrsigner.Bytes)
	case r.isvProdID != e.IsvProdID:
		return fmt.Errorf("qe isvprodid: got %d, want %d", r.isvProdID, e.IsvProdID)
	case !masked(r.miscSelect[:], e.MiscselectMask.Bytes, e.Miscselect.Bytes):
		return fmt.Errorf("qe miscselect: got %x, want %x under mask %x", r.miscSelect, e.Miscselect.Bytes, e.MiscselectMask.Bytes)
	case !masked(r.attributes[:], e.AttributesMask.Bytes, e.Attributes.Bytes):
		return fmt.Errorf("qe attributes: got %x, want %x under mask %x", r.attributes, e.Attributes.Bytes, e.AttributesMask.Bytes)
	}
	return nil
}

// masked reports whether got under mask is want, all being of one length.
func masked(got, mask, want []byte) bool {
	if len(mask) != len(got) || len(want) != len(got) {
		return false
	}
	for i := range got {
		if got[i]&mask[i] != want[i] {
			return false
		}
	}
	return true
}
