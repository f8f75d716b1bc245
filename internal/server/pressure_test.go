package server_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"github.com/tollgate-dev/tollgate/internal/admin"
)

const pressured = `listen: {grpc: "127.0.0.1:0", http: "127.0.0.1:0", drain: 50ms}
upstreams:
  - id: slow
    match: {host: slow.example}
    limits: [{pace: 1/5s, max_wait: 10m}]
    pressure: {signals: [{status: 429}], initial: 2s, max: 1h}
`

// TestK13PressureEverywhere follows an upstream through all its states: the API, the
// metrics and the event stream say the same of it, and the end of a pause never comes
// earlier for what the upstream answers meanwhile.
func TestK13PressureEverywhere(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for the end of a pause: not in -short")
	}
	r := start(t, pressured)
	next := r.follow(t, "")
	at := func(want string) admin.Upstream {
		t.Helper()
		u := r.upstreams(t)["slow"]
		if string(u.State) != want || (u.Until != nil) != (want == "frozen") {
			t.Errorf("API: state %s until %v, want %s", u.State, u.Until, want)
		}
		metrics := r.text(t, "/metrics")
		for _, state := range []string{"open", "held", "frozen", "probing"} {
			is := 0
			if state == want {
				is = 1
			}
			if line := fmt.Sprintf("tollgate_upstream_state{state=%q,upstream=\"slow\"} %d\n", state, is); !strings.Contains(metrics, line) {
				t.Errorf("%s: metrics lack %s", want, line)
			}
		}
		return u
	}
	event := func(was, is string) map[string]any {
		t.Helper()
		for {
			e := next()
			if e.Kind != "upstream.state" {
				continue
			}
			if e.Before["state"] != was || e.After["state"] != is || e.What != "upstream slow" {
				t.Errorf("event: %s of %v after %v, want %s after %s", e.What, e.After["state"], e.Before["state"], is, was)
			}
			return e.After
		}
	}

	at("open")
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	var callers sync.WaitGroup
	for range 8 {
		callers.Go(func() {
			_, _ = authv3.NewAuthorizationClient(r.conn).Check(ctx, &authv3.CheckRequest{Attributes: &authv3.AttributeContext{ // they leave
				Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{Method: "GET", Path: "/", Host: "slow.example"}}}})
		})
	}
	event("open", "held")
	at("held")
	r.answered(t, "slow", "429", "5")
	told := event("held", "frozen")
	first := at("frozen")
	if first.Reason != "429" || first.Source != "response" || first.Violations != 1 || first.Limit != 1 || first.Since == nil {
		t.Errorf("API: %+v, want the reason, who saw it, violations, limit and since", first)
	}
	for _, key := range []string{"reason", "source", "violations", "observed", "limit", "since", "until"} {
		if told[key] == nil {
			t.Errorf("event: no %s in %v", key, told)
		}
	}
	last := *first.Until
	for _, wait := range []string{"1", "7", "1", "6"} {
		r.answered(t, "slow", "429", wait)
		u := at("frozen")
		if u.Until.Before(last) {
			t.Errorf("until %v after %v", u.Until, last)
		}
		last = *u.Until
	}
	if longest := first.Until.Add(time.Second); last.Before(longest) {
		t.Errorf("until %v, want the longest that was asked for, %v or later", last, longest)
	}
	event("frozen", "probing")
	if now := time.Now(); now.Before(last) {
		t.Errorf("a call went out %v before the pause's end", last.Sub(now))
	}
	at("probing")
	r.answered(t, "slow", "200", "")
	event("probing", "held")
	at("held")
	leave()
	event("held", "open")
	callers.Wait()
	at("open")
}
