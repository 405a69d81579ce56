package attestation

import (
	"crypto/sha256"
	"fmt"

	"cocoon/attestation/canonical"
)

// MaxConfigBytes bounds a config document.
const MaxConfigBytes = 32 << 10

// ConfigVersion is the only config version there is.
const ConfigVersion = 1

// Prices are in nano-coins (1e-9 coin) per million tokens of each kind.
// Cached tokens are part of the prompt and priced apart, as reasoning tokens
// are of the completion.
type Prices struct {
	Prompt     uint64 `cbor:"prompt" json:"prompt"`
	Cached     uint64 `cbor:"cached" json:"cached"`
	Completion uint64 `cbor:"completion" json:"completion"`
	Reasoning  uint64 `cbor:"reasoning" json:"reasoning"`
}

// Usage counts the tokens of one job. Cached <= Prompt, Reasoning <= Completion.
type Usage struct {
	Prompt     uint64 `cbor:"prompt" json:"prompt"`
	Cached     uint64 `cbor:"cached" json:"cached"`
	Completion uint64 `cbor:"completion" json:"completion"`
	Reasoning  uint64 `cbor:"reasoning" json:"reasoning"`
}

// ModelPrice bounds what a worker may charge for a model.
type ModelPrice struct {
	Model string `cbor:"model" json:"model"`
	Min   Prices `cbor:"min" json:"min"` // the worker refuses terms below it
}

// WorkerConfig is all that an owner may set on a worker. It is a document of known
// keys only: anything else fails to parse, and config.allowed with it.
type WorkerConfig struct {
	Version       uint64       `cbor:"version"`
	WorkerID      Address      `cbor:"worker_id"`
	PayoutAddress Address      `cbor:"payout_address"`
	Redeemer      Address      `cbor:"redeemer"` // may send vouchers; by default the payout address
	Models        []Model      `cbor:"models"`
	Prices        []ModelPrice `cbor:"prices"`
	Engine        string       `cbor:"engine"` // the name of a recipe in the measured image
	GPUCount      uint64       `cbor:"gpu_count"`
}

// Engine recipes that an image may start. A config that names another is refused.
const (
	EngineGGUF = "gguf" // the embedded engine
	EngineHTTP = "http" // an OpenAI-compatible engine on a local socket
)

// Encode returns the config's canonical CBOR.
func (c *WorkerConfig) Encode() []byte { return canonical.MustMarshal(c) }

// ParseWorkerConfig reads canonical CBOR of known keys only.
func ParseWorkerConfig(b []byte) (*WorkerConfig, error) {
	var c WorkerConfig
	if err := canonical.Unmarshal("config", b, MaxConfigBytes, &c); err != nil {
		return nil, err
	}
	switch {
	case c.Version != ConfigVersion:
		return nil, fmt.Errorf("config: version: got %d, want %d", c.Version, ConfigVersion)
	case c.WorkerID.IsZero():
		return nil, fmt.Errorf("config: worker_id: got zero")
	case c.PayoutAddress.IsZero():
		return nil, fmt.Errorf("config: payout_address: got zero")
	case c.Redeemer.IsZero():
		return nil, fmt.Errorf("config: redeemer: got zero")
	case c.Engine != EngineGGUF && c.Engine != EngineHTTP:
		return nil, fmt.Errorf("config: engine: got %.40q, want %q or %q", c.Engine, EngineGGUF, EngineHTTP)
	}
	if err := checkModels("config", c.Models); err != nil {
		return nil, err
	}
	if len(c.Prices) != len(c.Models) {
		return nil, fmt.Errorf("config: prices: got %d, want one for each of %d models", len(c.Prices), len(c.Models))
	}
	for i, p := range c.Prices {
		if p.Model != c.Models[i].Name {
			return nil, fmt.Errorf("config: prices: entry %d: got %q, want %q", i, p.Model, c.Models[i].Name)
		}
	}
	return &c, nil
}

// Digest is SHA-256 of the config's canonical CBOR.
func (c *WorkerConfig) Digest() [32]byte { return sha256.Sum256(c.Encode()) }
