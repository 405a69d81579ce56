package api

import (
	"context"
	"runtime"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/mem"
)

// Service is the gRPC service's name.
const Service = "cocoon.v1.Worker"

// Flow control and buffers, in bytes. Static windows turn gRPC's bandwidth
// estimation off, which saves a quarter of the CPU (facts, performance).
const (
	streamWindow = 256 << 10
	connWindow   = 1 << 20
	ioBuffer     = 64 << 10

	MaxConcurrentStreams = 512 // calls at once on one connection
	maxHeaderBytes       = 8 << 10
	handshakeTimeout     = 10 * time.Second
	idleTimeout          = 15 * time.Minute

	// A connection pins its keyset. These end it when every key of that is
	// long gone and none of its jobs can be open.
	connectionAge   = 30 * time.Minute
	connectionGrace = time.Hour
)

// WorkerServer is what a worker does. A handler finds its connection by
// StateFromContext, and refuses with Refuse or a *channel.RefusedError; the
// text of any other error stays in the process.
type WorkerServer interface {
	// Attest returns the evidence. When it returns nil, its connection may
	// call the other methods.
	Attest(context.Context, *AttestRequest) (*AttestResponse, error)
	// Run serves one job: the first message is a JobOpen, the others are
	// sealed frames. Its stream ends when it returns.
	Run(RunServer) error
	GetReceipts(context.Context, *ReceiptsRequest) (*ReceiptsResponse, error)
	GetEvidence(context.Context, *EvidenceRequest) (*EvidenceResponse, error)
}

// RunServer is a job's stream at the worker. Send and Recv may go on at once,
// each from one goroutine at a time.
type RunServer interface {
	Context() context.Context // ends when the client cancels or its connection dies
	Send(wire []byte) error   // wire is the caller's again when it returns
	Recv() ([]byte, error)    // valid until the next Recv; io.EOF when the client closed its side
}

// ServerOptions are the options of a worker's grpc.Server. current is asked at
// each handshake for the keyset that new connections attest.
func ServerOptions(current func() Identity) []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.Creds(serverCreds{current: current, held: &connections{max: maxConnections}}),
		grpc.ForceServerCodecV2(codec{mem.DefaultBufferPool()}),
		grpc.StaticStreamWindowSize(streamWindow),
		grpc.StaticConnWindowSize(connWindow),
		grpc.ReadBufferSize(ioBuffer),
		grpc.WriteBufferSize(ioBuffer),
		grpc.MaxRecvMsgSize(MaxRequestBytes),
		grpc.MaxSendMsgSize(MaxResponseBytes),
		grpc.MaxConcurrentStreams(MaxConcurrentStreams),
		grpc.MaxHeaderListSize(maxHeaderBytes),
		grpc.ConnectionTimeout(handshakeTimeout),
		grpc.NumStreamWorkers(uint32(8 * runtime.GOMAXPROCS(0))),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			MaxConnectionIdle: idleTimeout, MaxConnectionAge: connectionAge, MaxConnectionAgeGrace: connectionGrace,
			Time: time.Minute, Timeout: 20 * time.Second,
		}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
	}
}

// Register adds w to s, which was made with ServerOptions.
func Register(s *grpc.Server, w WorkerServer) {
	s.RegisterService(&grpc.ServiceDesc{
		ServiceName: Service,
		HandlerType: (*WorkerServer)(nil),
		Methods: []grpc.MethodDesc{
			unary("Attest", false, func(w WorkerServer, ctx context.Context, m *AttestRequest) (*AttestResponse, error) {
				return attest(w, ctx, m)
			}),
			unary("GetReceipts", true, WorkerServer.GetReceipts),
			unary("GetEvidence", true, WorkerServer.GetEvidence),
		},
		Streams: []grpc.StreamDesc{{StreamName: "Run", ServerStreams: true, ClientStreams: true, Handler: run}},
	}, w)
}

// attest opens the connection's other methods once the handler succeeded.
func attest(w WorkerServer, ctx context.Context, m *AttestRequest) (*AttestResponse, error) {
	s, err := StateFromContext(ctx)
	if err != nil {
		return nil, err
	}
	if s.attests.Add(1) > maxAttests {
		return nil, Refuse(codes.FailedPrecondition, "attest.again", "this connection has attested often enough: connect again")
	}
	r, err := w.Attest(ctx, m)
	if err == nil {
		s.attested.Store(true)
	}
	return r, err
}

// allow refuses calls on a connection that has not attested.
func allow(ctx context.Context) error {
	s, err := StateFromContext(ctx)
	if err != nil {
		return err
	}
	if !s.Attested() {
		return Refuse(codes.FailedPrecondition, "attest.first", "nothing may be called before Attest succeeded on this connection")
	}
	return nil
}

func unary[Q, R any, M interface {
	*Q
	message
}](name string, attested bool, call func(WorkerServer, context.Context, *Q) (*R, error)) grpc.MethodDesc {
	return grpc.MethodDesc{MethodName: name, Handler: func(srv any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		if attested {
			if err := allow(ctx); err != nil {
				return nil, toStatus(err)
			}
		}
		q := new(Q)
		if err := decode(M(q)); err != nil {
			return nil, toStatus(Refuse(codes.InvalidArgument, "request.parse", err.Error()))
		}
		r, err := call(srv.(WorkerServer), ctx, q)
		if err != nil {
			return nil, toStatus(err)
		}
		return r, nil
	}}
}

func run(srv any, s grpc.ServerStream) error {
	if err := allow(s.Context()); err != nil {
		return toStatus(err)
	}
	return toStatus(srv.(WorkerServer).Run(&runServer{s: s}))
}

type runServer struct {
	s       grpc.ServerStream
	in, out frame
}

func (r *runServer) Context() context.Context { return r.s.Context() }

func (r *runServer) Send(wire []byte) error {
	r.out.b = wire
	return r.s.SendMsg(&r.out)
}

func (r *runServer) Recv() ([]byte, error) {
	if err := r.s.RecvMsg(&r.in); err != nil {
		return nil, err
	}
	return r.in.b, nil
}
