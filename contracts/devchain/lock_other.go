//go:build !unix

package devchain

import "os"

// lock does nothing where there is no flock: one process per folder is up to the user.
func lock(*os.File) error { return nil }
