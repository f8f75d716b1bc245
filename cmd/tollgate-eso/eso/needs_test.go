package eso_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/eso"
)

// TestNeeds: the Secrets of the providers that External Secrets knows are found
// wherever they name them, and so are those of templates.
func TestNeeds(t *testing.T) {
	local, cluster := eso.Store{Kind: eso.SecretStoreKind, Namespace: "a", Name: "s"}, eso.Store{Kind: eso.ClusterSecretStoreKind, Name: "s"}
	for _, c := range []struct {
		name, store, secret string
		of                  eso.Store
		want                []string
	}{
		{"keeper", `{keepersecurity: {folderID: f, authRef: {name: keeper, key: config}}}`, `{}`, local, []string{"a/keeper"}},
		{"keeper, of the cluster", `{keepersecurity: {folderID: f, authRef: {name: keeper, key: config, namespace: eso}}}`, `{}`, cluster, []string{"eso/keeper"}},
		{"of the cluster, of who asks", `{keepersecurity: {authRef: {name: keeper, key: config}}}`, `{}`, cluster, []string{"a/keeper"}},
		{"another namespace, which External Secrets ignores", `{keepersecurity: {authRef: {name: keeper, key: config, namespace: b}}}`, `{}`, local, []string{"a/keeper"}},
		{"vault", `{vault: {server: "https://v", path: secret, caProvider: {type: Secret, name: ca, key: ca.crt}, auth: {appRole: {path: approle, secretRef: {name: role, key: id}}}}}`,
			`{}`, local, []string{"a/role", "a/ca"}},
		{"an authority in a ConfigMap", `{vault: {caProvider: {type: ConfigMap, name: ca, key: ca.crt}, auth: {tokenSecretRef: {name: token, key: t}}}}`, `{}`, local, []string{"a/token"}},
		{"aws, one Secret twice", `{aws: {region: r, auth: {secretRef: {accessKeyIDSecretRef: {name: aws, key: id}, secretAccessKeySecretRef: {name: aws, key: secret}}}}}`,
			`{}`, local, []string{"a/aws"}},
		{"webhook", `{webhook: {url: u, secrets: [{name: auth, secretRef: {name: one, key: k}}, {name: b, secretRef: {name: two, key: k}}]}}`, `{}`, local, []string{"a/one", "a/two"}},
		{"a service account", `{vault: {auth: {kubernetes: {role: r, serviceAccountRef: {name: sa}}}}}`, `{}`, local, nil},
		{"a template", `{fake: {data: [{key: k, value: v}]}}`, `{template: {templateFrom: [{secret: {name: t, items: [{key: k}]}}, {configMap: {name: c, items: [{key: k}]}}]}}`, local, []string{"a/t"}},
	} {
		var e eso.ExternalSecret
		var spec eso.StoreSpec
		e.Namespace, e.Name = "a", "e"
		parse(t, c.secret, &e.Spec.Target)
		parse(t, "provider: "+c.store, &spec)
		e.Spec.SecretStoreRef, e.Spec.Data = eso.StoreRef{Kind: c.of.Kind, Name: c.of.Name}, []eso.Data{{RemoteRef: eso.RemoteRef{Key: "k"}}}
		stores := map[eso.Store]eso.Provider{}
		for _, p := range spec.Provider {
			stores[c.of] = p
		}
		var got []string
		for _, n := range e.Needs(stores) {
			got = append(got, n.String())
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: needs (-want +got):\n%s", c.name, diff)
		}
	}
}

// TestMakes: which Secret an external secret makes.
func TestMakes(t *testing.T) {
	for target, want := range map[string]string{`{}`: "a/e", `{name: other}`: "a/other", `{creationPolicy: Merge, name: m}`: "a/m", `{creationPolicy: None}`: ""} {
		var e eso.ExternalSecret
		e.Namespace, e.Name = "a", "e"
		parse(t, target, &e.Spec.Target)
		made, ok := e.Makes()
		if !ok {
			made = types.NamespacedName{}
		}
		if got := made.String(); got != want && !(want == "" && !ok) {
			t.Errorf("%s: makes %s, want %q", target, got, want)
		}
	}
}

func parse(t *testing.T, text string, into any) {
	t.Helper()
	if err := yaml.Unmarshal([]byte(text), into); err != nil {
		t.Fatal(err)
	}
}
