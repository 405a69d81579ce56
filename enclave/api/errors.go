package api

import (
	"context"
	"errors"
	"io"
	"strings"
	"unicode"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"cocoon/attestation/channel"
)

const maxReasonBytes = 512

// RefusalError is a refusal as it travels: a gRPC code and a named check. What
// the caller does next follows from the code: Retryable, AttestAgain, or stop.
type RefusalError struct {
	Code   codes.Code
	Name   string // "open.replay", "attest.first", ...; empty if the peer gave none
	Reason string // never quotes a prompt
}

func (e *RefusalError) Error() string {
	if e.Name == "" {
		return e.Code.String() + ": " + e.Reason
	}
	return e.Name + ": " + e.Reason
}

// Retryable reports whether another worker may take the job: this one is gone,
// full or shutting down.
func (e *RefusalError) Retryable() bool {
	return e.Code == codes.Unavailable || e.Code == codes.ResourceExhausted
}

// AttestAgain reports whether a new connection to the same worker may help.
func (e *RefusalError) AttestAgain() bool { return e.Code == codes.FailedPrecondition }

// Refuse makes the error that a WorkerServer answers with.
func Refuse(code codes.Code, name, reason string) error { return &RefusalError{code, name, reason} }

// toStatus is how an error of a handler travels. An error that is not a refusal
// is told to the peer without its text, which may be the worker's own business.
func toStatus(err error) error {
	var refusal *RefusalError
	var refused *channel.RefusedError
	var broken *channel.BrokenError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &refusal):
		return status.Error(refusal.Code, refusal.Name+": "+refusal.Reason)
	case errors.As(err, &refused):
		return status.Error(refusedCode(refused.Name), refused.Error())
	case errors.As(err, &broken):
		return status.Error(codes.Aborted, broken.Error())
	case errors.Is(err, context.Canceled):
		return status.Error(codes.Canceled, "cancelled: the call was cancelled")
	case errors.Is(err, context.DeadlineExceeded):
		return status.Error(codes.DeadlineExceeded, "deadline: the call took too long")
	}
	if _, ok := status.FromError(err); ok {
		return err // gRPC's own, from Send or Recv
	}
	return status.Error(codes.Internal, "internal: the worker failed")
}

func refusedCode(name string) codes.Code {
	switch name {
	case "open.keyset", "open.key-gone":
		return codes.FailedPrecondition
	case "open.full":
		return codes.ResourceExhausted
	case "open.replay":
		return codes.AlreadyExists
	case "open.channel", "open.signature":
		return codes.PermissionDenied
	}
	return codes.InvalidArgument
}

// fromStatus is what a client makes of it. io.EOF passes.
func fromStatus(err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	s, ok := status.FromError(err)
	if !ok {
		return err
	}
	text := printable(s.Message())
	name, reason, found := strings.Cut(text, ": ")
	if !found || !checkName(name) {
		name, reason = "", text
	}
	return &RefusalError{s.Code(), name, reason}
}

// checkName reports whether s reads as a check's name, "open.key-gone".
func checkName(s string) bool {
	return len(s) > 0 && len(s) <= 64 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789.-") == ""
}

// printable bounds a text that the peer wrote, and makes it safe to show.
func printable(s string) string {
	if len(s) > maxReasonBytes {
		s = s[:maxReasonBytes]
	}
	return strings.Map(func(r rune) rune {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}
