package envoy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/tollgate-dev/tollgate/envoy/fastgrpc"
)

// fastMethods are what the fast listener answers: what Envoy asks for each
// request, and whether it may ask at all. Streams and tools stay with grpc-go.
var fastMethods = []string{
	authv3.Authorization_Check_FullMethodName,
	rlsv3.RateLimitService_ShouldRateLimit_FullMethodName,
	healthpb.Health_Check_FullMethodName,
}

// fastMetadata are the fields of a call's metadata that its handler may see.
var fastMetadata = []string{"traceparent", "tracestate", "x-client-ip"}

// ServeFast is Serve for the fast listener: the same handlers, interceptors
// and TLS behind fastgrpc, for the unary calls that are worth it. All else is
// answered UNIMPLEMENTED.
func (s *Server) ServeFast(lis net.Listener) error {
	s.serving.Do(func() { s.metrics.know(s.grpc.GetServiceInfo()) })
	if err := s.fastServer().Serve(lis); !errors.Is(err, fastgrpc.ErrServerClosed) {
		return err
	}
	return nil
}

func (s *Server) newFastServer() *fastgrpc.Server {
	methods := make(map[string]fastgrpc.Handler)
	for _, service := range s.services {
		for _, m := range service.desc.Methods {
			name := fmt.Sprintf("/%s/%s", service.desc.ServiceName, m.MethodName)
			if slices.Contains(fastMethods, name) {
				mayWait := s.mayWait
				if name == healthpb.Health_Check_FullMethodName {
					mayWait = func() bool { return false }
				}
				methods[name] = fastMethod{method: m, impl: service.impl, intercept: s.unary, mayWait: mayWait}
			}
		}
	}
	return fastgrpc.New(fastgrpc.Options{
		Methods: methods, TLS: s.tls, Log: s.log,
		MaxRequestBytes: maxMessage, MaxBufferedBytes: 4 * maxMessage, HandshakeTimeout: handshakeWithin,
		MaxConnectionAge: s.age, MaxConnectionAgeGrace: s.ageGrace,
	})
}

// fastMethod calls a method as grpc-go would.
type fastMethod struct {
	method    grpc.MethodDesc
	impl      any
	intercept grpc.UnaryServerInterceptor
	mayWait   func() bool
}

// ServeUnary implements [fastgrpc.Handler].
func (m fastMethod) ServeUnary(call *fastgrpc.Call, request, response []byte) ([]byte, fastgrpc.Status) {
	fields := metadata.MD{}
	for _, name := range fastMetadata {
		if value := call.Metadata(name); value != "" {
			fields[name] = []string{value}
		}
	}
	if !m.mayWait() {
		ctx := context.Background()
		if deadline, ok := call.Deadline(); ok {
			var cancel context.CancelFunc
			ctx, cancel = context.WithDeadline(ctx, deadline)
			defer cancel()
		}
		return m.answer(ctx, fields, request, response)
	}
	kept := bytes.Clone(request)
	return call.Wait(func(ctx context.Context, response []byte) ([]byte, fastgrpc.Status) {
		return m.answer(ctx, fields, kept, response)
	})
}

func (m fastMethod) answer(ctx context.Context, fields metadata.MD, request, response []byte) ([]byte, fastgrpc.Status) {
	decode := func(v any) error {
		if r, ok := v.(*encodedRequest); ok {
			r.Buffer = mem.SliceBuffer(request)
			return nil
		}
		if err := proto.Unmarshal(request, v.(proto.Message)); err != nil {
			return status.Errorf(codes.Internal, "grpc: error unmarshalling request: %v", err)
		}
		return nil
	}
	answer, err := m.method.Handler(m.impl, metadata.NewIncomingContext(ctx, fields), decode, m.intercept)
	if err != nil {
		st := status.FromContextError(err)
		if s, ok := status.FromError(err); ok {
			st = s
		}
		return nil, fastgrpc.Status{Code: fastgrpc.Code(st.Code()), Message: st.Message()}
	}
	if r, ok := answer.(encodedResponse); ok {
		response = append(response, *r.pooled...)
		mem.DefaultBufferPool().Put(r.pooled)
		return response, fastgrpc.Status{}
	}
	if response, err = (proto.MarshalOptions{}).MarshalAppend(response, answer.(proto.Message)); err != nil {
		return nil, fastgrpc.Status{Code: fastgrpc.Internal, Message: err.Error()}
	}
	return response, fastgrpc.Status{}
}
