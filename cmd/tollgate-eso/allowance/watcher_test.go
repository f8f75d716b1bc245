package allowance_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/allowance"
	"github.com/tollgate-dev/tollgate/extauthz/upstreams"
	"github.com/tollgate-dev/tollgate/internal/admin"
)

// TestCalls: the least of the limits and the budget, and none while paused or
// while others wait.
func TestCalls(t *testing.T) {
	limits := func(all ...int64) (l []admin.UpstreamLimit) {
		for _, n := range all {
			l = append(l, admin.UpstreamLimit{Remaining: n})
		}
		return l
	}
	for _, c := range []struct {
		name string
		u    admin.Upstream
		want int
	}{
		{"the least limit", admin.Upstream{State: upstreams.Open, Limits: limits(90, 7)}, 7},
		{"the budget", admin.Upstream{State: upstreams.Open, Limits: limits(90), Budget: []admin.UpstreamBudget{{Calls: 100, Used: 97}}}, 3},
		{"a budget that is overdrawn", admin.Upstream{State: upstreams.Open, Limits: limits(90), Budget: []admin.UpstreamBudget{{Calls: 100, Used: 101}}}, 0},
		{"paused", admin.Upstream{State: upstreams.Frozen, Limits: limits(90)}, 0},
		{"one call asks", admin.Upstream{State: upstreams.Probing, Limits: limits(90)}, 0},
		{"a queue", admin.Upstream{State: upstreams.Held, Limits: limits(90)}, 0},
		{"one that waits", admin.Upstream{State: upstreams.Open, Waiting: 1, Limits: limits(90)}, 0},
	} {
		if got := (allowance.State{Upstream: c.u}).Calls(); got != c.want {
			t.Errorf("%s: Calls() = %d, want %d", c.name, got, c.want)
		}
	}
}

// TestWatcherFollows: a pause is known by its event, and a Tollgate that goes
// away and comes back is asked again.
func TestWatcherFollows(t *testing.T) {
	events := make(chan string)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/upstreams", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(admin.Upstreams{Upstreams: []admin.Upstream{{ID: "keeper", State: upstreams.Open}}})
	})
	mux.HandleFunc("GET /v1/events", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, ": tollgate\n\n")
		for {
			_ = http.NewResponseController(w).Flush()
			select {
			case e, ok := <-events:
				if !ok || e == "" { // the stream ends
					return
				}
				fmt.Fprintf(w, "data: %s\n\n", e)
			case <-r.Context().Done():
				return
			}
		}
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	w := allowance.New(allowance.Options{Client: &admin.Client{Server: server.URL}, Log: slog.New(slog.DiscardHandler), Retry: time.Millisecond})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	await := func(want upstreams.State) {
		t.Helper()
		for {
			changed := w.Changed()
			if s, ok := w.State("keeper"); ok && s.State == want {
				return
			}
			select {
			case <-changed:
			case <-time.After(time.Minute):
				t.Fatalf("not %s within 20 s", want)
			}
		}
	}
	await(upstreams.Open)
	events <- `{"kind":"upstream.state","after":{"id":"keeper","state":"frozen"}}`
	await(upstreams.Frozen)
	events <- "" // the stream breaks: what happened meanwhile is asked for
	await(upstreams.Open)
	events <- `{"kind":"upstream.state","after":{"id":"keeper","state":"frozen"}}`
	await(upstreams.Frozen)
	events <- `{"kind":"events.missed"}`
	await(upstreams.Open)
	if _, err := w.Unreachable(); err != nil {
		t.Errorf("Unreachable() = %v, want that it can be reached", err)
	}
}
