package lite

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"cocoon/attestation"

	"github.com/xssnick/tonutils-go/liteclient"
	"github.com/xssnick/tonutils-go/tl"
	"github.com/xssnick/tonutils-go/ton"
)

// attemptTimeout is how long one liteserver may take before another is asked.
const attemptTimeout = 8 * time.Second

// Config says which network to read.
type Config struct {
	GlobalConfigJSON []byte           // TON's global.config.json: liteservers, and the init block to trust
	TrustFile        string           // keeps the key blocks and newest block proven so far; empty keeps nothing
	Now              func() time.Time // nil is the wall clock
}

// Client reads one network. All methods may be called concurrently.
type Client struct {
	pool *liteclient.ConnectionPool
	api  *ton.APIClient
	now  func() time.Time

	mu    sync.Mutex // held while the head is moved, so that each link is fetched once
	store trustStore
	trust KeyBlocks
	top   header // newest proven block
	link  link   // its proof; its Header is empty until a head was read
}

// Dial connects to the liteservers that the global config names. It fails when
// that names no init block, or when the trust file is of another network.
func Dial(ctx context.Context, cfg Config) (*Client, error) {
	global, init, err := parseGlobalConfig(cfg.GlobalConfigJSON)
	if err != nil {
		return nil, fmt.Errorf("lite: %w", err)
	}
	c := &Client{now: cfg.Now, store: trustStore{path: cfg.TrustFile}}
	if c.now == nil {
		c.now = time.Now
	}
	if c.trust, c.top, err = c.store.load(init); err != nil {
		return nil, fmt.Errorf("lite: %w", err)
	}
	c.pool = liteclient.NewConnectionPool()
	if err := c.pool.AddConnectionsFromConfig(ctx, global); err != nil {
		c.pool.Stop()
		return nil, fmt.Errorf("lite: no liteserver answers: %w", err)
	}
	// Every answer is verified in this package, too; Secure is the second lock.
	c.api = ton.NewAPIClient(c.pool, ton.ProofCheckPolicySecure)
	c.api.SetTrustedBlockFromConfig(global)
	return c, nil
}

// Close ends the connections and writes the trust file.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pool.Stop()
	return c.store.save(c.trust, c.top)
}

// KeyBlocks are the key blocks proven so far, from the init block on.
func (c *Client) KeyBlocks() KeyBlocks {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.trust
}

// VerifyBeacon proves a beacon under the key blocks known so far: it makes the
// Client an attestation.ChainVerifier that learns with every Head.
func (c *Client) VerifyBeacon(b attestation.Beacon, proof []byte) (time.Time, error) {
	return c.KeyBlocks().VerifyBeacon(b, proof)
}

// query asks a liteserver that has masterchain block seqno, or waits for one.
func (c *Client) query(ctx context.Context, seqno uint32, q tl.Serializable) (tl.Serializable, error) {
	api := ton.APIClientWrapped(c.api)
	if seqno > 0 {
		api = api.WaitForBlock(seqno)
	}
	var resp tl.Serializable
	if err := api.WithRetryTimeout(0, attemptTimeout).Client().QueryLiteserver(ctx, q, &resp); err != nil {
		return nil, fmt.Errorf("lite: %w", err)
	}
	if ls, ok := resp.(ton.LSError); ok {
		return nil, ls
	}
	return resp, nil
}

var errUnexpected = errors.New("lite: liteserver answered something else than was asked")

// ask is query for answers of one type.
func ask[T any](ctx context.Context, c *Client, seqno uint32, q tl.Serializable) (T, error) {
	resp, err := c.query(ctx, seqno, q)
	if err != nil {
		var zero T
		return zero, err
	}
	t, ok := resp.(T)
	if !ok {
		return t, fmt.Errorf("%w: got %T", errUnexpected, resp)
	}
	return t, nil
}
