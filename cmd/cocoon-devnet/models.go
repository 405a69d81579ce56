package main

import (
	"context"
	"fmt"
	"net/url"
	"path/filepath"

	"cocoon/attestation"
	"cocoon/enclave/engine"
	"cocoon/enclave/engine/gguf"
	"cocoon/enclave/engine/openaihttp"
	"cocoon/enclave/engine/seed"
)

// loadable reads which models the options name, without keeping them loaded.
func loadable(opt options) ([]modelFile, error) {
	var out []modelFile
	if opt.engineURL != "" {
		e, err := httpEngine(context.Background(), opt.engineURL)
		if err != nil {
			return nil, err
		}
		for _, m := range e.Models() {
			out = append(out, modelFile{Model: attestation.Model{Name: m.Name, WeightsRoot: m.WeightsRoot}})
		}
		return out, nil
	}
	files := []string(opt.models)
	if len(files) == 0 {
		files = []string{""}
	}
	for _, f := range files {
		if f != "" {
			abs, err := filepath.Abs(f)
			if err != nil {
				return nil, err
			}
			f = abs
		}
		e, err := ggufEngine(f)
		if err != nil {
			return nil, err
		}
		m := e.Models()[0]
		e.Close()
		for _, o := range out {
			if o.Name == m.Name {
				return nil, fmt.Errorf("--model: two files hold a model named %q", m.Name)
			}
		}
		out = append(out, modelFile{Model: attestation.Model{Name: m.Name, WeightsRoot: m.WeightsRoot}, File: f})
	}
	return out, nil
}

// ggufEngine loads a file, or the embedded toy where there is none.
func ggufEngine(file string) (*gguf.Engine, error) {
	if file == "" {
		return gguf.OpenBytes(seed.Bytes(), gguf.Config{})
	}
	return gguf.OpenFile(file, gguf.Config{})
}

// mostContext is assumed of an engine that does not state its context, as vLLM
// and SGLang do; one with less refuses longer prompts itself.
const mostContext = 128 << 10

func httpEngine(ctx context.Context, base string) (engine.Engine, error) {
	if u, err := url.Parse(base); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("--engine-url: got %q, want http://HOST:PORT", base)
	}
	return openaihttp.New(ctx, openaihttp.Config{BaseURL: base, ContextTokens: mostContext})
}

// engines loads what the network serves.
func (n *network) engines(ctx context.Context) (engine.Engine, error) {
	if n.EngineURL != "" {
		return httpEngine(ctx, n.EngineURL)
	}
	var list []engine.Engine
	for _, m := range n.Models {
		e, err := ggufEngine(m.File)
		if err != nil {
			return nil, err
		}
		if got := e.Models()[0]; got.WeightsRoot != m.WeightsRoot {
			return nil, fmt.Errorf("model %s: weights root: got %s, want %s as the network was founded with", m.Name, got.WeightsRoot, m.WeightsRoot)
		}
		list = append(list, e)
	}
	return engine.NewMux(list...)
}
