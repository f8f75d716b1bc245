package config_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tollgate-dev/tollgate/envoy/ratelimit"
	"github.com/tollgate-dev/tollgate/envoy/ratelimit/xds"
	"github.com/tollgate-dev/tollgate/extauthz"
	"github.com/tollgate-dev/tollgate/internal/config"
)

// env looks variables up in pairs such as "PORT=8080".
func env(pairs ...string) config.Lookup {
	return func(name string) (string, bool) {
		for _, p := range pairs {
			if value, ok := strings.CutPrefix(p, name+"="); ok {
				return value, true
			}
		}
		return "", false
	}
}

const rule = "domain: d\ndescriptors: [{key: k, rate_limit: {unit: minute, requests_per_unit: 3}}]\n"

func load(t *testing.T, lookup config.Lookup) *config.Loaded {
	t.Helper()
	loaded, _, err := config.Load("", lookup)
	if err != nil {
		t.Fatalf("Load: %v", err)
	}
	return loaded
}

func TestRateLimitEnvironmentIsTakenOnlyWhereThereIsOne(t *testing.T) {
	for _, c := range []struct {
		name string
		env  []string
		want bool
	}{
		{"nothing", nil, false},
		{"names that every second program uses", []string{"HOST=web", "PORT=1", "LOG_LEVEL=debug", "REDIS_URL=r:1"}, false},
		{"where its files are", []string{"RUNTIME_ROOT=/data"}, true},
		{"one without effect", []string{"REDIS_SOCKET_TYPE=tcp"}, true},
		{"set to nothing", []string{"RUNTIME_SUBDIRECTORY="}, true},
	} {
		if got := config.InRateLimitEnvironment(env(c.env...)); got != c.want {
			t.Errorf("%s: InRateLimitEnvironment = %t, want %t", c.name, got, c.want)
		}
	}
	if got := load(t, env("HOST=0.0.0.0", "PORT=1")).Config.Listen; !cmp.Equal(got, config.Default().Listen) {
		t.Errorf("Listen = %+v, want the defaults on loopback", got)
	}
}

func TestRateLimitEnvironmentDefaults(t *testing.T) {
	got := load(t, env("CONFIG_TYPE=GRPC_XDS_SOTW")).Config
	want := config.Default()
	want.Listen = config.Listen{
		GRPC: "0.0.0.0:8081", HTTP: "0.0.0.0:8080", Reading: []string{"0.0.0.0:6070"}, Drain: 5 * time.Second,
		MaxConnectionAge: 24 * time.Hour, MaxConnectionAgeGrace: time.Hour,
	}
	want.Telemetry.LogLevel, want.Telemetry.LogFormat = slog.LevelWarn, "text"
	want.RateLimit = ratelimit.Policy{Plain: new(ratelimit.PlainHeaders)}
	want.Rules.XDS = &xds.Options{
		Server: "localhost:18000", NodeID: "default", NodeMetadata: map[string]string{}, Headers: map[string]string{},
		Backoff: xds.Backoff{Initial: 10 * time.Second, Max: time.Minute, Jitter: 0.5},
	}
	if diff := cmp.Diff(want, *got); diff != "" {
		t.Errorf("configuration (-want +got):\n%s", diff)
	}
}

func TestRateLimitEnvironmentIsUnderstood(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/sub/rules/a.yaml", rule)
	got := load(t, env(
		"RUNTIME_ROOT="+dir, "RUNTIME_SUBDIRECTORY=sub", "RUNTIME_APPDIRECTORY=rules", "RUNTIME_WATCH_ROOT=false",
		"HOST=127.0.0.1", "PORT=1", "GRPC_UDS=/run/r.sock", "GRPC_PORT=2", "DEBUG_HOST=::1", "DEBUG_PORT=3",
		"GRPC_MAX_CONNECTION_AGE=1m", "GRPC_MAX_CONNECTION_AGE_GRACE=2s",
		"LOG_LEVEL=DEBUG", "LOG_FORMAT=json", "SHADOW_MODE=true", "QUOTA_MODE=1", "RESPONSE_DYNAMIC_METADATA=TRUE",
		"LIMIT_RESPONSE_HEADERS_ENABLED=true", "LIMIT_LIMIT_HEADER=X-Limit", "LIMIT_RESET_HEADER=",
		"STOP_CACHE_KEY_INCREMENT_WHEN_OVERLIMIT=false", "MERGE_DOMAIN_CONFIG=true", "FORCE_START_WITHOUT_INITIAL_CONFIG=true",
		"USE_PROMETHEUS=true", "PROMETHEUS_ADDR=:19001", "PROMETHEUS_PATH=/m", "NEAR_LIMIT_RATIO=0.5",
	))
	want := config.Default()
	want.Listen = config.Listen{
		GRPC: "unix:/run/r.sock", HTTP: "127.0.0.1:1", Reading: []string{"[::1]:3", ":19001"}, Drain: 5 * time.Second,
		MaxConnectionAge: time.Minute, MaxConnectionAgeGrace: 2 * time.Second,
	}
	want.Telemetry.LogLevel, want.Telemetry.LogFormat = slog.LevelDebug, "json"
	want.Telemetry.RateLimitMetrics = &config.RateLimitMetrics{Path: "/m", NearRatio: 0.5}
	want.Policy.Mode = extauthz.Shadow
	want.RateLimit = ratelimit.Policy{Quota: true, Metadata: true, Plain: &ratelimit.PlainHeaders{Limit: "X-Limit", Remaining: "RateLimit-Remaining"}}
	want.Rules = config.Rules{Dir: filepath.Join(dir, "sub", "rules"), MergeDomains: true, Optional: true, CountRefused: true}
	if diff := cmp.Diff(want, *got.Config); diff != "" {
		t.Errorf("configuration (-want +got):\n%s", diff)
	}
	if got.Rules.Domain("d") == nil {
		t.Error("the rules of sub/rules were not read")
	}
}

func TestRateLimitEnvironmentXDS(t *testing.T) {
	got := load(t, env("CONFIG_TYPE=grpc_xds_sotw", "CONFIG_GRPC_XDS_SERVER_URL=gateway:18001", "CONFIG_GRPC_XDS_NODE_ID=n",
		"CONFIG_GRPC_XDS_NODE_METADATA=a:1,b=2", "CONFIG_GRPC_XDS_CLIENT_ADDITIONAL_HEADERS=authorization:Bearer x", "MERGE_DOMAIN_CONFIG=true",
		"XDS_CLIENT_BACKOFF_INITIAL_INTERVAL=1s", "XDS_CLIENT_BACKOFF_MAX_INTERVAL=2s", "XDS_CLIENT_BACKOFF_JITTER=false", "XDS_CLIENT_MAX_MSG_SIZE_IN_BYTES=1000"))
	want := &xds.Options{
		Server: "gateway:18001", NodeID: "n", NodeMetadata: map[string]string{"a": "1", "b": "2"},
		Headers: map[string]string{"authorization": "Bearer x"}, MaxMessage: 1000, MergeDomains: true,
		Backoff: xds.Backoff{Initial: time.Second, Max: 2 * time.Second, Jitter: -1},
	}
	if diff := cmp.Diff(want, got.Config.Rules.XDS); diff != "" {
		t.Errorf("xDS options (-want +got):\n%s", diff)
	}
}

func TestRateLimitEnvironmentNamesWhatHasNoEffectOnce(t *testing.T) {
	got := load(t, env("CONFIG_TYPE=GRPC_XDS_SOTW", "REDIS_URL=/run/redis.sock", "REDIS_AUTH=hunter2", "USE_STATSD=true", "MEMCACHE_SRV=",
		"USE_DOG_STATSD_MOGRIFIERS=a", "DOG_STATSD_MOGRIFIER_a_NAME=x")).Warnings
	if len(got) != 1 {
		t.Fatalf("warnings = %v, want one", got)
	}
	text := got[0].Error()
	if want := ": USE_STATSD, USE_DOG_STATSD_MOGRIFIERS, REDIS_URL, REDIS_AUTH, DOG_STATSD_MOGRIFIER_a_NAME"; !strings.HasSuffix(text, want) {
		t.Errorf("warning = %q, want it to end in %q", text, want)
	}
	if strings.Contains(text, "hunter2") {
		t.Errorf("warning = %q, want no value in it", text)
	}
}

func TestRateLimitEnvironmentProblemsComeAtOnce(t *testing.T) {
	_, _, err := config.Load("", env("CONFIG_TYPE=ETCD", "PORT=http", "GRPC_PORT=70000", "SHADOW_MODE=maybe", "LOG_LEVEL=loud",
		"GRPC_MAX_CONNECTION_AGE=1 day", "USE_PROMETHEUS=true", "NEAR_LIMIT_RATIO=NaN", "PROMETHEUS_ADDR=9090", "PROMETHEUS_PATH=m",
		"GRPC_SERVER_USE_TLS=true", "RUNTIME_ROOT=/does/not/exist"))
	want := strings.TrimPrefix(`
/does/not/exist/config: open /does/not/exist/config: no such file or directory
CONFIG_TYPE: "ETCD": want one of FILE, GRPC_XDS_SOTW
GRPC_MAX_CONNECTION_AGE: "1 day": want a duration such as 10s or 1h30m
GRPC_PORT: "70000": want a whole number from 0 to 65535
GRPC_SERVER_USE_TLS: want both GRPC_SERVER_TLS_CERT and GRPC_SERVER_TLS_KEY
LOG_LEVEL: "loud": want one of warn, warning, trace, debug, info, error, fatal, panic
NEAR_LIMIT_RATIO: "NaN": want a number from 0 to 1
PORT: "http": want a whole number from 0 to 65535
PROMETHEUS_ADDR: "9090": want HOST:PORT
PROMETHEUS_PATH: "m": want a path that begins with /
SHADOW_MODE: "maybe": want true or false`, "\n")
	if err == nil || err.Error() != want {
		t.Errorf("problems:\n%v\nwant:\n%s", err, want)
	}
	_, _, err = config.Load("", env("CONFIG_TYPE=GRPC_XDS_SOTW", "CONFIG_GRPC_XDS_CLIENT_ADDITIONAL_HEADERS=secret", "CONFIG_GRPC_XDS_SERVER_USE_TLS=1",
		"CONFIG_GRPC_XDS_CLIENT_TLS_CERT=/c", "CONFIG_GRPC_XDS_SERVER_TLS_CACERT=/ca", "CONFIG_GRPC_XDS_SERVER_URL="))
	want = strings.TrimPrefix(`
CONFIG_GRPC_XDS_CLIENT_ADDITIONAL_HEADERS: want a list of key:value, separated by commas
CONFIG_GRPC_XDS_CLIENT_TLS_CERT: want both CONFIG_GRPC_XDS_CLIENT_TLS_CERT and CONFIG_GRPC_XDS_CLIENT_TLS_KEY, or neither
CONFIG_GRPC_XDS_SERVER_TLS_CACERT: open /ca: no such file or directory
CONFIG_GRPC_XDS_SERVER_URL: want the HOST:PORT of the management server`, "\n")
	if err == nil || err.Error() != want {
		t.Errorf("problems:\n%v\nwant:\n%s", err, want)
	}
}

// A folder of rules as a mounted ConfigMap and an untidy person leave it. Of
// these envoyproxy/ratelimit reads everything, twice, and fails.
func TestRuleFolderReadsYAMLOnly(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/config/..2026/a.yaml", rule)
	link(t, "..2026", dir+"/config/..data")
	link(t, "..data/a.yaml", dir+"/config/a.yaml")
	write(t, dir+"/config/.a.yaml.swp", "{")
	write(t, dir+"/config/README.txt", "not: rules")
	write(t, dir+"/config/more/b.yml", strings.Replace(rule, "domain: d", "domain: e", 1))
	loaded, src, err := config.Load("", env("RUNTIME_ROOT="+dir))
	if err != nil {
		t.Fatal(err)
	}
	if loaded.Rules.Domain("d") == nil || loaded.Rules.Domain("e") == nil || loaded.Rules.Len() != 2 {
		t.Errorf("rules = %v, want those of a.yaml and more/b.yml", loaded.Rules)
	}
	if len(loaded.Warnings) != 1 || !strings.Contains(loaded.Warnings[0].Error(), "README.txt: not read as rules") {
		t.Errorf("warnings = %v, want one about README.txt", loaded.Warnings)
	}
	want := config.Sources{
		Files:    []string{dir + "/config/a.yaml", dir + "/config/more/b.yml"},
		Patterns: []string{dir + "/config/*.yaml", dir + "/config/more/*.yaml"},
		Sum:      src.Sum,
	}
	if diff := cmp.Diff(want, src); diff != "" {
		t.Errorf("sources (-want +got):\n%s", diff)
	}

	if err := os.Remove(dir + "/config/a.yaml"); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(dir + "/config/more"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := config.Load("", env("RUNTIME_ROOT="+dir)); err == nil || !strings.Contains(err.Error(), "holds no rule file") {
		t.Errorf("Load of a folder without rules = %v, want a problem", err)
	}
	loaded = load(t, env("RUNTIME_ROOT="+dir, "FORCE_START_WITHOUT_INITIAL_CONFIG=true"))
	if len(loaded.Warnings) != 2 {
		t.Errorf("warnings = %v, want one about the missing rules too", loaded.Warnings)
	}
}
