package savings_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/eso"
	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/savings"
)

// cluster is objects as a cache has them.
type cluster struct {
	client.Reader
	secrets []eso.ExternalSecret
}

func (c *cluster) List(_ context.Context, list client.ObjectList, _ ...client.ListOption) error {
	switch l := list.(type) {
	case *eso.ExternalSecretList:
		l.Items = c.secrets
	case *eso.ClusterSecretStoreList:
		l.Items = []eso.ClusterSecretStore{
			{ObjectMeta: metav1.ObjectMeta{Name: "keeper"}, Spec: eso.StoreSpec{Provider: map[string]eso.Provider{"keepersecurity": {}}}},
			{ObjectMeta: metav1.ObjectMeta{Name: "vault"}, Spec: eso.StoreSpec{Provider: map[string]eso.Provider{"vault": {}}}},
		}
	}
	return nil
}

func secret(n int, store string, every time.Duration) eso.ExternalSecret {
	e := eso.ExternalSecret{ObjectMeta: metav1.ObjectMeta{UID: types.UID(fmt.Sprint(store, n)), Name: fmt.Sprint(n), Namespace: "a"}}
	e.Spec.SecretStoreRef = eso.StoreRef{Kind: "ClusterSecretStore", Name: store}
	e.Spec.RefreshInterval = &metav1.Duration{Duration: every}
	e.Spec.Data = []eso.Data{{RemoteRef: eso.RemoteRef{Key: fmt.Sprint(n)}}}
	return e
}

var start = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)

func meter(c *cluster, file string, poll time.Duration, now time.Time) *savings.Meter {
	return savings.New(savings.Options{
		Upstreams: []savings.Upstream{{ID: "keeper", Stores: eso.Selector{Provider: "keepersecurity"}, Poll: poll}},
		Client:    c, File: file, Log: slog.New(slog.DiscardHandler), Registry: prometheus.NewRegistry(),
	}, now)
}

// TestK22Savings follows 500 external secrets through a day: each is refreshed
// once by the daily net, and 20 records change. Polled every 5 minutes they would
// have made 144,000 calls.
func TestK22Savings(t *testing.T) {
	c := &cluster{}
	for i := range 500 {
		c.secrets = append(c.secrets, secret(i, "keeper", 24*time.Hour))
		c.secrets = append(c.secrets, secret(i, "vault", time.Minute)) // of another upstream
	}
	m := meter(c, "", 5*time.Minute, start)
	tick := func(now time.Time) {
		t.Helper()
		if err := m.Tick(t.Context(), now); err != nil {
			t.Fatal(err)
		}
	}
	refresh := func(i int, now time.Time) {
		c.secrets[i].Status.RefreshTime = metav1.Time{Time: now}
		m.Observe(&c.secrets[i], now)
		m.Observe(&c.secrets[i], now.Add(time.Millisecond)) // any other change is no refresh
	}
	tick(start)
	for minute := range 24 * 60 {
		now := start.Add(time.Duration(minute+1) * time.Minute)
		if i := 2 * minute; i < len(c.secrets) {
			refresh(i, now) // by the net, one after the other
			refresh(i+1, now)
		}
		if minute >= 700 && minute < 720 {
			refresh(2*(minute-700), now) // by a webhook
		}
		tick(now)
	}
	s := m.Sums("keeper")
	if s.Calls != 520 || s.Polling < 143_999 || s.Polling > 144_001 {
		t.Errorf("%d calls, polling %v: want 520, 144000", s.Calls, s.Polling)
	}
	if s.Saved() < 0.99 {
		t.Errorf("saved %v, want at least 0.99", s.Saved())
	}
}

// Sums go on after a restart; what happened between is on neither side. A file
// that is no sums is put aside.
func TestSumsAreKept(t *testing.T) {
	file := filepath.Join(t.TempDir(), "savings.json")
	c := &cluster{secrets: []eso.ExternalSecret{secret(1, "keeper", time.Minute)}}
	run := func(from time.Time) savings.Sums {
		m := meter(c, file, 0, from)
		for _, at := range []time.Duration{0, 10 * time.Minute} {
			if err := m.Tick(t.Context(), from.Add(at)); err != nil {
				t.Fatal(err)
			}
		}
		return m.Sums("keeper")
	}
	if s := run(start); s.Polling != 10 || s.Calls != 0 {
		t.Errorf("%+v, want 10 of polling", s)
	}
	c.secrets[0].Status.RefreshTime = metav1.Time{Time: start.Add(time.Hour)}
	if s := run(start.Add(2 * time.Hour)); s.Polling != 20 || s.Calls != 0 || !s.Since.Equal(start) {
		t.Errorf("%+v, want 20 of polling since %v", s, start)
	}
	if err := os.WriteFile(file, []byte(`{"keeper":`), 0o600); err != nil {
		t.Fatal(err)
	}
	if s := run(start.Add(4 * time.Hour)); s.Polling != 10 {
		t.Errorf("%+v, want to begin anew", s)
	}
	if _, err := os.Stat(file + ".bad"); err != nil {
		t.Error(err)
	}
}

// An object's own annotation says how often it was polled; one that was not
// polled saves nothing; one that is gone costs nothing.
func TestPolling(t *testing.T) {
	slow, never := secret(1, "keeper", time.Hour), secret(2, "keeper", 0)
	slow.Annotations = map[string]string{savings.Poll: "10s"}
	c := &cluster{secrets: []eso.ExternalSecret{slow, never}}
	m := meter(c, "", time.Minute, start)
	if err := m.Tick(t.Context(), start); err != nil {
		t.Fatal(err)
	}
	m.Forget(&slow, start.Add(100*time.Second))
	m.Observe(&never, start.Add(time.Hour))
	if s := m.Sums("keeper"); s.Polling < 9.999 || s.Polling > 10.001 {
		t.Errorf("%+v, want 10", s)
	}
}
