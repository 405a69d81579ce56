//go:build !amd64

package gguf

// availableKernels lists what this processor can run, best last.
func availableKernels() []kernels { return []kernels{portableKernels()} }
