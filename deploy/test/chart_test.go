package test

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"helm.sh/helm/v3/pkg/lint"
	"helm.sh/helm/v3/pkg/lint/support"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write deploy/kubernetes/tollgate.yaml anew")

const (
	chart = "../helm/tollgate"
	plain = "../kubernetes/tollgate.yaml"
)

// render renders the chart as `helm template tollgate --namespace tollgate` does.
func render(t *testing.T, values map[string]any) (string, error) {
	t.Helper()
	c, err := loader.Load(chart)
	if err != nil {
		t.Fatal(err)
	}
	all, err := chartutil.ToRenderValues(c, values, chartutil.ReleaseOptions{Name: "tollgate", Namespace: "tollgate", IsInstall: true, Revision: 1}, nil)
	if err != nil {
		return "", err
	}
	files, err := engine.Render(c, all)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if text := strings.Trim(files[name], "\n"); strings.TrimSpace(text) != "" && !strings.HasSuffix(name, "NOTES.txt") {
			fmt.Fprintf(&b, "---\n%s\n", strings.TrimPrefix(text, "---\n"))
		}
	}
	return b.String(), nil
}

// valueFiles are the values that every test here renders with; "" are the defaults.
func valueFiles(t *testing.T) map[string]map[string]any {
	t.Helper()
	all := map[string]map[string]any{"": {}}
	paths, err := filepath.Glob("testdata/values/*.yaml")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no values: %v", err)
	}
	for _, path := range paths {
		values, err := chartutil.ReadValuesFile(path)
		if err != nil {
			t.Fatal(err)
		}
		all[strings.TrimSuffix(filepath.Base(path), ".yaml")] = values
	}
	return all
}

func TestLint(t *testing.T) {
	for name, values := range valueFiles(t) {
		for _, m := range lint.All(chart, values, "tollgate", true).Messages {
			if m.Severity >= support.WarningSev {
				t.Errorf("values %q: %v", name, m)
			}
		}
	}
}

// TestRender decodes every object into its own type, and holds each deployment
// to what a cluster with restricted pods asks for.
func TestRender(t *testing.T) {
	for name, values := range valueFiles(t) {
		t.Run(name, func(t *testing.T) {
			text, err := render(t, values)
			if err != nil {
				t.Fatal(err)
			}
			objects := decode(t, text)
			confined(t, one[*appsv1.Deployment](t, objects))
			connected(t, objects)
			accepted(t, one[*corev1.ConfigMap](t, objects), one[*appsv1.Deployment](t, objects))
		})
	}
}

// confined: nothing runs as root, nothing writes but to its volumes.
func confined(t *testing.T, d *appsv1.Deployment) {
	t.Helper()
	pod := d.Spec.Template.Spec
	if pod.SecurityContext == nil || pod.SecurityContext.RunAsNonRoot == nil || !*pod.SecurityContext.RunAsNonRoot ||
		pod.SecurityContext.SeccompProfile == nil || pod.SecurityContext.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
		t.Error("the pod may run as root, or without a seccomp profile")
	}
	if pod.AutomountServiceAccountToken == nil || *pod.AutomountServiceAccountToken {
		t.Error("the pod has the cluster's credentials, which it does not need")
	}
	for _, c := range pod.Containers {
		s := c.SecurityContext
		if s == nil || s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem || s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation ||
			s.Capabilities == nil || !slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) {
			t.Errorf("container %s: not confined", c.Name)
		}
		if c.LivenessProbe == nil || c.ReadinessProbe == nil || c.StartupProbe == nil {
			t.Errorf("container %s: without a probe", c.Name)
		}
		for _, e := range c.Env {
			if e.Value != "" {
				t.Errorf("%s has a value: secrets come by reference", e.Name)
			}
		}
	}
}

// connected: services, policies and monitors select the deployment's pods, and
// name ports that these have.
func connected(t *testing.T, objects []any) {
	t.Helper()
	pod := one[*appsv1.Deployment](t, objects).Spec.Template
	ports := map[string]int32{}
	for _, p := range pod.Spec.Containers[0].Ports {
		ports[p.Name] = p.ContainerPort
	}
	headless := 0
	for _, o := range objects {
		switch o := o.(type) {
		case *corev1.Service:
			for key, value := range o.Spec.Selector {
				if pod.Labels[key] != value {
					t.Errorf("service %s selects %s=%s, which the pods are not", o.Name, key, value)
				}
			}
			for _, p := range o.Spec.Ports {
				if ports[p.TargetPort.String()] != p.Port {
					t.Errorf("service %s: port %s leads to %s", o.Name, p.Name, p.TargetPort.String())
				}
			}
			if o.Spec.ClusterIP == corev1.ClusterIPNone {
				headless++
			}
		case *networkingv1.NetworkPolicy:
			for key, value := range o.Spec.PodSelector.MatchLabels {
				if pod.Labels[key] != value {
					t.Errorf("network policy selects %s=%s, which the pods are not", key, value)
				}
			}
			for _, rule := range o.Spec.Ingress {
				if len(rule.From) == 0 || ports[rule.Ports[0].Port.String()] == 0 {
					t.Errorf("network policy lets everybody in, or to no port: %+v", rule)
				}
			}
		}
	}
	if headless != 1 {
		t.Errorf("%d headless services, want 1", headless)
	}
}

// accepted: Tollgate itself has nothing against the configuration, as the pod
// sees it.
func accepted(t *testing.T, c *corev1.ConfigMap, d *appsv1.Deployment) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range c.Data {
		// Where the pod has certificates, there are none here.
		lines := slices.Collect(strings.Lines(text))
		lines = slices.DeleteFunc(lines, func(line string) bool {
			return strings.Contains(line, "/etc/tollgate-tls/") || strings.TrimSpace(line) == "tls:"
		})
		if err := os.WriteFile(filepath.Join(dir, name), []byte(strings.Join(lines, "")), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("go", "run", "./cmd/tollgate", "check", "--config", filepath.Join(dir, "tollgate.yaml"))
	cmd.Dir, cmd.Env = "../..", os.Environ()
	for _, e := range d.Spec.Template.Spec.Containers[0].Env {
		cmd.Env = append(cmd.Env, e.Name+"="+map[bool]string{true: "postgres://db/tollgate", false: "secret"}[e.Name == "DSN"])
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("tollgate check: %v\n%s\n%s", err, out, c.Data["tollgate.yaml"])
	}
}

func TestRenderRefuses(t *testing.T) {
	for name, c := range map[string]struct{ values, want string }{
		"unknown value":         {"replicaCount: 2", "replicaCount"},
		"wrong type":            {"replicas: many", "replicas"},
		"listen is the chart's": {"config: {listen: {grpc: ':1'}}", "config"},
		"many stores":           {"config: {consumers: {source: embedded}}", "one pod's own store"},
		"one volume, many":      {"persistence: {enabled: true}", "one volume for one pod"},
		"a file's name":         {`files: {../x.yaml: "a"}`, "invalid propertyName"},
		"a secret in clear":     {"secretEnv: {DSN: postgres}", "secretEnv"},
	} {
		t.Run(name, func(t *testing.T) {
			var values map[string]any
			if err := yaml.Unmarshal([]byte(c.values), &values); err != nil {
				t.Fatal(err)
			}
			if _, err := render(t, values); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("render = %v, want an error with %q", err, c.want)
			}
		})
	}
}

// TestPlainManifests holds the manifests for those without Helm to the chart.
func TestPlainManifests(t *testing.T) {
	text, err := render(t, nil)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	b.WriteString("# Rendered from deploy/helm/tollgate with its defaults: make kubernetes\n" +
		"# kubectl create namespace tollgate && kubectl apply -f tollgate.yaml\n")
	for line := range strings.Lines(text) {
		if !strings.Contains(line, "helm.sh/chart:") {
			b.WriteString(strings.Replace(line, "managed-by: Helm", "managed-by: kubectl", 1))
		}
	}
	got := b.String()
	if *update {
		if err := os.WriteFile(plain, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(plain)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("run `make kubernetes` (-want +got):\n%s", diff)
	}
}
