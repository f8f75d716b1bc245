package server

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tollgate-dev/tollgate/descriptors"
	"github.com/tollgate-dev/tollgate/descriptors/consumers"
	"github.com/tollgate-dev/tollgate/descriptors/consumers/embedded"
	"github.com/tollgate-dev/tollgate/envoy"
	"github.com/tollgate-dev/tollgate/envoy/ratelimit"
	"github.com/tollgate-dev/tollgate/envoy/ratelimit/xds"
	"github.com/tollgate-dev/tollgate/extauthz"
	"github.com/tollgate-dev/tollgate/extauthz/upstreams"
	"github.com/tollgate-dev/tollgate/internal/config"
	"github.com/tollgate-dev/tollgate/internal/events"
	"github.com/tollgate-dev/tollgate/internal/telemetry"
	"github.com/tollgate-dev/tollgate/limits"
	"github.com/tollgate-dev/tollgate/limits/redis"
)

// Options say how the process runs; the configuration file says what is decided.
type Options struct {
	ConfigPath string          // tollgate.yaml; empty: the defaults
	DataDir    string          // the embedded store's folder; empty: ./tollgate-data
	Lookup     config.Lookup   // environment variables of the configuration; nil: os.LookupEnv
	Log        io.Writer       // nil: standard error
	Build      telemetry.Build // shown in metrics

	// Unobserved tells nobody of decisions: no metrics, no log, no traces. It
	// is there to measure what those cost.
	Unobserved bool
}

func (o Options) withDefaults() Options {
	if o.Lookup == nil {
		o.Lookup = os.LookupEnv
	}
	if o.Log == nil {
		o.Log = os.Stderr
	}
	return o
}

// Server is a running Tollgate. Its methods are safe for concurrent use.
type Server struct {
	o     Options
	log   *slog.Logger
	level *slog.LevelVar

	// What decides.
	clock     *limits.Clock
	table     *limits.Table
	queue     *limits.Queue
	cluster   *redis.Cluster // nil: this instance counts for itself
	registry  *consumers.Registry
	book      *descriptors.Book
	authz     *extauthz.Server
	upstreams *upstreams.Registry
	rls       *ratelimit.Server
	xds       *xds.Client // nil: rules are files

	// Where consumers, settings and states are kept.
	db            *embedded.DB
	store         consumers.Store
	database      database // the store, where it is one; else nil
	sourceChanged chan struct{}

	// What tells.
	prom     *prometheus.Registry
	metrics  *telemetry.Metrics
	top      *telemetry.Top
	observer *telemetry.Observer
	tracer   *telemetry.Tracer // nil: none
	stats    *ratelimit.Stats  // nil: nobody asks for envoyproxy/ratelimit's names
	events   *events.Log
	audit    *os.File // what events are written to; nil: no file of our own

	// Who is asked.
	grpc         *envoy.Server
	http         *http.Server
	grpcListener net.Listener
	fastListener net.Listener // nil: not configured
	httpListener net.Listener
	reading      *http.Server // what of http only reads, for further listeners
	readingOn    []net.Listener
	draining     atomic.Bool
	failed       chan error // a listener that ended by itself

	current atomic.Pointer[current]
	change  sync.Mutex // serializes changes of current

	stop    context.CancelFunc
	running sync.WaitGroup // what ends with stop
	serving sync.WaitGroup // the listeners
	closing sync.Once
	closed  error
	opened  []func() error // what to release, in the order of opening
}

// current is what is in force, and what is known of the files. It is immutable.
type current struct {
	*config.Loaded
	sources  config.Sources
	at       time.Time
	settings embedded.Settings // changed through the admin API
	lastErr  error             // why the files as they are now are not in force
	fetched  bool              // Rules came over xDS
	rejected error             // why those that came last are not in force
	sourced  bool              // the consumers are known
}

// waits reports whether there are no rules to decide by yet.
func (c *current) waits() bool { return c.Config.Rules.XDS != nil && !c.fetched }

func (c *current) ready() bool { return c.sourced && (!c.waits() || c.Config.Rules.Optional) }

// Start runs a Tollgate until Drain or Close. ctx is not used after it returns.
func Start(ctx context.Context, o Options) (*Server, error) {
	o = o.withDefaults()
	loaded, sources, err := config.Load(o.ConfigPath, o.Lookup)
	if err != nil {
		return nil, err
	}
	s := &Server{o: o, level: new(slog.LevelVar), clock: limits.NewClock(), sourceChanged: make(chan struct{}, 1), failed: make(chan error, 3+len(loaded.Config.Listen.Reading))}
	s.log = telemetry.NewLogger(o.Log, loaded.Config.Telemetry.LogFormat, s.level)
	s.current.Store(&current{Loaded: loaded, sources: sources, at: time.Now(), sourced: !loaded.Config.Consumers.Remote()})
	if err := s.open(ctx); err != nil {
		return nil, errors.Join(err, s.release())
	}
	s.run()
	return s, nil
}

// open builds everything up to the listeners.
func (s *Server) open(ctx context.Context) error {
	for _, step := range []func(context.Context) error{s.openEvents, s.openCluster, s.openStore, s.openDecision, s.openUpstreams, s.openTelemetry, s.openServers, s.openXDS} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// opens notes how to release what a step has opened.
func (s *Server) opens(release func() error) { s.opened = append(s.opened, release) }

// release closes what was opened, the last first.
func (s *Server) release() error {
	var errs []error
	for _, release := range slices.Backward(s.opened) {
		errs = append(errs, release())
	}
	s.opened = nil
	return errors.Join(errs...)
}

// GRPCAddr returns where Envoy may ask: HOST:PORT or unix:PATH.
func (s *Server) GRPCAddr() string { return addr(s.grpcListener) }

// FastAddr returns where the fast listener may be asked, or "".
func (s *Server) FastAddr() string {
	if s.fastListener == nil {
		return ""
	}
	return addr(s.fastListener)
}

// HTTPAddr returns the HOST:PORT of health, metrics and admin API.
func (s *Server) HTTPAddr() string { return addr(s.httpListener) }

func addr(l net.Listener) string {
	if a := l.Addr(); a.Network() == "unix" {
		return "unix:" + a.String()
	}
	return l.Addr().String()
}

// ReadingAddrs returns the HOST:PORTs of what the environment asks for beside
// HTTPAddr: envoyproxy/ratelimit's ports for debugging and for Prometheus.
func (s *Server) ReadingAddrs() []string {
	addrs := make([]string, len(s.readingOn))
	for i, l := range s.readingOn {
		addrs[i] = addr(l)
	}
	return addrs
}

// Failed delivers the error of a listener that ended by itself.
func (s *Server) Failed() <-chan error { return s.failed }

// Top returns who is busiest, live.
func (s *Server) Top() *telemetry.Top { return s.top }

// Store returns the consumers; changes are in force when a call returns.
func (s *Server) Store() consumers.Store { return s.store }
