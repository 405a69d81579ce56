package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/BurntSushi/toml"

	"cocoon/attestation"
	"cocoon/attestation/canonical"
	"cocoon/enclave"
	"cocoon/enclave/engine"
	"cocoon/enclave/engine/gguf"
	"cocoon/enclave/engine/openaihttp"
)

// file is worker.toml.
type file struct {
	WorkerID  attestation.Address  `toml:"worker_id"`
	Payout    attestation.Address  `toml:"payout"`
	Redeemer  *attestation.Address `toml:"redeemer"` // by default the payout address
	Prices    map[string]prices    `toml:"prices"`   // by model
	Models    []string             `toml:"models"`   // GGUF files for the embedded engine
	EngineURL string               `toml:"engine_url"`
	Context   int                  `toml:"context_tokens"` // where the engine's model list does not say

	Listen     string `toml:"listen"`
	TONConfig  string `toml:"ton_config"`
	Store      string `toml:"store"`      // folder: log, receipts, vouchers
	Collateral string `toml:"collateral"` // folder: the vendor's signed statements
	Release    string `toml:"release"`    // manifest, canonical CBOR
	Signatures string `toml:"release_signatures"`
}

// prices are nano per million tokens.
type prices struct {
	Prompt, Cached, Completion, Reasoning uint64
}

const maxConfig = 64 << 10

func readConfig(path string) (*file, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if len(b) > maxConfig {
		return nil, fmt.Errorf("%s: got %d bytes, want at most %d", path, len(b), maxConfig)
	}
	var f file
	md, err := toml.Decode(string(b), &f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if un := md.Undecoded(); len(un) > 0 {
		return nil, fmt.Errorf("%s: unknown key %q", path, un[0].String())
	}
	for _, p := range []struct{ name, value string }{
		{"listen", f.Listen}, {"ton_config", f.TONConfig}, {"store", f.Store}, {"collateral", f.Collateral}, {"release", f.Release},
	} {
		if p.value == "" {
			return nil, fmt.Errorf("%s: %s: got none", path, p.name)
		}
	}
	if (len(f.Models) == 0) == (f.EngineURL == "") {
		return nil, fmt.Errorf("%s: models and engine_url: give one of them", path)
	}
	return &f, nil
}

func (f *file) engine(ctx context.Context) (engine.Engine, error) {
	if f.EngineURL != "" {
		return openaihttp.New(ctx, openaihttp.Config{BaseURL: f.EngineURL, ContextTokens: f.Context, CacheSalt: true})
	}
	var list []engine.Engine
	for _, m := range f.Models {
		e, err := gguf.OpenFile(m, gguf.Config{})
		if err != nil {
			return nil, err
		}
		list = append(list, e)
	}
	return engine.NewMux(list...)
}

// document is what clients will see attested.
func (f *file) document(e engine.Engine) (attestation.WorkerConfig, error) {
	c := attestation.WorkerConfig{
		Version: attestation.ConfigVersion, WorkerID: f.WorkerID, PayoutAddress: f.Payout, Redeemer: f.Payout, Engine: attestation.EngineGGUF,
	}
	if f.Redeemer != nil {
		c.Redeemer = *f.Redeemer
	}
	if f.EngineURL != "" {
		c.Engine = attestation.EngineHTTP
	}
	for _, m := range e.Models() {
		p, ok := f.Prices[m.Name]
		if !ok {
			return c, fmt.Errorf("prices: none for model %q", m.Name)
		}
		c.Models = append(c.Models, attestation.Model{Name: m.Name, WeightsRoot: m.WeightsRoot})
		c.Prices = append(c.Prices, attestation.ModelPrice{Model: m.Name, Min: attestation.Prices(p)})
	}
	if len(f.Prices) != len(c.Models) {
		return c, errors.New("prices: a model that the engine does not have")
	}
	_, err := attestation.ParseWorkerConfig(c.Encode())
	return c, err
}

func (f *file) release() (enclave.Release, error) {
	b, err := os.ReadFile(f.Release)
	if err != nil {
		return enclave.Release{}, err
	}
	r := enclave.Release{Manifest: b}
	if _, err := attestation.ParseRelease(b); err != nil {
		return r, err
	}
	if f.Signatures != "" {
		s, err := os.ReadFile(f.Signatures)
		if err != nil {
			return r, err
		}
		if err := canonical.Unmarshal("release signatures", s, 1<<16, &r.Signatures); err != nil {
			return r, err
		}
	}
	return r, nil
}
