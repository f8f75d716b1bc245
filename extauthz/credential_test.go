package extauthz_test

import (
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/tollgate-dev/tollgate/descriptors/consumers"
	"github.com/tollgate-dev/tollgate/extauthz"
)

const (
	good    = extauthz.Reason("")
	missing = extauthz.MissingCredentials
	invalid = extauthz.InvalidCredentials
)

func TestHeaderCredential(t *testing.T) {
	f := newFixture(t, setup{policy: extauthz.Policy{Credentials: []extauthz.Place{bearer, {Header: "x-api-key"}}}})
	type h = [2]string
	tests := []struct {
		name    string
		headers []h
		want    extauthz.Reason
	}{
		{"bearer", []h{{"authorization", "Bearer sesame"}}, good},
		{"scheme in another case", []h{{"authorization", "bEARER sesame"}}, good},
		{"header in another case", []h{{"Authorization", "Bearer sesame"}}, good},
		{"more spaces", []h{{"authorization", "Bearer   sesame"}}, good},
		{"second place", []h{{"x-api-key", "sesame"}}, good},
		{"first place counts", []h{{"authorization", "Bearer wrong"}, {"x-api-key", "sesame"}}, invalid},
		{"another scheme is not present", []h{{"authorization", "Basic c2VzYW1l"}, {"x-api-key", "sesame"}}, good},
		{"another scheme only", []h{{"authorization", "Basic c2VzYW1l"}}, missing},
		{"no scheme", []h{{"authorization", "sesame"}}, missing},
		{"longer scheme", []h{{"authorization", "Bearers sesame"}}, missing},
		{"none", nil, missing},
		{"empty header", []h{{"authorization", ""}, {"x-api-key", ""}}, missing},
		{"scheme without a token", []h{{"authorization", "Bearer"}}, invalid},
		{"scheme and space", []h{{"authorization", "Bearer "}}, invalid},
		{"tab for a space", []h{{"authorization", "Bearer\tsesame"}}, invalid},
		{"space behind", []h{{"authorization", "Bearer sesame "}}, invalid},
		{"space inside", []h{{"authorization", "Bearer ses ame"}}, invalid},
		{"space before the key", []h{{"x-api-key", " sesame"}}, invalid},
		{"case of the token", []h{{"authorization", "Bearer Sesame"}}, invalid},
		{"joined", []h{{"authorization", "Bearer sesame,Bearer sesame"}}, invalid},
		{"joined, comma behind", []h{{"authorization", "Bearer sesame,"}}, invalid},
		{"joined behind another scheme", []h{{"authorization", "Basic c2VzYW1l, Bearer sesame"}}, invalid},
		{"joined key", []h{{"x-api-key", "sesame,sesame"}}, invalid},
		{"repeated", []h{{"authorization", "Bearer sesame"}, {"authorization", "Bearer sesame"}}, invalid},
		{"repeated with another scheme", []h{{"authorization", "Basic x"}, {"authorization", "Bearer sesame"}}, invalid},
		{"repeated key", []h{{"x-api-key", "sesame"}, {"X-Api-Key", "other"}}, invalid},
		{"byte above ASCII", []h{{"authorization", "Bearer sesam\xe9"}}, invalid},
		{"control byte", []h{{"authorization", "Bearer sesame\x00"}}, invalid},
		{"megabyte", []h{{"authorization", "Bearer " + strings.Repeat("a", 1<<20)}}, invalid},
		{"digest with commas", []h{{"authorization", `Digest username="a", realm="b"`}}, missing},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v := &extauthz.View{Method: "GET", Path: "/"}
			for _, h := range tt.headers {
				v.Headers = append(v.Headers, extauthz.Field{Name: strings.ToLower(h[0]), Value: h[1]})
			}
			if got := f.decide(t, epoch, v).Reason; got != tt.want {
				t.Errorf("Decide(%q) refuses with %q, want %q", tt.headers, got, tt.want)
			}
			if !strings.ContainsAny(joined(tt.headers), "\x00") {
				r := f.check(t, rawRequest("/", tt.headers...))
				if got := headersOf(r.GetDeniedResponse().GetHeaders())["x-tollgate-reason"]; got != string(tt.want) {
					t.Errorf("Check(raw %q) refuses with %q, want %q", tt.headers, got, tt.want)
				}
			}
		})
	}
}

func joined(headers [][2]string) string {
	var s string
	for _, h := range headers {
		s += h[1]
	}
	return s
}

func TestQueryAndCookieCredential(t *testing.T) {
	f := newFixture(t, setup{policy: extauthz.Policy{Credentials: []extauthz.Place{{Query: "api_key"}, {Cookie: "session"}}}})
	tests := []struct {
		path   string
		cookie []string
		want   extauthz.Reason
	}{
		{"/a?api_key=sesame", nil, good},
		{"/a?x=1&api_key=sesame&y", nil, good},
		{"/a?api_key=ses%61me", nil, good},
		{"/a?api%5fkey=sesame", nil, good},
		{"/a?api_key=sesame#api_key=other", nil, good},
		{"/a?api_key=sesame&api_key=sesame", nil, invalid},
		{"/a?api_key=sesame&api%5Fkey=other", nil, invalid},
		{"/a?api_key=sesame&api_key=", nil, invalid},
		{"/a?api_key=ses%6", nil, invalid},
		{"/a?api_key=sesame%0A", nil, invalid},
		{"/a?api_key=sesame%20", nil, invalid},
		{"/a?api_key=", nil, missing},
		{"/a?api_key", nil, missing},
		{"/a?API_KEY=sesame", nil, missing},
		{"/a#?api_key=sesame", nil, missing},
		{"/api_key=sesame", nil, missing},
		{"/a", []string{"session=sesame"}, good},
		{"/a", []string{"a=1; session=sesame; b=2"}, good},
		{"/a", []string{"a=1;session=sesame"}, good},
		{"/a", []string{"a=1", "session=sesame"}, good},
		{"/a", []string{`session="sesame"`}, good},
		{"/a", []string{"session=sesame; session=sesame"}, invalid},
		{"/a", []string{"session=sesame", "session=other"}, invalid},
		{"/a", []string{"session=sesame,x=1"}, invalid},
		{"/a", []string{"x=1,session=sesame"}, invalid},
		{"/a", []string{"session=ses ame"}, invalid},
		{"/a", []string{"Session=sesame"}, missing},
		{"/a", []string{"xsession=sesame"}, missing},
		{"/a", []string{"session="}, missing},
		{"/a", []string{"session"}, missing},
		{"/a", []string{";;=;"}, missing},
	}
	for _, tt := range tests {
		v := &extauthz.View{Method: "GET", Path: tt.path}
		for _, c := range tt.cookie {
			v.Headers = append(v.Headers, extauthz.Field{Name: "cookie", Value: c})
		}
		if got := f.decide(t, epoch, v).Reason; got != tt.want {
			t.Errorf("Decide(%s, cookies %q) refuses with %q, want %q", tt.path, tt.cookie, got, tt.want)
		}
	}
}

func TestIdentityFromEnvoy(t *testing.T) {
	f := newFixture(t, setup{
		policy: extauthz.Policy{Credentials: []extauthz.Place{
			{Metadata: []string{"envoy.filters.http.jwt_authn", "payload", "sub"}}, {Principal: true}, bearer,
		}},
		consumers: append(someone(),
			consumers.Consumer{ID: "cluster.local@ns@shop@sa@cart"}, consumers.Consumer{ID: "42"}, consumers.Consumer{ID: "off", Disabled: true}),
	})
	sub := func(v any) *corev3.Metadata {
		s, err := structpb.NewStruct(map[string]any{"payload": map[string]any{"sub": v}})
		if err != nil {
			t.Fatal(err)
		}
		return &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{"envoy.filters.http.jwt_authn": s}}
	}
	tests := []struct {
		name      string
		metadata  *corev3.Metadata
		principal string
		headers   map[string]string
		want      string // consumer, or reason
	}{
		{"subject", sub("billing"), "", nil, "billing"},
		{"subject is a number", sub(42), "", nil, "42"},
		{"subject is a list", sub([]any{"billing"}), "", nil, "invalid-credentials"},
		{"subject is empty", sub(""), "", nil, "invalid-credentials"},
		{"subject is a secret, not an id", sub("sesame"), "", nil, "invalid-credentials"},
		{"subject of a disabled consumer", sub("off"), "", nil, "consumer-disabled"},
		{"spiffe", nil, "spiffe://cluster.local/ns/shop/sa/cart", nil, "cluster.local@ns@shop@sa@cart"},
		{"certificate's name", nil, "billing", nil, "billing"},
		{"name that looks like a mapped id", nil, "cluster.local@ns@shop@sa@cart", nil, "invalid-credentials"},
		{"unknown principal", nil, "spiffe://cluster.local/ns/other/sa/cart", map[string]string{"authorization": "Bearer sesame"}, "invalid-credentials"},
		{"neither", nil, "", map[string]string{"authorization": "Bearer sesame"}, "billing"},
		{"an id is no secret", nil, "", map[string]string{"authorization": "Bearer billing"}, "invalid-credentials"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			req := request("/", tt.headers)
			req.Attributes.MetadataContext = tt.metadata
			req.Attributes.Source = &authv3.AttributeContext_Peer{Principal: tt.principal}
			r := f.check(t, req)
			got := headersOf(r.GetOkResponse().GetHeaders())["x-tollgate-consumer"]
			if r.GetOkResponse() == nil {
				got = headersOf(r.GetDeniedResponse().GetHeaders())["x-tollgate-reason"]
			}
			if got != tt.want {
				t.Errorf("Check = %q, want %q", got, tt.want)
			}
		})
	}
}

func TestAnonymous(t *testing.T) {
	f := newFixture(t, setup{
		policy:    extauthz.Policy{Credentials: []extauthz.Place{bearer}, Anonymous: "public"},
		consumers: append(someone(), consumers.Consumer{ID: "public"}),
	})
	tests := []struct {
		authorization string
		consumer      string
		want          extauthz.Reason
	}{
		{"", "public", good},
		{"Basic x", "public", good},
		{"Bearer sesame", "billing", good},
		{"Bearer wrong", "", invalid},
		{"Bearer", "", invalid},
	}
	for _, tt := range tests {
		v := &extauthz.View{Method: "GET", Path: "/", Headers: []extauthz.Field{{Name: "authorization", Value: tt.authorization}}}
		if d := f.decide(t, epoch, v); d.Consumer != tt.consumer || d.Reason != tt.want {
			t.Errorf("Decide(%q) = consumer %q, reason %q, want %q, %q", tt.authorization, d.Consumer, d.Reason, tt.consumer, tt.want)
		}
	}
	f.SetPolicy(&extauthz.Policy{Credentials: []extauthz.Place{bearer}, Anonymous: "nobody"})
	if d := f.decide(t, epoch, &extauthz.View{Method: "GET"}); d.Reason != missing {
		t.Errorf("with an anonymous consumer that is not there: reason %q, want %q", d.Reason, missing)
	}
}

func FuzzCredential(f *testing.F) {
	fix := newFixture(f, setup{policy: extauthz.Policy{Strip: true, Credentials: []extauthz.Place{bearer, {Query: "k"}, {Cookie: "c"}}}})
	f.Add("Bearer sesame", "/?k=sesame", "c=sesame")
	f.Add("Basic a, Bearer b", "/?%6b=%", `c="x"; c`)
	f.Fuzz(func(t *testing.T, authorization, path, cookie string) {
		v := &extauthz.View{Method: "GET", Path: path, Headers: []extauthz.Field{{Name: "authorization", Value: authorization}, {Name: "cookie", Value: cookie}}}
		d := fix.decide(t, epoch, v)
		if d.Allowed() && !strings.Contains(authorization+cookie, "sesame") && !strings.Contains(path, "%") && !strings.Contains(path, "sesame") {
			t.Errorf("admitted without the secret: %q %q %q", authorization, path, cookie)
		}
	})
}
