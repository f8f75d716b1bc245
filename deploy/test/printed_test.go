package test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	gatewayv1alpha1 "github.com/envoyproxy/gateway/api/v1alpha1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	meshv1alpha1 "istio.io/api/mesh/v1alpha1"
	networkingv1alpha3 "istio.io/api/networking/v1alpha3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// istio is an object whose spec is a protobuf message, as all of Istio's are.
type istio struct {
	metav1.TypeMeta
	metav1.ObjectMeta
	spec proto.Message
}

// UnmarshalJSON refuses what the message has no field for.
func (o *istio) UnmarshalJSON(data []byte) error {
	var raw struct {
		APIVersion string            `json:"apiVersion"`
		Kind       string            `json:"kind"`
		Metadata   metav1.ObjectMeta `json:"metadata"`
		Spec       rawJSON           `json:"spec"`
	}
	if err := yaml.UnmarshalStrict(data, &raw); err != nil {
		return err
	}
	o.TypeMeta, o.ObjectMeta = metav1.TypeMeta{APIVersion: raw.APIVersion, Kind: raw.Kind}, raw.Metadata
	return protojson.Unmarshal(raw.Spec, o.spec)
}

type rawJSON []byte

func (r *rawJSON) UnmarshalJSON(data []byte) error { *r = append((*r)[:0], data...); return nil }

// golden are what `tollgate envoy` prints, as its own tests hold it to.
func golden(t *testing.T, format string) map[string]string {
	t.Helper()
	paths, err := filepath.Glob("../../envoy/config/testdata/" + format + "-*.yaml")
	if err != nil || len(paths) < 4 {
		t.Fatalf("%d files, %v", len(paths), err)
	}
	texts := make(map[string]string)
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		texts[strings.TrimSuffix(filepath.Base(path), ".yaml")] = string(data)
	}
	return texts
}

// commented returns the commented block that begins with a line.
func commented(text, first string) string {
	_, rest, found := strings.Cut(text, "\n# "+first+"\n")
	if !found {
		return ""
	}
	var b strings.Builder
	b.WriteString(first + "\n")
	for line := range strings.Lines(rest) {
		line, ok := strings.CutPrefix(line, "# ")
		if !ok || line[0] >= '0' && line[0] <= '9' {
			break
		}
		b.WriteString(line)
	}
	return b.String()
}

func TestIstio(t *testing.T) {
	for name, text := range golden(t, "istio") {
		t.Run(name, func(t *testing.T) {
			objects := decode(t, text)
			if len(objects) < 2 {
				t.Errorf("%d objects", len(objects))
			}
			matched(t, one[*istio](t, slices.DeleteFunc(slices.Clone(objects), func(o any) bool { return o.(*istio).Kind != "EnvoyFilter" })))
			asks := strings.Contains(text, "kind: AuthorizationPolicy")
			block := commented(text, "meshConfig:")
			if asks != (block != "") {
				t.Fatalf("a policy and its provider go together: policy %v, provider %q", asks, block)
			}
			if !asks {
				return
			}
			data, err := yaml.YAMLToJSON([]byte(block))
			if err != nil {
				t.Fatal(err)
			}
			var outer struct {
				MeshConfig rawJSON `json:"meshConfig"`
			}
			if err := yaml.UnmarshalStrict(data, &outer); err != nil {
				t.Fatal(err)
			}
			var mesh meshv1alpha1.MeshConfig
			if err := protojson.Unmarshal(outer.MeshConfig, &mesh); err != nil {
				t.Fatal(err)
			}
			if timeout := mesh.GetExtensionProviders()[0].GetEnvoyExtAuthzGrpc().GetTimeout(); timeout == nil {
				t.Error("no timeout: Istio would wait 600 s")
			}
		})
	}
}

// matched holds what patches match to rules of Istio's that no type has: those
// of its custom resource definition and of its admission.
func matched(t *testing.T, filter *istio) {
	t.Helper()
	for i, p := range filter.spec.(*networkingv1alpha3.EnvoyFilter).GetConfigPatches() {
		m := p.GetMatch()
		waypoint, listener := m.GetWaypoint(), m.GetListener()
		if (m.GetContext() == networkingv1alpha3.EnvoyFilter_WAYPOINT) != (waypoint != nil) {
			t.Errorf("patch %d: the context WAYPOINT and a match of waypoints go together", i)
		}
		sub := waypoint.GetFilter().GetSubFilter().GetName() + listener.GetFilterChain().GetFilter().GetSubFilter().GetName()
		network := waypoint.GetFilter().GetName() + listener.GetFilterChain().GetFilter().GetName()
		switch p.GetApplyTo() {
		case networkingv1alpha3.EnvoyFilter_HTTP_FILTER:
			if network == "" || sub == "" {
				t.Errorf("patch %d: a filter within the connection manager needs its name", i)
			}
		case networkingv1alpha3.EnvoyFilter_NETWORK_FILTER:
			if network == "" || sub != "" {
				t.Errorf("patch %d: matches no network filter", i)
			}
		case networkingv1alpha3.EnvoyFilter_ROUTE_CONFIGURATION:
			if network != "" || listener != nil {
				t.Errorf("patch %d: routes are not matched by filters", i)
			}
		default:
			t.Errorf("patch %d: %v is not known to this test", i, p.GetApplyTo())
		}
	}
}

func TestEnvoyGateway(t *testing.T) {
	for name, text := range golden(t, "gateway") {
		t.Run(name, func(t *testing.T) {
			decode(t, text)
			block := commented(text, "apiVersion: gateway.envoyproxy.io/v1alpha1")
			if limits := strings.Contains(text, "kind: BackendTrafficPolicy"); limits != (block != "") {
				t.Fatalf("limits %v, and Envoy Gateway's configuration %q", limits, block)
			}
			if block == "" {
				return
			}
			gateway := one[*gatewayv1alpha1.EnvoyGateway](t, decode(t, block))
			if d := gateway.Provider.Kubernetes.RateLimitDeployment; d == nil || d.Container == nil || !strings.Contains(*d.Container.Image, "tollgate") {
				t.Error("the rate limit service is not Tollgate")
			}
		})
	}
}

func TestDecodeRefuses(t *testing.T) {
	for _, doc := range []string{
		"apiVersion: v1\nkind: Service\nspec: {prots: []}",
		"apiVersion: networking.istio.io/v1\nkind: DestinationRule\nspec: {hots: a}",
		"apiVersion: networking.istio.io/v1alpha3\nkind: EnvoyFilter\nspec: {configPatches: [{applyTo: HTTP_FILTERS}]}",
		"apiVersion: gateway.envoyproxy.io/v1alpha1\nkind: SecurityPolicy\nspec: {extAuth: {timeuot: 1s}}",
	} {
		var meta metav1.TypeMeta
		if err := yaml.Unmarshal([]byte(doc), &meta); err != nil {
			t.Fatal(err)
		}
		if err := yaml.UnmarshalStrict([]byte(doc), kinds[meta.APIVersion+" "+meta.Kind]()); err == nil {
			t.Errorf("decoded all the same:\n%s", doc)
		}
	}
}
