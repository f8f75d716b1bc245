package config_test

import (
	"bytes"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/tollgate-dev/tollgate/envoy/config"
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
			"grpc_service": map[string]any{"envoy_grpc": map[string]any{"cluster_name": "outbound|8081||tollgate.tollgate.svc.cluster.local"}, "timeout": "0.25s"}}})
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
