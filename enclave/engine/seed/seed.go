// Package seed holds a toy chat model that really runs.
//
// It is one GGUF file: 2.36 million parameters, llama architecture, Q8_0,
// ChatML, a byte-fallback vocabulary of 2,048 pieces, trained from scratch on
// seeded, generated dialogues. It greets, counts, lists, tells template
// stories and knows most of the capitals it was shown; its sums are mostly
// wrong. It exists so that a fresh machine performs real inference with
// nothing downloaded, and its answers must not be relied on for anything.
//
// Some of the dialogues quote noun glosses of WordNet 3.0, whose notice is in
// LICENSE.WordNet and must stay with every copy of the file.
package seed

import _ "embed"

//go:embed seed.gguf
var model string

//go:embed LICENSE.WordNet
var notice string

// Notice is the text that every copy of the model carries with it.
func Notice() string { return notice }

// Bytes returns the GGUF file. The slice is a copy, so a caller cannot change
// what a later caller loads.
func Bytes() []byte { return []byte(model) }
