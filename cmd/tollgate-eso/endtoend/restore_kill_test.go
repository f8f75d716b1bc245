package endtoend_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/eso"
	"github.com/tollgate-dev/tollgate/envoy/envoytest/throttle"
	"github.com/tollgate-dev/tollgate/extauthz/upstreams"
	"github.com/tollgate-dev/tollgate/internal/admin"
)

// quietUpstream is an upstream that counts until it is left alone, and what
// Tollgate says of it, with a margin of a tenth. A window is scaled to half a second.
type quietUpstream struct {
	*httptest.Server
	*throttle.Throttle
}

const (
	quietMost   = 100
	quietWindow = 500 * time.Millisecond
)

func newQuietUpstream(t *testing.T) *quietUpstream {
	t.Helper()
	q := &quietUpstream{Throttle: throttle.New(throttle.Options{Model: throttle.IdleReset, N: quietMost, Window: quietWindow})}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/upstreams", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(admin.Upstreams{Upstreams: []admin.Upstream{{ID: "keeper", State: upstreams.Open, WorkingLimit: quietMost * 9 / 10,
			Limits: []admin.UpstreamLimit{{Working: "90/508ms", Remaining: q.remaining(time.Now())}}}}})
	})
	mux.HandleFunc("GET /v1/events", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("content-type", "text/event-stream")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	q.Server = httptest.NewServer(mux)
	t.Cleanup(q.CloseClientConnections)
	t.Cleanup(q.Close)
	return q
}

// remaining is what may be called until it has been left alone for a window.
func (q *quietUpstream) remaining(now time.Time) int64 {
	calls, n := q.Calls(), int64(quietMost*9/10)
	for i := len(calls) - 1; i >= 0 && now.Sub(calls[i].At) < quietWindow+quietWindow/60; i-- {
		now, n = calls[i].At, n-1
	}
	return max(0, n)
}

// worker plays External Secrets with --concurrent 1 for a namespace: it refreshes
// what is new and what was annotated, one after the other.
type worker struct {
	mu        sync.Mutex
	refreshed map[string]int
	broken    map[string]bool
}

func startWorker(t *testing.T, namespace string, broken map[string]bool, call func()) *worker {
	t.Helper()
	cl, err := client.NewWithWatch(cluster.Config, client.Options{Scheme: root(t).Scheme()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	watch, err := cl.Watch(ctx, &eso.ExternalSecretList{}, client.InNamespace(namespace))
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	w, ended := &worker{refreshed: map[string]int{}, broken: broken}, make(chan struct{})
	go func() {
		defer close(ended)
		seen := map[string]string{}
		for event := range watch.ResultChan() {
			e, ok := event.Object.(*eso.ExternalSecret)
			if !ok {
				continue
			}
			version := e.Annotations["force-sync"] + e.Annotations["tollgate.dev/restore"]
			if last, known := seen[e.Name]; known && last == version || version == "" {
				continue
			}
			seen[e.Name] = version
			w.refresh(ctx, t, cl, e, version, call)
		}
	}()
	t.Cleanup(func() {
		cancel()
		watch.Stop()
		<-ended
	})
	return w
}

func (w *worker) refresh(ctx context.Context, t *testing.T, cl client.Client, e *eso.ExternalSecret, version string, call func()) {
	for range e.Calls() {
		call()
	}
	w.mu.Lock()
	w.refreshed[e.Name]++
	broken := w.broken[e.Name]
	w.mu.Unlock()
	now := time.Now().UTC().Format(time.RFC3339)
	patch := fmt.Sprintf(`{"status":{"syncedResourceVersion":%q,"refreshTime":%q,"conditions":[{"type":"Ready","status":"True","lastTransitionTime":%q}]}}`, version, now, now)
	if broken {
		patch = fmt.Sprintf(`{"status":{"conditions":[{"type":"Ready","status":"False","message":"could not get secret data from provider","lastTransitionTime":%q}]}}`, now)
	}
	if err := cl.Status().Patch(ctx, e, client.RawPatch("application/merge-patch+json", []byte(patch))); err != nil && ctx.Err() == nil {
		t.Error(err)
	}
}

// counts returns how many objects were refreshed, and the most often that one was.
func (w *worker) counts() (objects, most int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, n := range w.refreshed {
		most = max(most, n)
	}
	return len(w.refreshed), most
}

// restoring is `tollgate-eso restore`, not started yet.
func restoring(t *testing.T, binary, server, namespace string, args ...string) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), binary, append([]string{"restore", "--server", server, "--store", "SecretStore/" + namespace + "/keeper",
		"--poll", "20ms", "--settle", "15s"}, args...)...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+cluster.Kubeconfig)
	out := &bytes.Buffer{}
	cmd.Stdout, cmd.Stderr = out, out
	return cmd, out
}

// TestK27RestoreIsKilledAndGoesOn restores 2,000 external secrets, of which 100 are
// missing in the cluster, before an API that takes 100 calls until it is left alone.
// The process is killed in the middle. The next one goes on: no call is refused, and
// no external secret is refreshed twice.
func TestK27RestoreIsKilledAndGoesOn(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute: not in -short")
	}
	cl := root(t)
	const n, missing, ns = 2000, 100, "restore"
	create(t, cl, store(ns))
	var all []client.Object
	var manifest strings.Builder
	for i := range n {
		e := externalSecret(ns, fmt.Sprintf("es-%04d", i), nil, uid(i))
		if i >= n-200 {
			e.SetAnnotations(map[string]string{"tollgate.dev/restore-priority": "10"})
		}
		if i >= missing {
			all = append(all, e)
			continue
		}
		doc, err := yaml.Marshal(e.Object)
		must(t, err)
		fmt.Fprintf(&manifest, "---\n%s", doc)
	}
	createAll(t, cl, all)
	file := filepath.Join(t.TempDir(), "missing.yaml")
	must(t, os.WriteFile(file, []byte(manifest.String()), 0o600))
	q := newQuietUpstream(t)
	w := startWorker(t, ns, nil, func() {
		q.Take(time.Now())
	})
	binary := buildCompanion(t)

	dry, out := restoring(t, binary, q.URL, ns, "-f", file, "--dry-run")
	must(t, dry.Run())
	if objects, _ := w.counts(); objects != 0 || !strings.Contains(out.String(), "wave 1, priority 10: 200 external secrets, 200 calls\n") ||
		!strings.Contains(out.String(), "wave 2, priority 0: 1800 external secrets, 1800 calls, 100 to create\n") {
		t.Errorf("%d refreshed by --dry-run, which says:\n%s", objects, out)
	}

	first, _ := restoring(t, binary, q.URL, ns, "-f", file)
	began := time.Now()
	must(t, first.Start())
	within(t, 2*time.Minute, "a part is restored", func() bool { objects, _ := w.counts(); return objects > n/3 })
	must(t, first.Process.Kill())
	_ = first.Wait() // it was killed
	at, _ := w.counts()

	second, out := restoring(t, binary, q.URL, ns, "-f", file, "--resume")
	err := second.Run()
	took := time.Since(began)
	objects, most := w.counts()
	if err != nil || objects != n || most != 1 {
		t.Errorf("killed at %d, then %v: %d refreshed, one of them %d times, want %d once each; it says:\n%s", at, err, objects, most, n, out)
	}
	if q.Throttled() != 0 || len(q.Calls()) != n {
		t.Errorf("%d of %d calls were refused, want none of %d", q.Throttled(), len(q.Calls()), n)
	}
	t.Logf("killed at %d of %d; all in %v", at, n, took.Round(time.Second/10))
	if !strings.Contains(out.String(), "2000/2000 restored") || !strings.Contains(out.String(), "all restored in") {
		t.Errorf("it says:\n%s", out)
	}
}

// TestK27RestoreListsWhatFails: the exit code is 1, and what fails and what no write
// reaches is named.
func TestK27RestoreListsWhatFails(t *testing.T) {
	cl := root(t)
	const ns = "restore-fails"
	never := externalSecret(ns, "never", map[string]any{"refreshInterval": "0s"}, uid(1))
	create(t, cl, store(ns), externalSecret(ns, "works", nil, uid(1)), externalSecret(ns, "broken", nil, uid(2)), never)
	merge(t, cl.Status(), never, `{"status":{"syncedResourceVersion":"1-a","refreshTime":"2026-01-02T03:04:05Z"}}`)
	q := newQuietUpstream(t)
	startWorker(t, ns, map[string]bool{"broken": true}, func() { q.Take(time.Now()) })
	binary := buildCompanion(t)
	cmd, out := restoring(t, binary, q.URL, ns, "--settle", "1s")
	err := cmd.Run()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("exit = %v, want 1", err)
	}
	for _, want := range []string{"failed: restore-fails/broken: could not get secret data from provider\n", "skipped: restore-fails/never: refreshInterval 0", "not all were restored"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
	wrong, out := restoring(t, binary, q.URL, ns, "--resume", "--run", "x")
	if err := wrong.Run(); !errors.As(err, &exit) || exit.ExitCode() != 2 {
		t.Errorf("exit = %v, want 2, of:\n%s", err, out)
	}
}
