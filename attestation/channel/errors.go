package channel

import (
	"errors"
	"fmt"
)

// RefusedError says that nothing was opened, and which check refused it:
// session.* (Open), job.* (Session.NewJob) or open.* (EpochKeys.Accept).
type RefusedError struct {
	Name string // "open.signature", "open.replay", ...
	Err  error  // may be nil
}

func (e *RefusedError) Error() string {
	if e.Err == nil {
		return e.Name + ": refused"
	}
	return e.Name + ": " + e.Err.Error()
}

func (e *RefusedError) Unwrap() error { return e.Err }

func refuse(name, format string, args ...any) error {
	return &RefusedError{name, fmt.Errorf(format, args...)}
}

// BrokenError says that a job is dead: its stream was not what its peer sent,
// or was used against its rules. Every later call returns it too.
type BrokenError struct {
	Name string // "answer.sequence", "answer.truncated", "frames.sequence", ...
	Err  error
}

func (e *BrokenError) Error() string { return e.Name + ": " + e.Err.Error() }
func (e *BrokenError) Unwrap() error { return e.Err }

var (
	errNoJob      = errors.New("no job was opened")
	errNoHello    = errors.New("answer: a filler cannot be the first frame")
	errNotInOrder = errors.New("does not open as the next frame: lost, repeated, reordered or changed on the way")
)
