package config_test

import (
	"flag"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tollgate-dev/tollgate/extauthz"
	"github.com/tollgate-dev/tollgate/extauthz/upstreams"
	"github.com/tollgate-dev/tollgate/internal/config"
	"github.com/tollgate-dev/tollgate/limits"
	"github.com/tollgate-dev/tollgate/limits/redis"
)

var update = flag.Bool("update", false, "write the complaints of testdata/bad anew")

func none(string) (string, bool) { return "", false }

// TestBadFiles holds every file of testdata/bad against its exact complaint.
func TestBadFiles(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no fixtures: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			loaded, sources, err := config.Load(file, none)
			if err == nil || loaded != nil {
				t.Fatalf("Load(%s) = %v, %v, want an error", file, loaded, err)
			}
			if len(sources.Files) == 0 || sources.Files[0] != file {
				t.Errorf("sources of a bad file are %q: a watcher could not wait for its repair", sources.Files)
			}
			want := strings.TrimSuffix(file, ".yaml") + ".want"
			if *update {
				if err := os.WriteFile(want, []byte(err.Error()+"\n"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			text, readErr := os.ReadFile(want)
			if readErr != nil {
				t.Fatal(readErr)
			}
			if diff := cmp.Diff(string(text), err.Error()+"\n"); diff != "" {
				t.Errorf("complaint (-want +got):\n%s", diff)
			}
		})
	}
}

const everything = `listen:
  grpc: unix:run/tollgate.sock
  http: 0.0.0.0:9080
  drain: 2s
  max_connection_age: 1h
  max_connection_age_grace: 1m
admin: {token: "${TOKEN}"}
credentials:
  - {header: X-Api-Key}
  - {header: authorization, scheme: Token}
  - {query: key}
  - {cookie: session}
  - {principal: true}
  - {metadata: [envoy.filters.http.jwt_authn, payload, sub]}
strip_credentials: false
anonymous: guest
consumers: {source: embedded}
limits:
  mode: shadow
  default: none
  warm_up: {grace: 2s, ramp: 0s, grace_limit: 10}
  headers: draft03
  cache: {size: 5, idle: 1m}
authz:
  domain: edge
  descriptors:
    - [consumer]
    - [{key: tenant, from: "header:X-Tenant"}, {key: m, from: "metadata:ns.a:k"}]
rules: {files: [rules.yaml], count_refused: true}
cluster:
  redis: {addresses: ["a:1", "b:2"], username: u, password: "${TOKEN}", sentinel_master: m, prefix: "edge:", timeout: 250ms, tls: {server_name: redis}}
  mode: strict
  on_error: deny
  instances: 3
upstreams:
  - preset: keeper
  - id: own
    match: {host: [API.Example.com, "*.b.example"]}
    limits: [{window: 200/10s, max_wait: 30s, margin: 10%}, {quota: 50000/month, timezone: Europe/Berlin}]
    pressure: {signals: [{status: 429}, {status: 403, body: throttled}, {status: 503, header: Retry-After}], initial: 10s, factor: 1.5, max: 15m, cap: 1h, ramp: 2s, probe: 3s}
    answer: {style: apollo, status: 403}
    caller: "header:X-Store"
    queue: 7
    budget:
      calls: [1000/day, 20000/month]
      timezone: Europe/Berlin
      alerts: [90%, 0.5]
      stop: false
      class: "header:x-class"
      classes: [{name: webhook, reserve: 10%}, {name: periodic}]
      attribute: "context:store"
      price: 0.002
telemetry: {traces: none, top_consumers: 3, audit: audit.log, log: {level: debug, format: text, refusals_every: 1s}}
`

func TestEveryKey(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/tollgate.yaml", everything)
	write(t, dir+"/rules.yaml", "domain: edge\ndescriptors: [{key: a, rate_limit: {unit: second, requests_per_unit: 1}}]\n")
	loaded, _, err := config.Load(dir+"/tollgate.yaml", func(name string) (string, bool) { return "secret", name == "TOKEN" })
	if err != nil {
		t.Fatal(err)
	}
	c := loaded.Config
	want := config.Config{
		Listen: config.Listen{GRPC: "unix:" + dir + "/run/tollgate.sock", HTTP: "0.0.0.0:9080", Drain: 2 * time.Second, MaxConnectionAge: time.Hour, MaxConnectionAgeGrace: time.Minute},
		Admin:  c.Admin,
		Policy: extauthz.Policy{
			Credentials: []extauthz.Place{{Header: "x-api-key"}, {Header: "authorization", Scheme: "Token"}, {Query: "key"}, {Cookie: "session"},
				{Principal: true}, {Metadata: []string{"envoy.filters.http.jwt_authn", "payload", "sub"}}},
			Anonymous: "guest",
			Mode:      extauthz.Shadow,
			Headers:   extauthz.HeadersDraft03,
			Domain:    "edge",
			Descriptors: [][]extauthz.Source{
				{{Key: "consumer", From: "consumer"}},
				{{Key: "tenant", From: "header", Name: "x-tenant"}, {Key: "m", From: "metadata", Name: "ns.a", Field: "k"}},
			},
			RemoteAddress: true,
		},
		Consumers: config.Consumers{Source: "embedded", Poll: time.Second},
		Limits: config.Limits{
			Default: c.Limits.Default,
			WarmUp:  limits.WarmUp{Grace: 2 * time.Second, GraceLimit: 10},
			Cache:   limits.TableOptions{Size: 5, Idle: time.Minute},
		},
		Rules: config.Rules{Files: []string{dir + "/rules.yaml"}, CountRefused: true},
		Cluster: config.Cluster{
			Redis: &config.Redis{Addresses: []string{"a:1", "b:2"}, Username: "u", Password: "secret", SentinelMaster: "m", Prefix: "edge:", Timeout: 250 * time.Millisecond, TLS: &config.RedisTLS{ServerName: "redis"}},
			Mode:  redis.Strict, Error: limits.OnErrorDeny, Size: 3,
		},
		Upstreams: []*upstreams.Config{c.Upstreams[0], ownUpstream(t)}, // the first is TestPresets'
		Telemetry: config.Telemetry{TopConsumers: 3, LogLevel: slog.LevelDebug, LogFormat: "text", Audit: dir + "/audit.log", RefusalsEvery: time.Second},
	}
	if diff := cmp.Diff(want, *c, cmp.Comparer(sameZone)); diff != "" {
		t.Errorf("Config (-want +got):\n%s", diff)
	}
	if !c.Limits.Default.Unlimited() {
		t.Errorf("default: none is %v, want unlimited", c.Limits.Default)
	}
	if c.Admin.Token == (config.TokenHash{}) {
		t.Error("no admin token")
	}
	if loaded.Rules.Len() != 1 {
		t.Errorf("%d rules, want 1", loaded.Rules.Len())
	}
}

func TestWithoutAFileEverythingIsOnLoopback(t *testing.T) {
	loaded, _, err := config.Load("", none)
	if err != nil {
		t.Fatal(err)
	}
	for _, address := range []string{loaded.Config.Listen.GRPC, loaded.Config.Listen.HTTP} {
		if !strings.HasPrefix(address, "127.0.0.1:") {
			t.Errorf("the default listens on %s", address)
		}
	}
	if diff := cmp.Diff(config.Default(), *loaded.Config); diff != "" {
		t.Errorf("Config (-default +got):\n%s", diff)
	}
}

// TestAnEmptyFileIsTheDefault: every key has a good default.
func TestAnEmptyFileIsTheDefault(t *testing.T) {
	path := t.TempDir() + "/tollgate.yaml"
	write(t, path, "# nothing\n")
	loaded, _, err := config.Load(path, none)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(config.Default(), *loaded.Config); diff != "" {
		t.Errorf("Config (-default +got):\n%s", diff)
	}
}

func TestSumTellsContentsApart(t *testing.T) {
	path := t.TempDir() + "/tollgate.yaml"
	sum := func(text string) [32]byte {
		write(t, path, text)
		_, sources, _ := config.Load(path, none)
		return sources.Sum
	}
	a, b, again := sum("limits: {mode: off}"), sum("limits: {mode: wat}"), sum("limits: {mode: off}")
	if a == b || a != again {
		t.Errorf("sums %x %x %x, want the first and last alike", a, b, again)
	}
}

func FuzzLoad(f *testing.F) {
	f.Add(everything)
	files, _ := filepath.Glob("testdata/bad/*.yaml")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	f.Fuzz(func(t *testing.T, text string) {
		path := filepath.Join(t.TempDir(), "tollgate.yaml")
		write(t, path, text)
		loaded, _, err := config.Load(path, none)
		if (loaded == nil) == (err == nil) {
			t.Errorf("Load of %q = %v, %v: want one of them", text, loaded, err)
		}
	})
}
