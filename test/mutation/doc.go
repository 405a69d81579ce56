// Package mutation switches off one named check at a time, in a copy of the
// code, and expects a test to notice.
//
//	go test -tags slow ./test/mutation
package mutation
