package extauthz_test

import (
	"context"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/tollgate-dev/tollgate/extauthz"
	"github.com/tollgate-dev/tollgate/extauthz/upstreams"
	"github.com/tollgate-dev/tollgate/limits"
)

func keeper() *upstreams.Config {
	return &upstreams.Config{
		ID: "keeper", Hosts: []string{"*.keepersecurity.com"},
		Limits:  []upstreams.Limit{{Limit: limits.Limit{Kind: limits.Window, N: 2, Period: time.Hour}}},
		Signals: []upstreams.Signal{{Status: 403, Body: "throttled"}},
	}
}

func to(v extauthz.View, host string, context ...extauthz.Field) *extauthz.View {
	v.Method, v.Path, v.Host, v.Context = "POST", "/api", host, context
	return &v
}

// Which requests lead out, and are not authenticated.
func TestWhichRequestsLeadOut(t *testing.T) {
	f := newFixture(t, setup{upstreams: []*upstreams.Config{keeper()}, policy: extauthz.Policy{Credentials: []extauthz.Place{bearer}, Strip: true}})
	field := func(name, value string) extauthz.Field { return extauthz.Field{Name: name, Value: value} }
	for _, c := range []struct {
		name string
		view *extauthz.View
		want string // the upstream, or the reason
	}{
		{"by host", to(extauthz.View{}, "eu.keepersecurity.com"), "keeper"},
		{"by host, spelled otherwise", to(extauthz.View{}, "EU.KeeperSecurity.com.:443"), "keeper"},
		{"another host comes in", to(extauthz.View{}, "keepersecurity.com.evil.example"), "missing-credentials"},
		{"the domain itself is not below it", to(extauthz.View{}, "keepersecurity.com"), "missing-credentials"},
		{"a mode says that it comes in", to(extauthz.View{}, "eu.keepersecurity.com", field("mode", "both")), "missing-credentials"},
		{"a domain says so", to(extauthz.View{}, "eu.keepersecurity.com", field("domain", "mesh")), "missing-credentials"},
		{"by route", to(extauthz.View{}, "alias.example", field("upstream", "keeper")), "limited"},
		{"by route and host", to(extauthz.View{}, "eu.keepersecurity.com", field("upstream", "*"), field("mode", "both")), "limited"},
		{"by route to none", to(extauthz.View{}, "other.example", field("upstream", "*")), ""},
	} {
		d := f.decide(t, f.now(), c.view)
		got := string(d.Reason)
		switch {
		case d.Upstream != "" && d.Reason == "":
			got = d.Upstream
		case d.Reason == extauthz.RateLimited:
			got = "limited"
		}
		if got != c.want {
			t.Errorf("%s: decided %q, want %q", c.name, got, c.want)
		}
	}
}

// The credential is the upstream's and stays; what only Tollgate sets does not.
func TestOutwardRequestKeepsItsCredential(t *testing.T) {
	f := newFixture(t, setup{upstreams: []*upstreams.Config{keeper()}, policy: extauthz.Policy{Credentials: []extauthz.Place{bearer}, Strip: true}})
	req := request("/", map[string]string{"authorization": "Bearer theirs", "x-tollgate-class": "webhook"})
	req.Attributes.Request.Http.Host = "eu.keepersecurity.com"
	ok := f.check(t, req).GetOkResponse()
	if diff := cmp.Diff([]string{"x-tollgate-class"}, ok.GetHeadersToRemove()); diff != "" {
		t.Errorf("headers removed (-want +got):\n%s", diff)
	}
	if len(ok.GetHeaders())+len(ok.GetResponseHeadersToAdd()) > 0 {
		t.Errorf("answer = %v, want no headers set", ok)
	}
}

// A refusal by an upstream's limit or budget tells of it in the rate-limit headers,
// in either style, and one by a pause has no limit to tell of.
func TestRateLimitHeadersOfAnUpstream(t *testing.T) {
	const ietf, policy = "ratelimit", "ratelimit-policy"
	for _, c := range []struct {
		name  string
		style extauthz.Headers
		set   func(*upstreams.Config)
		want  map[string]string
	}{
		{"a limit", extauthz.HeadersIETF, func(*upstreams.Config) {}, map[string]string{policy: `"window-2-h";q=2;w=3600`, ietf: `"window-2-h";r=0;t=3600`}},
		{"a limit, draft03", extauthz.HeadersDraft03, func(*upstreams.Config) {}, map[string]string{
			"x-ratelimit-limit": `2, 2;w=3600;name="window-2-h"`, "x-ratelimit-remaining": "0", "x-ratelimit-reset": "3600"}},
		{"a limit with a margin", extauthz.HeadersIETF, func(u *upstreams.Config) {
			u.Limits[0].Period, u.Limits[0].Margin = 10*time.Second, 0.1
		}, map[string]string{policy: `"window-2-10s";q=1;w=11`}},
		{"no headers", extauthz.HeadersNone, func(*upstreams.Config) {}, map[string]string{}},
		{"a budget", extauthz.HeadersIETF, func(u *upstreams.Config) {
			u.Limits, u.Budget = nil, &upstreams.Budget{Periods: []upstreams.Period{{Calls: 2, Calendar: limits.Day}, {Calls: 9, Calendar: limits.Month}}}
		}, map[string]string{policy: `"budget-day";q=2;w=86400`}},
	} {
		k := keeper()
		c.set(k)
		f := newFixture(t, setup{upstreams: []*upstreams.Config{k}, policy: extauthz.Policy{Headers: c.style}})
		req := request("/", nil)
		req.Attributes.Request.Http.Host = "eu.keepersecurity.com"
		f.check(t, req)
		f.check(t, req)
		headers := headersOf(f.check(t, req).GetDeniedResponse().GetHeaders())
		if headers["retry-after"] == "" {
			t.Errorf("%s: no retry-after", c.name)
		}
		for name, want := range c.want {
			if headers[name] != want {
				t.Errorf("%s: %s = %s, want %s", c.name, name, headers[name], want)
			}
		}
		for name := range headers {
			if strings.Contains(name, "ratelimit") && c.want[name] == "" && name != ietf {
				t.Errorf("%s: %s = %s, want none", c.name, name, headers[name])
			}
		}
	}
}

// What a caller is told while its upstream is paused, in each of the styles.
func TestAnswersUnderPressure(t *testing.T) {
	for _, c := range []struct {
		name    string
		answer  upstreams.Answering
		context []string
		status  int
		body    string
	}{
		{"problem", upstreams.Answering{}, nil, 429, `{"type":"https://github.com/tollgate-dev/tollgate/problems/upstream-pressure","title":"Upstream under pressure","status":429,"detail":"The upstream keeper asked for a pause: try again in 10 s.","retry_after":10}`},
		{"keeper", upstreams.Answering{Style: "keeper"}, nil, 429, `{"error":"throttled","message":"The upstream keeper asked for a pause: try again in 10 s.","retry_after":10}`},
		{"keeper as 403", upstreams.Answering{Style: "keeper", Status: 403}, nil, 403, `{"error":"throttled","message":"The upstream keeper asked for a pause: try again in 10 s.","retry_after":10}`},
		{"the route decides", upstreams.Answering{Style: "keeper"}, []string{"answer", "problem", "upstream", "keeper"}, 429, `{"type":"https://github.com/tollgate-dev/tollgate/problems/upstream-pressure"`},
	} {
		k := keeper()
		k.Answer = c.answer
		f := newFixture(t, setup{upstreams: []*upstreams.Config{k}, policy: extauthz.Policy{Mode: extauthz.Off}})
		for _, f := range []*fixture{f, f.twin} {
			f.upstreams.ByID("keeper").Observe(f.now(), upstreams.Answer{Status: 403, Body: []byte(`{"error":"throttled"}`)})
		}
		req := request("/", nil)
		req.Attributes.Request.Http.Host = "eu.keepersecurity.com"
		r := f.check(t, withContext(req, c.context...))
		denied := r.GetDeniedResponse()
		headers := headersOf(denied.GetHeaders())
		if got := int(denied.GetStatus().GetCode()); got != c.status {
			t.Errorf("%s: status = %d, want %d", c.name, got, c.status)
		}
		if headers["retry-after"] != "10" || headers["x-tollgate-reason"] != "upstream-pressure" {
			t.Errorf("%s: headers = %v, want retry-after 10 and the reason", c.name, headers)
		}
		if !strings.HasPrefix(denied.GetBody(), c.body) {
			t.Errorf("%s: body = %s, want %s", c.name, denied.GetBody(), c.body)
		}
		if got := r.GetDynamicMetadata().GetFields()["upstream"].GetStringValue(); got != "keeper" {
			t.Errorf("%s: metadata upstream = %q, want keeper", c.name, got)
		}
	}
}

func (f *fixture) now() limits.Time { return f.clock.Now() }

// What the upstream remembers of a request outlives the bytes of it.
func TestCallsArePutDownToWhoeverMadeThem(t *testing.T) {
	k := keeper()
	k.Budget = &upstreams.Budget{
		Periods:   []upstreams.Period{{Calls: 100, Calendar: limits.Day}},
		Attribute: upstreams.Source{From: "header", Name: "x-team"},
	}
	f := newFixture(t, setup{upstreams: []*upstreams.Config{k}})
	var encoded []byte
	for _, team := range []string{"red", "tan"} {
		req := request("/", map[string]string{"x-team": team})
		req.Attributes.Request.Http.Host = "eu.keepersecurity.com"
		var err error
		if encoded, err = (proto.MarshalOptions{}).MarshalAppend(encoded[:0], req); err != nil {
			t.Fatal(err)
		}
		if _, err := f.CheckBytes(t.Context(), encoded, nil); err != nil {
			t.Fatal(err)
		}
	}
	clear(encoded)
	got := f.upstreams.ByID("keeper").Status(f.now()).Budget[0].Labels
	if diff := cmp.Diff(map[string]int64{"red": 1, "tan": 1}, got); diff != "" {
		t.Errorf("calls by label (-want +got):\n%s", diff)
	}
}

// Callers that nobody configured to tell apart are told apart by certificate or
// address, and by the host they ask.
func TestCallersTakeTurns(t *testing.T) {
	k := keeper()
	k.Hosts = []string{"*.a.example"}
	k.Limits[0].MaxWait = 10 * time.Hour
	f := newServer(t, setup{clock: limits.NewClock(), upstreams: []*upstreams.Config{k}})
	k.Queue = 2
	for range 2 {
		f.decide(t, f.now(), to(extauthz.View{}, "x.a.example"))
	}
	held := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	hold := func(v extauthz.View, host string) {
		var d extauthz.Verdict
		_ = f.Decide(ctx, f.now(), to(v, host), &d)
		held <- struct{}{}
	}
	go hold(extauthz.View{RemoteAddress: "10.0.0.1"}, "x.a.example")
	go hold(extauthz.View{RemoteAddress: "10.0.0.1"}, "x.a.example")
	u := f.upstreams.ByID("keeper")
	for u.Status(f.now()).Waiting < 2 {
		runtime.Gosched()
	}
	// The queue is full: one more of the same caller is refused, one of another takes a place.
	if d := f.decide(t, f.now(), to(extauthz.View{RemoteAddress: "10.0.0.1"}, "X.a.example:443")); d.Reason != extauthz.RateLimited {
		t.Errorf("a third of the same caller: %q, want refused", d.Reason)
	}
	go hold(extauthz.View{RemoteAddress: "10.0.0.2"}, "x.a.example")
	<-held // of the two who waited, one gives its place up
	cancel()
	<-held
	<-held
	if got := u.Status(f.now()).Counts; got.Full != 2 || got.Left != 2 {
		t.Errorf("counts %+v, want 2 refused for a full queue and 2 who left", got)
	}
}
