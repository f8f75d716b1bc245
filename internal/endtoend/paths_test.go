package endtoend_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/tollgate-dev/tollgate/descriptors/consumers"
	"github.com/tollgate-dev/tollgate/envoy"
	"github.com/tollgate-dev/tollgate/envoy/config"
	"github.com/tollgate-dev/tollgate/envoy/envoytest"
)

const blocked = `
domain: mesh
descriptors:
- key: path
  value: /v1/secret
  rate_limit: {unit: second, requests_per_unit: 0, algorithm: rate}
`

// TestNoSpellingGoesRound asks for a path that a rule blocks, in every way in
// which a client may write it, and with none may it reach the upstream.
func TestNoSpellingGoesRound(t *testing.T) {
	t.Parallel()
	g := newGate(t, blocked)
	g.put(t, consumers.Consumer{ID: "spelling", Limits: perSecond(1000, time.Second, 1000)}, "prod")
	g.serve(t, unixSocket(t), envoy.ServerOptions{})
	e := wire(t, config.Options{Mode: config.Fused}, g)
	over := map[string]envoytest.Client{
		"raw":   envoytest.Raw(e.Addr("http")), // sends what a well-behaved client would not
		"HTTP1": envoytest.HTTP1(t, e.Addr("http")),
		"HTTP2": envoytest.HTTP2(t, e.Addr("http")),
	}
	spellings := []string{
		"/v1/secret", "/v1/secret?q=1", "/v1//secret", "/v1/./secret", "/v1/x/../secret",
		"/v1/s%65cret", "/v1/%73%65%63%72%65%74", "/v1/%2e/secret", "/v1/x/%2e%2e/secret", "/%76%31/secret",
		"/v1/secret;a=b", "/v1;a/secret", "/v1/secret;", "/v1/;x/../secret",
		"/v1%2fsecret", "/v1%2Fsecret", "/v1%5csecret", `/v1\secret`, "/v1/secret%2f.", "/./v1/secret", "/v1/secret#x", "/v1/secret%00",
	}
	for protocol, client := range over {
		for _, credential := range []string{secretOf("spelling", "prod"), ""} {
			for _, spelling := range spellings {
				checkSpelling(t, client, protocol, spelling, credential)
			}
		}
		if protocol == "raw" {
			checkSpelling(t, client, protocol, "//v1/secret", secretOf("spelling", "prod"))
			checkSpelling(t, client, protocol, "http://anything/v1/secret", secretOf("spelling", "prod"))
		}
	}
	// What only resembles it is another path: a final slash, and reserved characters that are not meant as such, make one (RFC 3986 section 6.2.2).
	for _, other := range []string{"/v1/secrets", "/v1/SECRET", "/v1", "/secret", "/v1/secret/", "/v1/secret/.", "/v1/secret%3Ba=b", "/v1/secret%20"} {
		if a := envoytest.Get(t, over["HTTP1"], other, "x-api-key", secretOf("spelling", "prod")); !a.Reached {
			t.Errorf("%s: %d, want the upstream's answer", other, a.Status)
		}
	}
}

func checkSpelling(t *testing.T, client envoytest.Client, protocol, spelling, credential string) {
	t.Helper()
	var headers []string
	want := http.StatusUnauthorized
	if credential != "" {
		headers, want = []string{"x-api-key", credential}, http.StatusTooManyRequests
	}
	a, err := client.Try(t.Context(), spelling, headers...)
	switch {
	case err != nil && protocol != "raw":
		// This client does not send such a thing.
	case err != nil:
		t.Errorf("%s %s: %v", protocol, spelling, err)
	case a.Reached:
		t.Errorf("%s %s: reached the upstream as %s", protocol, spelling, a.Echo.Path)
	case a.Status != want && a.Status != http.StatusTemporaryRedirect && a.Status != http.StatusBadRequest:
		t.Errorf("%s %s: %d, want %d, a redirect or 400", protocol, spelling, a.Status, want)
	}
}
