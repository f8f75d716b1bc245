package extauthz_test

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/tollgate-dev/tollgate/descriptors/consumers"
	"github.com/tollgate-dev/tollgate/extauthz"
	"github.com/tollgate-dev/tollgate/limits"
)

func TestRefusals(t *testing.T) {
	off := consumers.Consumer{ID: "off", Disabled: true, Tokens: []consumers.Token{{ID: "t", Hash: consumers.HashOf("off")}}}
	old := consumers.Consumer{ID: "old", Tokens: []consumers.Token{{ID: "t", Hash: consumers.HashOf("old"), Expires: epoch.Std()}}}
	f := newFixture(t, setup{
		policy:    extauthz.Policy{Credentials: []extauthz.Place{bearer, {Header: "x-api-key"}}, Strip: true},
		consumers: append(someone(), off, old),
	})
	const base = "https://github.com/tollgate-dev/tollgate/problems/"
	tests := []struct {
		name          string
		authorization string
		status        int
		code          codes.Code
		headers       map[string]string
		body          map[string]any
		metadata      map[string]any
		outcome       extauthz.Outcome
	}{
		{
			"no token", "", 401, codes.Unauthenticated,
			map[string]string{"www-authenticate": "Bearer", "x-tollgate-reason": "missing-credentials", "content-type": "application/problem+json"},
			map[string]any{"type": base + "missing-credentials", "title": "Missing credentials", "status": 401.,
				"detail": "This request carries no token. Send one in the header authorization as Bearer TOKEN, or in the header x-api-key."},
			map[string]any{"decision": "unauthenticated", "cost": 1.}, extauthz.Unauthenticated,
		},
		{
			"unknown token", "Bearer guess", 401, codes.Unauthenticated,
			map[string]string{"www-authenticate": `Bearer error="invalid_token"`, "x-tollgate-reason": "invalid-credentials", "content-type": "application/problem+json"},
			map[string]any{"type": base + "invalid-credentials", "title": "Invalid credentials", "status": 401.,
				"detail": "The token is unknown, malformed, expired or revoked."},
			map[string]any{"decision": "unauthenticated", "cost": 1.}, extauthz.Unauthenticated,
		},
		{
			"disabled consumer", "Bearer off", 403, codes.PermissionDenied,
			map[string]string{"x-tollgate-reason": "consumer-disabled", "content-type": "application/problem+json"},
			map[string]any{"type": base + "consumer-disabled", "title": "Consumer disabled", "status": 403., "detail": "The consumer off is disabled."},
			map[string]any{"decision": "forbidden", "cost": 1., "consumer": "off", "token": "t", "labels": map[string]any{}}, extauthz.Forbidden,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			headers := map[string]string{}
			if tt.authorization != "" {
				headers["authorization"] = tt.authorization
			}
			r := f.check(t, request("/v1/%69tems?api_key=x", headers))
			if got := codes.Code(r.GetStatus().GetCode()); got != tt.code {
				t.Errorf("status.code = %v, want %v", got, tt.code)
			}
			denied := r.GetDeniedResponse()
			if got := int(denied.GetStatus().GetCode()); got != tt.status {
				t.Errorf("HTTP status = %d, want %d", got, tt.status)
			}
			if d := cmp.Diff(tt.headers, headersOf(denied.GetHeaders())); d != "" {
				t.Errorf("headers (-want +got):\n%s", d)
			}
			for _, h := range denied.GetHeaders() {
				//lint:ignore SA1019 that the deprecated field is unset is what is tested
				if h.GetAppend() != nil || h.AppendAction != 0 {
					t.Errorf("header %s says how to append: Envoy drops it or ignores that", h.Header.Key)
				}
			}
			if d := cmp.Diff(tt.body, decoded(t, denied.GetBody())); d != "" {
				t.Errorf("body (-want +got):\n%s", d)
			}
			if d := cmp.Diff(tt.metadata, r.GetDynamicMetadata().AsMap()); d != "" {
				t.Errorf("metadata (-want +got):\n%s", d)
			}
			e := f.seen.last(t)
			if e.Outcome != tt.outcome || e.API != "ext_authz" || e.Method != "GET" || extauthz.NormalPath(e.Path) != "/v1/items" || e.RequestID != "req-1" {
				t.Errorf("event = %+v", e)
			}
		})
	}
	t.Run("expired token", func(t *testing.T) {
		r := f.check(t, request("/", map[string]string{"authorization": "Bearer old"}))
		if got := headersOf(r.GetDeniedResponse().GetHeaders())["x-tollgate-reason"]; got != "invalid-credentials" {
			t.Errorf("reason = %q, want invalid-credentials", got)
		}
	})
}

func decoded(t *testing.T, body string) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal([]byte(body), &m); err != nil {
		t.Fatalf("body %q: %v", body, err)
	}
	return m
}

func TestAdmission(t *testing.T) {
	f := newFixture(t, setup{policy: extauthz.Policy{
		Strip:       true,
		Credentials: []extauthz.Place{bearer, {Header: "x-api-key"}, {Query: "api_key"}, {Cookie: "session"}, {Cookie: "sid"}},
	}})
	tests := []struct {
		name    string
		path    string
		headers map[string]string
		set     map[string]string // beside the identity
		remove  []string          // beside x-api-key
		query   []string
	}{
		{"plain", "/a", map[string]string{"authorization": "Bearer sesame"}, nil, []string{"authorization"}, nil},
		{"spoofed", "/a", map[string]string{
			"authorization": "Bearer sesame", "x-tollgate-consumer": "root", "x-tollgate-token": "root", "x-tollgate-reason": "x", "x-tollgate-Plan": "gold",
		}, nil, []string{"authorization", "x-tollgate-plan", "x-tollgate-reason"}, nil},
		{"another scheme is the upstream's", "/a", map[string]string{"authorization": "Basic Zm9v", "x-api-key": "sesame"}, nil, nil, nil},
		{"both places", "/a", map[string]string{"authorization": "Bearer sesame", "x-api-key": "x"}, nil, []string{"authorization"}, nil},
		{"query", "/a?b=1&api_key=sesame", nil, nil, []string{"authorization"}, []string{"api_key"}},
		{"escaped query", "/a?api%5Fkey=sesame", nil, nil, []string{"authorization"}, []string{"api_key", "api%5Fkey"}},
		{"query of another name", "/a?b=1", map[string]string{"authorization": "Bearer sesame"}, nil, []string{"authorization"}, nil},
		{"the only cookie", "/a", map[string]string{"cookie": "session=sesame"}, nil, []string{"authorization", "cookie"}, nil},
		{"among cookies", "/a", map[string]string{"cookie": "a=1; session=sesame;  b=2; sid=x"}, map[string]string{"cookie": "a=1; b=2"}, []string{"authorization"}, nil},
		{"other cookies", "/a", map[string]string{"authorization": "Bearer sesame", "cookie": "a=1"}, nil, []string{"authorization"}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := f.check(t, request(tt.path, tt.headers))
			ok := r.GetOkResponse()
			if r.GetStatus().GetCode() != 0 || ok == nil {
				t.Fatalf("Check = %v, want an admission", r)
			}
			want := map[string]string{"x-tollgate-consumer": "billing", "x-tollgate-token": "prod"}
			for k, v := range tt.set {
				want[k] = v
			}
			if d := cmp.Diff(want, headersOf(ok.GetHeaders())); d != "" {
				t.Errorf("headers to the upstream (-want +got):\n%s", d)
			}
			removed := slices.Sorted(slices.Values(ok.GetHeadersToRemove()))
			wantRemoved := slices.Sorted(slices.Values(append([]string{"x-api-key"}, tt.remove...)))
			if d := cmp.Diff(wantRemoved, removed); d != "" {
				t.Errorf("headers_to_remove (-want +got):\n%s", d)
			}
			if d := cmp.Diff(tt.query, ok.GetQueryParametersToRemove()); d != "" {
				t.Errorf("query_parameters_to_remove (-want +got):\n%s", d)
			}
			wantMetadata := map[string]any{"consumer": "billing", "token": "prod", "labels": map[string]any{"team": "payments"}, "decision": "admitted", "cost": 1.}
			if d := cmp.Diff(wantMetadata, r.GetDynamicMetadata().AsMap()); d != "" {
				t.Errorf("metadata (-want +got):\n%s", d)
			}
			//lint:ignore SA1019 that the deprecated field is unset is what is tested
			if ok.GetDynamicMetadata() != nil {
				t.Error("the metadata stands in the OK response as well, which is deprecated")
			}
		})
	}
}

func TestKeepsCredentials(t *testing.T) {
	f := newFixture(t, setup{policy: extauthz.Policy{Credentials: []extauthz.Place{bearer, {Query: "k"}, {Cookie: "c"}}}})
	r := f.check(t, request("/?k=sesame", map[string]string{"authorization": "Bearer sesame", "cookie": "c=sesame"}))
	if ok := r.GetOkResponse(); len(ok.GetHeadersToRemove())+len(ok.GetQueryParametersToRemove()) > 0 || len(ok.GetHeaders()) != 2 {
		t.Errorf("Check = %v, want only the identity headers set", ok)
	}
}

// TestMetadataForOverrides: a request that is only authenticated leaves behind what
// its consumer may do, in the form in which Envoy's ratelimit filter brings it along.
func TestMetadataForOverrides(t *testing.T) {
	for _, tt := range []struct {
		name  string
		limit limits.Limit
		want  any
	}{
		{"per second", limits.Limit{Kind: limits.Rate, N: 5, Period: time.Second}, map[string]any{"requests_per_unit": 5., "unit": "SECOND"}},
		{"per minute", limits.Limit{Kind: limits.Window, N: 5, Period: time.Minute}, map[string]any{"requests_per_unit": 5., "unit": "MINUTE"}},
		{"per hour", limits.Limit{Kind: limits.Pace, N: 5, Period: time.Hour}, map[string]any{"requests_per_unit": 5., "unit": "HOUR"}},
		{"per day", limits.Limit{Kind: limits.Rate, N: 5, Period: 24 * time.Hour}, map[string]any{"requests_per_unit": 5., "unit": "DAY"}},
		{"a month's quota", limits.Limit{Kind: limits.Quota, N: 5, Calendar: limits.Month}, map[string]any{"requests_per_unit": 5., "unit": "MONTH"}},
		{"a week's quota, which Envoy has no unit for", limits.Limit{Kind: limits.Quota, N: 5, Calendar: limits.Week}, nil},
		{"another period", limits.Limit{Kind: limits.Rate, N: 5, Period: 2 * time.Second}, nil},
		{"too many", limits.Limit{Kind: limits.Rate, N: 1 << 32, Period: time.Second}, nil},
	} {
		f := newFixture(t, setup{consumers: limited(tt.limit), policy: extauthz.Policy{Credentials: []extauthz.Place{bearer}}})
		for mode, want := range map[string]any{"authenticate": tt.want, "both": nil} {
			r := f.check(t, withContext(request("/", map[string]string{"authorization": "Bearer sesame"}), "mode", mode))
			if d := cmp.Diff(want, r.GetDynamicMetadata().AsMap()["rate_limit"]); d != "" {
				t.Errorf("%s, mode %s: rate_limit (-want +got):\n%s", tt.name, mode, d)
			}
		}
	}
}

func TestContextExtensions(t *testing.T) {
	f := newFixture(t, setup{policy: extauthz.Policy{Credentials: []extauthz.Place{bearer}}})
	known := map[string]string{"authorization": "Bearer sesame"}
	tests := []struct {
		name    string
		context []string
		headers map[string]string
		want    string // reason, or "error: " and a part of its text, or "admitted" and the consumer
		cost    float64
	}{
		{"nothing", nil, known, "admitted billing", 1},
		{"both", []string{"mode", "both"}, nil, "missing-credentials", 1},
		{"authenticate", []string{"mode", "authenticate", "cost", "7"}, known, "admitted billing", 7},
		{"authenticate without a token", []string{"mode", "authenticate"}, nil, "missing-credentials", 1},
		{"limit without a token", []string{"mode", "limit"}, nil, "admitted ", 1},
		{"limit with a wrong token", []string{"mode", "limit"}, map[string]string{"authorization": "Bearer wrong"}, "admitted ", 1},
		{"limit with a token", []string{"mode", "limit"}, known, "admitted billing", 1},
		{"cost 0", []string{"cost", "0"}, known, "admitted billing", 0},
		{"cost 1e9", []string{"cost", "1000000000"}, known, "admitted billing", 1e9},
		{"another", []string{"anything", "else"}, known, "admitted billing", 1},
		{"upstream by its host, which is none", []string{"upstream", "*"}, nil, "admitted ", 1},
		{"upstream unknown", []string{"upstream", "keeper"}, known, `error: context extension upstream: no upstream "keeper"`, 0},
		{"mode misspelt", []string{"mode", "Both"}, known, `error: context extension mode: "Both": want authenticate, limit or both`, 0},
		{"cost negative", []string{"cost", "-1"}, known, `error: context extension cost: "-1": want a whole number`, 0},
		{"cost broken", []string{"cost", "1.5"}, known, "error: context extension cost", 0},
		{"cost empty", []string{"cost", ""}, known, "error: context extension cost", 0},
		{"cost too large", []string{"cost", "1000000001"}, known, "error: context extension cost", 0},
		{"cost beyond numbers", []string{"cost", "99999999999999999999999"}, known, "error: context extension cost", 0},
		{"cost in another script", []string{"cost", "\u0661"}, known, "error: context extension cost", 0},
		{"answer misspelt", []string{"answer", "html"}, known, "error: context extension answer", 0},
		{"domain empty", []string{"domain", ""}, known, "error: context extension domain", 0},
		{"broken text", []string{"mode", "\xff\n"}, known, "error: context extension mode", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r, err := f.Check(context.Background(), withContext(request("/", tt.headers), tt.context...))
			var got string
			switch {
			case err != nil:
				got = "error: " + status.Convert(err).Message()
				if status.Code(err) != codes.InvalidArgument {
					t.Errorf("code = %v, want InvalidArgument", status.Code(err))
				}
				if e := f.seen.last(t); e.Outcome != extauthz.Failed {
					t.Errorf("outcome = %q, want error", e.Outcome)
				}
			case r.GetOkResponse() != nil:
				got = "admitted " + headersOf(r.GetOkResponse().GetHeaders())["x-tollgate-consumer"]
			default:
				got = headersOf(r.GetDeniedResponse().GetHeaders())["x-tollgate-reason"]
			}
			if got != tt.want && !(strings.HasPrefix(tt.want, "error: ") && strings.HasPrefix(got, tt.want)) {
				t.Errorf("Check = %q, want %q", got, tt.want)
			}
			if err == nil && r.GetDynamicMetadata().GetFields()["cost"].GetNumberValue() != tt.cost {
				t.Errorf("cost = %v, want %v", r.GetDynamicMetadata().GetFields()["cost"], tt.cost)
			}
		})
	}
}

func TestAnswerStyles(t *testing.T) {
	f := newFixture(t, setup{policy: extauthz.Policy{Credentials: []extauthz.Place{bearer}}})
	apollo := f.check(t, withContext(request("/openapi/v1/apps?x=\"1", nil), "answer", "apollo")).GetDeniedResponse()
	body := decoded(t, apollo.GetBody())
	if at, ok := body["timestamp"].(string); !ok || !strings.HasSuffix(at, "+00:00") {
		t.Errorf("timestamp = %v, want one with an offset", body["timestamp"])
	}
	delete(body, "timestamp")
	want := map[string]any{"status": 401., "error": "Unauthorized", "path": "/openapi/v1/apps",
		"message": "This request carries no token. Send one in the header authorization as Bearer TOKEN."}
	if d := cmp.Diff(want, body); d != "" {
		t.Errorf("apollo (-want +got):\n%s", d)
	}
	keeper := f.check(t, withContext(request("/", nil), "answer", "keeper")).GetDeniedResponse()
	if got := decoded(t, keeper.GetBody())["error"]; got != "access_denied" {
		t.Errorf("keeper's error = %v, want access_denied", got)
	}
	if got := headersOf(keeper.GetHeaders()); got["content-type"] != "application/json" || got["x-tollgate-reason"] != "missing-credentials" {
		t.Errorf("keeper's headers = %v", got)
	}
}

func TestGRPCClients(t *testing.T) {
	f := newFixture(t, setup{policy: extauthz.Policy{Credentials: []extauthz.Place{bearer}}})
	for contentType, want := range map[string]string{
		"application/grpc": "16", "application/grpc+proto": "16", "application/grpc;charset=utf-8": "16",
		"application/grpc-web+proto": "16", "application/grpcx": "", "application/json": "", "": "",
	} {
		r := f.check(t, request("/pkg.Service/Method", map[string]string{"content-type": contentType})).GetDeniedResponse()
		if got := headersOf(r.GetHeaders())["grpc-status"]; got != want {
			t.Errorf("content-type %q: grpc-status = %q, want %q", contentType, got, want)
		}
		if plain := !strings.HasPrefix(r.GetBody(), "{"); plain != (want != "") {
			t.Errorf("content-type %q: body = %q", contentType, r.GetBody())
		}
	}
}

func TestBadRequestsAreErrors(t *testing.T) {
	f := newFixture(t, setup{policy: extauthz.Policy{Credentials: []extauthz.Place{bearer}, Anonymous: "billing"}})
	http := func(h *authv3.AttributeContext_HttpRequest) *authv3.CheckRequest {
		return &authv3.CheckRequest{Attributes: &authv3.AttributeContext{Request: &authv3.AttributeContext_Request{Http: h}}}
	}
	for name, req := range map[string]*authv3.CheckRequest{
		"nil":             nil,
		"empty":           {},
		"no request":      {Attributes: &authv3.AttributeContext{}},
		"no http":         {Attributes: &authv3.AttributeContext{Request: &authv3.AttributeContext_Request{}}},
		"empty http":      http(&authv3.AttributeContext_HttpRequest{}),
		"empty headers":   http(&authv3.AttributeContext_HttpRequest{Headers: map[string]string{}, HeaderMap: &corev3.HeaderMap{}}),
		"only attributes": withContext(&authv3.CheckRequest{Attributes: &authv3.AttributeContext{}}, "mode", "limit"),
	} {
		r, err := f.Check(context.Background(), req)
		if r != nil || status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: Check = %v, %v, want nothing and InvalidArgument", name, r, err)
		}
	}
	// Nil parts inside a message are as good as empty ones.
	r := f.check(t, http(&authv3.AttributeContext_HttpRequest{Method: "GET", HeaderMap: &corev3.HeaderMap{Headers: []*corev3.HeaderValue{nil}}}))
	if r.GetOkResponse() == nil {
		t.Errorf("Check with a nil header = %v, want an admission", r)
	}
}

func TestNothingOfTheClientBreaksTheAnswer(t *testing.T) {
	f := newFixture(t, setup{policy: extauthz.Policy{Credentials: []extauthz.Place{bearer, {Cookie: "c"}}, Strip: true}})
	dirty := "\r\nset-cookie: x\xff\x00\""
	huge := strings.Repeat("a", 1<<20)
	requests := []*authv3.CheckRequest{
		withContext(request("/a"+dirty+"?q"+dirty, map[string]string{"x-tollgate-" + dirty: "v", "content-type": dirty}), "answer", "apollo"),
		rawRequest("/", [2]string{"authorization", "Bearer sesame"}, [2]string{"cookie", "c=1; d=" + dirty}, [2]string{"x-tollgate-" + dirty, "v"}, [2]string{"x-tollgate-a b", "v"}),
		request("/"+huge, map[string]string{"authorization": "Bearer sesame", "x-big": huge, "cookie": huge}),
		withContext(request("/"+huge, map[string]string{"authorization": huge}), "answer", "apollo"),
	}
	for i, req := range requests {
		r := f.check(t, req)
		if _, err := proto.Marshal(r); err != nil {
			t.Errorf("request %d: the answer cannot be written: %v", i, err)
		}
		for _, h := range append(r.GetOkResponse().GetHeaders(), r.GetDeniedResponse().GetHeaders()...) {
			if strings.ContainsFunc(h.Header.Key+h.Header.Value, func(c rune) bool { return c < ' ' || c > '~' }) {
				t.Errorf("request %d: header %q: %q", i, h.Header.Key, h.Header.Value)
			}
		}
		for _, name := range r.GetOkResponse().GetHeadersToRemove() {
			if strings.ContainsFunc(name, func(c rune) bool { return c <= ' ' || c > '~' }) {
				t.Errorf("request %d: removes %q", i, name)
			}
		}
		if body := r.GetDeniedResponse().GetBody(); body != "" && !json.Valid([]byte(body)) {
			t.Errorf("request %d: body is no JSON: %.200q", i, body)
		}
	}
}

func FuzzCheck(f *testing.F) {
	fix := newFixture(f, setup{policy: extauthz.Policy{
		Strip:       true,
		Credentials: []extauthz.Place{bearer, {Query: "k"}, {Cookie: "c"}, {Principal: true}, {Metadata: []string{"n", "a", "b"}}},
		Descriptors: [][]extauthz.Source{{{Key: "path", From: "path"}, {Key: "ip", From: "remote_address"}}},
	}})
	for _, req := range []*authv3.CheckRequest{
		request("/a?k=sesame", map[string]string{"authorization": "Bearer sesame", "cookie": "c=1", "x-tollgate-consumer": "x"}),
		withContext(rawRequest("/", [2]string{"authorization", "Bearer no"}), "mode", "both", "cost", "2", "answer", "keeper"),
		usual(), full(),
	} {
		data, err := proto.Marshal(req)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := fix.both(t, context.Background(), data)
		if err != nil {
			return
		}
		var req authv3.CheckRequest
		if err := proto.Unmarshal(data, &req); err != nil {
			t.Fatal(err)
		}
		out, err := proto.Marshal(r)
		if err != nil {
			t.Fatalf("the answer cannot be written: %v", err)
		}
		if r.GetStatus().GetCode() == 0 && r.GetDeniedResponse() != nil {
			t.Errorf("a refusal that Envoy takes for an admission: %v", r)
		}
		known := strings.Contains(string(data), "sesame") || strings.Contains(string(data), "%") || strings.Contains(string(data), "billing")
		limited := req.GetAttributes().GetContextExtensions()["mode"] == "limit"
		if r.GetStatus().GetCode() == 0 && !known && !limited {
			t.Errorf("admitted without a credential: %v -> %x", &req, out)
		}
	})
}
