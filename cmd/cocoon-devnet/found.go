package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"slices"
	"time"

	"github.com/xssnick/tonutils-go/tlb"
	"github.com/xssnick/tonutils-go/tvm/cell"

	"cocoon/attestation"
	"cocoon/attestation/canonical"
	"cocoon/attestation/softtee"
	"cocoon/contracts"
	"cocoon/contracts/devchain"
	"cocoon/contracts/lite"
)

// ton is one coin in nano.
const ton = 1_000_000_000

// promptAllowance is what the embedded engine's chat template adds per message
// at most, the reply's opening included, in tokens.
const promptAllowance = 64

// prices of the devnet's models, nano per million tokens: dear enough that the
// first answer is worth a redeem.
var prices = attestation.Prices{Prompt: 20 * ton, Cached: 10 * ton, Completion: 80 * ton, Reasoning: 80 * ton}

// open reads the folder's network, or founds one in an empty folder.
func open(d layout, opt options) (*network, error) {
	for _, dir := range []string{d.path("keys"), d.chain(), d.hostStore(), d.path("clients")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
	}
	var n network
	err := readJSON(d.network(), &n)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return found(d, opt)
	case err != nil:
		return nil, err
	}
	if opt.tee != n.TEE && opt.teeGiven {
		return nil, fmt.Errorf("%s was founded with --tee %s; use another --dir", d, n.TEE)
	}
	if len(opt.models) > 0 || opt.engineURL != "" {
		models, err := loadable(opt)
		if err != nil {
			return nil, err
		}
		if opt.engineURL != n.EngineURL || !slices.EqualFunc(models, n.Models, func(a, b modelFile) bool { return a.Model == b.Model }) {
			return nil, fmt.Errorf("%s was founded with other models, which its registry names; use another --dir", d)
		}
		n.Models = models // the files may have moved
	}
	return &n, nil
}

// found makes keys, vendors, a registry and the chain's first block.
func found(d layout, opt options) (*network, error) {
	now := time.Now()
	world, err := softtee.New(now)
	if err != nil {
		return nil, err
	}
	machine := world.Machine(opt.tee)
	n := &network{TEE: opt.tee, EngineURL: opt.engineURL}
	if n.Models, err = loadable(opt); err != nil {
		return nil, err
	}
	id, err := rand.Int(rand.Reader, big.NewInt(1<<30))
	if err != nil {
		return nil, err
	}
	n.GlobalID = -1 - int32(id.Int64()) // mainnet and testnet are -239 and -3; odds of either are 2 in 2^30
	rand.Read(n.WorkerNonce[:])
	for _, a := range []*string{&n.ChainAddr, &n.WorkerAddr, &n.HostAddr} {
		if *a, err = freeAddr(); err != nil {
			return nil, err
		}
	}

	rel := attestation.Release{
		Version: attestation.ReleaseVersion, Number: 1, Name: "devnet", Launches: []attestation.Launch{machine.Launch()},
		Allowances: attestation.Allowances{Message: promptAllowance, Tool: 256, Medium: 4096},
	}
	n.Release = rel.Encode()
	rebuilder := world.RebuilderKey()
	copy(n.Rebuilder[:], rebuilder.Public().(ed25519.PublicKey))
	n.Signatures = canonical.MustMarshal([]attestation.ReleaseSignature{attestation.SignRelease(rebuilder, n.Release)})

	var wallets []attestation.Address
	for _, name := range []string{"registry-owner", "worker-owner", "client-default"} {
		key, err := d.key(name)
		if err != nil {
			return nil, err
		}
		a, err := walletAddress(key, n.GlobalID)
		if err != nil {
			return nil, err
		}
		wallets = append(wallets, a)
	}
	n.Payout, n.Client = wallets[1], wallets[2]
	if n.WorkerID, err = (contracts.WorkerInit{Owner: n.Payout, Nonce: n.WorkerNonce}).WorkerID(); err != nil {
		return nil, err
	}
	registry, err := registryInit(wallets[0], n, now)
	if err != nil {
		return nil, err
	}
	if n.Registry, err = registry.Address(); err != nil {
		return nil, err
	}
	state, err := registry.StateInit()
	if err != nil {
		return nil, err
	}
	boc, err := tlb.ToCell(state)
	if err != nil {
		return nil, err
	}
	n.RegistryData = base64.StdEncoding.EncodeToString(boc.ToBOC())

	private, err := world.Save()
	if err != nil {
		return nil, err
	}
	if err := writeFile(d.world(), private, 0o600); err != nil {
		return nil, err
	}
	if err := writeFile(d.roots(), world.Public(), 0o644); err != nil {
		return nil, err
	}
	if err := writeFile(d.testRoots(), world.Roots().PEM(), 0o644); err != nil {
		return nil, err
	}
	return n, writeJSON(d.network(), n) // last: a folder with it is complete
}

// registryInit lists the network's release and models from the start, so that
// nothing waits for the timelock.
func registryInit(owner attestation.Address, n *network, now time.Time) (contracts.RegistryInit, error) {
	notBefore := uint32(now.Add(-time.Minute).Unix())
	r := contracts.RegistryInit{Owner: owner, Delay: contracts.MinRegistryDelay, ReleaseFloor: 1, Entries: map[[32]byte]contracts.Entry{
		sha256.Sum256(n.Release): {Kind: attestation.EntryRelease, NotBefore: notBefore, Meta: attestation.ReleaseMeta(1)},
	}}
	for _, m := range n.Models {
		if m.WeightsRoot != attestation.Unmeasured {
			r.Entries[attestation.ModelKey(m.Model)] = contracts.Entry{Kind: attestation.EntryModel, NotBefore: notBefore, Meta: contracts.ModelNameHash(m.Name)}
		}
	}
	return r, nil
}

// genesis gives each party coins and puts the registry in place.
func (n *network) genesis(d layout) ([]devchain.GenesisAccount, error) {
	boc, err := base64.StdEncoding.DecodeString(n.RegistryData)
	if err != nil {
		return nil, err
	}
	root, err := cell.FromBOC(boc)
	if err != nil {
		return nil, err
	}
	var state tlb.StateInit
	if err := tlb.Parse(&state, root); err != nil {
		return nil, err
	}
	owner, err := d.key("registry-owner")
	if err != nil {
		return nil, err
	}
	ownerAddr, err := walletAddress(owner, n.GlobalID)
	if err != nil {
		return nil, err
	}
	return []devchain.GenesisAccount{
		{Address: n.Registry, Balance: 10 * ton, StateInit: &state},
		{Address: ownerAddr, Balance: 1_000_000 * ton},
		{Address: n.Payout, Balance: 100 * ton},
		{Address: n.Client, Balance: 1000 * ton},
	}, nil
}

// walletAddress is where a key's V5R1 wallet lives.
func walletAddress(key ed25519.PrivateKey, globalID int32) (attestation.Address, error) {
	return lite.WalletAddress(key.Public().(ed25519.PublicKey), globalID)
}

// freeAddr picks a loopback port that is free now. It is written down, so that
// a restarted role is found where it was.
func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}
