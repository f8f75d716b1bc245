package extauthz_test

import (
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tollgate-dev/tollgate/descriptors/consumers"
	"github.com/tollgate-dev/tollgate/extauthz"
	"github.com/tollgate-dev/tollgate/limits"
)

// limited is billing with these limits.
func limited(ls ...limits.Limit) []consumers.Consumer {
	c := someone()
	for _, l := range ls {
		c[0].Limits = append(c[0].Limits, consumers.Limit{Limit: l})
	}
	return c
}

func rate(n int64, period time.Duration) limits.Limit {
	return limits.Limit{Kind: limits.Rate, N: n, Period: period}
}

func known(path string) *extauthz.View {
	return &extauthz.View{Method: "GET", Path: path, Headers: []extauthz.Field{{Name: "authorization", Value: "Bearer sesame"}}}
}

func TestThrottled(t *testing.T) {
	policy := extauthz.Policy{Credentials: []extauthz.Place{bearer}}
	f := newFixture(t, setup{policy: policy, consumers: limited(limits.Limit{Name: "gold", Kind: limits.Rate, N: 1, Period: 10 * time.Minute})})
	req := request("/a", map[string]string{"authorization": "Bearer sesame"})
	if r := f.check(t, req); r.GetOkResponse() == nil {
		t.Fatalf("first Check = %v, want an admission", r)
	}
	r := f.check(t, req)
	denied := r.GetDeniedResponse()
	if r.GetStatus().GetCode() != 8 || denied.GetStatus().GetCode() != 429 {
		t.Fatalf("second Check = %v, want 429", r)
	}
	want := map[string]string{
		"content-type": "application/problem+json", "x-tollgate-reason": "rate-limited", "retry-after": "600",
		"ratelimit-policy": `"gold";q=1;w=600`, "ratelimit": `"gold";r=0;t=600`,
	}
	if d := cmp.Diff(want, headersOf(denied.GetHeaders())); d != "" {
		t.Errorf("headers (-want +got):\n%s", d)
	}
	wantBody := map[string]any{
		"type": "https://github.com/tollgate-dev/tollgate/problems/rate-limited", "title": "Rate limited", "status": 429.,
		"detail": "The limit gold is exhausted: try again in 600 s.", "limit": "gold", "retry_after": 600.,
	}
	if d := cmp.Diff(wantBody, decoded(t, denied.GetBody())); d != "" {
		t.Errorf("body (-want +got):\n%s", d)
	}
	wantMetadata := map[string]any{
		"consumer": "billing", "token": "prod", "labels": map[string]any{"team": "payments"}, "decision": "throttled", "cost": 1., "limit": "gold",
	}
	if d := cmp.Diff(wantMetadata, r.GetDynamicMetadata().AsMap()); d != "" {
		t.Errorf("metadata (-want +got):\n%s", d)
	}
	e := f.seen.last(t)
	if e.Outcome != extauthz.Throttled || e.Consumer != "billing" || e.Token != "prod" || e.Limit.Limit().Name != "gold" || e.Path != "/a" {
		t.Errorf("event = %+v", e)
	}

	keeper := f.check(t, withContext(request("/a", map[string]string{"authorization": "Bearer sesame"}), "answer", "keeper")).GetDeniedResponse()
	wantBody = map[string]any{"error": "throttled", "message": "The limit gold is exhausted: try again in 600 s.", "retry_after": 600.}
	if d := cmp.Diff(wantBody, decoded(t, keeper.GetBody())); d != "" {
		t.Errorf("keeper's body (-want +got):\n%s", d)
	}
	apollo := f.check(t, withContext(request("/a?b", map[string]string{"authorization": "Bearer sesame"}), "answer", "apollo")).GetDeniedResponse()
	if body := decoded(t, apollo.GetBody()); body["error"] != "Too Many Requests" || body["status"] != 429. || body["path"] != "/a" {
		t.Errorf("apollo's body = %v", body)
	}
	grpc := f.check(t, request("/s/m", map[string]string{"authorization": "Bearer sesame", "content-type": "application/grpc"})).GetDeniedResponse()
	if h := headersOf(grpc.GetHeaders()); h["grpc-status"] != "8" || h["retry-after"] != "600" || grpc.GetBody() != "The limit gold is exhausted: try again in 600 s." {
		t.Errorf("to a gRPC client: %v", grpc)
	}
}

func TestRetryAfterIsNeverEarly(t *testing.T) {
	for _, chance := range []float64{0, 0.3, 0.999999} {
		f := newFixture(t, setup{
			policy:    extauthz.Policy{Credentials: []extauthz.Place{bearer}},
			consumers: limited(rate(1, 2*time.Second+time.Nanosecond)),
			random:    func() float64 { return chance },
		})
		now := epoch
		for i := range 50 {
			if d := f.decide(t, now, known("/")); !d.Allowed() {
				t.Fatalf("chance %v, request %d after its Retry-After: %+v", chance, i, d)
			}
			now = now.Add(time.Duration(i) * 37 * time.Millisecond)
			d := f.decide(t, now, known("/"))
			if d.Allowed() {
				continue
			}
			if wait := time.Duration(d.RetryAfter) * time.Second; wait < d.Decision.Wait || wait > d.Decision.Wait*5/4+time.Second {
				t.Errorf("Retry-After %v for a wait of %v", wait, d.Decision.Wait)
			}
			now = now.Add(time.Duration(d.RetryAfter) * time.Second)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	tests := []struct {
		wait   time.Duration
		chance float64
		want   int64
	}{
		{1, 0, 1},
		{time.Second, 0, 1},
		{time.Second, 0.5, 2},
		{time.Second + 1, 0, 2},
		{100 * time.Second, 0.999, 125},
		{time.Hour, 0.999, 3660},
		{time.Hour, 0, 3600},
		{0, 0, 1},
		{limits.Never, 0.5, 0},
		{1 << 60, 0.999999, 1152921565},
	}
	for _, tt := range tests {
		if got := extauthz.RetryAfter(tt.wait, tt.chance); got != tt.want {
			t.Errorf("RetryAfter(%v, %v) = %d, want %d", tt.wait, tt.chance, got, tt.want)
		}
	}
}

func TestLimitHeaders(t *testing.T) {
	secret := rate(1, time.Hour)
	secret.Name, secret.Shadow = "secret", true
	gold := limits.Limit{Name: "gold", Kind: limits.Rate, N: 10, Period: time.Minute, Burst: 10}
	both := []limits.Limit{gold, secret, {Name: "a \"b\" \u00e9", Kind: limits.Rate, N: 3, Period: 1500 * time.Millisecond, Burst: 3}}
	request := request("/", map[string]string{"authorization": "Bearer sesame"})
	tests := []struct {
		name    string
		headers extauthz.Headers
		mode    extauthz.Mode
		limits  []limits.Limit
		want    map[string]string
	}{
		{"ietf", extauthz.HeadersIETF, extauthz.Enforce, both, map[string]string{
			"ratelimit-policy": `"gold";q=10;w=60, "a \"b\" ??";q=6;w=3`, "ratelimit": `"gold";r=9;t=6, "a \"b\" ??";r=2;t=1`}},
		{"draft03", extauthz.HeadersDraft03, extauthz.Enforce, []limits.Limit{gold}, map[string]string{
			"x-ratelimit-limit": `10, 10;w=60;name="gold"`, "x-ratelimit-remaining": "9", "x-ratelimit-reset": "6"}},
		{"draft03, several", extauthz.HeadersDraft03, extauthz.Enforce, both, map[string]string{
			"x-ratelimit-limit": `6, 10;w=60;name="gold", 6;w=3;name="a \"b\" ??"`, "x-ratelimit-remaining": "2", "x-ratelimit-reset": "1"}},
		{"none", extauthz.HeadersNone, extauthz.Enforce, both, map[string]string{}},
		{"all shadows", extauthz.HeadersIETF, extauthz.Shadow, both, map[string]string{}},
		{"off", extauthz.HeadersIETF, extauthz.Off, both, map[string]string{}},
		{"only a shadow", extauthz.HeadersDraft03, extauthz.Enforce, []limits.Limit{secret}, map[string]string{}},
		{"unlimited", extauthz.HeadersIETF, extauthz.Enforce, nil, map[string]string{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t, setup{
				policy:    extauthz.Policy{Credentials: []extauthz.Place{bearer}, Headers: tt.headers, Mode: tt.mode},
				consumers: limited(tt.limits...),
			})
			added := f.check(t, request).GetOkResponse().GetResponseHeadersToAdd()
			if d := cmp.Diff(tt.want, headersOf(added)); d != "" {
				t.Errorf("response_headers_to_add (-want +got):\n%s", d)
			}
			for _, h := range added {
				if h.AppendAction.String() != "OVERWRITE_IF_EXISTS_OR_ADD" {
					t.Errorf("%s has the action %v", h.Header.Key, h.AppendAction)
				}
			}
		})
	}
}

func TestPerSeconds(t *testing.T) {
	tests := []struct {
		limit      limits.Limit
		n, seconds int64
	}{
		{rate(5, time.Second), 5, 1},
		{rate(200, 10*time.Second), 200, 10},
		{rate(1, 500*time.Millisecond), 2, 1},
		{rate(3, 1500*time.Millisecond), 6, 3},
		{rate(0, time.Second), 0, 1},
		{rate(7, 333_333), 21000, 1},
		{rate(7, time.Hour+1), 7, 3601},
		{rate(limits.MaxN, time.Millisecond), 999_999_999_999_999, 1},
		{limits.Limit{Kind: limits.Quota, N: 9, Calendar: limits.Week}, 9, 604800},
		{limits.Limit{Kind: limits.Quota, N: 9, Calendar: limits.Month}, 9, 2592000},
	}
	for _, tt := range tests {
		if n, s := extauthz.PerSeconds(&tt.limit); n != tt.n || s != tt.seconds {
			t.Errorf("PerSeconds(%d per %v%s) = %d per %d s, want %d per %d s", tt.limit.N, tt.limit.Period, tt.limit.Calendar, n, s, tt.n, tt.seconds)
		}
	}
}

func TestModes(t *testing.T) {
	one := rate(1, time.Hour)
	shadow := one
	shadow.Shadow = true
	tests := []struct {
		name   string
		mode   extauthz.Mode
		limits []limits.Limit
		want   []extauthz.Outcome
	}{
		{"enforce", extauthz.Enforce, []limits.Limit{one}, []extauthz.Outcome{extauthz.Admitted, extauthz.Throttled, extauthz.Throttled}},
		{"shadow", extauthz.Shadow, []limits.Limit{one}, []extauthz.Outcome{extauthz.Admitted, extauthz.Shadowed, extauthz.Shadowed}},
		{"off", extauthz.Off, []limits.Limit{one}, []extauthz.Outcome{extauthz.Admitted, extauthz.Admitted, extauthz.Admitted}},
		{"a shadow limit", extauthz.Enforce, []limits.Limit{shadow}, []extauthz.Outcome{extauthz.Admitted, extauthz.Shadowed, extauthz.Shadowed}},
		{"block all", extauthz.Enforce, []limits.Limit{rate(0, time.Second)}, []extauthz.Outcome{extauthz.Throttled}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t, setup{policy: extauthz.Policy{Credentials: []extauthz.Place{bearer}, Mode: tt.mode}, consumers: limited(tt.limits...)})
			for i, want := range tt.want {
				d := f.decide(t, epoch, known("/"))
				if d.Outcome != want || d.Allowed() != (want != extauthz.Throttled) {
					t.Errorf("request %d: %v, allowed %v, want %v", i, d.Outcome, d.Allowed(), want)
				}
				if (d.Limit != nil) != (want == extauthz.Throttled || want == extauthz.Shadowed) {
					t.Errorf("request %d: %v by the limit %v", i, d.Outcome, d.Limit)
				}
			}
			// A wrong token is refused in every mode.
			v := known("/")
			v.Headers[0].Value = "Bearer wrong"
			if d := f.decide(t, epoch, v); d.Reason != invalid {
				t.Errorf("with a wrong token: reason %q, want %q", d.Reason, invalid)
			}
		})
	}
}

func TestBlockedForEver(t *testing.T) {
	f := newFixture(t, setup{policy: extauthz.Policy{Credentials: []extauthz.Place{bearer}}, consumers: limited(rate(0, time.Second))})
	denied := f.check(t, request("/", map[string]string{"authorization": "Bearer sesame"})).GetDeniedResponse()
	if _, ok := headersOf(denied.GetHeaders())["retry-after"]; ok {
		t.Errorf("Retry-After on a limit that never admits: %v", denied)
	}
	if body := decoded(t, denied.GetBody()); body["retry_after"] != nil || body["detail"] != "The limit rate-0-s does not admit this request, however long it waits." {
		t.Errorf("body = %v", body)
	}
}

func TestCost(t *testing.T) {
	f := newFixture(t, setup{policy: extauthz.Policy{Credentials: []extauthz.Place{bearer}}, consumers: limited(rate(10, time.Hour))})
	c := limited(limits.Limit{Kind: limits.Rate, N: 10, Period: time.Hour, Burst: 10})
	if err := f.registry.Replace(epoch, consumers.Set{Consumers: c}); err != nil {
		t.Fatal(err)
	}
	for i, tt := range []struct {
		cost int64
		want extauthz.Outcome
		left int64
	}{
		{0, extauthz.Admitted, 10}, {7, extauthz.Admitted, 3}, {4, extauthz.Throttled, 3}, {3, extauthz.Admitted, 0}, {0, extauthz.Throttled, 0},
	} {
		v := known("/")
		v.Context = []extauthz.Field{{Name: "cost", Value: strconv.FormatInt(tt.cost, 10)}}
		d := f.decide(t, epoch, v)
		if d.Outcome != tt.want || d.Claims[0].Decision.Remaining != tt.left {
			t.Errorf("step %d, cost %d: %v with %d left, want %v with %d", i, tt.cost, d.Outcome, d.Claims[0].Decision.Remaining, tt.want, tt.left)
		}
	}
	v := known("/")
	v.Context = []extauthz.Field{{Name: "mode", Value: "authenticate"}}
	if d := f.decide(t, epoch, v); !d.Allowed() || len(d.Claims) != 0 {
		t.Errorf("mode authenticate asked the limits: %+v", d)
	}
}
