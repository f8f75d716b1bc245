package endtoend_test

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/config"
	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/eso"
	"github.com/tollgate-dev/tollgate/envoy/envoytest/keeper"
)

// TestK16MutualTLS: over TLS, a certificate of the authority with a name that the
// webhook knows may send; another name, another authority and nobody may not.
func TestK16MutualTLS(t *testing.T) {
	cl := root(t)
	const ns = "mtls"
	create(t, cl, store(ns))
	ca, err := keeper.NewAuthority(t.TempDir())
	must(t, err)
	stranger, err := keeper.NewAuthority(t.TempDir())
	must(t, err)
	_, cert, key, err := ca.Issue("webhooks.example.com")
	must(t, err)
	f := newFakeTollgate(t, ns)
	c, err := config.Parse("test.yaml", fmt.Appendf(nil, `
tls: {cert: %q, key: %q, client_ca: %q}
tollgate: {server: %q}
upstreams: [{id: %s, stores: [SecretStore/%s/keeper]}]
webhooks: [{name: %s, preset: keeper, upstream: %s, client_sans: [alerts.example.com]}]
`, cert, key, ca.File, f.URL, ns, ns, ns, ns), yamlOptions())
	must(t, err)
	addr, _ := runCompanion(t, t.TempDir(), c)
	for _, sender := range []struct {
		name string
		by   *keeper.Authority
		want int // 0: no connection
	}{
		{"alerts.example.com", ca, http.StatusAccepted},
		{"other.example.com", ca, http.StatusUnauthorized},
		{"", ca, http.StatusUnauthorized},
		{"alerts.example.com", stranger, 0},
	} {
		settings := &tls.Config{RootCAs: ca.Pool, ServerName: "webhooks.example.com"}
		if sender.name != "" {
			pair, _, _, err := sender.by.Issue(sender.name)
			must(t, err)
			settings.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
		}
		hc := &http.Client{Transport: &http.Transport{TLSClientConfig: settings, DisableKeepAlives: true}}
		body := fmt.Sprintf(`{"audit_event":"record_update","record_uid":"a","timestamp":%d}`, time.Now().Unix())
		got := 0
		resp, err := hc.Post("https://"+addr+"/webhooks/"+ns, "application/json", strings.NewReader(body))
		if err == nil {
			got = resp.StatusCode
			_ = resp.Body.Close()
		}
		if got != sender.want {
			t.Errorf("%s: answer = %d, %v, want %d", sender.name, got, err, sender.want)
		}
	}
}

// TestK19ClusterExternalSecret: an external secret that a ClusterExternalSecret
// makes is refreshed through it, since it takes other annotations away again.
func TestK19ClusterExternalSecret(t *testing.T) {
	cl := root(t)
	const ns = "owned"
	owner := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{
		"namespaces":         []any{ns},
		"externalSecretSpec": map[string]any{"secretStoreRef": map[string]any{"name": "keeper", "kind": eso.SecretStoreKind}},
	}}}
	owner.SetGroupVersionKind(eso.V1("ClusterExternalSecret"))
	owner.SetName("owner")
	create(t, cl, store(ns), owner)
	owned := externalSecret(ns, "owned", nil, uid(1))
	owned.Object["metadata"].(map[string]any)["ownerReferences"] = []any{map[string]any{
		"apiVersion": eso.Group + "/v1", "kind": "ClusterExternalSecret", "name": "owner", "uid": string(owner.GetUID()), "controller": true}}
	create(t, cl, owned)
	f := newFakeTollgate(t, ns)
	addr, _ := runCompanion(t, t.TempDir(), configure(t, ns, f.URL, "push: {coalesce: 200ms}"))
	event(t, addr, ns, uid(1))
	within(t, 20*time.Second, "the owner is annotated", func() bool {
		must(t, cl.Get(t.Context(), client.ObjectKeyFromObject(owner), owner))
		return owner.GetAnnotations()["external-secrets.io/force-sync"] != ""
	})
	must(t, cl.Get(t.Context(), client.ObjectKeyFromObject(owned), owned))
	if owned.GetAnnotations()["force-sync"] != "" {
		t.Errorf("annotations = %v, want none", owned.GetAnnotations())
	}
}
