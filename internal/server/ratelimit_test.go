package server_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	rlcommonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	serverv3 "github.com/envoyproxy/go-control-plane/pkg/server/v3"
	rlsconfigv3 "github.com/envoyproxy/go-control-plane/ratelimit/config/ratelimit/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/tollgate-dev/tollgate/envoy/envoytest"
	"github.com/tollgate-dev/tollgate/internal/server"
	"github.com/tollgate-dev/tollgate/limits/redis/redistest"
)

// inPlace is a Tollgate in the environment of a deployment of
// envoyproxy/ratelimit, on free ports of loopback.
type inPlace struct {
	*server.Server
	t    *testing.T
	rls  rlsv3.RateLimitServiceClient
	conn *grpc.ClientConn
	log  *buffer
}

func startInPlace(t *testing.T, env map[string]string) *inPlace {
	t.Helper()
	all := map[string]string{"HOST": "127.0.0.1", "PORT": "0", "GRPC_HOST": "127.0.0.1", "GRPC_PORT": "0", "DEBUG_HOST": "127.0.0.1", "DEBUG_PORT": "0"}
	maps.Copy(all, env)
	p := &inPlace{t: t, log: new(buffer)}
	s, err := server.Start(t.Context(), server.Options{
		DataDir: t.TempDir(), Log: p.log,
		Lookup: func(name string) (string, bool) { v, ok := all[name]; return v, ok },
	})
	if err != nil {
		t.Fatal(err)
	}
	p.Server = s
	p.conn, err = grpc.NewClient(s.GRPCAddr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	p.rls = rlsv3.NewRateLimitServiceClient(p.conn)
	t.Cleanup(func() {
		if err := p.conn.Close(); err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func request(domain, key, value string) *rlsv3.RateLimitRequest {
	return &rlsv3.RateLimitRequest{Domain: domain, Descriptors: []*rlcommonv3.RateLimitDescriptor{{
		Entries: []*rlcommonv3.RateLimitDescriptor_Entry{{Key: key, Value: value}},
	}}}
}

func (p *inPlace) ask(domain, key, value string) *rlsv3.RateLimitResponse {
	p.t.Helper()
	r, err := p.rls.ShouldRateLimit(p.t.Context(), request(domain, key, value))
	if err != nil {
		p.t.Fatal(err)
	}
	return r
}

// get returns the status and the body of an HTTP endpoint.
func get(t *testing.T, address, path string) (int, string) {
	t.Helper()
	resp, err := http.Get("http://" + address + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// await polls until an endpoint answers as wanted.
func await(t *testing.T, address, path string, wantCode int, wantText string) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	code, body := 0, ""
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); <-tick.C {
		if code, body = get(t, address, path); code == wantCode && strings.Contains(body, wantText) {
			return
		}
	}
	t.Fatalf("%s answers %d %q, want %d with %q", path, code, body, wantCode, wantText)
}

func health(t *testing.T, conn *grpc.ClientConn) healthpb.HealthCheckResponse_ServingStatus {
	t.Helper()
	r, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{Service: "ratelimit"})
	if err != nil {
		t.Fatal(err)
	}
	return r.GetStatus()
}

const fileRules = `
domain: d
descriptors:
  - key: k
    rate_limit: {unit: day, requests_per_unit: 1}
`

func writeRules(t *testing.T, dir, text string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "a.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestInPlaceOfRateLimitWithFiles(t *testing.T) {
	root := t.TempDir()
	writeRules(t, filepath.Join(root, "r1", "config"), fileRules)
	writeRules(t, filepath.Join(root, "r2", "config"), strings.Replace(fileRules, "unit: 1}", "unit: 2}", 1))
	current := filepath.Join(root, "current")
	if err := os.Symlink("r1", current); err != nil {
		t.Fatal(err)
	}
	p := startInPlace(t, map[string]string{
		"RUNTIME_ROOT": current, "LIMIT_RESPONSE_HEADERS_ENABLED": "true", "LIMIT_LIMIT_HEADER": "X-Limit", "REDIS_URL": "/run/redis.sock",
	})

	if got := p.ask("d", "k", "v"); got.GetOverallCode() != rlsv3.RateLimitResponse_OK ||
		len(got.GetResponseHeadersToAdd()) != 3 || got.GetResponseHeadersToAdd()[0].GetKey() != "X-Limit" {
		t.Errorf("first answer = %v, want OK with three headers, X-Limit first", got)
	}
	second := p.ask("d", "k", "v")
	if second.GetOverallCode() != rlsv3.RateLimitResponse_OVER_LIMIT || len(second.GetRawBody()) != 0 {
		t.Errorf("second answer = %v, want OVER_LIMIT without a body", second)
	}
	if got := strings.Count(p.log.String(), "without effect"); got != 1 || !strings.Contains(p.log.String(), "REDIS_URL") {
		t.Errorf("log names what has no effect %d times, want once:\n%s", got, p.log)
	}

	const line = "d.k: unit=DAY requests_per_unit=1, shadow_mode: false, quota_mode: false\n"
	for _, address := range append(p.ReadingAddrs(), p.HTTPAddr()) {
		if code, body := get(t, address, "/healthcheck"); code != 200 || body != "OK" {
			t.Errorf("/healthcheck = %d %q, want 200 OK", code, body)
		}
		if code, body := get(t, address, "/rlconfig"); code != 200 || body != line {
			t.Errorf("/rlconfig = %d %q, want %q", code, body, line)
		}
		if code, body := get(t, address, "/stats"); code != 200 || !strings.Contains(body, "memstats: {") {
			t.Errorf("/stats = %d %.80q, want the memory's", code, body)
		}
	}
	for _, path := range []string{"/v1/consumers", "/json", "/debug/pprof/"} {
		if code, _ := get(t, p.ReadingAddrs()[0], path); code != 404 {
			t.Errorf("%s on the port for debugging = %d, want 404", path, code)
		}
	}
	for _, c := range []struct {
		body, want string
		code       int
	}{
		{`{"domain":"d","descriptors":[{"entries":[{"key":"k","value":"j"}]}]}`, "OK", 200},
		{`{"domain":"d","descriptors":[{"entries":[{"key":"k","value":"j"}]}]}`, "OVER_LIMIT", 429},
	} {
		resp, err := http.Post("http://"+p.HTTPAddr()+"/json", "application/json", strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		var got struct{ OverallCode string }
		if err := json.NewDecoder(resp.Body).Decode(&got); err != nil || resp.Body.Close() != nil {
			t.Fatal(err)
		}
		if got.OverallCode != c.want || resp.StatusCode != c.code {
			t.Errorf("/json = %d %s, want %d %s", resp.StatusCode, got.OverallCode, c.code, c.want)
		}
	}

	// The link is swapped, as goruntime's deployments and Kubernetes do it.
	if err := os.Symlink("r2", current+".new"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(current+".new", current); err != nil {
		t.Fatal(err)
	}
	await(t, p.HTTPAddr(), "/rlconfig", 200, "requests_per_unit=2")
	if got := p.ask("d", "k", "v").GetOverallCode(); got != rlsv3.RateLimitResponse_OK {
		t.Errorf("after the limit was raised: %v, want OK at once", got)
	}

	// A bad file changes nothing.
	writeRules(t, filepath.Join(root, "r2", "config"), "domain: d\ndescriptors: [{}]\n")
	await(t, p.HTTPAddr(), "/metrics", 200, "tollgate_config_last_reload_successful 0")
	if got := p.ask("d", "k", "v").GetOverallCode(); got != rlsv3.RateLimitResponse_OVER_LIMIT {
		t.Errorf("after a bad file: %v, want OVER_LIMIT as before", got)
	}
	if code, body := get(t, p.HTTPAddr(), "/healthcheck"); code != 200 || body != "OK" {
		t.Errorf("/healthcheck = %d %q, want 200 OK", code, body)
	}
}

// TestReplicasInPlaceShareRedis: the Redis of the deployment is where replicas meet.
func TestReplicasInPlaceShareRedis(t *testing.T) {
	root := t.TempDir()
	writeRules(t, filepath.Join(root, "config"), strings.Replace(fileRules, "unit: 1}", "unit: 10}", 1))
	env := map[string]string{"RUNTIME_ROOT": root, "REDIS_SOCKET_TYPE": "tcp", "REDIS_URL": redistest.Start(t).Addr}
	replicas := []*inPlace{startInPlace(t, env), startInPlace(t, env)}
	// Where Redis does not answer at once, as on a busy machine, each decides about its share.
	value := 0
	eventually(t, "two replicas admit the limit of 10 of 40, together", func() bool {
		value++
		admitted := 0
		for i := range 40 {
			if replicas[i%2].ask("d", "k", strconv.Itoa(value)).GetOverallCode() == rlsv3.RateLimitResponse_OK {
				admitted++
			}
		}
		return admitted == 10
	})
	if log := replicas[0].log.String(); strings.Contains(log, "REDIS") {
		t.Errorf("log complains of what has its effect:\n%s", log)
	}
}

func TestGlobalShadowAsThere(t *testing.T) {
	root := t.TempDir()
	writeRules(t, filepath.Join(root, "config"), fileRules)
	p := startInPlace(t, map[string]string{"RUNTIME_ROOT": root, "SHADOW_MODE": "true"})
	p.ask("d", "k", "v")
	got := p.ask("d", "k", "v")
	if got.GetOverallCode() != rlsv3.RateLimitResponse_OK || got.GetStatuses()[0].GetCode() != rlsv3.RateLimitResponse_OVER_LIMIT {
		t.Errorf("answer = %v, want OK overall and OVER_LIMIT for the descriptor", got)
	}
	if len(got.GetResponseHeadersToAdd()) != 0 {
		t.Errorf("headers = %v, want none unless they are asked for", got.GetResponseHeadersToAdd())
	}
}

// management is an xDS server on a socket file, which can go away and come back.
type management struct {
	t       *testing.T
	address string
	cache   cache.SnapshotCache
	server  *grpc.Server
	served  sync.WaitGroup
	refused chan string
	options []grpc.ServerOption
}

func newManagement(t *testing.T, options ...grpc.ServerOption) *management {
	m := &management{t: t, options: options, address: filepath.Join(t.TempDir(), "xds.sock"), cache: cache.NewSnapshotCache(true, cache.IDHash{}, nil), refused: make(chan string, 100)}
	t.Cleanup(m.stop)
	return m
}

func (m *management) start() {
	m.t.Helper()
	lis, err := net.Listen("unix", m.address)
	if err != nil {
		m.t.Fatal(err)
	}
	m.server = grpc.NewServer(m.options...)
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(m.server, serverv3.NewServer(context.Background(), m.cache, serverv3.CallbackFuncs{
		StreamRequestFunc: func(_ int64, r *discoveryv3.DiscoveryRequest) error {
			if d := r.GetErrorDetail(); d != nil && len(m.refused) < cap(m.refused) {
				m.refused <- d.GetMessage()
			}
			return nil
		},
	}))
	s := m.server
	m.served.Go(func() { _ = s.Serve(lis) })
}

func (m *management) stop() {
	if m.server != nil {
		m.server.Stop()
		m.served.Wait()
	}
}

// publish offers one rule for the key k of domain d.
func (m *management) publish(version, key string, perDay uint32) {
	m.t.Helper()
	snapshot, err := cache.NewSnapshot(version, map[resource.Type][]types.Resource{resource.RateLimitConfigType: {
		&rlsconfigv3.RateLimitConfig{Name: "d", Domain: "d", Descriptors: []*rlsconfigv3.RateLimitDescriptor{{
			Key: key, RateLimit: &rlsconfigv3.RateLimitPolicy{Unit: rlsconfigv3.RateLimitUnit_DAY, RequestsPerUnit: perDay},
		}}},
	}})
	if err != nil {
		m.t.Fatal(err)
	}
	if err := m.cache.SetSnapshot(context.Background(), "gateway", snapshot); err != nil {
		m.t.Fatal(err)
	}
}

func TestInPlaceOfRateLimitWithXDS(t *testing.T) {
	m := newManagement(t)
	p := startInPlace(t, map[string]string{
		"CONFIG_TYPE": "GRPC_XDS_SOTW", "CONFIG_GRPC_XDS_SERVER_URL": "unix:" + m.address, "CONFIG_GRPC_XDS_NODE_ID": "gateway",
		"XDS_CLIENT_BACKOFF_INITIAL_INTERVAL": "10ms", "XDS_CLIENT_BACKOFF_MAX_INTERVAL": "50ms",
	})

	// The server is dead. Nothing is decided without rules, and Envoy may know.
	for path, want := range map[string]int{"/healthcheck": 500, "/readyz": 503, "/healthz": 200} {
		if code, _ := get(t, p.HTTPAddr(), path); code != want {
			t.Errorf("%s before the first rules = %d, want %d", path, code, want)
		}
	}
	if got := health(t, p.conn); got != healthpb.HealthCheckResponse_NOT_SERVING {
		t.Errorf("gRPC health before the first rules = %v, want NOT_SERVING", got)
	}
	if _, err := p.rls.ShouldRateLimit(t.Context(), request("d", "k", "v")); status.Code(err) != codes.Unavailable {
		t.Errorf("a call before the first rules = %v, want UNAVAILABLE", err)
	}

	m.publish("1", "k", 1)
	m.start()
	await(t, p.HTTPAddr(), "/healthcheck", 200, "OK")
	if got := health(t, p.conn); got != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("gRPC health with rules = %v, want SERVING", got)
	}
	for i, want := range []rlsv3.RateLimitResponse_Code{rlsv3.RateLimitResponse_OK, rlsv3.RateLimitResponse_OVER_LIMIT} {
		if got := p.ask("d", "k", "v").GetOverallCode(); got != want {
			t.Errorf("call %d = %v, want %v", i+1, got, want)
		}
	}

	// Bad rules are refused with the reason, and change nothing.
	m.publish("2", "", 5)
	select {
	case got := <-m.refused:
		if !strings.Contains(got, "key is missing") {
			t.Errorf("refused with %q, want the reason", got)
		}
	case <-time.After(time.Minute):
		t.Fatal("bad rules were not refused")
	}
	await(t, p.HTTPAddr(), "/metrics", 200, "tollgate_config_last_reload_successful 0")
	if got := p.ask("d", "k", "v").GetOverallCode(); got != rlsv3.RateLimitResponse_OVER_LIMIT {
		t.Errorf("after bad rules: %v, want OVER_LIMIT as before", got)
	}
	// A reload of the rest does not make them good.
	if err := p.Reload(); err != nil {
		t.Errorf("Reload = %v", err)
	}
	await(t, p.HTTPAddr(), "/metrics", 200, "tollgate_config_last_reload_successful 0")
	await(t, p.HTTPAddr(), "/v1/config", 200, "key is missing")

	// The server goes; what was in force stays, also over a reload of the rest.
	m.stop()
	if err := p.Reload(); err != nil {
		t.Errorf("Reload = %v", err)
	}
	if got := p.ask("d", "k", "v").GetOverallCode(); got != rlsv3.RateLimitResponse_OVER_LIMIT {
		t.Errorf("without the server: %v, want OVER_LIMIT as before", got)
	}

	// It comes back with other rules.
	m.publish("3", "k", 2)
	m.start()
	await(t, p.HTTPAddr(), "/rlconfig", 200, "requests_per_unit=2")
	if got := p.ask("d", "k", "v").GetOverallCode(); got != rlsv3.RateLimitResponse_OK {
		t.Errorf("after the raise: %v, want OK", got)
	}
	await(t, p.HTTPAddr(), "/metrics", 200, "tollgate_config_last_reload_successful 1")
}

// TestXDSOverTLS: both sides show certificates, and the server's name need not be
// that of its address.
func TestXDSOverTLS(t *testing.T) {
	authority := envoytest.NewAuthority(t)
	cert, key := authority.Issue(t, "management", "control.example")
	own, ownKey := authority.Issue(t, "tollgate", "spiffe://mesh/tollgate")
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	m := newManagement(t, grpc.Creds(credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: authority.Client(t, "", "", "").RootCAs,
	})))
	m.publish("1", "k", 1)
	m.start()
	env := map[string]string{
		"CONFIG_TYPE": "GRPC_XDS_SOTW", "CONFIG_GRPC_XDS_SERVER_URL": "unix:" + m.address, "CONFIG_GRPC_XDS_NODE_ID": "gateway",
		"XDS_CLIENT_BACKOFF_INITIAL_INTERVAL": "10ms", "XDS_CLIENT_BACKOFF_MAX_INTERVAL": "50ms",
		"CONFIG_GRPC_XDS_SERVER_USE_TLS": "true", "CONFIG_GRPC_XDS_CLIENT_TLS_CERT": own, "CONFIG_GRPC_XDS_CLIENT_TLS_KEY": ownKey,
		"CONFIG_GRPC_XDS_SERVER_TLS_CACERT": authority.CA, "CONFIG_GRPC_XDS_SERVER_TLS_SAN": "control.example",
	}
	p := startInPlace(t, env)
	await(t, p.HTTPAddr(), "/rlconfig", 200, "d.k: unit=DAY requests_per_unit=1")

	env["CONFIG_GRPC_XDS_SERVER_TLS_SAN"] = "another.example"
	p = startInPlace(t, env)
	envoytest.Eventually(t, func() error {
		if log := p.log.String(); !strings.Contains(log, "another.example") {
			return fmt.Errorf("log without a word about the server's name: %s", log)
		}
		return nil
	})
	if code, _ := get(t, p.HTTPAddr(), "/readyz"); code != 503 {
		t.Errorf("/readyz = %d with rules from a server of another name, want 503", code)
	}
}

func TestXDSMayBeReadyWithoutRules(t *testing.T) {
	p := startInPlace(t, map[string]string{
		"CONFIG_TYPE": "GRPC_XDS_SOTW", "CONFIG_GRPC_XDS_SERVER_URL": "unix:" + filepath.Join(t.TempDir(), "none"),
		"FORCE_START_WITHOUT_INITIAL_CONFIG": "true",
	})
	if code, body := get(t, p.HTTPAddr(), "/healthcheck"); code != 200 || body != "OK" {
		t.Errorf("/healthcheck = %d %q, want 200 OK", code, body)
	}
	if _, err := p.rls.ShouldRateLimit(t.Context(), request("d", "k", "v")); status.Code(err) != codes.Unavailable {
		t.Errorf("a call = %v, want UNAVAILABLE as long as there are no rules", err)
	}
}

func TestPrometheusNamesAreBehindTheSwitch(t *testing.T) {
	root := t.TempDir()
	writeRules(t, filepath.Join(root, "config"), fileRules)
	const series = `ratelimit_service_rate_limit_total_hits{domain="d",key1="k"} 2`
	on := startInPlace(t, map[string]string{
		"RUNTIME_ROOT": root, "USE_PROMETHEUS": "true", "PROMETHEUS_ADDR": "127.0.0.1:0", "PROMETHEUS_PATH": "/stats/prometheus",
	})
	off := startInPlace(t, map[string]string{"RUNTIME_ROOT": root})
	for range 2 {
		on.ask("d", "k", "v")
		off.ask("d", "k", "v")
	}
	on.ask("misspelt", "k", "v")
	if len(on.ReadingAddrs()) != 2 {
		t.Fatalf("further ports = %v, want those for debugging and for Prometheus", on.ReadingAddrs())
	}
	for _, path := range []string{"/stats/prometheus", "/metrics"} {
		code, body := get(t, on.ReadingAddrs()[1], path)
		for _, want := range []string{
			series,
			`ratelimit_service_rate_limit_over_limit{domain="d",key1="k"} 1`,
			`ratelimit_service_rate_limit_within_limit{domain="d",key1="k"} 1`,
			`ratelimit_service_total_requests{grpc_method="ShouldRateLimit"} 3`,
			`ratelimit_service_response_time_seconds_count{grpc_method="ShouldRateLimit"} 3`,
			"ratelimit_service_rate_limit_domain_not_found 1",
			"tollgate_unknown_domains_total 1",
			"ratelimit_service_config_load_success 1",
			"ratelimit_service_config_load_error 0",
		} {
			if code != 200 || !strings.Contains(body, want+"\n") {
				t.Errorf("%s = %d without %s", path, code, want)
			}
		}
	}
	if code, _ := get(t, on.ReadingAddrs()[1], "/other"); code != 404 {
		t.Errorf("/other = %d, want 404", code)
	}
	if _, body := get(t, off.HTTPAddr(), "/metrics"); strings.Contains(body, "\nratelimit_") {
		t.Error("ratelimit_* metrics without USE_PROMETHEUS=true")
	}
}
