package envoy

import (
	"context"
	"runtime/debug"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// unary measures a call and answers for a handler that panics: one bad request
// must not end the decisions for everybody else.
func (s *Server) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (resp any, err error) {
	counts := s.metrics.method(info.FullMethod).begin()
	defer func() { counts.end(status.Code(err)) }()
	defer s.recovers(info.FullMethod, &err)
	return handler(ctx, req)
}

func (s *Server) stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
	counts := s.metrics.method(info.FullMethod).begin()
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	// Some streams, such as a watch of the health, last until the client goes. They must not hold up the end.
	defer context.AfterFunc(s.stopping, cancel)()
	defer func() { counts.end(status.Code(err)) }()
	defer s.recovers(info.FullMethod, &err)
	return handler(srv, endingStream{stream, ctx})
}

// recovers, deferred, makes the panic of a handler the error of its call, and
// reports it. What was asked is not logged: it holds credentials.
func (s *Server) recovers(method string, err *error) {
	p := recover()
	if p == nil {
		return
	}
	s.metrics.panicked()
	s.log.Error("panic in a handler, please report it", "method", method, "panic", p, "stack", string(debug.Stack()))
	*err = status.Error(codes.Internal, "internal error")
}

// endingStream is a stream whose context ends with the server.
type endingStream struct {
	grpc.ServerStream
	ctx context.Context
}

// Context overrides the stream's own.
func (s endingStream) Context() context.Context { return s.ctx }
