package endtoend_test

import (
	"context"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/yaml"

	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/eso"
)

// TestRestoreWithItsRole: the role that is shipped for restore is what it needs, and
// no more: to create a namespace, stores and an external secret of manifests, to
// refresh another, and one of a ClusterExternalSecret.
func TestRestoreWithItsRole(t *testing.T) {
	cl := root(t)
	const ns, empty = "restored", "restored-empty"
	data, err := os.ReadFile("../../../deploy/external-secrets/restore-role.yaml")
	must(t, err)
	role := &rbacv1.ClusterRole{}
	must(t, yaml.UnmarshalStrict(data, role))
	owner := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{"namespaces": []any{ns},
		"externalSecretSpec": map[string]any{"secretStoreRef": map[string]any{"name": "keeper", "kind": eso.SecretStoreKind}}}}}
	owner.SetGroupVersionKind(eso.V1(eso.ClusterExternalSecretKind))
	owner.SetName(ns)
	create(t, cl, store(ns), owner)
	owned := externalSecret(ns, "owned", nil, uid(2))
	owned.SetOwnerReferences([]metav1.OwnerReference{{APIVersion: eso.Group + "/v1", Kind: eso.ClusterExternalSecretKind, Name: ns, UID: owner.GetUID()}})
	create(t, cl, externalSecret(ns, "one", nil, uid(1)), owned)
	clusterStore := store("")
	clusterStore.SetKind(eso.ClusterSecretStoreKind)
	clusterStore.SetName(ns)
	namespace := map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": empty}}
	var docs []string
	for _, o := range []map[string]any{namespace, store(empty).Object, clusterStore.Object, externalSecret(empty, "new", nil, uid(3)).Object} {
		doc, err := yaml.Marshal(o)
		must(t, err)
		docs = append(docs, string(doc))
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "manifests.yaml")
	must(t, os.WriteFile(file, []byte(strings.Join(docs, "---\n")), 0o600))

	f := newFakeTollgate(t, "keeper")
	startWorker(t, empty, nil, func() {})
	startWorker(t, ns, nil, func() {})
	as, user := serviceAccount(t, cl, ns, rights(role))
	kubeconfig, err := clientcmd.LoadFromFile(cluster.Kubeconfig)
	must(t, err)
	kubeconfig.AuthInfos["admin"].Token = as.BearerToken
	must(t, clientcmd.WriteToFile(*kubeconfig, filepath.Join(dir, "kubeconfig")))
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, buildCompanion(t), "restore", "--server", f.URL, "-f", file, "--settle", "2s", "--poll", "50ms",
		"--store", "SecretStore/"+ns+"/keeper", "--store", "SecretStore/"+empty+"/keeper")
	cmd.Env = append(os.Environ(), "KUBECONFIG="+filepath.Join(dir, "kubeconfig"))
	out, err := cmd.CombinedOutput()
	// What the ClusterExternalSecret makes does not come back: nobody plays its controller.
	if err == nil || strings.Count(string(out), "failed: ") != 1 || !strings.Contains(string(out), "failed: ClusterExternalSecret "+ns) {
		t.Errorf("%v, want one failure\n%s", err, out)
	}
	asked, err := cluster.Asked(user)
	must(t, err)
	if got, want := slices.Sorted(maps.Keys(asked)), rights(role); !slices.Equal(got, want) {
		t.Errorf("asked for %v, granted %v", got, want)
	}
}
