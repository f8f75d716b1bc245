package config

import (
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/tollgate-dev/tollgate/descriptors/yamlfile"
	"github.com/tollgate-dev/tollgate/envoy/ratelimit"
	"github.com/tollgate-dev/tollgate/envoy/ratelimit/xds"
	"github.com/tollgate-dev/tollgate/extauthz"
)

// A deployment of envoyproxy/ratelimit is configured by environment variables
// alone. Without a tollgate.yaml, Tollgate takes them as they are: this file
// holds what each means.

// understood are the variables that have their effect.
var understood = []string{
	"CONFIG_TYPE", "FORCE_START_WITHOUT_INITIAL_CONFIG", "HEALTHY_WITH_AT_LEAST_ONE_CONFIG_LOADED", "MERGE_DOMAIN_CONFIG",
	"RUNTIME_ROOT", "RUNTIME_SUBDIRECTORY", "RUNTIME_APPDIRECTORY", "RUNTIME_IGNOREDOTFILES", "RUNTIME_WATCH_ROOT",
	"CONFIG_GRPC_XDS_NODE_ID", "CONFIG_GRPC_XDS_NODE_METADATA", "CONFIG_GRPC_XDS_SERVER_URL", "CONFIG_GRPC_XDS_CLIENT_ADDITIONAL_HEADERS",
	"CONFIG_GRPC_XDS_SERVER_USE_TLS", "CONFIG_GRPC_XDS_CLIENT_TLS_CERT", "CONFIG_GRPC_XDS_CLIENT_TLS_KEY",
	"CONFIG_GRPC_XDS_SERVER_TLS_CACERT", "CONFIG_GRPC_XDS_SERVER_TLS_SAN",
	"XDS_CLIENT_BACKOFF_INITIAL_INTERVAL", "XDS_CLIENT_BACKOFF_MAX_INTERVAL", "XDS_CLIENT_BACKOFF_RANDOM_FACTOR",
	"XDS_CLIENT_BACKOFF_JITTER", "XDS_CLIENT_MAX_MSG_SIZE_IN_BYTES",
	"GRPC_HOST", "GRPC_PORT", "GRPC_UDS", "GRPC_MAX_CONNECTION_AGE", "GRPC_MAX_CONNECTION_AGE_GRACE",
	"GRPC_SERVER_USE_TLS", "GRPC_SERVER_TLS_CERT", "GRPC_SERVER_TLS_KEY", "GRPC_CLIENT_TLS_CACERT", "GRPC_CLIENT_TLS_SAN",
	"LIMIT_RESPONSE_HEADERS_ENABLED", "LIMIT_LIMIT_HEADER", "LIMIT_REMAINING_HEADER", "LIMIT_RESET_HEADER",
	"RESPONSE_DYNAMIC_METADATA", "SHADOW_MODE", "QUOTA_MODE", "STOP_CACHE_KEY_INCREMENT_WHEN_OVERLIMIT",
	"USE_PROMETHEUS", "PROMETHEUS_ADDR", "PROMETHEUS_PATH", "NEAR_LIMIT_RATIO",
}

// generalIdle have no effect, and are other programs' names too.
var generalIdle = []string{"PROTO", "EXTRA_TAGS", "STATSD_HOST", "STATSD_PORT"}

// idle are known and without effect: what they tune is not there.
var idle = []string{
	"BACKEND_TYPE", "EXPIRATION_JITTER_MAX_SECONDS", "LOCAL_CACHE_SIZE_IN_BYTES",
	"CONFIG_GRPC_XDS_SERVER_CONNECT_RETRY_INTERVAL",
	"REDIS_POOL_SIZE", "REDIS_SENTINEL_AUTH", "REDIS_TLS_SKIP_HOSTNAME_VERIFICATION",
	"REDIS_TIMEOUT", "REDIS_PIPELINE_WINDOW", "REDIS_PIPELINE_LIMIT", "REDIS_CLUSTER_PIPELINE_PARALLELISM",
	"REDIS_POOL_ON_EMPTY_BEHAVIOR", "REDIS_HEALTH_CHECK_ACTIVE_CONNECTION",
	"REDIS_STARTUP_INITIAL_INTERVAL", "REDIS_STARTUP_MAX_INTERVAL", "REDIS_STARTUP_MAX_ELAPSED_TIME",
	"REDIS_PERSECOND", "REDIS_PERSECOND_SOCKET_TYPE", "REDIS_PERSECOND_TYPE", "REDIS_PERSECOND_URL", "REDIS_PERSECOND_POOL_SIZE",
	"REDIS_PERSECOND_AUTH", "REDIS_PERSECOND_SENTINEL_AUTH", "REDIS_PERSECOND_TLS", "REDIS_PERSECOND_TIMEOUT",
	"REDIS_PERSECOND_PIPELINE_WINDOW", "REDIS_PERSECOND_PIPELINE_LIMIT", "REDIS_PERSECOND_CLUSTER_PIPELINE_PARALLELISM",
	"REDIS_PERSECOND_POOL_ON_EMPTY_BEHAVIOR",
	"MEMCACHE_HOST_PORT", "MEMCACHE_SRV", "MEMCACHE_SRV_REFRESH", "MEMCACHE_MAX_IDLE_CONNS", "MEMCACHE_TLS",
	"MEMCACHE_TLS_CLIENT_CERT", "MEMCACHE_TLS_CLIENT_KEY", "MEMCACHE_TLS_CACERT", "MEMCACHE_TLS_SKIP_HOSTNAME_VERIFICATION",
	"USE_STATSD", "USE_DOG_STATSD", "USE_DOG_STATSD_MOGRIFIERS", "STATS_FLUSH_INTERVAL", "DISABLE_STATS",
	"PROMETHEUS_MAPPER_YAML", "PROMETHEUS_RESPONSE_TIME_AS_MILLISECONDS",
	"TRACING_ENABLED", "TRACING_EXPORTER_PROTOCOL", "TRACING_SERVICE_NAME", "TRACING_SERVICE_NAMESPACE",
	"TRACING_SERVICE_INSTANCE_ID", "TRACING_SAMPLING_RATE",
}

// InRateLimitEnvironment reports whether the environment is that of a
// deployment of envoyproxy/ratelimit, which Load then follows where it is given
// no file.
func InRateLimitEnvironment(lookup Lookup) bool {
	e := environment{&loader{lookup: lookup}}
	for _, names := range [][]string{understood, redisVariables, idle} {
		for _, name := range names {
			if _, ok := e.lookupText(name); ok {
				return true
			}
		}
	}
	return false
}

// AsRateLimit makes an environment that of a deployment of envoyproxy/ratelimit,
// also where it sets none of its variables and every default counts.
func AsRateLimit(lookup Lookup) Lookup {
	return func(name string) (string, bool) {
		if value, ok := lookup(name); ok || name != "CONFIG_TYPE" {
			return value, ok
		}
		return "FILE", true
	}
}

// rateLimit reads the whole environment.
func (e environment) rateLimit() {
	c := &e.r.c
	e.listeners(&c.Listen)
	e.logs(&c.Telemetry)
	e.answers(c)
	e.redis(&c.Cluster)
	c.Rules.MergeDomains = e.flag("MERGE_DOMAIN_CONFIG", false)
	c.Rules.Optional = e.flag("FORCE_START_WITHOUT_INITIAL_CONFIG", false) && !e.flag("HEALTHY_WITH_AT_LEAST_ONE_CONFIG_LOADED", false)
	// Dot files are never rules, and all that leads to the files is watched, whatever these say.
	e.flag("RUNTIME_IGNOREDOTFILES", true)
	e.flag("RUNTIME_WATCH_ROOT", false)
	if e.oneOf("CONFIG_TYPE", "FILE", "GRPC_XDS_SOTW") == "FILE" {
		c.Rules.Dir = filepath.Join(e.text("RUNTIME_ROOT", "/srv/runtime_data/current"), e.text("RUNTIME_SUBDIRECTORY", ""), e.text("RUNTIME_APPDIRECTORY", "config"))
	} else {
		c.Rules.XDS = e.xds()
	}
	e.withoutEffect()
}

func (e environment) listeners(l *Listen) {
	l.HTTP = e.address("HOST", "PORT", 8080)
	l.GRPC = e.address("GRPC_HOST", "GRPC_PORT", 8081)
	if path := e.text("GRPC_UDS", ""); path != "" {
		l.GRPC = "unix:" + path
	}
	l.Reading = []string{e.address("DEBUG_HOST", "DEBUG_PORT", 6070)}
	l.MaxConnectionAge = e.duration("GRPC_MAX_CONNECTION_AGE", 24*time.Hour)
	l.MaxConnectionAgeGrace = e.duration("GRPC_MAX_CONNECTION_AGE_GRACE", time.Hour)
	if !e.flag("GRPC_SERVER_USE_TLS", false) {
		return
	}
	t := &TLS{Cert: e.text("GRPC_SERVER_TLS_CERT", ""), Key: e.text("GRPC_SERVER_TLS_KEY", ""), ClientCA: e.text("GRPC_CLIENT_TLS_CACERT", "")}
	if t.Cert == "" || t.Key == "" {
		e.wrong("GRPC_SERVER_USE_TLS", "want both GRPC_SERVER_TLS_CERT and GRPC_SERVER_TLS_KEY")
		return
	}
	if san := e.text("GRPC_CLIENT_TLS_SAN", ""); san != "" {
		t.ClientSANs = []string{san}
		if t.ClientCA == "" {
			e.wrong("GRPC_CLIENT_TLS_SAN", "want GRPC_CLIENT_TLS_CACERT too: without it no client certificate is checked")
		}
	}
	l.TLS = t
}

func (e environment) logs(t *Telemetry) {
	t.LogFormat = e.oneOf("LOG_FORMAT", "text", "json")
	switch e.oneOf("LOG_LEVEL", "warn", "warning", "trace", "debug", "info", "error", "fatal", "panic") {
	case "trace", "debug":
		t.LogLevel = slog.LevelDebug
	case "info":
		t.LogLevel = slog.LevelInfo
	case "warn", "warning":
		t.LogLevel = slog.LevelWarn
	default:
		t.LogLevel = slog.LevelError
	}
	if !e.flag("USE_PROMETHEUS", false) {
		return
	}
	addr := e.text("PROMETHEUS_ADDR", ":9090")
	t.RateLimitMetrics = &RateLimitMetrics{Path: e.text("PROMETHEUS_PATH", "/metrics"), NearRatio: e.ratio("NEAR_LIMIT_RATIO", 0.8)}
	if !isHostPort(addr) {
		e.wrong("PROMETHEUS_ADDR", "%q: want HOST:PORT", addr)
	}
	if !strings.HasPrefix(t.RateLimitMetrics.Path, "/") {
		e.wrong("PROMETHEUS_PATH", "%q: want a path that begins with /", t.RateLimitMetrics.Path)
	}
	l := &e.r.c.Listen
	if !samePort(addr, l.HTTP) && !samePort(addr, l.Reading[0]) {
		l.Reading = append(l.Reading, addr)
	}
}

// samePort reports whether two addresses are one; a free port is never another.
func samePort(a, b string) bool {
	a, b = strings.TrimPrefix(a, "0.0.0.0"), strings.TrimPrefix(b, "0.0.0.0")
	return a == b && !strings.HasSuffix(a, ":0")
}

// answers reads what there is to say about a decision and its answer.
func (e environment) answers(c *Config) {
	if e.flag("SHADOW_MODE", false) {
		c.Policy.Mode = extauthz.Shadow
	}
	c.RateLimit = ratelimit.Policy{
		Quota:    e.flag("QUOTA_MODE", false),
		Metadata: e.flag("RESPONSE_DYNAMIC_METADATA", false),
		Plain:    new(ratelimit.PlainHeaders),
	}
	if e.flag("LIMIT_RESPONSE_HEADERS_ENABLED", false) {
		*c.RateLimit.Plain = ratelimit.PlainHeaders{
			Limit:     e.text("LIMIT_LIMIT_HEADER", "RateLimit-Limit"),
			Remaining: e.text("LIMIT_REMAINING_HEADER", "RateLimit-Remaining"),
			Reset:     e.text("LIMIT_RESET_HEADER", "RateLimit-Reset"),
		}
	}
	// Refused hits cost nothing. Who asks for the contrary in so many words gets it.
	c.Rules.CountRefused = !e.flag("STOP_CACHE_KEY_INCREMENT_WHEN_OVERLIMIT", true)
}

func (e environment) xds() *xds.Options {
	o := &xds.Options{
		Server:       e.text("CONFIG_GRPC_XDS_SERVER_URL", "localhost:18000"),
		NodeID:       e.text("CONFIG_GRPC_XDS_NODE_ID", "default"),
		NodeMetadata: e.pairs("CONFIG_GRPC_XDS_NODE_METADATA", ":="),
		Headers:      e.pairs("CONFIG_GRPC_XDS_CLIENT_ADDITIONAL_HEADERS", ":"),
		MaxMessage:   e.number("XDS_CLIENT_MAX_MSG_SIZE_IN_BYTES", 0, 1<<30, 0),
		MergeDomains: e.r.c.Rules.MergeDomains,
		Backoff: xds.Backoff{
			Initial: e.duration("XDS_CLIENT_BACKOFF_INITIAL_INTERVAL", 10*time.Second),
			Max:     e.duration("XDS_CLIENT_BACKOFF_MAX_INTERVAL", time.Minute),
			Jitter:  e.ratio("XDS_CLIENT_BACKOFF_RANDOM_FACTOR", 0.5),
		},
	}
	if !e.flag("XDS_CLIENT_BACKOFF_JITTER", true) || o.Backoff.Jitter == 0 {
		o.Backoff.Jitter = -1
	}
	if o.Server == "" {
		e.wrong("CONFIG_GRPC_XDS_SERVER_URL", "want the HOST:PORT of the management server")
	}
	if e.flag("CONFIG_GRPC_XDS_SERVER_USE_TLS", false) {
		o.TLS = e.xdsTLS()
	}
	return o
}

// xdsTLS checks the files now. The client's certificate is read again for each
// connection, so that one that is renewed is used.
func (e environment) xdsTLS() *tls.Config {
	const certName, keyName, caName = "CONFIG_GRPC_XDS_CLIENT_TLS_CERT", "CONFIG_GRPC_XDS_CLIENT_TLS_KEY", "CONFIG_GRPC_XDS_SERVER_TLS_CACERT"
	t := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: e.text("CONFIG_GRPC_XDS_SERVER_TLS_SAN", "")}
	cert, key := e.text(certName, ""), e.text(keyName, "")
	switch {
	case (cert == "") != (key == ""):
		e.wrong(certName, "want both %s and %s, or neither", certName, keyName)
	case cert != "":
		load := func() (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(cert, key)
			return &pair, err
		}
		if _, err := load(); err != nil {
			e.wrong(certName, "%v", err)
		}
		t.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return load() }
	}
	if path := e.text(caName, ""); path != "" {
		pem, err := os.ReadFile(path)
		t.RootCAs = x509.NewCertPool()
		switch {
		case err != nil:
			e.wrong(caName, "%v", err)
		case !t.RootCAs.AppendCertsFromPEM(pem):
			e.wrong(caName, "%s: holds no certificate in PEM", path)
		}
	}
	return t
}

// withoutEffect names what is set in vain, once.
func (e environment) withoutEffect() {
	var names []string
	lists := [][]string{generalIdle, idle}
	why := "decisions are taken in memory, and metrics are scraped"
	if e.r.c.Cluster.Redis == nil {
		lists = append(lists, []string{"REDIS_URL"}, redisVariables)
		why = "this instance counts by itself, and metrics are scraped"
	}
	for _, list := range lists {
		for _, name := range list {
			if e.set(name) {
				names = append(names, name)
			}
		}
	}
	for mogrifier := range strings.SplitSeq(e.text("USE_DOG_STATSD_MOGRIFIERS", ""), ",") {
		for _, part := range []string{"_PATTERN", "_NAME", "_TAGS"} {
			if name := "DOG_STATSD_MOGRIFIER_" + strings.TrimSpace(mogrifier) + part; e.set(name) {
				names = append(names, name)
			}
		}
	}
	if len(names) > 0 {
		e.warnings = append(e.warnings, yamlfile.Problem{File: "environment", Message: "without effect, since " + why + ": " + strings.Join(names, ", ")})
	}
}
