package endtoend_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/allowance"
	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/eso"
	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/guard"
	"github.com/tollgate-dev/tollgate/extauthz/upstreams"
	"github.com/tollgate-dev/tollgate/internal/admin"
)

// openUpstream is an upstream that nothing is wrong with.
type openUpstream struct{}

func (openUpstream) State(id string) (allowance.State, bool) {
	return allowance.State{Upstream: admin.Upstream{ID: id, State: upstreams.Open}}, true
}

func (openUpstream) Unreachable() (time.Time, error) { return time.Time{}, nil }

// TestK25OnARealAPIServer follows an external secret that fails through being
// parked, an attempt in vain, one that succeeds, and its release, with the rights of
// the manifests. The test itself plays External Secrets.
func TestK25OnARealAPIServer(t *testing.T) {
	cl := root(t)
	install(t)
	const ns = "guard"
	e := externalSecret(ns, "broken", nil, uid(1))
	e.SetAnnotations(map[string]string{guard.OptIn: "true"})
	create(t, cl, store(ns), e)
	ready := func(status, message string) {
		t.Helper()
		merge(t, cl.Status(), e, fmt.Sprintf(`{"status":{"syncedResourceVersion":"1-a","refreshTime":"2026-01-02T03:04:05Z",
			"conditions":[{"type":"Ready","status":%q,"reason":"R","message":%q,"lastTransitionTime":"2026-01-02T03:04:05Z"}]}}`, status, message))
	}
	const why = "could not get secret data from provider"
	ready("False", why)

	wake := make(chan struct{})
	g := guard.New(guard.Options{Client: newClient(t, asCompanion()), Source: openUpstream{}, Attempts: wake, Look: 100 * time.Millisecond,
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Registry: prometheus.NewRegistry(),
		Upstreams: []guard.Upstream{{ID: "keeper", Park: guard.Park{After: 3, Every: 2 * time.Second},
			Stores: eso.Selector{Provider: "keepersecurity", Stores: []eso.Store{{Kind: eso.SecretStoreKind, Namespace: ns, Name: "keeper"}}}}}})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- g.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	get := func() *eso.ExternalSecret {
		var got eso.ExternalSecret
		must(t, cl.Get(t.Context(), client.ObjectKeyFromObject(e), &got))
		return &got
	}
	parked := func() bool {
		got := get()
		return guard.Parked(got) && !guard.Attempting(got) && got.RefreshEvery() == 0 &&
			strings.HasSuffix(eso.FindCondition(got.Status.Conditions, "Ready").Message, "parked by tollgate-eso: "+why)
	}
	attempts := func() bool { got := get(); return guard.Attempting(got) && got.RefreshEvery() == 24*time.Hour }
	within(t, 30*time.Second, "it is parked", parked)
	within(t, 30*time.Second, "it makes an attempt", attempts)
	ready("False", why)
	within(t, 30*time.Second, "it is parked again", parked)
	within(t, 30*time.Second, "it makes another attempt", attempts)
	ready("True", "secret synced")
	within(t, 30*time.Second, "it is released", func() bool { got := get(); return !guard.Parked(got) && got.RefreshEvery() == 24*time.Hour })
	quiet(t, time.Second, "it is parked though it works", func() bool { return guard.Parked(get()) })
}

// TestK25AWebhookReleases: what is parked is refreshed, and is parked no more, when a
// webhook says that its record has changed.
func TestK25AWebhookReleases(t *testing.T) {
	cl := root(t)
	const ns = "guard-webhook"
	e := externalSecret(ns, "parked", map[string]any{"refreshInterval": "0s"}, uid(1))
	e.SetAnnotations(map[string]string{guard.OptIn: "true", guard.Mark: `{"refreshInterval":"2h0m0s","generation":1,"next":"2126-01-01T00:00:00Z"}`})
	create(t, cl, store(ns), e)
	merge(t, cl.Status(), e, `{"status":{"syncedResourceVersion":"1-a","refreshTime":"2026-01-02T03:04:05Z",
		"conditions":[{"type":"Ready","status":"False","reason":"R","message":"parked by tollgate-eso: x","lastTransitionTime":"2026-01-02T03:04:05Z"}]}}`)
	f := newFakeTollgate(t, ns)
	addr, _ := runCompanion(t, t.TempDir(), configure(t, ns, f.URL, "push: {coalesce: 100ms}"))
	get := func() *eso.ExternalSecret {
		var got eso.ExternalSecret
		must(t, cl.Get(t.Context(), client.ObjectKeyFromObject(e), &got))
		return &got
	}
	quiet(t, 2*time.Second, "it is released for no reason", func() bool { return !guard.Parked(get()) })
	event(t, addr, ns, uid(1))
	within(t, 30*time.Second, "it is released and refreshed", func() bool {
		got := get()
		return !guard.Parked(got) && got.RefreshEvery() == 2*time.Hour && got.Annotations["force-sync"] != ""
	})
}
