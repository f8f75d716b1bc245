package envoy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
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
			switch {
			case !slices.Contains(fastMethods, name):
			case s.inBytes[name] != nil:
				methods[name] = s.newFastBytes(name)
			default:
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

// fastBytes calls what answers in bytes. While no decision may wait, nothing is
// allocated around it.
type fastBytes struct {
	server   *Server
	method   string
	handle   BytesHandler
	contexts sync.Pool // of *callContext
}

func (s *Server) newFastBytes(method string) *fastBytes {
	return &fastBytes{
		server: s, method: method, handle: s.inBytes[method],
		contexts: sync.Pool{New: func() any { return new(callContext) }},
	}
}

// ServeUnary implements [fastgrpc.Handler].
func (m *fastBytes) ServeUnary(call *fastgrpc.Call, request, response []byte) ([]byte, fastgrpc.Status) {
	if m.server.mayWait() {
		fields, kept := fieldsOf(call), bytes.Clone(request)
		return call.Wait(func(ctx context.Context, response []byte) ([]byte, fastgrpc.Status) {
			return m.answer(metadata.NewIncomingContext(ctx, fields), kept, response)
		})
	}
	ctx := m.contexts.Get().(*callContext)
	ctx.call = call
	response, st := m.answer(ctx, request, response)
	ctx.call = nil
	m.contexts.Put(ctx)
	return response, st
}

func (m *fastBytes) answer(ctx context.Context, request, response []byte) ([]byte, fastgrpc.Status) {
	response, err := m.measured(ctx, request, response)
	if err != nil {
		return nil, fastStatus(err)
	}
	return response, fastgrpc.Status{}
}

// measured does what unary does.
func (m *fastBytes) measured(ctx context.Context, request, response []byte) (_ []byte, err error) {
	start := time.Now()
	metrics := m.server.metrics.begin(m.method)
	defer func() {
		if p := recover(); p != nil {
			err = m.server.recovered(m.method, p)
		}
		metrics.end(start, status.Code(err))
	}()
	return m.handle(ctx, request, response)
}

// callContext is the context of a call that is answered at once: nobody waits
// for its end. Its metadata is made when it is asked for.
type callContext struct{ call *fastgrpc.Call }

// Deadline implements [context.Context].
func (c *callContext) Deadline() (time.Time, bool) { return c.call.Deadline() }

// Done implements [context.Context].
func (c *callContext) Done() <-chan struct{} { return nil }

// Err implements [context.Context].
func (c *callContext) Err() error { return nil }

// Value implements [context.Context].
func (c *callContext) Value(key any) any {
	if fields := fieldsOf(c.call); len(fields) > 0 {
		return metadata.NewIncomingContext(context.Background(), fields).Value(key)
	}
	return nil
}

// fieldsOf returns what a handler may see of a call's metadata, nil if it is not there.
func fieldsOf(call *fastgrpc.Call) (fields metadata.MD) {
	for _, name := range fastMetadata {
		if value := call.Metadata(name); value != "" {
			if fields == nil {
				fields = make(metadata.MD)
			}
			fields[name] = []string{value}
		}
	}
	return fields
}

func fastStatus(err error) fastgrpc.Status {
	st := status.FromContextError(err)
	if s, ok := status.FromError(err); ok {
		st = s
	}
	return fastgrpc.Status{Code: fastgrpc.Code(st.Code()), Message: st.Message()}
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
	fields := fieldsOf(call)
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
		if err := proto.Unmarshal(request, v.(proto.Message)); err != nil {
			return status.Errorf(codes.Internal, "grpc: error unmarshalling request: %v", err)
		}
		return nil
	}
	answer, err := m.method.Handler(m.impl, metadata.NewIncomingContext(ctx, fields), decode, m.intercept)
	if err != nil {
		return nil, fastStatus(err)
	}
	if response, err = (proto.MarshalOptions{}).MarshalAppend(response, answer.(proto.Message)); err != nil {
		return nil, fastgrpc.Status{Code: fastgrpc.Internal, Message: err.Error()}
	}
	return response, fastgrpc.Status{}
}
