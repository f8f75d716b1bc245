package endtoend_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/eso"
)

// TestK27RestoreInDependencyOrder restores into an empty cluster what stands in
// manifests, the last first: the namespace, its stores, the external secret that
// makes what the second store authenticates with, and only then those that read of
// it, also where they are more urgent.
func TestK27RestoreInDependencyOrder(t *testing.T) {
	cl := root(t)
	const ns = "restore-order"
	second := store(ns)
	second.SetName("second")
	second.Object["spec"] = map[string]any{"provider": map[string]any{"keepersecurity": map[string]any{
		"folderID": "folder", "authRef": map[string]any{"name": "second-config", "key": "config"}}}}
	ofSecond := map[string]any{"secretStoreRef": map[string]any{"name": "second", "kind": eso.SecretStoreKind}}
	urgent := externalSecret(ns, "a-reads-second", ofSecond, uid(1))
	urgent.SetAnnotations(map[string]string{"tollgate.dev/restore-priority": "10"})
	maker := externalSecret(ns, "z-makes-second", map[string]any{"target": map[string]any{"name": "second-config"}}, uid(2))
	namespace := map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": ns}}
	var docs []string
	for _, o := range []map[string]any{urgent.Object, externalSecret(ns, "b-other", nil, uid(3)).Object, maker.Object, second.Object, store(ns).Object, namespace} {
		doc, err := yaml.Marshal(o)
		must(t, err)
		docs = append(docs, string(doc))
	}
	file := filepath.Join(t.TempDir(), "all.yaml")
	must(t, os.WriteFile(file, []byte(strings.Join(docs, "---\n")), 0o600))
	q := newQuietUpstream(t)
	startWorker(t, ns, nil, func() { q.Take(time.Now()) })
	binary := buildCompanion(t)

	args := []string{"-f", file, "--store", "SecretStore/" + ns + "/second"}
	dry, out := restoring(t, binary, q.URL, ns, append(args, "--dry-run")...)
	must(t, dry.Run())
	for _, want := range []string{"wave 1, priority 10: 1 external secrets, 1 calls, 1 to create\n",
		"wave 2, priority 10: 1 external secrets, 1 calls, which need Secrets of those before, 1 to create\n",
		"wave 3, priority 0: 1 external secrets, 1 calls, 1 to create\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("--dry-run lacks %q:\n%s", want, out)
		}
	}
	if err := cl.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: "second"}, new(eso.SecretStore)); client.IgnoreNotFound(err) != nil || err == nil {
		t.Errorf("after --dry-run the store is there, or %v", err)
	}

	run, out := restoring(t, binary, q.URL, ns, args...)
	if err := run.Run(); err != nil || !strings.Contains(out.String(), "created 3 namespaces and stores\n") {
		t.Fatalf("%v\n%s", err, out)
	}
	at := map[string]time.Time{}
	var all eso.ExternalSecretList
	must(t, cl.List(t.Context(), &all, client.InNamespace(ns)))
	for i := range all.Items {
		var mark struct{ At time.Time }
		must(t, yaml.Unmarshal([]byte(all.Items[i].Annotations["tollgate.dev/restore"]), &mark))
		at[all.Items[i].Name] = mark.At
	}
	if maker, urgent, other := at["z-makes-second"], at["a-reads-second"], at["b-other"]; !maker.Before(urgent) || !urgent.Before(other) {
		t.Errorf("restored at %v, want z-makes-second, a-reads-second, b-other", at)
	}
	again, out := restoring(t, binary, q.URL, ns, args...)
	if err := again.Run(); err != nil || strings.Contains(out.String(), "created") {
		t.Errorf("again: %v\n%s", err, out)
	}
}
