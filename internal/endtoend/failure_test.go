package endtoend_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/tollgate-dev/tollgate/descriptors/consumers"
	"github.com/tollgate-dev/tollgate/envoy"
	"github.com/tollgate-dev/tollgate/envoy/config"
	"github.com/tollgate-dev/tollgate/envoy/envoytest"
)

// gone is the address of a Tollgate that is not there.
func gone(t *testing.T) *gate { return &gate{addr: unixSocket(t)} }

func TestWithoutTollgateNothingPasses(t *testing.T) {
	t.Parallel()
	for _, mode := range config.Modes() {
		e := wire(t, config.Options{Mode: mode, Timeout: time.Second}, gone(t))
		for protocol, client := range clients(t, e) {
			a := envoytest.Get(t, client, method, "x-api-key", "anything")
			if a.Reached {
				t.Errorf("%s, %s: reached the upstream", mode, protocol)
			}
			if protocol == "gRPC" {
				if a.Code != codes.Unavailable {
					t.Errorf("%s, gRPC: %v, want UNAVAILABLE", mode, a.Code)
				}
				continue
			}
			if a.Status != http.StatusServiceUnavailable || a.Header.Get("retry-after") != "1" ||
				a.Header.Get("content-type") != "application/problem+json" || !strings.Contains(a.Body, `"status":503`) {
				t.Errorf("%s, %s: %d %v %q, want a problem of status 503 with Retry-After", mode, protocol, a.Status, a.Header, a.Body)
			}
		}
	}
}

// TestFailOpenLeaksNothing: requests pass, without credentials and without what
// only Tollgate may say.
func TestFailOpenLeaksNothing(t *testing.T) {
	t.Parallel()
	for _, mode := range config.Modes() {
		o := config.Options{Mode: mode, FailOpen: true, Timeout: time.Second}
		o.Egress.Plaintext = true
		e := wire(t, o, gone(t))
		for protocol, client := range clients(t, e) {
			if mode == config.ToEgress && protocol == "gRPC" {
				continue // without TLS nobody tells Envoy that the upstream speaks HTTP/2
			}
			a := envoytest.Get(t, client, method, "x-api-key", "s3cret", "authorization", "Bearer s3cret", "x-tollgate-consumer", "root")
			if !a.Reached {
				t.Errorf("%s, %s: %d, gRPC %v, want it to pass", mode, protocol, a.Status, a.Code)
			}
			if got := a.Echo.Header("x-tollgate-consumer"); got != "" {
				t.Errorf("%s, %s: the upstream sees a consumer that a client claims to be", mode, protocol)
			}
			if mode == config.RateLimit || mode == config.ToEgress {
				continue // there the upstream authenticates
			}
			if got := a.Echo.Header("x-api-key") + a.Echo.Header("authorization"); got != "" {
				t.Errorf("%s, %s: the upstream sees the credential %q", mode, protocol, got)
			}
			if got := a.Echo.Header("x-envoy-auth-failure-mode-allowed"); got != "true" {
				t.Errorf("%s, %s: x-envoy-auth-failure-mode-allowed: %q, want true", mode, protocol, got)
			}
		}
	}
}

func TestMutualTLSWithEnvoy(t *testing.T) {
	t.Parallel()
	for listener, fast := range listeners() {
		t.Run(listener, func(t *testing.T) { mutualTLS(t, fast) })
	}
}

func mutualTLS(t *testing.T, fast bool) {
	authority := envoytest.NewAuthority(t)
	const ours, theirs = "spiffe://mesh/ns/tollgate/sa/tollgate", "spiffe://mesh/ns/edge/sa/envoy"
	cert, key := authority.Issue(t, "tollgate", ours, "tollgate.test")
	envoyCert, envoyKey := authority.Issue(t, "envoy", theirs)
	g := newGate(t, "domain: mesh\n")
	g.fast = fast
	g.put(t, consumers.Consumer{ID: "tls", Limits: unlimited()}, "prod")
	g.serve(t, "127.0.0.1:0", envoy.ServerOptions{TLS: &envoy.TLS{Cert: cert, Key: key, ClientCA: authority.CA, ClientSANs: []string{theirs}}})
	for _, c := range []struct {
		name string
		tls  config.TLS
		ok   bool
	}{
		{"identity", config.TLS{CA: authority.CA, ServerName: ours, Cert: envoyCert, Key: envoyKey}, true},
		{"host name", config.TLS{CA: authority.CA, ServerName: "tollgate.test", Cert: envoyCert, Key: envoyKey}, true},
		{"another server", config.TLS{CA: authority.CA, ServerName: "spiffe://mesh/other", Cert: envoyCert, Key: envoyKey}, false},
		{"no certificate", config.TLS{CA: authority.CA, ServerName: ours}, false},
	} {
		e := wire(t, config.Options{Mode: config.Fused, TLS: &c.tls}, g)
		a := envoytest.Get(t, envoytest.HTTP1(t, e.Addr("http")), method, "x-api-key", secretOf("tls", "prod"))
		if a.Reached != c.ok {
			t.Errorf("%s: %d, reached the upstream %v, want %v", c.name, a.Status, a.Reached, c.ok)
		}
	}
}

const byAddress = `
domain: mesh
descriptors:
- key: remote_address
  rate_limit: {unit: day, requests_per_unit: 7}
`

// TestRateLimitAlone: callers' own limits and rules, where the upstream
// authenticates.
func TestRateLimitAlone(t *testing.T) {
	t.Parallel()
	g := newGate(t, byAddress)
	g.put(t, consumers.Consumer{ID: "alone", Limits: perSecond(2, time.Hour, 2)}, "prod")
	g.serve(t, unixSocket(t), envoy.ServerOptions{})
	client := envoytest.HTTP1(t, wire(t, config.Options{Mode: config.RateLimit}, g).Addr("http"))
	secret := secretOf("alone", "prod")
	get := func(headers ...string) envoytest.Answer { return envoytest.Get(t, client, method, headers...) }

	if a := get("authorization", "Bearer "+secret); !a.Reached || a.Echo.Header("authorization") == "" {
		t.Errorf("with a token: %d, %+v, want it to pass as it is", a.Status, a.Echo)
	}
	if a := get("x-api-key", secret); !a.Reached {
		t.Errorf("the same token elsewhere: %d, want its second to pass", a.Status)
	}
	if a := get("x-api-key", secret); a.Status != http.StatusTooManyRequests || a.Header.Get("x-tollgate-reason") != "rate-limited" || a.Header.Get("retry-after") == "" {
		t.Errorf("the third: %d %v, want 429", a.Status, a.Header)
	}
	for i := range 5 {
		if a := get(); !a.Reached {
			t.Errorf("request %d without a token: %d, want it to pass: the refused one used up nothing", i, a.Status)
		}
	}
	if a := get(); a.Status != http.StatusTooManyRequests {
		t.Errorf("the eighth of an address: %d, want 429", a.Status)
	}
}
