package endtoend_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/eso"
	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/windows"
)

// merge patches as External Secrets does.
func merge(t *testing.T, w client.SubResourceWriter, o client.Object, patch string) {
	t.Helper()
	if err := w.Patch(t.Context(), o, client.RawPatch("application/merge-patch+json", []byte(patch))); err != nil {
		t.Fatal(err)
	}
}

const readyPatch = `{"status":{"conditions":[{"type":"Ready","status":"True","reason":"Valid","message":"store validated","lastTransitionTime":"2026-01-02T03:04:05Z"}]}}`

// TestK14Condition follows a store through pauses: each transition is one write,
// Ready stays as it is, and a condition that External Secrets loses comes back.
func TestK14Condition(t *testing.T) {
	cl := root(t)
	const ns = "condition"
	s := store(ns)
	create(t, cl, s)
	merge(t, cl.Status(), s, readyPatch)
	f := newFakeTollgate(t, ns)
	runCompanion(t, t.TempDir(), configure(t, ns, f.URL, ""))
	versions := map[string]bool{}
	get := func() *eso.SecretStore {
		var got eso.SecretStore
		if err := cl.Get(t.Context(), client.ObjectKeyFromObject(s), &got); err != nil {
			t.Fatal(err)
		}
		versions[got.ResourceVersion] = true
		return &got
	}
	has := func(status metav1.ConditionStatus, text string) func() bool {
		return func() bool {
			c := eso.FindCondition(get().Status.Conditions, "Throttled")
			return c != nil && c.Status == status && strings.Contains(c.Message, text)
		}
	}
	get()
	quiet(t, time.Second, "a store that was never under pressure was written", func() bool { return len(get().Status.Conditions) != 1 })

	until := time.Now().Add(time.Hour).UTC()
	f.freeze(ns, until, 1)
	within(t, 20*time.Second, "Throttled is True", has(metav1.ConditionTrue, until.Format(time.RFC3339)))
	longer := until.Add(time.Hour)
	f.freeze(ns, longer, 2)
	within(t, 20*time.Second, "the longer pause is told", has(metav1.ConditionTrue, longer.Format(time.RFC3339)))
	f.open(ns, 90)
	within(t, 20*time.Second, "Throttled is False", has(metav1.ConditionFalse, "takes calls again"))
	quiet(t, 2*time.Second, "the store is written again and again", func() bool { get(); return len(versions) > 4 })
	if len(versions) != 4 {
		t.Errorf("%d versions of the store, want 4: as it was, and one for each transition", len(versions))
	}
	ready := eso.FindCondition(get().Status.Conditions, "Ready")
	if ready == nil || ready.Status != metav1.ConditionTrue || ready.LastTransitionTime.UTC().Format(time.RFC3339) != "2026-01-02T03:04:05Z" || ready.Message != "store validated" {
		t.Errorf("Ready = %+v, want it as it was", ready)
	}

	f.freeze(ns, longer, 1)
	within(t, 20*time.Second, "Throttled is True again", has(metav1.ConditionTrue, ""))
	merge(t, cl.Status(), s, readyPatch) // from a copy of before
	within(t, 20*time.Second, "Throttled comes back", has(metav1.ConditionTrue, ""))

	var events eventsv1.EventList
	within(t, 20*time.Second, "events are written", func() bool {
		if err := cl.List(t.Context(), &events, client.InNamespace(ns)); err != nil {
			t.Fatal(err)
		}
		text := fmt.Sprint(events.Items)
		return strings.Contains(text, "UpstreamPaused") && strings.Contains(text, "UpstreamOpen")
	})
}

// TestK14ClusterSecretStore: the same for a store of the cluster.
func TestK14ClusterSecretStore(t *testing.T) {
	cl := root(t)
	s := store("")
	s.SetKind(eso.ClusterSecretStoreKind)
	s.SetName("keeper-cluster")
	if err := cl.Create(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	f := newFakeTollgate(t, "cluster")
	c := configure(t, "cluster", f.URL, "")
	c.Upstreams[0].Stores.Stores = []eso.Store{{Kind: eso.ClusterSecretStoreKind, Name: "keeper-cluster"}}
	runCompanion(t, t.TempDir(), c)
	f.freeze("cluster", time.Now().Add(time.Minute), 1)
	within(t, 20*time.Second, "Throttled is True", func() bool {
		var got eso.ClusterSecretStore
		if err := cl.Get(t.Context(), client.ObjectKeyFromObject(s), &got); err != nil {
			t.Fatal(err)
		}
		c := eso.FindCondition(got.Status.Conditions, "Throttled")
		return c != nil && c.Status == metav1.ConditionTrue
	})
}

// TestK15Windows: who asks for it gets a window in a long pause, and loses it when the
// pause is over, also where the companion that set it was killed. External Secrets is
// told that it has synced what has so become of the object, and makes no attempt.
func TestK15Windows(t *testing.T) {
	cl := root(t)
	const ns = "windows"
	own := map[string]any{"kind": "deny", "windows": []any{map[string]any{"schedule": "0 1 * * *", "duration": "1h0m0s"}}}
	asks := externalSecret(ns, "asks", nil, uid(1))
	owns := externalSecret(ns, "owns", map[string]any{"syncWindows": own}, uid(2))
	allows := externalSecret(ns, "allows", map[string]any{"syncWindows": map[string]any{"kind": "allow", "windows": own["windows"]}}, uid(3))
	for _, e := range []client.Object{asks, owns, allows} {
		e.SetAnnotations(map[string]string{windows.OptIn: "true"})
	}
	create(t, cl, store(ns), asks, owns, allows, externalSecret(ns, "does-not", nil, uid(4)))
	for _, e := range []client.Object{asks, owns} {
		merge(t, cl.Status(), e, fmt.Sprintf(`{"status":{"syncedResourceVersion":"1-hash","refreshTime":%q}}`, time.Now().UTC().Format(time.RFC3339)))
	}
	synced := func() {
		t.Helper()
		for _, o := range []client.Object{asks, owns} {
			within(t, 20*time.Second, o.GetName()+" is told to be synced, and nothing else is left on it", func() bool {
				var e eso.ExternalSecret
				must(t, cl.Get(t.Context(), client.ObjectKeyFromObject(o), &e))
				return e.Status.SyncedResourceVersion == fmt.Sprintf("%d-hash", e.Generation) && len(e.Annotations) == 1
			})
		}
	}
	f := newFakeTollgate(t, ns)
	dir := t.TempDir()
	file := filepath.Join(dir, "tollgate-eso.yaml")
	must(t, os.WriteFile(file, fmt.Appendf(nil, `
listen: 127.0.0.1:0
status: 127.0.0.1:0
tollgate: {server: %q}
upstreams: [{id: %s, stores: [SecretStore/%s/keeper], sync_windows: 5m}]
`, f.URL, ns, ns), 0o600))
	binary := buildCompanion(t)
	p := startProgram(t, binary, file, dir)

	f.freeze(ns, time.Now().Add(time.Minute), 1)
	quiet(t, 2*time.Second, "a short pause set a window", func() bool { return windowsOf(t, ns)["asks"] != "" })
	f.freeze(ns, time.Now().Add(time.Hour), 2)
	within(t, 20*time.Second, "windows are set", func() bool {
		w := windowsOf(t, ns)
		return strings.HasPrefix(w["asks"], "deny ") && strings.Count(w["owns"], ";") == 2
	})
	if w := windowsOf(t, ns); w["does-not"] != "" || w["allows"] != "allow 0 1 * * * 1h0m0s;" {
		t.Errorf("windows = %v, want none for who did not ask or allows by windows", w)
	}
	synced()
	must(t, p.cmd.Process.Kill())
	_ = p.cmd.Wait() // it was killed
	f.open(ns, 90)
	if w := windowsOf(t, ns); w["asks"] == "" {
		t.Errorf("windows = %v, want them left by the kill", w)
	}
	startProgram(t, binary, file, dir)
	within(t, 20*time.Second, "windows are taken back", func() bool {
		w := windowsOf(t, ns)
		return w["asks"] == "" && w["owns"] == "deny 0 1 * * * 1h0m0s;"
	})
	synced()
}

// windowsOf returns the windows of each external secret as text.
func windowsOf(t *testing.T, namespace string) map[string]string {
	t.Helper()
	var l eso.ExternalSecretList
	if err := root(t).List(t.Context(), &l, client.InNamespace(namespace)); err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, e := range l.Items {
		if w := e.Spec.SyncWindows; w != nil {
			all[e.Name] = w.Kind + " "
			for _, one := range w.Windows {
				all[e.Name] += one.Schedule + " " + one.Duration.Duration.String() + ";"
			}
		}
	}
	return all
}
