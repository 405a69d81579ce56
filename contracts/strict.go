package contracts

import (
	"bytes"
	"fmt"

	"github.com/xssnick/tonutils-go/tvm/cell"

	"cocoon/attestation"
)

// ordinary refuses trees that hold an exotic cell (a pruned branch, a library reference) or more than limit
// cells, counting a shared cell each time it is reached, so that no input makes a parser work for long.
func ordinary(root *cell.Cell, limit int) error {
	if root == nil {
		return fmt.Errorf("cell: got none")
	}
	left := limit
	var walk func(c *cell.Cell) error
	walk = func(c *cell.Cell) error {
		if left--; left < 0 {
			return fmt.Errorf("cells: got more than %d", limit)
		}
		if c.IsSpecial() {
			return fmt.Errorf("cell: got an exotic one, want ordinary cells")
		}
		for i := 0; i < int(c.RefsNum()); i++ {
			ref, err := c.PeekRef(i)
			if err != nil {
				return fmt.Errorf("cell: reference %d: %w", i, err)
			}
			if err := walk(ref); err != nil {
				return err
			}
		}
		return nil
	}
	return walk(root)
}

// reader reads one cell in order and keeps the first error, which names the field.
type reader struct {
	s   *cell.Slice
	err error
}

func read(c *cell.Cell) *reader {
	s, err := c.BeginParse()
	return &reader{s: s, err: err}
}

func (r *reader) fail(field string, err error) {
	if r.err == nil && err != nil {
		r.err = fmt.Errorf("%s: %w", field, err)
	}
}

func (r *reader) uint(field string, bits uint) uint64 {
	if r.err != nil {
		return 0
	}
	v, err := r.s.LoadUInt(bits)
	r.fail(field, err)
	return v
}

func (r *reader) bytes32(field string) (out [32]byte) {
	if r.err != nil {
		return out
	}
	b, err := r.s.LoadSlice(256)
	if err != nil {
		r.fail(field, err)
		return out
	}
	return [32]byte(b)
}

// coins reads nano-coins; more than uint64 holds is refused.
func (r *reader) coins(field string) uint64 {
	if r.err != nil {
		return 0
	}
	v, err := r.s.LoadCoins()
	r.fail(field, err)
	return v
}

func (r *reader) address(field string) (out attestation.Address) {
	if r.err != nil {
		return out
	}
	a, err := r.s.LoadAddr()
	if err == nil {
		out, err = FromTON(a)
	}
	r.fail(field, err)
	return out
}

// optionalAddress gives the zero address for none.
func (r *reader) optionalAddress(field string) (out attestation.Address) {
	if r.err != nil {
		return out
	}
	if v, err := r.s.PreloadUInt(2); err == nil && v == 0 {
		r.uint(field, 2)
		return out
	}
	return r.address(field)
}

func (r *reader) ref(field string) *cell.Cell {
	if r.err != nil {
		return nil
	}
	c, err := r.s.LoadRefCell()
	r.fail(field, err)
	return c
}

func (r *reader) maybeRef(field string) *cell.Cell {
	if r.uint(field, 1) == 0 {
		return nil
	}
	return r.ref(field)
}

// op reads an n-bit constructor tag.
func (r *reader) op(want uint64, bits uint) {
	if got := r.uint("op", bits); r.err == nil && got != want {
		r.err = fmt.Errorf("op: got %#x, want %#x", got, want)
	}
}

// end is the first error, or that something is left over.
func (r *reader) end() error {
	if r.err != nil {
		return r.err
	}
	if b, n := r.s.BitsLeft(), r.s.RefsNum(); b != 0 || n != 0 {
		return fmt.Errorf("trailing data: got %d bits and %d references, want none", b, n)
	}
	return nil
}

// same refuses cells that say the same thing in other bits: a padded amount, an odd dictionary.
func same(got *cell.Cell, built *cell.Cell, err error) error {
	if err != nil {
		return err
	}
	if !bytes.Equal(got.Hash(), built.Hash()) {
		return fmt.Errorf("encoding: got cell %x, want the canonical %x", got.Hash(), built.Hash())
	}
	return nil
}
