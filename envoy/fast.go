package envoy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
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

// maxHeld is how many calls of the fast listener may wait. It is what a
// limits.Queue holds unless told otherwise, so that the queue, which answers
// in its own words, is full first.
const maxHeld = 100_000

// ServeFast is Serve for the fast listener: the same handlers, interceptors
// and TLS behind fastgrpc, for the unary calls that are worth it. All else is
// answered UNIMPLEMENTED.
func (s *Server) ServeFast(lis net.Listener) error {
	s.serving.Do(func() { s.metrics.know(s.grpc.GetServiceInfo()) })
	if err := s.showFast(); err != nil {
		return errors.Join(err, lis.Close())
	}
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
			if !slices.Contains(fastMethods, name) {
				continue
			}
			methods[name] = fastMethod{method: m, impl: service.impl, intercept: s.unary}
			if h := s.inBytes[name]; h != nil {
				methods[name] = newFastBytes(s, name, h)
			}
		}
	}
	return fastgrpc.New(fastgrpc.Options{
		Methods: methods, TLS: s.tls, Log: s.log,
		MaxWaiting: maxHeld, MaxRequestBytes: maxMessage, MaxBufferedBytes: 4 * maxMessage, MaxBufferedTotal: 32 * maxMessage, HandshakeTimeout: handshakeWithin,
		MaxConnectionAge: s.age, MaxConnectionAgeGrace: s.ageGrace,
	})
}

// registerFast registers what the fast listener alone can tell; nil takes nothing.
func registerFast(r prometheus.Registerer, f *fastgrpc.Server) error {
	if r == nil {
		return nil
	}
	gauge := func(name, help string, of func(fastgrpc.Stats) float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "tollgate_fast_" + name, Help: help}, func() float64 { return of(f.Stats()) })
	}
	for _, c := range []prometheus.Collector{
		gauge("connections", "Connections of the fast listener.", func(s fastgrpc.Stats) float64 { return float64(s.Connections) }),
		gauge("held_calls", "Calls of the fast listener that wait for their turn or for a store.", func(s fastgrpc.Stats) float64 { return float64(s.Waiting) }),
		gauge("buffered_bytes", "What clients have the fast listener hold beyond 64 KiB for each connection; at most 256 MiB.", func(s fastgrpc.Stats) float64 { return float64(s.Buffered) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "tollgate_fast_floods_total", Help: "Connections of the fast listener that were ended because they sent too much that asks for nothing."},
			func() float64 { return float64(f.Stats().Floods) }),
	} {
		if err := r.Register(c); err != nil {
			return fmt.Errorf("register the fast listener's metrics: %w", err)
		}
	}
	return nil
}

// fastMethod calls a method as grpc-go would. It must not wait.
type fastMethod struct {
	method    grpc.MethodDesc
	impl      any
	intercept grpc.UnaryServerInterceptor
}

// ServeUnary implements [fastgrpc.Handler].
func (m fastMethod) ServeUnary(_ *fastgrpc.Call, request, response []byte) ([]byte, fastgrpc.Status) {
	decode := func(v any) error {
		if err := proto.Unmarshal(request, v.(proto.Message)); err != nil {
			return status.Errorf(codes.Internal, "grpc: error unmarshalling request: %v", err)
		}
		return nil
	}
	answer, err := m.method.Handler(m.impl, context.Background(), decode, m.intercept)
	if err != nil {
		return nil, fastStatus(err)
	}
	if response, err = (proto.MarshalOptions{}).MarshalAppend(response, answer.(proto.Message)); err != nil {
		return nil, fastgrpc.Status{Code: fastgrpc.Internal, Message: err.Error()}
	}
	return response, fastgrpc.Status{}
}

func fastStatus(err error) fastgrpc.Status {
	st := status.FromContextError(err)
	if s, ok := status.FromError(err); ok {
		st = s
	}
	return fastgrpc.Status{Code: fastgrpc.Code(st.Code()), Message: st.Message()}
}
