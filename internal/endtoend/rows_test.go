package endtoend_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"path"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/tollgate-dev/tollgate/descriptors/consumers"
	"github.com/tollgate-dev/tollgate/envoy"
	"github.com/tollgate-dev/tollgate/envoy/config"
	"github.com/tollgate-dev/tollgate/envoy/envoytest"
)

// method is a path that HTTP and gRPC clients can ask for.
const method = "/shop.Orders/List"

// TestEveryAnswer shows every row of the contract's table of answers, in both
// wirings and on both listeners, to clients of each protocol.
func TestEveryAnswer(t *testing.T) {
	t.Parallel()
	for _, mode := range []config.Mode{config.Fused, config.TwoPhase} {
		for listener, fast := range listeners() {
			t.Run(string(mode)+"-"+listener, func(t *testing.T) {
				t.Parallel()
				g := newGate(t, "domain: mesh\n")
				g.fast = fast
				g.serve(t, unixSocket(t), envoy.ServerOptions{})
				e := wire(t, config.Options{Mode: mode}, g)
				for protocol, client := range clients(t, e) {
					t.Run(protocol, func(t *testing.T) {
						t.Parallel()
						everyAnswer(t, g, client, protocol)
					})
				}
			})
		}
	}
}

func everyAnswer(t *testing.T, g *gate, client envoytest.Client, protocol string) {
	isGRPC := protocol == "gRPC"
	id := "rows-" + protocol
	g.put(t, consumers.Consumer{ID: id, Limits: perSecond(2, time.Hour, 2)}, "prod")
	g.put(t, consumers.Consumer{ID: id + "-off", Disabled: true}, "prod")
	secret := secretOf(id, "prod")

	for i, credential := range [][]string{{"authorization", "Bearer " + secret}, {"x-api-key", secret}} {
		a := envoytest.Get(t, client, method, append(credential,
			"x-tollgate-consumer", "root", "x-tollgate-token", "root", "x-tollgate-anything", "root", "x_tollgate_consumer", "root",
			"x-envoy-auth-failure-mode-allowed", "true", envoytest.ReplyHeader, "x-tollgate-reason=spoofed")...)
		if !a.Reached || a.Code != codes.OK || !isGRPC && a.Status != http.StatusOK {
			t.Fatalf("with a token: %+v, want the upstream's answer", a)
		}
		if got := a.Echo.Header("x-tollgate-consumer") + " " + a.Echo.Header("x-tollgate-token"); got != id+" prod" {
			t.Errorf("the upstream sees %q, want consumer and token", got)
		}
		for _, name := range []string{"authorization", "x-api-key", "x-tollgate-anything", "x_tollgate_consumer", "x-envoy-auth-failure-mode-allowed"} {
			if got := a.Echo.Header(name); got != "" {
				t.Errorf("the upstream sees %s: %s", name, got)
			}
		}
		if got := a.Header.Get("ratelimit-policy"); got != `"rate-2-h";q=2;w=3600` {
			t.Errorf("ratelimit-policy: %s", got)
		}
		if got := a.Header.Get("ratelimit"); !strings.HasPrefix(got, fmt.Sprintf(`"rate-2-h";r=%d;t=`, 1-i)) {
			t.Errorf("ratelimit: %s, want %d left", got, 1-i)
		}
		if got := a.Header.Get("x-tollgate-reason"); got != "" {
			t.Errorf("an answer of the upstream says x-tollgate-reason: %s", got)
		}
	}

	for _, row := range []struct {
		name    string
		headers []string
		status  int
		code    codes.Code
		reason  string
		header  map[string]string
	}{
		{"no token", nil, 401, codes.Unauthenticated, "missing-credentials", map[string]string{"www-authenticate": "Bearer"}},
		{"another scheme", []string{"authorization", "Basic YTpi"}, 401, codes.Unauthenticated, "missing-credentials", nil},
		{"unknown", []string{"authorization", "Bearer nobody"}, 401, codes.Unauthenticated, "invalid-credentials",
			map[string]string{"www-authenticate": `Bearer error="invalid_token"`}},
		{"joined", []string{"x-api-key", secret + "," + secret}, 401, codes.Unauthenticated, "invalid-credentials", nil},
		{"repeated", []string{"x-api-key", secret, "x-api-key", secret}, 401, codes.Unauthenticated, "invalid-credentials", nil},
		{"another case", []string{"x-api-key", strings.ToUpper(secret)}, 401, codes.Unauthenticated, "invalid-credentials", nil},
		{"disabled", []string{"x-api-key", secretOf(id+"-off", "prod")}, 403, codes.PermissionDenied, "consumer-disabled", nil},
		{"exhausted", []string{"x-api-key", secret}, 429, codes.ResourceExhausted, "rate-limited", nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			a := envoytest.Get(t, client, method, row.headers...)
			if a.Reached {
				t.Fatal("the request reached the upstream")
			}
			if isGRPC && a.Code != row.code || !isGRPC && a.Status != row.status {
				t.Errorf("HTTP %d, gRPC %v, want %d, %v", a.Status, a.Code, row.status, row.code)
			}
			if got := a.Header.Get("x-tollgate-reason"); got != row.reason {
				t.Errorf("x-tollgate-reason: %q, want %q", got, row.reason)
			}
			for name, want := range row.header {
				if got := a.Header.Get(name); got != want {
					t.Errorf("%s: %q, want %q", name, got, want)
				}
			}
			if row.status == 429 {
				checkExhausted(t, a)
			}
			if !isGRPC {
				checkProblem(t, a, row.reason)
			}
		})
	}
}

func checkExhausted(t *testing.T, a envoytest.Answer) {
	t.Helper()
	if after, err := strconv.Atoi(a.Header.Get("retry-after")); err != nil || after < 1 || after > 1861 {
		t.Errorf("retry-after: %q, want up to half an hour and its jitter", a.Header.Get("retry-after"))
	}
	if got := a.Header.Get("ratelimit"); !strings.HasPrefix(got, `"rate-2-h";r=0;t=`) {
		t.Errorf("ratelimit: %s, want none left", got)
	}
}

func checkProblem(t *testing.T, a envoytest.Answer, reason string) {
	t.Helper()
	var problem struct {
		Type       string
		Status     int
		Limit      string
		RetryAfter int `json:"retry_after"`
	}
	if got := a.Header.Get("content-type"); got != "application/problem+json" {
		t.Errorf("content-type: %s", got)
	}
	if err := json.Unmarshal([]byte(a.Body), &problem); err != nil {
		t.Fatalf("body %q: %v", a.Body, err)
	}
	if path.Base(problem.Type) != reason || problem.Status != a.Status {
		t.Errorf("problem %+v, want type %s and status %d", problem, reason, a.Status)
	}
	if reason == "rate-limited" && (problem.Limit != "rate-2-h" || strconv.Itoa(problem.RetryAfter) != a.Header.Get("retry-after")) {
		t.Errorf("problem %+v, want the limit and the same retry_after as in the header", problem)
	}
}
