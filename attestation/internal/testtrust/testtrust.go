// Package testtrust holds the one permission to accept evidence of software
// roots. It is internal to attestation, and only softtee hands it out, so that
// a program that does not link softtee cannot hold it.
package testtrust

// Permission is to accept verdicts with assurance "test". Its zero value does not.
type Permission struct{ granted bool }

// Grant makes the permission.
func Grant() Permission { return Permission{granted: true} }

// Granted reports whether p allows test assurance.
func (p Permission) Granted() bool { return p.granted }
