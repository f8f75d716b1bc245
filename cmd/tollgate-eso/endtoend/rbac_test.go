package endtoend_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/eso"
)

// manifests reads the documents of what is shipped.
func manifests(t *testing.T) map[string][]byte {
	t.Helper()
	data, err := os.ReadFile("../../../deploy/external-secrets/tollgate-eso.yaml")
	if err != nil {
		t.Fatal(err)
	}
	docs := map[string][]byte{}
	for _, doc := range strings.Split(string(data), "\n---\n") {
		var o metav1.PartialObjectMetadata
		if err := yaml.UnmarshalStrict([]byte(doc), &o); err != nil && o.Kind == "" {
			_ = yaml.Unmarshal([]byte(doc), &o)
		}
		docs[o.Kind] = []byte(doc)
	}
	return docs
}

func read[T any](t *testing.T, docs map[string][]byte, kind string) *T {
	t.Helper()
	o := new(T)
	if err := yaml.UnmarshalStrict(docs[kind], o); err != nil {
		t.Fatalf("%s: %v", kind, err)
	}
	return o
}

// install applies the rights of the manifests, once.
func install(t *testing.T) {
	t.Helper()
	cl, docs := root(t), manifests(t)
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "tollgate"}}
	for _, o := range []client.Object{ns, read[corev1.ServiceAccount](t, docs, "ServiceAccount"),
		read[rbacv1.ClusterRole](t, docs, "ClusterRole"), read[rbacv1.ClusterRoleBinding](t, docs, "ClusterRoleBinding")} {
		if err := cl.Create(t.Context(), o); client.IgnoreAlreadyExists(err) != nil {
			t.Fatal(err)
		}
	}
}

// TestRBACAllowsWhatIsDoneAndNothingMore holds the rights of the manifests to what the companion does: the
// API server's authorizer allows exactly that, of all that could be asked.
func TestRBACAllowsWhatIsDoneAndNothingMore(t *testing.T) {
	install(t)
	cl := root(t)
	done := map[string]bool{}
	for _, what := range []string{
		"list external-secrets.io/externalsecrets", "watch external-secrets.io/externalsecrets", "patch external-secrets.io/externalsecrets",
		"list external-secrets.io/secretstores", "watch external-secrets.io/secretstores",
		"list external-secrets.io/clustersecretstores", "watch external-secrets.io/clustersecretstores",
		"patch external-secrets.io/clusterexternalsecrets",
		"patch external-secrets.io/externalsecrets/status", "patch external-secrets.io/secretstores/status", "patch external-secrets.io/clustersecretstores/status",
		"create events.k8s.io/events",
	} {
		done[what] = true
	}
	resources := map[string][]string{
		"external-secrets.io": {"externalsecrets", "externalsecrets/status", "secretstores", "secretstores/status", "clustersecretstores",
			"clustersecretstores/status", "clusterexternalsecrets", "clusterexternalsecrets/status", "pushsecrets", "pushsecrets/status"},
		"events.k8s.io":             {"events"},
		"":                          {"secrets", "configmaps", "events", "pods", "pods/exec", "serviceaccounts", "serviceaccounts/token", "namespaces", "nodes"},
		"apps":                      {"deployments", "statefulsets"},
		"coordination.k8s.io":       {"leases"},
		"rbac.authorization.k8s.io": {"clusterroles", "clusterrolebindings"},
		"apiextensions.k8s.io":      {"customresourcedefinitions"},
	}
	for group, all := range resources {
		for _, resource := range all {
			for _, verb := range []string{"get", "list", "watch", "create", "update", "patch", "delete", "deletecollection", "escalate", "bind", "impersonate"} {
				what := fmt.Sprintf("%s %s/%s", verb, group, resource)
				if got := allowed(t, cl, group, resource, verb); got != done[what] {
					t.Errorf("%s: allowed = %v, want %v", what, got, done[what])
				}
			}
		}
	}
}

func allowed(t *testing.T, cl client.Client, group, resource, verb string) bool {
	t.Helper()
	name, sub, _ := strings.Cut(resource, "/")
	r := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User: companionUser, Groups: []string{"system:serviceaccounts", "system:authenticated"},
		ResourceAttributes: &authorizationv1.ResourceAttributes{Namespace: "default", Verb: verb, Group: group, Resource: name, Subresource: sub},
	}}
	if err := cl.Create(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	return r.Status.Allowed
}

// TestSecretsStayUnread: with the companion's rights, a Secret cannot be read.
func TestSecretsStayUnread(t *testing.T) {
	install(t)
	create(t, root(t), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "secrets", Name: "s"}})
	var s corev1.Secret
	err := newClient(t, asCompanion()).Get(t.Context(), client.ObjectKey{Namespace: "secrets", Name: "s"}, &s)
	if err == nil || !strings.Contains(err.Error(), "forbidden") {
		t.Errorf("Get of a Secret = %v, want that it is forbidden", err)
	}
	var e eso.ExternalSecretList
	if err := newClient(t, asCompanion()).List(t.Context(), &e); err != nil {
		t.Errorf("List of ExternalSecrets = %v", err)
	}
}
