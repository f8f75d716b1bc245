package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	alsv3 "github.com/envoyproxy/go-control-plane/envoy/service/accesslog/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tollgate-dev/tollgate/descriptors"
	"github.com/tollgate-dev/tollgate/descriptors/consumers"
	"github.com/tollgate-dev/tollgate/descriptors/consumers/embedded"
	"github.com/tollgate-dev/tollgate/envoy"
	"github.com/tollgate-dev/tollgate/envoy/accesslog"
	"github.com/tollgate-dev/tollgate/envoy/extproc"
	"github.com/tollgate-dev/tollgate/envoy/ratelimit"
	"github.com/tollgate-dev/tollgate/extauthz"
	"github.com/tollgate-dev/tollgate/internal/config"
	"github.com/tollgate-dev/tollgate/internal/telemetry"
	"github.com/tollgate-dev/tollgate/limits"
)

// openStore opens the data directory: settings and states are kept there
// whatever the source of the consumers is.
func (s *Server) openStore(ctx context.Context) (err error) {
	dir, err := s.dataDir()
	if err != nil {
		return fmt.Errorf("make the data directory: %w: name another with --data-dir", err)
	}
	s.db, err = embedded.Open(filepath.Join(dir, embedded.FileName), embedded.Options{
		Clock:  s.clock,
		Failed: func(err error) { s.log.Error("states could not be written, trying again", "err", err) },
	})
	if err != nil {
		return err
	}
	s.opens(s.db.Close)
	now := *s.current.Load()
	if now.settings, err = s.db.Settings(configured(now.Config)); err != nil {
		return err
	}
	s.current.Store(&now)
	options := registryOptions(&now)
	if s.cluster != nil {
		options.Share = s.cluster.Share
	}
	s.registry = consumers.NewRegistry(options)
	if err := s.db.Remember(s.registry); err != nil {
		return err
	}
	if now.Config.Consumers.Source == config.SourceFile {
		s.store = consumers.NewReadOnly(s.registry, func(context.Context) error { return s.Reload() })
		return s.registry.Replace(s.clock.Now(), *now.Consumers)
	}
	if err := s.registry.SetPlans(s.clock.Now(), now.Config.Consumers.Plans); err != nil {
		return err
	}
	if now.Config.Consumers.Source != config.SourceEmbedded {
		return s.openDatabase(ctx)
	}
	s.store, err = s.db.Consumers(s.registry, nil)
	return err
}

// dataDir makes the folder of the store. A container that was made for
// envoyproxy/ratelimit may have no place for one, and needs nothing of it after
// its end: there a temporary one does, unless a folder was named.
func (s *Server) dataDir() (string, error) {
	dir := cmp.Or(s.o.DataDir, "tollgate-data")
	err := os.MkdirAll(dir, 0o700)
	if err == nil || s.o.DataDir != "" || s.current.Load().Config.RateLimit.Plain == nil {
		return dir, err
	}
	s.log.Warn("nowhere to keep state, using a temporary folder: name one with --data-dir", "err", err)
	dir, err = os.MkdirTemp("", "tollgate-")
	if err == nil {
		s.opens(func() error { return os.RemoveAll(dir) })
	}
	return dir, err
}

func (s *Server) openDecision(context.Context) error {
	now := s.current.Load()
	table := now.Config.Limits.Cache
	if s.cluster != nil {
		table.Share = s.cluster.ShareKey
	}
	s.table = limits.NewTable(table)
	if err := s.db.RememberTable(s.table); err != nil {
		return err
	}
	s.book = descriptors.NewBook(s.table)
	s.queue = limits.NewQueue(s.clock, limits.QueueOptions{})
	s.opens(func() error { s.queue.Close(); return nil })
	return nil
}

func (s *Server) openTelemetry(ctx context.Context) (err error) {
	s.prom = prometheus.NewRegistry()
	s.top = telemetry.NewTop(s.current.Load().Config.Telemetry.TopConsumers)
	s.metrics = telemetry.NewMetrics(s.prom, s.o.Build, telemetry.Live{
		Limiters:  s.table.Len,
		Evictions: s.table.Evictions,
		Rules:     s.book.Tallies,
		Unknown:   func() uint64 { return s.rls.UnknownDomains() },
		Consumers: func() int { n, _ := s.registry.Len(); return n },
	}, s.top)
	if s.current.Load().Config.Telemetry.Traces {
		s.tracer, err = telemetry.NewTracer(ctx, telemetry.TracerOptions{Build: s.o.Build, Log: s.log, Lookup: s.o.Lookup})
		if err != nil {
			return fmt.Errorf("telemetry.traces: %w", err)
		}
		s.opens(s.closeTracer)
	}
	if s.cluster != nil {
		telemetry.NewCluster(s.prom, s.cluster.Stats)
	}
	telemetry.NewUpstreams(s.prom, s.upstreams, s.clock)
	s.observer = telemetry.NewObserver(s.metrics, s.top, s.tracer, s.log)
	s.sourceMetrics()
	if m := s.current.Load().Config.Telemetry.RateLimitMetrics; m != nil {
		s.stats = ratelimit.NewStats(m.NearRatio)
		s.prom.MustRegister(s.stats)
	}
	return nil
}

func (s *Server) openServers(ctx context.Context) (err error) {
	now := s.current.Load()
	listen := now.Config.Listen
	var observer extauthz.Observer = s.observer
	var registerer prometheus.Registerer = s.prom
	if s.o.Unobserved {
		observer, registerer = nil, nil
	}
	s.authz = extauthz.New(extauthz.Options{
		Registry: s.registry, Book: s.book, Upstreams: s.upstreams, Clock: s.clock, Queue: s.queue, Shared: s.taker(), Observer: observer, Traced: s.tracer != nil,
	}, new(extauthz.Policy))
	s.rls = ratelimit.New(ratelimit.Options{
		Registry: s.registry, Book: s.book, Clock: s.clock, Queue: s.queue, Shared: s.taker(), Observer: observer, Traced: s.tracer != nil, Stats: s.stats,
	}, ratelimit.Policy{})
	s.putInForce(now)
	if !now.waits() {
		s.loaded(now.at, nil)
	}

	o := envoy.ServerOptions{
		Drain: listen.Drain, Log: s.log, Metrics: registerer,
		MaxConnectionAge: listen.MaxConnectionAge, MaxConnectionAgeGrace: listen.MaxConnectionAgeGrace,
	}
	if t := listen.TLS; t != nil {
		o.TLS = &envoy.TLS{Cert: t.Cert, Key: t.Key, ClientCA: t.ClientCA, ClientSANs: t.ClientSANs}
	}
	if s.grpc, err = envoy.NewServer(o); err != nil {
		return err
	}
	if !s.current.Load().ready() {
		s.grpc.MarkUnready()
	}
	s.grpc.RegisterBytes(authv3.Authorization_ServiceDesc, s.authz, "Check", s.authz.CheckBytes)
	extprocv3.RegisterExternalProcessorServer(s.grpc, extproc.New(extproc.Options{Upstreams: s.upstreams, Clock: s.clock}))
	alsv3.RegisterAccessLogServiceServer(s.grpc, accesslog.New(accesslog.Options{Upstreams: s.upstreams, Clock: s.clock}))
	s.grpc.RegisterBytes(rlsv3.RateLimitService_ServiceDesc, s.rls, "ShouldRateLimit", s.rls.ShouldRateLimitBytes)
	if s.grpcListener, err = envoy.Listen(listen.GRPC); err != nil {
		return fmt.Errorf("listen.grpc: %w", err)
	}
	s.opens(func() error { return closed(s.grpcListener) })
	if listen.Fast != "" {
		if s.fastListener, err = envoy.Listen(listen.Fast); err != nil {
			return fmt.Errorf("listen.fast: %w", err)
		}
		s.opens(func() error { return closed(s.fastListener) })
	}
	var lc net.ListenConfig
	if s.httpListener, err = lc.Listen(ctx, "tcp", listen.HTTP); err != nil {
		return fmt.Errorf("listen.http: %w", err)
	}
	s.opens(func() error { return closed(s.httpListener) })
	s.http = newHTTP(s.everything())
	s.reading = newHTTP(s.reads())
	for _, address := range listen.Reading {
		l, err := lc.Listen(ctx, "tcp", address)
		if err != nil {
			return fmt.Errorf("listen on the port for debugging or metrics: %w", err)
		}
		s.readingOn = append(s.readingOn, l)
		s.opens(func() error { return closed(l) })
	}
	return nil
}

// closeTracer exports what is waiting. A receiver that is away must not hold up
// the end.
func (s *Server) closeTracer() error {
	ctx, cancel := context.WithTimeout(context.Background(), exportWithin)
	defer cancel()
	if err := s.tracer.Close(ctx); err != nil {
		s.log.Warn("the last traces were not exported", "err", err)
	}
	return nil
}

// closed closes a listener that its server may have closed already.
func closed(l net.Listener) error {
	if err := l.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}
