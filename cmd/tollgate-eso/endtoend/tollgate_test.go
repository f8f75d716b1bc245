package endtoend_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/tollgate-dev/tollgate/extauthz/upstreams"
	"github.com/tollgate-dev/tollgate/internal/admin"
)

// fakeTollgate is the part of Tollgate's admin API that the companion calls, over
// upstreams that a test sets.
type fakeTollgate struct {
	*httptest.Server

	mu      sync.Mutex
	states  map[string]admin.Upstream
	changed chan struct{}
	told    []admin.Upstream
	calls   map[string][]time.Time
	windows map[string]window
}

// window is a limit that the fake keeps.
type window struct {
	n  int
	of time.Duration
}

func newFakeTollgate(t *testing.T, ids ...string) *fakeTollgate {
	t.Helper()
	f := &fakeTollgate{states: map[string]admin.Upstream{}, calls: map[string][]time.Time{}, windows: map[string]window{}, changed: make(chan struct{})}
	for _, id := range ids {
		f.states[id] = admin.Upstream{ID: id, State: upstreams.Open, WorkingLimit: 90, Limits: []admin.UpstreamLimit{{Remaining: 90}}}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/upstreams", f.list)
	mux.HandleFunc("GET /v1/events", f.follow)
	f.Server = httptest.NewServer(mux)
	t.Cleanup(f.CloseClientConnections) // followers never leave by themselves
	t.Cleanup(f.Close)
	return f
}

func (f *fakeTollgate) list(w http.ResponseWriter, _ *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all admin.Upstreams
	for id, u := range f.states {
		if w := f.windows[id]; w.n > 0 {
			u.Limits = []admin.UpstreamLimit{{Remaining: int64(w.n - f.recent(id, w.of))}}
		}
		all.Upstreams = append(all.Upstreams, u)
	}
	_ = json.NewEncoder(w).Encode(all)
}

func (f *fakeTollgate) follow(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("content-type", "text/event-stream")
	fmt.Fprint(w, ": tollgate\n\n")
	f.mu.Lock()
	next := len(f.told)
	f.mu.Unlock()
	for {
		_ = http.NewResponseController(w).Flush()
		f.mu.Lock()
		told, changed := f.told[next:], f.changed
		f.mu.Unlock()
		for _, u := range told {
			after, _ := json.Marshal(u)
			data, _ := json.Marshal(admin.Event{ID: fmt.Sprint(next), Time: time.Now(), Kind: "upstream.state", What: "upstream " + u.ID, After: after})
			fmt.Fprintf(w, "data: %s\n\n", data)
			next++
		}
		if len(told) > 0 {
			continue
		}
		select {
		case <-r.Context().Done():
			return
		case <-changed:
		}
	}
}

// set changes an upstream, and tells of it where its state is another.
func (f *fakeTollgate) set(u admin.Upstream) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.states[u.ID] = u
	f.told = append(f.told, u)
	close(f.changed)
	f.changed = make(chan struct{})
}

// freeze pauses an upstream.
func (f *fakeTollgate) freeze(id string, until time.Time, violations int) {
	f.set(admin.Upstream{ID: id, State: upstreams.Frozen, Until: &until, Reason: "403 throttled", Violations: violations, WorkingLimit: 90})
}

// open ends a pause.
func (f *fakeTollgate) open(id string, remaining int64) {
	f.set(admin.Upstream{ID: id, State: upstreams.Open, WorkingLimit: 90, Limits: []admin.UpstreamLimit{{Remaining: remaining}}})
}

// window gives an upstream a limit of n calls in any such time.
func (f *fakeTollgate) window(id string, n int, of time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.windows[id] = window{n, of}
}

// called counts a call, as if it had passed Envoy.
func (f *fakeTollgate) called(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls[id] = append(f.calls[id], time.Now())
}

func (f *fakeTollgate) recent(id string, of time.Duration) int {
	n := 0
	for _, at := range f.calls[id] {
		if time.Since(at) < of {
			n++
		}
	}
	return n
}
