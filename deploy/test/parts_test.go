package test

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"sigs.k8s.io/yaml"
)

// TestParts: which objects each set of values makes.
func TestParts(t *testing.T) {
	always := []string{"ConfigMap", "Deployment", "NetworkPolicy", "Service", "Service"}
	for name, more := range map[string][]string{
		"":         {"PodDisruptionBudget"},
		"database": {"PodDisruptionBudget", "ServiceMonitor"},
		"embedded": {"PersistentVolumeClaim"},
		"rules":    {"HorizontalPodAutoscaler", "PodDisruptionBudget"},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, o := range rendered(t, valueFiles(t)[name]) {
				got = append(got, reflect.TypeOf(o).Elem().Name())
			}
			for i, kind := range got {
				got[i] = strings.ToUpper(kind[:1]) + kind[1:]
			}
			slices.Sort(got)
			want := slices.Sorted(slices.Values(append(slices.Clone(always), more...)))
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("objects (-want +got):\n%s", diff)
			}
		})
	}
}

func rendered(t *testing.T, values map[string]any) []any {
	t.Helper()
	text, err := render(t, values)
	if err != nil {
		t.Fatal(err)
	}
	return decode(t, text)
}

// TestScales: pods go one at a time, and their number is one object's business.
func TestScales(t *testing.T) {
	objects := rendered(t, valueFiles(t)["rules"])
	d, h, b := one[*appsv1.Deployment](t, objects), one[*autoscalingv2.HorizontalPodAutoscaler](t, objects), one[*policyv1.PodDisruptionBudget](t, objects)
	if d.Spec.Replicas != nil || h.Spec.ScaleTargetRef.Name != d.Name || *h.Spec.MinReplicas != 3 || h.Spec.MaxReplicas != 20 {
		t.Errorf("replicas %v, autoscaler %+v", d.Spec.Replicas, h.Spec)
	}
	if b.Spec.MaxUnavailable.String() != "1" || d.Spec.Strategy.RollingUpdate.MaxUnavailable.String() != "0" {
		t.Errorf("budget %+v, strategy %+v", b.Spec, d.Spec.Strategy)
	}
	if grace := *d.Spec.Template.Spec.TerminationGracePeriodSeconds; grace < 10+20 {
		t.Errorf("pods are killed after %d s, with a drain of 10 s", grace)
	}
}

// TestSecretsByReference: what opens something stands in Secrets alone, and
// Redis and the database are whoever's the configuration names.
func TestSecretsByReference(t *testing.T) {
	objects := rendered(t, valueFiles(t)["database"])
	from := map[string]string{}
	for _, e := range one[*appsv1.Deployment](t, objects).Spec.Template.Spec.Containers[0].Env {
		if e.ValueFrom == nil || e.ValueFrom.SecretKeyRef == nil {
			t.Errorf("%s comes from no Secret", e.Name)
			continue
		}
		from[e.Name] = e.ValueFrom.SecretKeyRef.Name + "/" + e.ValueFrom.SecretKeyRef.Key
	}
	want := map[string]string{"DSN": "tollgate-database/dsn", "REDIS_PASSWORD": "tollgate-redis/password", "TOLLGATE_ADMIN_TOKEN": "tollgate-admin/token"}
	if diff := cmp.Diff(want, from); diff != "" {
		t.Errorf("secrets (-want +got):\n%s", diff)
	}
	var c struct {
		Consumers, Admin map[string]string
		Cluster          struct {
			Redis struct {
				Addresses []string
				Password  string
			}
		}
	}
	if err := yaml.Unmarshal([]byte(one[*corev1.ConfigMap](t, objects).Data["tollgate.yaml"]), &c); err != nil {
		t.Fatal(err)
	}
	if c.Consumers["dsn"] != "${DSN}" || c.Admin["token"] != "${TOLLGATE_ADMIN_TOKEN}" || c.Cluster.Redis.Password != "${REDIS_PASSWORD}" || c.Cluster.Redis.Addresses[0] != "redis.redis:6379" {
		t.Errorf("tollgate.yaml: %+v", c)
	}
}

// TestConfigMapIsReloaded: a change of what a running pod takes over restarts
// none, a change of where it listens restarts all, and the whole folder is
// mounted, for the kubelet changes no single file.
func TestConfigMapIsReloaded(t *testing.T) {
	pod := func(values map[string]any) (corev1.PodTemplateSpec, string) {
		t.Helper()
		objects := rendered(t, values)
		return one[*appsv1.Deployment](t, objects).Spec.Template, fmt.Sprint(one[*corev1.ConfigMap](t, objects).Data)
	}
	before, data := pod(nil)
	limits, other := pod(map[string]any{"config": map[string]any{"limits": map[string]any{"default": "7/s"}}})
	if diff := cmp.Diff(before, limits); diff != "" || data == other {
		t.Errorf("a changed limit restarts the pods, or does not reach them:\n%s", diff)
	}
	if drain, _ := pod(map[string]any{"drain": "20s"}); drain.Annotations["checksum/listen"] == before.Annotations["checksum/listen"] {
		t.Error("a changed drain does not reach the pods")
	}
	for _, m := range before.Spec.Containers[0].VolumeMounts {
		if m.SubPath != "" || m.Name == "config" && m.MountPath != "/etc/tollgate" {
			t.Errorf("mounted: %+v", m)
		}
	}
}

// TestWhoMayAsk: the policy lets in those that are named, and nobody else.
func TestWhoMayAsk(t *testing.T) {
	peers := func(name string) map[string]string {
		t.Helper()
		found := map[string]string{}
		for _, rule := range one[*networkingv1.NetworkPolicy](t, rendered(t, valueFiles(t)[name])).Spec.Ingress {
			from := rule.From[0]
			space := "its own"
			if from.NamespaceSelector != nil {
				space = from.NamespaceSelector.MatchLabels["kubernetes.io/metadata.name"]
			}
			found[rule.Ports[0].Port.String()] = space
		}
		return found
	}
	for name, want := range map[string]map[string]string{
		"":         {"grpc": "its own", "http": "its own"},
		"database": {"grpc": "istio-ingress", "http": "monitoring"},
	} {
		if diff := cmp.Diff(want, peers(name)); diff != "" {
			t.Errorf("values %q (-want +got):\n%s", name, diff)
		}
	}
}

// TestMonitored: Prometheus' operator finds the service, by the job that the
// alerts name.
func TestMonitored(t *testing.T) {
	objects := rendered(t, valueFiles(t)["database"])
	m := one[*serviceMonitor](t, objects)
	if m.Labels["release"] != "prometheus" || m.Spec.JobLabel != "app.kubernetes.io/name" || m.Spec.Endpoints[0].Path != "/metrics" {
		t.Errorf("%+v", m)
	}
	found := 0
	for _, o := range objects {
		s, is := o.(*corev1.Service)
		if !is {
			continue
		}
		selected := true
		for key, value := range m.Spec.Selector.MatchLabels {
			selected = selected && s.Labels[key] == value
		}
		if selected && slices.ContainsFunc(s.Spec.Ports, func(p corev1.ServicePort) bool { return p.Name == m.Spec.Endpoints[0].Port }) {
			found++
		}
	}
	if found != 1 {
		t.Errorf("%d services are scraped: with two, every pod would be counted twice", found)
	}
}
