package config_test

import (
	"bytes"
	"fmt"
	"maps"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/tollgate-dev/tollgate/envoy/config"
	"github.com/tollgate-dev/tollgate/envoy/envoytest"
	"github.com/tollgate-dev/tollgate/extauthz"
)

func clusterCases() map[string]config.Options {
	all := make(map[string]config.Options)
	for _, mode := range config.Modes() {
		if mode == config.ToEgress {
			continue // TestPrintRefusesInCluster
		}
		all["gateway-"+string(mode)] = config.Options{Mode: mode, Format: config.EnvoyGateway}
		all["istio-"+string(mode)] = config.Options{Mode: mode, Format: config.Istio}
	}
	all["gateway-open"] = config.Options{Mode: config.TwoPhase, Format: config.EnvoyGateway, FailOpen: true, MaxWait: 30 * time.Second,
		Tollgate: []string{"gate.shop.svc:9000"}, Kubernetes: config.Kubernetes{Name: "public", Namespace: "shop"}}
	for _, target := range []config.Target{config.Sidecar, config.Waypoint} {
		all["istio-"+string(target)] = config.Options{Mode: config.Fused, Format: config.Istio, MaxWait: 10 * time.Minute,
			Kubernetes: config.Kubernetes{Target: target, Name: "billing", Namespace: "shop"}}
	}
	for _, target := range config.Targets() {
		all["istio-filter-"+string(target)] = config.Options{Mode: config.TwoPhase, Format: config.Istio, FailOpen: true,
			Credentials: []extauthz.Place{{Header: "x-api-key"}, {Query: "api_key"}},
			Kubernetes:  config.Kubernetes{Target: target, Via: config.ViaFilter}}
	}
	return all
}

// patched does what Istio does with an EnvoyFilter, to a configuration such as
// Istio's: a connection manager, its own ext_authz filter where a provider is
// named, and a cluster for the service.
func patched(t *testing.T, printed []byte) []byte {
	t.Helper()
	hcm, routes := map[string]any{"stat_prefix": "own"}, map[string]any{"name": "own"}
	var filters []any
	if strings.Contains(string(printed), "provider: {name: tollgate}") {
		filters = append(filters, map[string]any{"name": "envoy.filters.http.ext_authz", "typed_config": map[string]any{
			"grpc_service": map[string]any{"envoy_grpc": map[string]any{"cluster_name": "outbound|8081||tollgate.tollgate.svc.cluster.local"}, "timeout": "10s"}}})
	}
	for doc := range strings.SplitSeq(string(printed), "\n---\n") {
		var o struct {
			Kind string
			Spec struct {
				Patches []struct {
					ApplyTo string `yaml:"applyTo"`
					Patch   struct {
						Operation string
						Value     map[string]any
					}
				} `yaml:"configPatches"`
			}
		}
		if err := yaml.Unmarshal([]byte(doc), &o); err != nil {
			t.Fatalf("%v\n%s", err, doc)
		}
		for _, p := range o.Spec.Patches {
			value := p.Patch.Value
			switch p.ApplyTo + " " + p.Patch.Operation {
			case "NETWORK_FILTER MERGE":
				maps.Copy(hcm, value["typed_config"].(map[string]any))
			case "ROUTE_CONFIGURATION MERGE":
				maps.Copy(routes, value)
			case "HTTP_FILTER MERGE":
				merge(filters[0].(map[string]any), value)
			case "HTTP_FILTER INSERT_BEFORE":
				filters = append(filters, value)
			default:
				t.Fatalf("patch %s %s is not known to this test", p.ApplyTo, p.Patch.Operation)
			}
		}
	}
	if inside, ok := hcm["route_config"].(map[string]any); ok {
		merge(routes, inside)
	}
	hcm["route_config"] = routes
	hcm["http_filters"] = append(filters, map[string]any{"name": "envoy.filters.http.router",
		"typed_config": map[string]any{"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}})
	out, err := yaml.Marshal(map[string]any{"static_resources": map[string]any{
		"listeners": []any{map[string]any{"name": "own",
			"address":       map[string]any{"socket_address": map[string]any{"address": "127.0.0.1", "port_value": 0}},
			"filter_chains": []any{map[string]any{"filters": []any{map[string]any{"name": "envoy.filters.network.http_connection_manager", "typed_config": hcm}}}}}},
		"clusters": []any{map[string]any{"name": "outbound|8081||tollgate.tollgate.svc.cluster.local", "type": "STATIC"}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// merge adds to a message what another says, as protobuf does.
func merge(into, from map[string]any) {
	for key, value := range from {
		have, ok := into[key].(map[string]any)
		if more, both := value.(map[string]any); ok && both {
			merge(have, more)
			continue
		}
		into[key] = value
	}
}

func TestPrintRefusesInCluster(t *testing.T) {
	for _, c := range []struct {
		name string
		o    config.Options
		want string
	}{
		{"egress", config.Options{Mode: config.ToEgress}, "is not printed as"},
		{"an address", config.Options{Tollgate: []string{"10.0.0.1:8081"}}, "want one service"},
		{"a short name", config.Options{Tollgate: []string{"tollgate:8081"}}, "want one service"},
		{"a name that is none", config.Options{Tollgate: []string{"a.b.svc.x|\ny:1"}}, "want one service"},
		{"two", config.Options{Tollgate: []string{"a.b.svc:1", "a.c.svc:1"}}, "want one service"},
		{"who", config.Options{Kubernetes: config.Kubernetes{Target: "pod"}}, `target "pod"`},
		{"how", config.Options{Kubernetes: config.Kubernetes{Via: "magic"}}, `via "magic"`},
		{"a name", config.Options{Kubernetes: config.Kubernetes{Name: "a: b"}}, `name "a: b"`},
		{"TLS", config.Options{TLS: &config.TLS{CA: "ca", ServerName: "x"}}, "DestinationRule"},
	} {
		for _, format := range []config.Format{config.Istio, config.EnvoyGateway} {
			t.Run(fmt.Sprint(c.name, " ", format), func(t *testing.T) {
				o := c.o
				o.Format = format
				if o.Mode == "" {
					o.Mode = config.Fused
				}
				var b bytes.Buffer
				if err := config.Print(&b, o); err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("Print = %v, want an error with %q", err, c.want)
				}
			})
		}
	}
	var b bytes.Buffer
	if err := config.Print(&b, config.Options{Mode: config.Fused, Format: config.EnvoyGateway, Kubernetes: config.Kubernetes{Target: config.Waypoint}}); err == nil {
		t.Error("Envoy Gateway has no waypoints, but one was printed for")
	}
}

// TestIstioAsks runs what Istio makes of the patches: Tollgate is asked, with
// what the route says, and what only it may say is gone.
func TestIstioAsks(t *testing.T) {
	binary := envoytest.Binary(t)
	for name, o := range clusterCases() {
		if o.Format != config.Istio || o.Mode == config.RateLimit || strings.HasPrefix(name, "istio-filter") {
			continue
		}
		for _, via := range config.Vias() {
			t.Run(name+" via "+string(via), func(t *testing.T) {
				o := o
				o.Kubernetes.Via, o.Timeout = via, o.MaxWait+10*time.Second // the machine may be busy
				gate := &asked{}
				addr := serveAuthorization(t, gate)
				e := envoytest.Start(t, binary, inMesh(t, patched(t, printed(t, o)), addr))
				resp := call(t, http.DefaultClient, "http", e.Addr("own"), "api.example", "X-Tollgate-Consumer", "root")
				question := gate.take()
				want := map[config.Mode]string{config.Fused: "both", config.TwoPhase: "authenticate"}[o.Mode]
				if got := question.GetContextExtensions()["mode"]; resp.StatusCode != http.StatusOK || got != want {
					t.Errorf("HTTP %d, and Tollgate was asked for %q, want %q", resp.StatusCode, got, want)
				}
				if _, there := question.GetRequest().GetHttp().GetHeaders()["x-tollgate-consumer"]; there {
					t.Error("a client says who it is")
				}
			})
		}
	}
}

// inMesh gives a patched configuration what is Istio's: an administration
// interface, a route, and the service's endpoints.
func inMesh(t *testing.T, bootstrap []byte, addr string) []byte {
	t.Helper()
	var c map[string]any
	if err := yaml.Unmarshal(bootstrap, &c); err != nil {
		t.Fatal(err)
	}
	resources := c["static_resources"].(map[string]any)
	cluster := resources["clusters"].([]any)[0].(map[string]any)
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	var more map[string]any
	if err := yaml.Unmarshal(fmt.Appendf(nil, `
admin: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}
hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: /}, direct_response: {status: 200}}]}]
load_assignment: {cluster_name: tollgate, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: %s, port_value: %s}}}}]}]}
options:
  envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
    "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
    explicit_http_config: {http2_protocol_options: {}}
`, host, port), &more); err != nil {
		t.Fatal(err)
	}
	c["admin"], cluster["load_assignment"], cluster["typed_extension_protocol_options"] = more["admin"], more["load_assignment"], more["options"]
	listener := resources["listeners"].([]any)[0].(map[string]any)
	chain := listener["filter_chains"].([]any)[0].(map[string]any)
	hcm := chain["filters"].([]any)[0].(map[string]any)["typed_config"].(map[string]any)
	hcm["route_config"].(map[string]any)["virtual_hosts"] = more["hosts"]
	out, err := yaml.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	return out
}
