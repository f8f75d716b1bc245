package extauthz_test

import (
	"context"
	"encoding/hex"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/tollgate-dev/tollgate/extauthz"
	"github.com/tollgate-dev/tollgate/limits"
)

func source(key, from, name string) extauthz.Source {
	return extauthz.Source{Key: key, From: from, Name: name}
}

// TestSources sends each request until it is refused: one that has the value
// which the rule names is refused at once, any other never is.
func TestSources(t *testing.T) {
	tenth := regexp.MustCompile(`^/v1/([^/]+)`)
	either := regexp.MustCompile(`a|(b)`)
	md := func(v any) *corev3.Metadata {
		s, err := structpb.NewStruct(map[string]any{"plan": v})
		if err != nil {
			t.Fatal(err)
		}
		return &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{"ns": s}}
	}
	plain := func(path string) *authv3.CheckRequest {
		return request(path, map[string]string{"authorization": "Bearer sesame", "x-tenant": "acme"})
	}
	change := func(f func(*authv3.AttributeContext)) *authv3.CheckRequest {
		r := plain("/v1/items")
		f(r.Attributes)
		return r
	}
	tests := []struct {
		name    string
		source  extauthz.Source
		value   string // that the rule blocks
		request *authv3.CheckRequest
		blocked bool
	}{
		{"consumer", source("k", "consumer", ""), "billing", plain("/"), true},
		{"token", source("k", "token", ""), "prod", plain("/"), true},
		{"label", source("k", "label", "team"), "payments", plain("/"), true},
		{"no such label", source("k", "label", "plan"), "payments", plain("/"), false},
		{"method", source("k", "method", ""), "GET", plain("/"), true},
		{"path", source("k", "path", ""), "/v1/items", plain("//v1/./x/..;p/it%65ms;a?b=/c"), true},
		{"path keeps its case", source("k", "path", ""), "/v1/items", plain("/V1/items"), false},
		{"host", source("k", "host", ""), "api.example.com", change(func(a *authv3.AttributeContext) { a.Request.Http.Host = "API.Example.com.:443" }), true},
		{"host of IPv6", source("k", "host", ""), "[::1]", change(func(a *authv3.AttributeContext) { a.Request.Http.Host = "[::1]:80" }), true},
		{"header", source("k", "header", "x-tenant"), "acme", plain("/"), true},
		{"no such header", source("k", "header", "x-other"), "acme", plain("/"), false},
		{"query", source("k", "query", "q"), "a b", plain("/?p=1&q=a%20b"), true},
		{"principal", source("k", "principal", ""), "spiffe://a/b", change(func(a *authv3.AttributeContext) {
			a.Source = &authv3.AttributeContext_Peer{Principal: "spiffe://a/b"}
		}), true},
		{"metadata", extauthz.Source{Key: "k", From: "metadata", Name: "ns", Field: "plan"}, "gold", change(func(a *authv3.AttributeContext) { a.MetadataContext = md("gold") }), true},
		{"metadata, a number", extauthz.Source{Key: "k", From: "metadata", Name: "ns", Field: "plan"}, "2.5", change(func(a *authv3.AttributeContext) { a.MetadataContext = md(2.5) }), true},
		{"metadata, a boolean", extauthz.Source{Key: "k", From: "metadata", Name: "ns", Field: "plan"}, "true", change(func(a *authv3.AttributeContext) { a.MetadataContext = md(true) }), true},
		{"metadata, another namespace", extauthz.Source{Key: "k", From: "metadata", Name: "other", Field: "plan"}, "gold", change(func(a *authv3.AttributeContext) { a.MetadataContext = md("gold") }), false},
		{"context", source("k", "context", "area"), "eu", withContext(plain("/"), "area", "eu"), true},
		{"regex group", extauthz.Source{Key: "k", From: "path", Regex: tenth}, "orders", plain("/v1/orders/7"), true},
		{"regex without a match", extauthz.Source{Key: "k", From: "path", Regex: tenth}, "orders", plain("/v2/orders/7"), false},
		{"regex whose group is not in the match", extauthz.Source{Key: "k", From: "path", Regex: either}, "a", plain("/a"), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t, setup{
				policy: extauthz.Policy{Credentials: []extauthz.Place{bearer}, Domain: "mesh", Descriptors: [][]extauthz.Source{{tt.source}}},
				rules:  "domain: mesh\ndescriptors:\n- key: k\n  value: '" + tt.value + "'\n  rate_limit: {algorithm: rate, unit: hour, requests_per_unit: 0}\n",
			})
			r := f.check(t, tt.request)
			if blocked := r.GetDeniedResponse().GetStatus().GetCode() == 429; blocked != tt.blocked {
				t.Errorf("Check = %v, want it blocked: %v", r, tt.blocked)
			}
		})
	}
}

func TestRemoteAddress(t *testing.T) {
	f := newFixture(t, setup{
		policy: extauthz.Policy{Credentials: []extauthz.Place{bearer}, Domain: "mesh", Descriptors: [][]extauthz.Source{{source("ip", "remote_address", "")}}},
		rules:  "domain: mesh\ndescriptors:\n- key: ip\n  value: 192.0.2.1\n  rate_limit: {algorithm: rate, unit: hour, requests_per_unit: 0}\n",
	})
	tests := []struct {
		name, metadata, header, peer, forwarded string
		blocked                                 bool
	}{
		{"what Envoy says", "192.0.2.1", "198.51.100.7", "198.51.100.8", "", true},
		{"Envoy's word goes before the header", "198.51.100.7", "192.0.2.1", "192.0.2.1", "", false},
		{"Envoy's header", "", "192.0.2.1", "198.51.100.8", "", true},
		{"the peer", "", "", "192.0.2.1", "", true},
		{"not an address", "x", "-", "192.0.2.1", "", true},
		{"never x-forwarded-for", "", "", "198.51.100.8", "192.0.2.1", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			headers := map[string]string{"authorization": "Bearer sesame", "x-forwarded-for": tt.forwarded, "x-client-ip": "192.0.2.1"}
			if tt.header != "" {
				headers["x-envoy-external-address"] = tt.header
			}
			req := request("/", headers)
			req.Attributes.Source = &authv3.AttributeContext_Peer{Address: &corev3.Address{Address: &corev3.Address_SocketAddress{
				SocketAddress: &corev3.SocketAddress{Address: tt.peer}}}}
			ctx := context.Background()
			if tt.metadata != "" {
				ctx = metadata.NewIncomingContext(ctx, metadata.Pairs("x-client-ip", tt.metadata))
			}
			r, err := f.Check(ctx, req)
			if err != nil || (r.GetDeniedResponse() != nil) != tt.blocked {
				t.Errorf("Check = %v, %v, want it blocked: %v", r, err, tt.blocked)
			}
		})
	}
}

const rules = `
domain: mesh
descriptors:
- key: consumer
  value: billing
  descriptors:
  - key: method
    value: POST
    rate_limit: {name: writes, algorithm: rate, burst: 2, unit: hour, requests_per_unit: 2}
- key: path
  value: /shadow
  shadow_mode: true
  rate_limit: {algorithm: rate, unit: hour, requests_per_unit: 0}
- key: path
  value: /free
  rate_limit: {unlimited: true}
- key: path
  value: /replacing
  rate_limit: {algorithm: rate, burst: 100, unit: hour, requests_per_unit: 100, replaces: [{name: writes}]}
`

// TestRules goes through one sequence of requests; the consumer's own limit is 5.
func TestRules(t *testing.T) {
	five := rate(5, time.Hour)
	five.Burst = 5
	f := newFixture(t, setup{
		policy: extauthz.Policy{Credentials: []extauthz.Place{bearer}, Domain: "mesh", Descriptors: [][]extauthz.Source{
			{source("consumer", "consumer", ""), source("method", "method", "")},
			{source("path", "path", "")},
			{source("path", "path", "")}, // the same limiter twice is taken once
			{source("consumer", "consumer", ""), source("tenant", "header", "x-tenant")},
		}},
		consumers: limited(five),
		rules:     rules,
	})
	steps := []struct {
		method, path, context string
		want                  extauthz.Outcome
		rule, limit           string
		own                   int64 // what is left of the consumer's own limit
	}{
		{"POST", "/a", "", extauthz.Admitted, "", "", 4},
		{"POST", "/a", "", extauthz.Admitted, "", "", 3},
		{"POST", "/a", "", extauthz.Throttled, "consumer_billing.method_POST", "writes", 3}, // nothing of the own limit is used up
		{"POST", "/a", "other", extauthz.Admitted, "", "", 2},                               // another domain has no rules
		{"POST", "/replacing", "", extauthz.Admitted, "", "", 1},                            // the rule writes does not count here
		{"GET", "/shadow", "", extauthz.Shadowed, "path_/shadow", "", 0},
		{"GET", "/free", "", extauthz.Throttled, "", "rate-5-h", 0}, // an unlimited rule frees from rules only
	}
	for i, s := range steps {
		v := known(s.path)
		v.Method = s.method
		if s.context != "" {
			v.Context = []extauthz.Field{{Name: "domain", Value: s.context}}
		}
		d := f.decide(t, epoch, v)
		limit := ""
		if d.Limit != nil && s.limit != "" {
			limit = d.Limit.Limit().Name
		}
		if d.Outcome != s.want || d.Rule != s.rule || limit != s.limit || d.Claims[0].Decision.Remaining != s.own {
			t.Errorf("step %d: %v by rule %q, limit %q, own %d left; want %v, %q, %q, %d", i, d.Outcome, d.Rule, limit, d.Claims[0].Decision.Remaining, s.want, s.rule, s.limit, s.own)
		}
	}
}

func TestQuotaModeRefusesTogether(t *testing.T) {
	f := newFixture(t, setup{
		policy: extauthz.Policy{Credentials: []extauthz.Place{bearer}, Domain: "mesh", Descriptors: [][]extauthz.Source{
			{source("a", "method", "")}, {source("b", "method", "")},
		}},
		rules: `
domain: mesh
descriptors:
- {key: a, quota_mode: true, rate_limit: {algorithm: rate, burst: 1, unit: hour, requests_per_unit: 1}}
- {key: b, quota_mode: true, rate_limit: {algorithm: rate, burst: 2, unit: hour, requests_per_unit: 2}}
`,
	})
	for i, want := range []extauthz.Outcome{extauthz.Admitted, extauthz.Admitted, extauthz.Throttled} {
		if d := f.decide(t, epoch, known("/")); d.Outcome != want {
			t.Errorf("request %d: %v, want %v", i, d.Outcome, want)
		}
	}
}

func TestHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		clock := limits.NewClock()
		queue := limits.NewQueue(clock, limits.QueueOptions{})
		defer queue.Close()
		slow := limits.Limit{Kind: limits.Rate, N: 1, Period: 10 * time.Second, Burst: 1, MaxWait: 15 * time.Second}
		f := newFixture(t, setup{policy: extauthz.Policy{Credentials: []extauthz.Place{bearer}}, consumers: limited(slow), queue: queue, clock: clock})
		req := request("/", map[string]string{"authorization": "Bearer sesame"})
		f.check(t, req)

		start := time.Now()
		if r := f.check(t, req); r.GetOkResponse() == nil || time.Since(start) != 10*time.Second {
			t.Errorf("Check = %v after %v, want an admission after 10s", r, time.Since(start))
		}
		if e := f.seen.last(t); e.Wait != 10*time.Second || e.Outcome != extauthz.Admitted {
			t.Errorf("event: %v, held for %v, want it held for 10s", e.Outcome, e.Wait)
		}

		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		start = time.Now()
		if r, err := f.Check(ctx, req); err != nil || r.GetDeniedResponse() == nil || time.Since(start) != 0 {
			t.Errorf("with a deadline before its turn: Check = %v, %v after %v, want 429 at once", r, err, time.Since(start))
		}

		ctx, leave := context.WithCancel(context.Background())
		gone := make(chan error)
		go func() {
			_, err := f.Check(ctx, req)
			gone <- err
		}()
		synctest.Wait()
		leave()
		if err := <-gone; status.Code(err) != codes.Canceled {
			t.Errorf("for a caller who left: %v, want Canceled", err)
		}
		time.Sleep(10 * time.Second)
		start = time.Now()
		if r := f.check(t, req); r.GetOkResponse() == nil || time.Since(start) != 0 {
			t.Errorf("the turn of a caller who left was not given back: %v after %v", r, time.Since(start))
		}
	})
}

func TestTraceID(t *testing.T) {
	f := newFixture(t, setup{policy: extauthz.Policy{Credentials: []extauthz.Place{bearer}}})
	const a, b = "4bf92f3577b34da6a3ce929d0e0e4736", "0af7651916cd43dd8448eb211c80319c"
	parent := func(id string) string { return "00-" + id + "-00f067aa0ba902b7-01" }
	tests := []struct{ call, header, want string }{
		{parent(a), parent(b), a},
		{"", parent(b), b},
		{"garbage", parent(b), b},
		{"", "00-" + a, ""},
		{"", parent("00000000000000000000000000000000"), ""},
		{"", parent("4BF92F3577B34DA6A3CE929D0E0E4736"), ""},
		{"", "", ""},
	}
	for _, tt := range tests {
		ctx := context.Background()
		if tt.call != "" {
			ctx = metadata.NewIncomingContext(ctx, metadata.Pairs("traceparent", tt.call))
		}
		if _, err := f.Check(ctx, request("/", map[string]string{"traceparent": tt.header})); err != nil {
			t.Fatal(err)
		}
		seen := f.seen.last(t).Trace
		got := hex.EncodeToString(seen.ID[:])
		if got = strings.TrimLeft(got, "0"); got != strings.TrimLeft(tt.want, "0") {
			t.Errorf("with %q and %q: trace %q, want %q", tt.call, tt.header, got, tt.want)
		}
	}
}

// stopping is a context that is asked after the clock was read and before the
// limits are, and has something else happen then.
type stopping struct {
	context.Context
	meanwhile func()
}

func (s *stopping) Value(key any) any {
	if meanwhile := s.meanwhile; meanwhile != nil {
		s.meanwhile = nil
		meanwhile()
	}
	return s.Context.Value(key)
}

// A call that was stopped between the clock and its limit, as the container was,
// is not refused for others having asked since.
func TestAStoppedCallIsDecidedOnceMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const stopped = 1500 * time.Millisecond
		f := newServer(t, setup{
			policy: extauthz.Policy{Credentials: []extauthz.Place{bearer}, RemoteAddress: true}, clock: limits.NewClock(),
			consumers: limited(limits.Limit{Kind: limits.Rate, N: 10, Period: time.Second}),
		})
		req := request("/", map[string]string{"authorization": "Bearer sesame"})
		check := func() *authv3.CheckResponse {
			r, err := f.Server.Check(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			return r
		}
		ctx := &stopping{t.Context(), func() {
			time.Sleep(stopped)
			check()
		}}
		r, err := f.Server.Check(ctx, req)
		if err != nil || r.GetOkResponse() == nil || ctx.meanwhile != nil {
			t.Errorf("Check = %v, %v, want an admission", r, err)
		}
		if e := f.seen.last(t); e.Took != stopped {
			t.Errorf("took %v, want %v", e.Took, stopped)
		}
		for range 8 { // that was the second of ten
			check()
		}
		if r := check(); r.GetDeniedResponse() == nil {
			t.Errorf("the eleventh request: %v, want a refusal", r)
		}
	})
}
