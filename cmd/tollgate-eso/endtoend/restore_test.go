package endtoend_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"
)

// TestRestoreWithItsRole: the role that is shipped for restore is enough to
// refresh all of a store.
func TestRestoreWithItsRole(t *testing.T) {
	cl := root(t)
	const ns = "restored"
	data, err := os.ReadFile("../../../deploy/external-secrets/restore-role.yaml")
	must(t, err)
	role := &rbacv1.ClusterRole{}
	must(t, yaml.UnmarshalStrict(data, role))
	binding := &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "restorer"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role.Name},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: "restorer"}}}
	create(t, cl, role, binding, store(ns))
	createAll(t, cl, []client.Object{externalSecret(ns, "one", nil, uid(1)), externalSecret(ns, "two", nil, uid(2))})
	f := newFakeTollgate(t, "keeper")
	o := startOperator(t, ns, func(int) {})

	kubeconfig, err := clientcmd.LoadFromFile(cluster.Kubeconfig)
	must(t, err)
	kubeconfig.AuthInfos["admin"].Impersonate = "restorer"
	file := filepath.Join(t.TempDir(), "kubeconfig")
	must(t, clientcmd.WriteToFile(*kubeconfig, file))
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, buildCompanion(t), "restore", "--server", f.URL, "--upstream", "keeper", "--store", "SecretStore/"+ns+"/keeper")
	cmd.Env = append(os.Environ(), "KUBECONFIG="+file)
	out, err := cmd.CombinedOutput()
	if n, _ := o.counts(); err != nil || n != 2 {
		t.Errorf("%d refreshed, %v, want 2\n%s", n, err, out)
	}
}
