package contracts

import (
	_ "embed"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"github.com/xssnick/tonutils-go/tvm/cell"
)

//go:embed build/channel.json
var channelJSON []byte

//go:embed build/registry.json
var registryJSON []byte

//go:embed build/worker.json
var workerJSON []byte

// Hashes of the code cells that these bindings speak for. A test holds them against the compiled artifacts,
// and those against the sources.
const (
	ChannelCodeHash  = "4c5d55fd6ad9662ac8fa476a24b79c0976de8bc9d3abe1c5658ff144824153d6"
	RegistryCodeHash = "15a0ad94158d98e754a5fc42c6f9c8ab29eed6483373e6c57001639a8ae63a8f"
	WorkerCodeHash   = "b09b626f64920a0a53ccad526ede332c6198517357681a0e87fe198616e608b2"
)

// artifact is one file of build/.
type artifact struct {
	TolkVersion string `json:"tolkVersion"`
	CodeHashHex string `json:"codeHashHex"`
	CodeBoc64   string `json:"codeBoc64"`
	Sources     []struct {
		File   string `json:"file"`
		SHA256 string `json:"sha256"`
	} `json:"sources"`
}

// ChannelCode is the code of the payment channel.
func ChannelCode() *cell.Cell { return mustCode(channelJSON, ChannelCodeHash) }

// RegistryCode is the code of the registry.
func RegistryCode() *cell.Cell { return mustCode(registryJSON, RegistryCodeHash) }

// WorkerCode is the code of a worker's record.
func WorkerCode() *cell.Cell { return mustCode(workerJSON, WorkerCodeHash) }

// mustCode panics if the program was built with an artifact that is not the pinned one.
func mustCode(raw []byte, want string) *cell.Cell {
	c, err := decodeCode(raw, want)
	if err != nil {
		panic(err)
	}
	return c
}

func decodeCode(raw []byte, want string) (*cell.Cell, error) {
	var a artifact
	if err := json.Unmarshal(raw, &a); err != nil {
		return nil, fmt.Errorf("artifact: %w", err)
	}
	boc, err := base64.StdEncoding.DecodeString(a.CodeBoc64)
	if err != nil {
		return nil, fmt.Errorf("artifact: code: %w", err)
	}
	code, err := cell.FromBOC(boc)
	if err != nil {
		return nil, fmt.Errorf("artifact: code: %w", err)
	}
	if got := hex.EncodeToString(code.Hash()); got != want {
		return nil, fmt.Errorf("artifact: code hash: got %s, want %s", got, want)
	}
	return code, nil
}

func checkCode(what string, code *cell.Cell, want string) error {
	if code == nil {
		return fmt.Errorf("%s: code: got none, want hash %s", what, want)
	}
	if got := hex.EncodeToString(code.Hash()); got != want {
		return fmt.Errorf("%s: code hash: got %s, want %s", what, got, want)
	}
	return nil
}
