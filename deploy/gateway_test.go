package deploy_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/tollgate-dev/tollgate/envoy/config"
	"github.com/tollgate-dev/tollgate/envoy/envoytest"
	"github.com/tollgate-dev/tollgate/internal/server"
)

// egctl finds Envoy Gateway's own command, which has its translator.
func egctl(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("runs programs: not in -short")
	}
	version := regexp.MustCompile(`(?m)^EGCTL_VERSION := (\S+)$`).FindStringSubmatch(read(t, "../Makefile"))
	if version == nil {
		t.Fatal("the Makefile names no version of egctl")
	}
	path, err := filepath.Abs("../.tools/egctl-" + version[1])
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		t.Skipf("SKIPPED: Envoy Gateway itself is not shown what is printed for it: %v: run `make gateway-test`, which builds it", err)
	}
	return path
}

// theListener is the one of testdata/cluster.yaml.
const theListener = "default/eg/http"

// translation is what Envoy Gateway makes of objects.
type translation struct {
	SecurityPolicies       []policy
	BackendTrafficPolicies []policy
	ClientTrafficPolicies  []policy
	Xds                    map[string]struct {
		Configs []struct {
			DynamicEndpointConfigs []struct{ EndpointConfig map[string]any }
			DynamicActiveClusters  []struct{ Cluster map[string]any }
			DynamicListeners       []struct {
				ActiveState struct{ Listener map[string]any }
			}
			DynamicRouteConfigs []struct{ RouteConfig map[string]any }
		}
	}
}

type policy struct {
	Kind   string
	Status struct {
		Ancestors []struct {
			Conditions []struct{ Type, Status, Message string }
		}
	}
}

// translate runs Envoy Gateway's translator over a cluster with what is printed.
func translate(t *testing.T, printed string) (translation, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "objects.yaml")
	manifests := strings.Split(read(t, "kubernetes/tollgate.yaml"), "\n---\n")
	text := read(t, "testdata/cluster.yaml")
	for _, doc := range manifests {
		if strings.Contains(doc, "\nkind: Service\n") && !strings.Contains(doc, "clusterIP: None") {
			text += strings.Replace(doc, "spec:\n", "spec:\n  clusterIP: 10.96.0.2\n", 1) + "\n---\n"
		}
	}
	if err := os.WriteFile(file, []byte(text+printed), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(egctl(t), "experimental", "translate", "--from", "gateway-api", "--to", "gateway-api,xds", "--type", "all", "--output", "json", "--file", file)
	var log bytes.Buffer
	cmd.Stderr = &log
	out, err := cmd.Output()
	if err != nil {
		return translation{}, fmt.Errorf("egctl: %w\n%s", err, log.String())
	}
	var tr translation
	if err := json.Unmarshal(out, &tr); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	return tr, nil
}

// refused is what Envoy Gateway has against a policy.
func (tr translation) refused() error {
	for _, p := range append(append(tr.SecurityPolicies, tr.BackendTrafficPolicies...), tr.ClientTrafficPolicies...) {
		if len(p.Status.Ancestors) == 0 {
			return fmt.Errorf("a %s is about no gateway", p.Kind)
		}
		for _, c := range p.Status.Ancestors[0].Conditions {
			if c.Status != "True" || c.Type != "Accepted" {
				return fmt.Errorf("%s: %s is %s: %s", p.Kind, c.Type, c.Status, c.Message)
			}
		}
	}
	return nil
}

// bootstrap makes a file for Envoy of what it would be sent: routes in place,
// and every cluster where the test has it.
func (tr translation) bootstrap(t *testing.T, api, tollgate string) []byte {
	t.Helper()
	routes := map[string]any{}
	var listeners, clusters []any
	for _, gateway := range tr.Xds {
		for _, c := range gateway.Configs {
			for _, r := range c.DynamicRouteConfigs {
				delete(r.RouteConfig, "@type")
				routes[r.RouteConfig["name"].(string)] = r.RouteConfig
			}
			for _, l := range c.DynamicListeners {
				if listener := l.ActiveState.Listener; listener["name"] == theListener { // the others are Envoy Gateway's own
					delete(listener, "@type")
					listeners = append(listeners, listener)
				}
			}
			for _, c := range c.DynamicActiveClusters {
				at := api
				if name := c.Cluster["name"].(string); strings.Contains(name, "tollgate") || strings.Contains(name, "ratelimit") {
					at = tollgate
				}
				clusters = append(clusters, settled(t, c.Cluster, at))
			}
		}
	}
	for _, l := range listeners {
		listener := l.(map[string]any)
		listener["address"] = map[string]any{"socketAddress": map[string]any{"address": "127.0.0.1", "portValue": 0}}
		walk(listener, func(m map[string]any) {
			if rds, ok := m["rds"].(map[string]any); ok {
				m["routeConfig"] = routes[rds["routeConfigName"].(string)]
				delete(m, "rds")
			}
		})
	}
	out, err := json.Marshal(map[string]any{
		"admin":            map[string]any{"address": map[string]any{"socketAddress": map[string]any{"address": "127.0.0.1", "portValue": 0}}},
		"static_resources": map[string]any{"listeners": listeners, "clusters": clusters},
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// settled is a cluster with one endpoint, and without the certificates of Envoy
// Gateway's own services.
func settled(t *testing.T, cluster map[string]any, addr string) map[string]any {
	t.Helper()
	for _, name := range []string{"@type", "edsClusterConfig", "transportSocket", "transportSocketMatches", "dnsLookupFamily", "respectDnsTtl", "dnsRefreshRate", "clusterType"} {
		delete(cluster, name)
	}
	var assignment any
	err := json.Unmarshal(fmt.Appendf(nil, `{"clusterName": "there", "endpoints": [{"lbEndpoints": [{"endpoint": {"address": {"socketAddress": {"address": %s}}}}]}]}`,
		strings.Replace(socket(t, addr), "port_value", `"portValue"`, 1)), &assignment)
	if err != nil {
		t.Fatal(err)
	}
	cluster["type"], cluster["loadAssignment"] = "STATIC", assignment
	return cluster
}

// walk calls f for every object within.
func walk(v any, f func(map[string]any)) {
	switch v := v.(type) {
	case map[string]any:
		f(v)
		for _, member := range v {
			walk(member, f)
		}
	case []any:
		for _, member := range v {
			walk(member, f)
		}
	}
}

// TestEnvoyGatewayTranslates shows what is printed to Envoy Gateway's own
// translator, what that makes of it to Envoy, and sends requests through.
func TestEnvoyGatewayTranslates(t *testing.T) {
	egctl(t)
	binary := envoytest.Binary(t)
	for mode, opens := range map[config.Mode][]bool{config.Fused: {false, true}, config.TwoPhase: {false}, config.RateLimit: {true}} {
		for _, open := range opens {
			t.Run(fmt.Sprint(mode, " fail open ", open), func(t *testing.T) {
				var b bytes.Buffer
				// For MaxWait Envoy waits, on a machine that may be busy.
				if err := config.Print(&b, config.Options{Mode: mode, Format: config.EnvoyGateway, FailOpen: open, MaxWait: 10 * time.Second}); err != nil {
					t.Fatal(err)
				}
				tr, err := translate(t, b.String())
				if err != nil {
					t.Fatal(err)
				}
				if err := tr.refused(); err != nil {
					t.Fatal(err)
				}
				dir := t.TempDir()
				for name, text := range map[string]string{
					"tollgate.yaml":  "listen: {grpc: \"127.0.0.1:0\", http: \"127.0.0.1:0\"}\nconsumers: {source: file, file: consumers.yaml}\n",
					"consumers.yaml": "consumers:\n- {id: billing, limits: [{window: 2/h}], tokens: [{id: prod, value: secret}]}\n",
				} {
					if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
						t.Fatal(err)
					}
				}
				s, err := server.Start(t.Context(), server.Options{ConfigPath: dir + "/tollgate.yaml", DataDir: dir + "/state", Log: io.Discard})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = s.Close() })
				bootstrap := tr.bootstrap(t, envoytest.StartUpstream(t).Addr, s.GRPCAddr())
				for _, said := range saidBy(mode) {
					if !bytes.Contains(bootstrap, []byte(said)) {
						t.Errorf("Envoy is not told of %s", said)
					}
				}
				e := envoytest.Start(t, binary, bootstrap)
				client := envoytest.HTTP1(t, e.Addr(theListener))
				authorizes := mode != config.RateLimit
				want := map[bool]int{true: http.StatusUnauthorized, false: http.StatusOK}[authorizes]
				if a := envoytest.Get(t, client, "/", "x-tollgate-consumer", "root"); a.Status != want || a.Reached && a.Echo.Header("x-tollgate-consumer") != "" {
					t.Errorf("without a token: HTTP %d for %q, want %d: %s", a.Status, a.Echo.Header("x-tollgate-consumer"), want, a.Body)
				}
				for range 2 {
					a := envoytest.Get(t, client, "/", "x-api-key", "secret", "x-tollgate-consumer", "root")
					who := map[bool]string{true: "billing"}[authorizes]
					if a.Status != http.StatusOK || a.Echo.Header("x-tollgate-consumer") != who || authorizes && a.Echo.Header("x-api-key") != "" {
						t.Errorf("HTTP %d for %q, want 200 for %q without its credential", a.Status, a.Echo.Header("x-tollgate-consumer"), who)
					}
				}
				if mode != config.Fused {
					return // the limits are then what Envoy Gateway's controller sends to its rate limit service
				}
				if a := envoytest.Get(t, client, "/", "x-api-key", "secret"); a.Status != http.StatusTooManyRequests {
					t.Errorf("over the limit: HTTP %d, want 429", a.Status)
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				want = map[bool]int{true: http.StatusOK, false: http.StatusServiceUnavailable}[open]
				if a := envoytest.Get(t, client, "/", "x-api-key", "secret"); a.Status != want {
					t.Errorf("without Tollgate: HTTP %d, want %d", a.Status, want)
				}
			})
		}
	}
}

// saidBy are what Envoy needs to be told in a mode: which filters ask, and where
// they find a token's own limit.
func saidBy(mode config.Mode) []string {
	const authorizes, limits, ownLimit = "ext_authz.v3.ExtAuthz", "ratelimit.v3.RateLimit", `"dynamicMetadata"`
	return map[config.Mode][]string{config.Fused: {authorizes}, config.TwoPhase: {authorizes, limits, ownLimit}, config.RateLimit: {limits}}[mode]
}

// TestEnvoyGatewayRefuses: what the translator would only leave out is noticed.
func TestEnvoyGatewayRefuses(t *testing.T) {
	var b bytes.Buffer
	if err := config.Print(&b, config.Options{Mode: config.TwoPhase, Format: config.EnvoyGateway}); err != nil {
		t.Fatal(err)
	}
	egctl(t)
	for name, c := range map[string][2]string{
		"a field":          {"failOpen: false", "failOpened: false"},
		"a duration":       {"timeout: 250ms", "timeout: 0.25"},
		"a gateway":        {"kind: Gateway, name: eg", "kind: Gateway, name: ge"},
		"a service":        {"backendRefs: [{name: tollgate,", "backendRefs: [{name: tolgate,"},
		"a grant":          {"kind: ReferenceGrant", "kind: ReferenceGrunt"},
		"whom it is for":   {"from: [{group: gateway.envoyproxy.io, kind: SecurityPolicy, namespace: default}]", "from: [{group: gateway.envoyproxy.io, kind: SecurityPolicy, namespace: other}]"},
		"a unit of a rule": {"unit: Second", "unit: Sekunde"},
	} {
		t.Run(name, func(t *testing.T) {
			if !strings.Contains(b.String(), c[0]) {
				t.Fatalf("nothing printed says %q", c[0])
			}
			tr, err := translate(t, strings.ReplaceAll(b.String(), c[0], c[1]))
			if err == nil {
				err = tr.refused()
			}
			if err == nil {
				t.Errorf("%s is taken", c[1])
			}
		})
	}
}
