package istio

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	meshv1alpha1 "istio.io/api/mesh/v1alpha1"
	"istio.io/istio/pilot/pkg/config/kube/crd"
	"istio.io/istio/pkg/config"
	"istio.io/istio/pkg/config/mesh"
	"istio.io/istio/pkg/config/schema/collections"
	"istio.io/istio/pkg/config/validation"
	"istio.io/istio/pkg/config/validation/agent"
	_ "istio.io/istio/pkg/config/validation/envoyfilter" // registers the validation of EnvoyFilters
	"istio.io/istio/pkg/util/protomarshal"
)

// tollgate is the program, built once.
var tollgate string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "tollgate-istio-")
	if err != nil {
		panic(err)
	}
	tollgate = filepath.Join(dir, "tollgate")
	build := exec.Command("go", "build", "-o", tollgate, "./cmd/tollgate")
	build.Dir, build.Stderr = "../..", os.Stderr
	code := 1
	if err := build.Run(); err == nil {
		code = m.Run()
	}
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// printing is one command line of `tollgate envoy`.
type printing struct {
	mode, target, via string
	open              bool // --fail-open
}

func (p printing) String() string {
	return strings.TrimSuffix(fmt.Sprint(p.mode, " ", p.target, " via ", p.via, map[bool]string{true: " open"}[p.open]), " ")
}

// printings are all the ways: each mode, asked by each proxy, wired both ways.
func printings() []printing {
	var all []printing
	for _, mode := range []string{"fused", "two-phase", "ratelimit"} {
		for _, target := range []string{"gateway", "sidecar", "waypoint"} {
			for _, via := range []string{"provider", "filter"} {
				for _, open := range []bool{false, true} {
					if mode == "ratelimit" && via == "provider" {
						continue // there is no provider of rate limits: both are one
					}
					all = append(all, printing{mode, target, via, open})
				}
			}
		}
	}
	return all
}

func (p printing) text(t *testing.T) string {
	t.Helper()
	args := []string{"envoy", p.mode, "--format", "istio", "--target", p.target, "--via", p.via, "--timeout", "10s"} // the machine may be busy
	if p.open {
		args = append(args, "--fail-open")
	}
	out, err := exec.Command(tollgate, args...).Output()
	if err != nil {
		t.Fatalf("tollgate %s: %v", strings.Join(args, " "), err)
	}
	return string(out)
}

// applied are the objects and the mesh's configuration that a printed text
// says, taken by Istio's own readers and held to Istio's own validation.
func applied(text string) ([]config.Config, *meshv1alpha1.MeshConfig, error) {
	m, err := meshConfig(text)
	if err != nil {
		return nil, nil, err
	}
	objects, others, err := crd.ParseInputs(text)
	if err != nil {
		return nil, nil, fmt.Errorf("read objects: %w", err)
	}
	if len(others) > 0 {
		return nil, nil, fmt.Errorf("Istio knows no kind %q", others[0].Kind)
	}
	var errs []error
	for _, o := range objects {
		schema, found := collections.PilotGatewayAPI().FindByGroupVersionKind(o.GroupVersionKind)
		if !found {
			return nil, nil, fmt.Errorf("Istio knows no %v", o.GroupVersionKind)
		}
		warning, err := schema.ValidateConfig(o)
		if warning != nil {
			errs = append(errs, objections(warning)...)
		}
		errs = append(errs, err)
	}
	return objects, m, errors.Join(errs...)
}

// objections are the warnings that are about what stands in an object, and not
// about its kind.
func objections(warning validation.Warning) []error {
	var errs []error
	for line := range strings.SplitSeq(warning.Error(), "\n") {
		line = strings.TrimLeft(line, "\t* ")
		of := strings.Contains(line, "EnvoyFilter exposes internal implementation details") || strings.HasSuffix(line, "occurred:") || line == ""
		if !of {
			errs = append(errs, fmt.Errorf("warning: %s", line))
		}
	}
	return errs
}

// meshConfig is the mesh's configuration with the commented block taken over,
// as the text tells its reader to.
func meshConfig(text string) (*meshv1alpha1.MeshConfig, error) {
	_, rest, found := strings.Cut(text, "\n# meshConfig:\n")
	var b strings.Builder
	for line := range strings.Lines(rest) {
		line, ok := strings.CutPrefix(line, "#   ")
		if !found || !ok {
			break
		}
		b.WriteString(line)
	}
	if err := protomarshal.ApplyYAMLStrict(b.String(), new(meshv1alpha1.MeshConfig)); err != nil {
		return nil, fmt.Errorf("read the mesh's configuration: %w", err)
	}
	m, err := mesh.ApplyMeshConfigDefaults(b.String())
	if err != nil {
		return nil, fmt.Errorf("read the mesh's configuration: %w", err)
	}
	for _, p := range m.GetExtensionProviders() {
		if p.GetName() == "tollgate" && p.GetEnvoyExtAuthzGrpc().GetTimeout() == nil {
			return nil, errors.New("the provider has no timeout: Istio would wait 600 s")
		}
	}
	warning, err := agent.ValidateMeshConfig(m)
	if warning != nil {
		err = errors.Join(err, fmt.Errorf("warning: %w", warning))
	}
	return m, err
}

func TestValidates(t *testing.T) {
	for _, p := range printings() {
		t.Run(p.String(), func(t *testing.T) {
			objects, m, err := applied(p.text(t))
			if err != nil {
				t.Fatal(err)
			}
			asks := slices.ContainsFunc(objects, func(o config.Config) bool { return o.GroupVersionKind.Kind == "AuthorizationPolicy" })
			byProvider := p.via == "provider" && p.mode != "ratelimit"
			named := slices.ContainsFunc(m.GetExtensionProviders(), func(p *meshv1alpha1.MeshConfig_ExtensionProvider) bool { return p.GetName() == "tollgate" })
			if asks != byProvider || named != byProvider {
				t.Errorf("a policy: %v, a provider: %v, want both %v", asks, named, byProvider)
			}
		})
	}
}
