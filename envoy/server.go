package envoy

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"sync"
	"time"

	alsv3 "github.com/envoyproxy/go-control-plane/envoy/service/accesslog/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	"github.com/tollgate-dev/tollgate/envoy/fastgrpc"
)

const (
	// workers are goroutines that wait for calls. A call that finds one idle
	// saves the start of a goroutine and the growth of its stack, a fifth of
	// what a small call costs; a call that finds none starts its own.
	workers = 64

	// maxMessage bounds a request. A checked request holds all its headers,
	// and its body where Envoy is told to send it.
	maxMessage = 8 << 20

	// streamWindow and connectionWindow are what a client may send before it is
	// read. Fixed ones spare the pings by which grpc-go estimates what a
	// connection can carry, one for nearly every call where few are in flight.
	streamWindow     = 256 << 10
	connectionWindow = 4 << 20

	// minPing is how often a client may ping. Envoy's connection_keepalive
	// pings as often as it is told, and before a request on an idle connection;
	// grpc-go's default of five minutes answers that with GOAWAY.
	minPing = 100 * time.Millisecond

	handshakeWithin = 10 * time.Second
)

// HealthNames returns the services that grpc.health.v1 answers for: the whole
// server, each API, and the name that envoyproxy/ratelimit uses.
func HealthNames() []string {
	return []string{"", authv3.Authorization_ServiceDesc.ServiceName, rlsv3.RateLimitService_ServiceDesc.ServiceName, "ratelimit",
		extprocv3.ExternalProcessor_ServiceDesc.ServiceName, alsv3.AccessLogService_ServiceDesc.ServiceName}
}

// ServerOptions configure a server. The zero value serves plaintext and
// measures nothing.
type ServerOptions struct {
	TLS     *TLS
	Drain   time.Duration         // how long decisions go on after NOT_SERVING; 0 skips that
	Log     *slog.Logger          // nil: none
	Metrics prometheus.Registerer // nil: none

	// MaxConnectionAge makes clients connect anew from time to time, which
	// spreads them over instances that have come since. 0 means never.
	MaxConnectionAge      time.Duration
	MaxConnectionAgeGrace time.Duration // for calls on such a connection; 0 means without bound
}

// Server is a gRPC server with health and reflection. Register services before
// Serve; all else is safe for concurrent use.
type Server struct {
	grpc     *grpc.Server
	health   *health.Server
	metrics  *metrics
	log      *slog.Logger
	drain    time.Duration
	stopping context.Context // done once no new call is taken
	stop     context.CancelFunc
	serving  sync.Once

	services      []service // for the fast listener, as is inBytes: the methods that are answered in bytes
	inBytes       map[string]BytesHandler
	fastServer    func() *fastgrpc.Server
	showFast      func() error // registers the fast listener's own metrics
	tls           *tls.Config  // nil: plaintext
	age, ageGrace time.Duration
}

// service is one that was registered.
type service struct {
	desc *grpc.ServiceDesc
	impl any
}

// NewServer returns a server that is healthy once it serves. The error is about
// the TLS files or about metrics that are registered twice.
func NewServer(o ServerOptions) (*Server, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	m, err := newMetrics(o.Metrics)
	if err != nil {
		return nil, err
	}
	s := &Server{
		metrics: m, log: o.Log, drain: o.Drain, health: health.NewServer(),
		age: o.MaxConnectionAge, ageGrace: o.MaxConnectionAgeGrace, inBytes: make(map[string]BytesHandler),
	}
	s.fastServer = sync.OnceValue(s.newFastServer)
	s.showFast = sync.OnceValue(func() error { return registerFast(o.Metrics, s.fastServer()) })
	s.stopping, s.stop = context.WithCancel(context.Background())
	options := []grpc.ServerOption{
		grpc.NumStreamWorkers(workers),
		grpc.ForceServerCodecV2(newCodec()),
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.StaticStreamWindowSize(streamWindow),
		grpc.StaticConnWindowSize(connectionWindow),
		grpc.ConnectionTimeout(handshakeWithin),
		grpc.UnaryInterceptor(s.unary),
		grpc.StreamInterceptor(s.stream),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: minPing, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			MaxConnectionAge: o.MaxConnectionAge, MaxConnectionAgeGrace: o.MaxConnectionAgeGrace,
			Time: time.Minute, Timeout: 20 * time.Second, // an Envoy that vanished without a word
		}),
	}
	if o.TLS != nil {
		config, err := serverConfig(*o.TLS, o.Log)
		if err != nil {
			return nil, err
		}
		s.tls = config
		options = append(options, grpc.Creds(credentials.NewTLS(config)))
	}
	s.grpc = grpc.NewServer(options...)
	healthpb.RegisterHealthServer(s, s.health)
	reflection.Register(s.grpc)
	s.MarkReady()
	return s, nil
}

// RegisterService implements [grpc.ServiceRegistrar].
func (s *Server) RegisterService(d *grpc.ServiceDesc, impl any) {
	s.grpc.RegisterService(d, impl)
	s.services = append(s.services, service{d, impl})
}

// MarkReady says SERVING for every name.
func (s *Server) MarkReady() { s.setHealth(healthpb.HealthCheckResponse_SERVING) }

// MarkUnready says NOT_SERVING for every name; calls are answered as before.
func (s *Server) MarkUnready() { s.setHealth(healthpb.HealthCheckResponse_NOT_SERVING) }

func (s *Server) setHealth(status healthpb.HealthCheckResponse_ServingStatus) {
	for _, name := range HealthNames() {
		s.health.SetServingStatus(name, status)
	}
}

// Serve answers calls on lis, which it closes, until Drain or Close. It may be
// called for several listeners, after every service has been registered.
func (s *Server) Serve(lis net.Listener) error {
	s.serving.Do(func() { s.metrics.know(s.grpc.GetServiceInfo()) })
	return s.grpc.Serve(lis)
}

// Drain shuts down as the package documentation says and returns when the last
// call is answered. When ctx ends first, what still runs is cut off and the
// context's error returned.
func (s *Server) Drain(ctx context.Context) error {
	s.health.Shutdown()
	wait := time.NewTimer(s.drain)
	defer wait.Stop()
	select {
	case <-wait.C:
	case <-ctx.Done():
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.grpc.GracefulStop()
	}()
	s.stop()
	err := s.fastServer().Shutdown(ctx)
	select {
	case <-done:
		return err
	case <-ctx.Done():
		s.grpc.Stop()
		<-done
		return ctx.Err()
	}
}

// Close cuts off what runs.
func (s *Server) Close() {
	s.stop()
	s.fastServer().Close()
	s.grpc.Stop()
}
