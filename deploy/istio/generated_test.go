package istio

import (
	"os"
	"slices"
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/types/known/anypb"
	meshv1alpha1 "istio.io/api/mesh/v1alpha1"
	"istio.io/istio/pilot/pkg/features"
	"istio.io/istio/pilot/pkg/model"
	"istio.io/istio/pilot/test/xds"
	"istio.io/istio/pkg/config"
	"istio.io/istio/pkg/test"
)

// asking is the cluster that Istio makes of the chart's service.
const asking = "outbound|8081||tollgate.tollgate.svc.cluster.local"

// generated is what Istio's control plane sends to a proxy, routes put in
// place, without Istio's own filters, which a plain Envoy does not have.
type generated struct {
	listeners []*listenerv3.Listener
	clusters  []*clusterv3.Cluster
}

// proxies are the proxies of testdata/mesh.yaml, by target.
func proxies() map[string]*model.Proxy {
	return map[string]*model.Proxy{
		"gateway": {Type: model.Router, ConfigNamespace: "istio-system", Labels: map[string]string{"istio": "ingressgateway"}, IPAddresses: []string{"2.0.0.1"}},
		"sidecar": {Type: model.SidecarProxy, ConfigNamespace: "default", Labels: map[string]string{"app": "app"}, IPAddresses: []string{"1.1.1.1"}},
		"waypoint": {Type: model.Waypoint, ConfigNamespace: "default", IPAddresses: []string{"3.0.0.1"}, Labels: map[string]string{
			"gateway.networking.k8s.io/gateway-name": "waypoint", "gateway.istio.io/managed": "istio.io-mesh-controller"}},
	}
}

// generate runs Istio's control plane over the objects.
func generate(t *testing.T, objects []config.Config, m *meshv1alpha1.MeshConfig, target string) generated {
	t.Helper()
	test.SetForTest(t, &features.EnableAmbient, true)
	mesh := read(t, "testdata/mesh.yaml") + "\n---\n" + services(t)
	d := xds.NewFakeDiscoveryServer(t, xds.FakeOptions{Configs: objects, ConfigString: mesh, KubernetesObjectString: mesh, MeshConfig: m})
	proxy := d.SetupProxy(proxies()[target])
	g := generated{listeners: d.Listeners(proxy), clusters: d.Clusters(proxy)}
	routes := make(map[string]*routev3.RouteConfiguration)
	for _, r := range d.RoutesFromListeners(proxy, g.listeners) {
		routes[r.GetName()] = r
	}
	for _, l := range g.listeners {
		for _, chain := range chains(l) {
			chain.Filters = slices.DeleteFunc(chain.GetFilters(), func(f *listenerv3.Filter) bool { return istios(f.GetName()) })
			edit(t, chain, func(manager *hcmv3.HttpConnectionManager) {
				if rds := manager.GetRds(); rds != nil {
					manager.RouteSpecifier = &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: routes[rds.GetRouteConfigName()]}
				}
				manager.HttpFilters = slices.DeleteFunc(manager.GetHttpFilters(), func(f *hcmv3.HttpFilter) bool { return istios(f.GetName()) })
			})
		}
	}
	for _, c := range g.clusters {
		c.Filters = nil // Istio's metadata exchange
	}
	return g
}

func istios(filter string) bool {
	return strings.HasPrefix(filter, "istio") || strings.HasSuffix(filter, ".metadata_exchange") || strings.Contains(filter, "peer_metadata")
}

func chains(l *listenerv3.Listener) []*listenerv3.FilterChain {
	all := slices.Clone(l.GetFilterChains())
	if l.GetDefaultFilterChain() != nil {
		all = append(all, l.GetDefaultFilterChain())
	}
	return all
}

// edit changes the connection manager of a chain, if it has one.
func edit(t *testing.T, chain *listenerv3.FilterChain, change func(*hcmv3.HttpConnectionManager)) {
	t.Helper()
	for _, f := range chain.GetFilters() {
		manager := new(hcmv3.HttpConnectionManager)
		if !f.GetTypedConfig().MessageIs(manager) {
			continue
		}
		if err := f.GetTypedConfig().UnmarshalTo(manager); err != nil {
			t.Fatal(err)
		}
		change(manager)
		packed, err := anypb.New(manager)
		if err != nil {
			t.Fatal(err)
		}
		f.ConfigType = &listenerv3.Filter_TypedConfig{TypedConfig: packed}
	}
}

// manager returns the connection manager that requests for the API go through.
func (g generated) manager(t *testing.T, target string) *hcmv3.HttpConnectionManager {
	t.Helper()
	at := map[string][2]string{ // listener and part of the chain's name
		"gateway": {"0.0.0.0_80", ""}, "sidecar": {"virtualInbound", "0.0.0.0_80"}, "waypoint": {"main_internal", "inbound-vip|80|http|api.example"},
	}[target]
	var found *hcmv3.HttpConnectionManager
	var seen []string
	for _, l := range g.listeners {
		for _, chain := range chains(l) {
			seen = append(seen, l.GetName()+"/"+chain.GetName())
			if l.GetName() == at[0] && strings.Contains(chain.GetName(), at[1]) {
				edit(t, chain, func(m *hcmv3.HttpConnectionManager) { found = m })
			}
		}
	}
	if found == nil {
		t.Fatalf("no connection manager at %v; there are %q", at, seen)
	}
	return found
}

// services are the chart's, as plain manifests.
func services(t *testing.T) string {
	t.Helper()
	var found []string
	for doc := range strings.SplitSeq(read(t, "../kubernetes/tollgate.yaml"), "\n---\n") {
		if strings.Contains(doc, "\nkind: Service\n") {
			found = append(found, doc)
		}
	}
	if len(found) != 2 {
		t.Fatalf("%d services in the plain manifests, want 2", len(found))
	}
	return strings.Join(found, "\n---\n")
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
