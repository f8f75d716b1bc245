package endtoend_test

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/companion"
	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/config"
	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/eso"
	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/guard"
)

// rights returns what a role allows, as "patch external-secrets.io/externalsecrets".
func rights(role *rbacv1.ClusterRole) []string {
	var all []string
	for _, r := range role.Rules {
		for _, group := range r.APIGroups {
			for _, resource := range r.Resources {
				for _, verb := range r.Verbs {
					all = append(all, verb+" "+group+"/"+resource)
				}
			}
		}
	}
	slices.Sort(all)
	return all
}

// allow is a role with some rights.
func allow(name string, all []string) *rbacv1.ClusterRole {
	role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}}
	for _, right := range all {
		verb, what, _ := strings.Cut(right, " ")
		group, resource, _ := strings.Cut(what, "/")
		role.Rules = append(role.Rules, rbacv1.PolicyRule{Verbs: []string{verb}, APIGroups: []string{group}, Resources: []string{resource}})
	}
	return role
}

// serviceAccount makes a service account with some rights, and returns the cluster as
// it sees it, by its own token, and its name as a user.
func serviceAccount(t *testing.T, cl client.Client, namespace string, all []string) (*rest.Config, string) {
	t.Helper()
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "account"}}
	role := allow(namespace, all)
	create(t, cl, account, role, &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: namespace},
		RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role.Name},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: account.Name}}})
	token := &authenticationv1.TokenRequest{}
	must(t, cl.SubResource("token").Create(t.Context(), account, token))
	c := rest.AnonymousClientConfig(cluster.Config)
	c.BearerToken = token.Status.Token
	return c, "system:serviceaccount:" + namespace + ":" + account.Name
}

// duty is a companion, with rights of its own, that is given everything to do that
// it can do.
type duty struct {
	t         *testing.T
	cl        client.Client
	ns        string
	user      string
	tollgate  *fakeTollgate
	companion *companion.Companion
	rounds    int
	has       map[string]bool // what it has done
}

func newDuty(t *testing.T, ns string, all []string) *duty {
	t.Helper()
	cl := root(t)
	d := &duty{t: t, cl: cl, ns: ns, tollgate: newFakeTollgate(t, ns), has: map[string]bool{}}
	clusterStore := store("")
	clusterStore.SetKind(eso.ClusterSecretStoreKind)
	clusterStore.SetName(ns)
	owner := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{"namespaces": []any{"nowhere"},
		"externalSecretSpec": map[string]any{"secretStoreRef": map[string]any{"name": "keeper", "kind": eso.SecretStoreKind}}}}}
	owner.SetGroupVersionKind(eso.V1(eso.ClusterExternalSecretKind))
	owner.SetName(ns)
	create(t, cl, store(ns), clusterStore, owner)
	owned := externalSecret(ns, "owned", nil, uid(2))
	owned.SetOwnerReferences([]metav1.OwnerReference{{APIVersion: eso.Group + "/v1", Kind: eso.ClusterExternalSecretKind, Name: ns, UID: owner.GetUID()}})
	asks := externalSecret(ns, "asks", nil, uid(3))
	asks.SetAnnotations(map[string]string{"tollgate.dev/sync-windows": "true"})
	broken := externalSecret(ns, "broken", map[string]any{"refreshInterval": "0s"}, uid(4))
	broken.SetAnnotations(map[string]string{guard.OptIn: "true", guard.Mark: `{"refreshInterval":"2h0m0s","generation":1,"next":"2126-01-01T00:00:00Z"}`})
	create(t, cl, externalSecret(ns, "reads", nil, uid(1)), owned, asks, broken)
	merge(t, cl.Status(), broken, `{"status":{"syncedResourceVersion":"1-a","refreshTime":"2026-01-02T03:04:05Z",
		"conditions":[{"type":"Ready","status":"False","reason":"R","message":"x","lastTransitionTime":"2026-01-02T03:04:05Z"}]}}`)

	as, user := serviceAccount(t, cl, ns, all)
	d.user = user
	c := configure(t, ns, d.tollgate.URL, "push: {coalesce: 100ms}")
	c.Upstreams[0].Stores.Stores = append(c.Upstreams[0].Stores.Stores, eso.Store{Kind: eso.ClusterSecretStoreKind, Name: ns})
	d.run(as, c)
	t.Cleanup(func() { // another companion would look after what is parked
		if err := cl.DeleteAllOf(context.Background(), broken, client.InNamespace(ns)); err != nil {
			t.Error(err)
		}
	})
	return d
}

func (d *duty) run(as *rest.Config, c *config.Config) {
	d.t.Helper()
	c.Listen, c.Status = "127.0.0.1:0", "127.0.0.1:0"
	ctx, cancel := context.WithCancel(d.t.Context())
	one, err := companion.New(ctx, as, companion.Options{Config: c, DataDir: d.t.TempDir(), Log: slog.New(slog.NewTextHandler(d.t.Output(), nil))})
	if err != nil {
		cancel()
		d.t.Fatal(err)
	}
	d.companion = one
	ended := make(chan error, 1)
	go func() { ended <- one.Run(ctx) }()
	d.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			d.t.Error(err)
		}
	})
}

// round lets records change, and an upstream pause and go on.
func (d *duty) round() {
	d.t.Helper()
	switch d.rounds++; d.rounds % 20 { // of 50 ms
	case 1:
		event(d.t, d.companion.Addr(), d.ns, uid(1))
		event(d.t, d.companion.Addr(), d.ns, uid(2))
	case 10:
		d.tollgate.freeze(d.ns, time.Now().Add(time.Hour), d.rounds)
	case 0:
		d.tollgate.open(d.ns, 90)
	}
}

// done returns what the companion has done.
func (d *duty) done() map[string]bool {
	d.t.Helper()
	done := d.has
	hc := http.Client{Timeout: 5 * time.Second}
	if resp, err := hc.Get("http://" + d.companion.StatusAddr() + "/readyz"); err == nil {
		done["ready"] = done["ready"] || resp.StatusCode == http.StatusOK
		_ = resp.Body.Close()
	}
	ctx := d.t.Context()
	var s eso.SecretStore
	var cs eso.ClusterSecretStore
	var all eso.ExternalSecretList
	var events eventsv1.EventList
	owner := &metav1.PartialObjectMetadata{}
	owner.SetGroupVersionKind(eso.V1(eso.ClusterExternalSecretKind))
	must(d.t, d.cl.Get(ctx, client.ObjectKey{Namespace: d.ns, Name: "keeper"}, &s))
	must(d.t, d.cl.Get(ctx, client.ObjectKey{Name: d.ns}, &cs))
	must(d.t, d.cl.Get(ctx, client.ObjectKey{Name: d.ns}, owner))
	must(d.t, d.cl.List(ctx, &all, client.InNamespace(d.ns)))
	must(d.t, d.cl.List(ctx, &events, client.InNamespace(d.ns)))
	done["condition"] = done["condition"] || eso.FindCondition(s.Status.Conditions, "Throttled") != nil
	done["condition of the cluster's"] = eso.FindCondition(cs.Status.Conditions, "Throttled") != nil
	done["refresh of a ClusterExternalSecret's"] = owner.Annotations[eso.ForceSyncCluster] != ""
	for i := range all.Items {
		e := &all.Items[i]
		done["refresh"] = done["refresh"] || e.Annotations[eso.ForceSync] != ""
		done["window"] = done["window"] || e.Spec.SyncWindows != nil
		ready := eso.FindCondition(e.Status.Conditions, "Ready")
		done["parked, told"] = done["parked, told"] || ready != nil && strings.HasPrefix(ready.Message, "parked by tollgate-eso")
	}
	done["event"] = len(events.Items) > 0
	return done
}

// needs says what of its duty the companion cannot do without a right. Without a watch
// it does everything, late and dearly: it lists all objects again and again.
var needs = map[string]string{
	"create events.k8s.io/events":                          "event",
	"list external-secrets.io/clustersecretstores":         "ready",
	"list external-secrets.io/externalsecrets":             "ready",
	"list external-secrets.io/secretstores":                "ready",
	"patch external-secrets.io/clusterexternalsecrets":     "refresh of a ClusterExternalSecret's",
	"patch external-secrets.io/clustersecretstores/status": "condition of the cluster's",
	"patch external-secrets.io/externalsecrets":            "refresh",
	"patch external-secrets.io/externalsecrets/status":     "parked, told",
	"patch external-secrets.io/secretstores/status":        "condition",
	"watch external-secrets.io/clustersecretstores":        "",
	"watch external-secrets.io/externalsecrets":            "",
	"watch external-secrets.io/secretstores":               "",
}

// TestEachRightIsNeeded has the companion do everything, as a service account with
// the rights of the manifests: it asks the API server for exactly these. Then it does
// so without one of them, each in turn: that is refused, and what needs it is not
// done.
func TestEachRightIsNeeded(t *testing.T) {
	root(t)
	granted := rights(read[rbacv1.ClusterRole](t, manifests(t), "ClusterRole"))
	t.Run("all", func(t *testing.T) {
		d := newDuty(t, "rights", granted)
		within(t, time.Minute, "everything is done", func() bool {
			d.round()
			return !slices.Contains(slices.Collect(maps.Values(d.done())), false)
		})
		asked, err := cluster.Asked(d.user)
		must(t, err)
		if got := slices.Sorted(maps.Keys(asked)); !slices.Equal(got, granted) {
			t.Errorf("asked for %v, granted %v", got, granted)
		}
	})
	for i, right := range granted {
		t.Run("without "+right, func(t *testing.T) {
			what, known := needs[right]
			if !known {
				t.Fatal("what is it for?")
			}
			d := newDuty(t, fmt.Sprintf("rights-%d", i), slices.Delete(slices.Clone(granted), i, i+1))
			within(t, time.Minute, "it is refused", func() bool {
				d.round()
				asked, err := cluster.Asked(d.user)
				must(t, err)
				allowed, is := asked[right]
				return is && !allowed
			})
			if what != "" && d.done()[what] {
				t.Errorf("done all the same: %s", what)
			}
		})
	}
}
