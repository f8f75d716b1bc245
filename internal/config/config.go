package config

import (
	"crypto/sha256"
	"log/slog"
	"time"

	"github.com/tollgate-dev/tollgate/descriptors/consumers"
	"github.com/tollgate-dev/tollgate/envoy/ratelimit"
	"github.com/tollgate-dev/tollgate/envoy/ratelimit/xds"
	"github.com/tollgate-dev/tollgate/extauthz"
	"github.com/tollgate-dev/tollgate/extauthz/upstreams"
	"github.com/tollgate-dev/tollgate/limits"
	"github.com/tollgate-dev/tollgate/limits/redis"
)

// Config is tollgate.yaml. It is immutable once loaded. The comments name the
// keys; what a key is when absent is written in [Default].
type Config struct {
	Listen    Listen              // listen
	Admin     Admin               // admin
	Policy    extauthz.Policy     // credentials, strip_credentials, anonymous, limits.mode, limits.headers, authz
	Consumers Consumers           // consumers
	Limits    Limits              // limits
	Rules     Rules               // rules
	Cluster   Cluster             // cluster
	Upstreams []*upstreams.Config // upstreams
	Telemetry Telemetry           // telemetry

	// RateLimit is what the environment of a deployment of envoyproxy/ratelimit
	// says of the answers, beside Policy and Rules; the file has no keys for it.
	RateLimit ratelimit.Policy
}

// Listen says where Tollgate listens. A change of it needs a restart.
type Listen struct {
	GRPC  string        // grpc: HOST:PORT or unix:PATH, asked by Envoy
	Fast  string        // fast: HOST:PORT or unix:PATH, the hot calls once more; empty: not served
	HTTP  string        // http: HOST:PORT; health, metrics, admin API
	TLS   *TLS          // tls of the gRPC ports; nil: plaintext
	Drain time.Duration // drain: how long decisions go on after SIGTERM

	MaxConnectionAge      time.Duration // max_connection_age of gRPC connections, after which clients connect anew; 0: without bound
	MaxConnectionAgeGrace time.Duration // max_connection_age_grace for calls on a connection that is too old; 0: without bound

	// Without a key of the file, from the environment only.
	Reading []string // HOST:PORTs that serve all of http that only reads, without the admin API
}

// TLS is the gRPC port's certificate and, with a client CA, whom it lets in.
// The files are read again when they change.
type TLS struct {
	Cert, Key  string   // cert, key: PEM files
	ClientCA   string   // client_ca: PEM file; empty: clients need no certificate
	ClientSANs []string // client_sans: URIs or DNS names of which a client must have one; empty: any of that CA
}

// Admin guards the admin API.
type Admin struct {
	Token TokenHash // token: zero: none, and the API answers on loopback only
}

// TokenHash is the SHA-256 of the admin token.
type TokenHash [sha256.Size]byte

// Consumers says where consumers come from.
type Consumers struct {
	Source string        // source: embedded, file, postgres, mysql or apollo
	File   string        // file: of source file
	DSN    string        // dsn: of a database; a secret
	Poll   time.Duration // poll: how often a database is asked for changes

	// Sessions is sessions, of source apollo: the limit of requests without a
	// token, all together, which the portal's own pages send; 1000/s by default. With that source
	// credentials, strip_credentials and anonymous are by default what a portal
	// needs: its own tokens, which it must see too, and anonymous: "@portal".
	Sessions consumers.Limits
	Plans    map[string]consumers.Plan // plans, a key of the top level: what consumers of every source but file may name
}

// Remote reports whether consumers come from a database.
func (c Consumers) Remote() bool { return c.Source != SourceEmbedded && c.Source != SourceFile }

// Limits are the defaults of all consumers and the bounds of what is kept.
type Limits struct {
	Default consumers.Limits    // default: of consumers that name no limit; empty: unlimited
	WarmUp  limits.WarmUp       // warm_up: grace, ramp, grace_limit
	Cache   limits.TableOptions // cache: size, idle
}

// Rules says which descriptors of requests have limits.
type Rules struct {
	Files        []string // files: paths or patterns as in path.Match, made absolute or relative to the working directory
	CountRefused bool     // count_refused: refused hits use up the rule's limit, as in envoyproxy/ratelimit

	// Without keys of the file, from the environment only.
	Dir          string       // every YAML file below it but hidden ones
	XDS          *xds.Options // where rules come from instead of files; what to do with them is left open
	MergeDomains bool         // files may share a domain
	Optional     bool         // ready without any rules
}

// Telemetry says what Tollgate tells about itself.
type Telemetry struct {
	Traces        bool          // traces: otlp, as the OTEL_* variables say; false: none
	TopConsumers  int           // top_consumers: how many have metrics of their own
	LogLevel      slog.Level    // log.level: debug, info, warn or error
	LogFormat     string        // log.format: json or text
	Audit         string        // audit: log, stdout, or the file that every change is written to
	RefusalsEvery time.Duration // log.refusals_every: how often a burst of refusals is summed up

	RateLimitMetrics *RateLimitMetrics // from the environment only; nil: none
}

// RateLimitMetrics asks for metrics under the names of envoyproxy/ratelimit too.
type RateLimitMetrics struct {
	Path      string  // where they are served beside /metrics
	NearRatio float64 // from which part of a limit on a hit is near it, 0 to 1
}

// The places where consumers may come from.
const (
	SourceEmbedded = "embedded"
	SourceFile     = "file"
	SourcePostgres = "postgres"
	SourceMySQL    = "mysql"
	SourceApollo   = "apollo"
)

// The places of the audit that are no files.
const (
	AuditLog    = "log"
	AuditStdout = "stdout"
)

// Default is the configuration of `tollgate serve` without a file: every port
// on loopback, consumers in the embedded store.
func Default() Config {
	return Config{
		Listen: Listen{
			GRPC:  "127.0.0.1:8081",
			HTTP:  "127.0.0.1:8080",
			Drain: 5 * time.Second,
		},
		Policy: extauthz.Policy{
			Credentials: []extauthz.Place{{Header: "authorization", Scheme: "Bearer"}, {Header: "x-api-key"}},
			Strip:       true,
			Domain:      "mesh",
		},
		Consumers: Consumers{Source: SourceEmbedded, Poll: time.Second},
		Limits: Limits{
			Default: consumers.Limits{{Limit: limits.Limit{Kind: limits.Rate, N: 20, Period: time.Second}}},
			WarmUp:  limits.WarmUp{Grace: time.Second, Ramp: time.Second},
			Cache:   limits.TableOptions{Size: 100_000, Idle: time.Hour},
		},
		Cluster: Cluster{Mode: redis.Leased, Error: limits.OnErrorLocal, Size: 1},
		Telemetry: Telemetry{
			TopConsumers:  100,
			LogLevel:      slog.LevelInfo,
			LogFormat:     "json",
			Audit:         AuditLog,
			RefusalsEvery: 10 * time.Second,
		},
	}
}
