package api

import (
	"context"

	"google.golang.org/grpc"

	"cocoon/attestation/channel"
)

// Client calls one worker. Its errors are *RefusalError.
type Client struct{ cc *grpc.ClientConn }

// NewClient calls over cc, which was made with DialOptions.
func NewClient(cc *grpc.ClientConn) *Client { return &Client{cc} }

func (c *Client) invoke(ctx context.Context, method string, q, r message) error {
	return fromStatus(c.cc.Invoke(ctx, "/"+Service+"/"+method, q, r))
}

// Attest asks for evidence and the session's signature.
func (c *Client) Attest(ctx context.Context, q *AttestRequest) (*AttestResponse, error) {
	r := new(AttestResponse)
	if err := c.invoke(ctx, "Attest", q, r); err != nil {
		return nil, err
	}
	return r, nil
}

// GetReceipts asks for a channel's receipts.
func (c *Client) GetReceipts(ctx context.Context, q *ReceiptsRequest) (*ReceiptsResponse, error) {
	r := new(ReceiptsResponse)
	if err := c.invoke(ctx, "GetReceipts", q, r); err != nil {
		return nil, err
	}
	return r, nil
}

// GetEvidence asks for a bundle by its digest.
func (c *Client) GetEvidence(ctx context.Context, q *EvidenceRequest) (*EvidenceResponse, error) {
	r := new(EvidenceResponse)
	if err := c.invoke(ctx, "GetEvidence", q, r); err != nil {
		return nil, err
	}
	return r, nil
}

// RunClient is a job's stream at the client. Send and Recv may go on at once,
// each from one goroutine at a time. Its owner cancels the context that Run was
// given, or receives until an error: else the stream leaks.
type RunClient interface {
	Context() context.Context
	Send(wire []byte) error // wire is the caller's again when it returns
	Recv() ([]byte, error)  // valid until the next Recv; io.EOF when the worker ended without error
	CloseSend() error
}

// Run opens a job's stream. The first message to send is the JobOpen.
func (c *Client) Run(ctx context.Context) (RunClient, error) {
	s, err := c.cc.NewStream(ctx, &grpc.StreamDesc{StreamName: "Run", ServerStreams: true, ClientStreams: true}, "/"+Service+"/Run", grpc.MaxCallRecvMsgSize(channel.MaxWireBytes))
	if err != nil {
		return nil, fromStatus(err)
	}
	return &runClient{s: s}, nil
}

type runClient struct {
	s       grpc.ClientStream
	in, out frame
}

func (r *runClient) Context() context.Context { return r.s.Context() }
func (r *runClient) CloseSend() error         { return fromStatus(r.s.CloseSend()) }

func (r *runClient) Send(wire []byte) error {
	r.out.b = wire
	return fromStatus(r.s.SendMsg(&r.out))
}

func (r *runClient) Recv() ([]byte, error) {
	if err := r.s.RecvMsg(&r.in); err != nil {
		return nil, fromStatus(err)
	}
	return r.in.b, nil
}
