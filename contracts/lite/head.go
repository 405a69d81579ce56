package lite

import (
	"context"
	"errors"
	"fmt"

	"github.com/xssnick/tonutils-go/tlb"
	"github.com/xssnick/tonutils-go/ton"
)

// ErrStale says that the liteservers know less than was proven before.
var ErrStale = errors.New("lite: liteservers are behind the newest block proven before")

// maxSteps bounds the walk from the newest trusted key block to the head. Mainnet
// makes about 600 key blocks a year.
const maxSteps = 20_000

// Head returns the newest masterchain block, proven. It never goes back: a
// liteserver that lags gets the last proven head repeated.
func (c *Client) Head(ctx context.Context) (Block, error) {
	h, _, err := c.head(ctx)
	return h.Block, err
}

// GlobalID is config param 19 in the proven state of the head.
func (c *Client) GlobalID(ctx context.Context) (int32, error) {
	h, _, err := c.head(ctx)
	if err != nil {
		return 0, err
	}
	param, err := c.configParam(ctx, h, 19)
	if err != nil {
		return 0, err
	}
	if param != h.globalID {
		return 0, fmt.Errorf("lite: global_id: got %d in the config, want %d as in the header", param, h.globalID)
	}
	return param, nil
}

func (c *Client) configParam(ctx context.Context, h header, param int32) (_ int32, err error) {
	defer recoverParse(&err)
	cfg, err := c.api.WaitForBlock(h.Seqno).WithRetryTimeout(0, attemptTimeout).GetBlockchainConfig(ctx, h.ID().ton(), param)
	if err != nil {
		return 0, fmt.Errorf("lite: config param %d: %w", param, err)
	}
	root := cfg.Get(param)
	if root == nil {
		return 0, fmt.Errorf("lite: config param %d: got none", param)
	}
	var v struct {
		Value int32 `tlb:"## 32"`
	}
	if err := tlb.Parse(&v, root); err != nil {
		return 0, fmt.Errorf("lite: config param %d: %w", param, err)
	}
	return v.Value, nil
}

// head reads and proves the newest block.
func (c *Client) head(ctx context.Context) (header, link, error) { return c.headAfter(ctx, 0) }

// headAfter first waits until a liteserver has block seqno.
func (c *Client) headAfter(ctx context.Context, seqno uint32) (header, link, error) {
	info, err := ask[ton.MasterchainInfo](ctx, c, seqno, ton.GetMasterchainInf{})
	if err != nil {
		return header{}, link{}, err
	}
	last, err := blockID(info.Last)
	if err != nil {
		return header{}, link{}, fmt.Errorf("lite: head: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case last.Seqno < c.top.Seqno && len(c.link.Header) > 0:
		return c.top, c.link, nil
	case last.Seqno < c.top.Seqno:
		return header{}, link{}, fmt.Errorf("%w: got %d, want %d or later", ErrStale, last.Seqno, c.top.Seqno)
	case last.Seqno == c.top.Seqno && last != c.top.ID():
		return header{}, link{}, fmt.Errorf("lite: head: got %s, want %s as proven before", last, c.top.ID())
	case last == c.top.ID() && len(c.link.Header) > 0:
		return c.top, c.link, nil
	}
	if err := c.advance(ctx, last); err != nil {
		return header{}, link{}, fmt.Errorf("lite: head %d: %w", last.Seqno, err)
	}
	return c.top, c.link, nil
}

// advance proves target, extending the trust by the key blocks on the way;
// what was proven of them stays even when the walk fails later.
func (c *Client) advance(ctx context.Context, target BlockID) error {
	var last link
	trust, h, err := c.walk(ctx, c.trust, target, func(l link) error {
		last = l
		return nil
	})
	c.trust = trust
	if err != nil {
		return err
	}
	if h.Time.Before(c.top.Time) {
		return fmt.Errorf("time: got %s, want %s or later", h.Time, c.top.Time)
	}
	c.top, c.link = h, last
	c.api.SetTrustedBlock(target.ton())
	return c.store.note(trust, h)
}

// walk fetches and verifies the links from the newest key block of trust before
// target to target, and returns trust with the key blocks met. visit sees each
// verified link, the one to target last.
func (c *Client) walk(ctx context.Context, trust KeyBlocks, target BlockID, visit func(link) error) (KeyBlocks, header, error) {
	at, ok := trust.before(target.Seqno)
	if trust.Contains(target) {
		at, ok = target, true
	}
	if !ok {
		return trust, header{}, ErrNoTrust
	}
	for range maxSteps {
		links, err := c.links(ctx, at, target)
		if err != nil {
			return trust, header{}, err
		}
		for _, l := range links {
			h, err := l.verify(trust)
			if err == nil {
				err = visit(l)
			}
			if err != nil || l.To == target {
				return trust, h, err
			}
			if !h.key || l.To.Seqno >= target.Seqno {
				return trust, header{}, fmt.Errorf("proof: got a link to %s, want a key block on the way to %d", l.To, target.Seqno)
			}
			if trust, err = trust.with(l.To); err != nil {
				return trust, header{}, err
			}
			at = l.To
		}
	}
	return trust, header{}, fmt.Errorf("proof: got %d parts, want fewer", maxSteps)
}

// links asks for the next part of the way between two blocks; it is not verified yet.
func (c *Client) links(ctx context.Context, from, target BlockID) ([]link, error) {
	if from == target {
		l, err := c.selfLink(ctx, target)
		return []link{l}, err
	}
	part, err := ask[ton.PartialBlockProof](ctx, c, target.Seqno, ton.GetBlockProof{Mode: 1, KnownBlock: from.ton(), TargetBlock: target.ton()})
	if err != nil {
		return nil, err
	}
	if len(part.Steps) == 0 {
		return nil, errors.New("proof: got no links")
	}
	links := make([]link, 0, len(part.Steps))
	for _, step := range part.Steps {
		l, err := forwardLink(from, step)
		if err != nil {
			return nil, err
		}
		links, from = append(links, l), l.To
	}
	return links, nil
}

// selfLink names a block that is trusted already.
func (c *Client) selfLink(ctx context.Context, id BlockID) (link, error) {
	r, err := ask[ton.BlockHeader](ctx, c, 0, ton.GetBlockHeader{ID: id.ton()})
	if err != nil {
		return link{}, err
	}
	return link{Key: id, To: id, Header: r.HeaderProof, Config: []byte{}, Signatures: signatures{List: []signature{}, Candidate: []byte{}}}, nil
}

func forwardLink(from BlockID, step any) (link, error) {
	f, ok := step.(ton.BlockLinkForward)
	if !ok {
		return link{}, fmt.Errorf("proof: got %T, want a forward link from a key block", step)
	}
	if got, err := blockID(f.From); err != nil || got != from {
		return link{}, fmt.Errorf("proof: got a link from %s, want %s", got, from)
	}
	to, err := blockID(f.To)
	if err != nil {
		return link{}, fmt.Errorf("proof: %w", err)
	}
	l := link{Key: from, To: to, Header: f.DestProof, Config: f.ConfigProof}
	return l, l.Signatures.fromTON(f.SignatureSet)
}
