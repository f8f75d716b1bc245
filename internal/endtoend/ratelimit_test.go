package endtoend_test

import (
	"fmt"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/tollgate-dev/tollgate/descriptors/consumers"
	"github.com/tollgate-dev/tollgate/envoy"
	"github.com/tollgate-dev/tollgate/envoy/envoytest"
)

// The tests of this file are about what Envoy's ratelimit filter can be told
// beyond what `tollgate envoy` prints, so that they bring configuration of their own.

const filterRules = `
domain: mesh
descriptors:
- {key: user, rate_limit: {unit: day, requests_per_unit: 2, name: gold}}
- {key: buyer, rate_limit: {unit: day, requests_per_unit: 10, name: buys}}
- {key: used, rate_limit: {unit: day, requests_per_unit: 6, name: tokens}}
- {key: member, rate_limit: {unit: day, requests_per_unit: 1000, name: members}}
`

// otherRules are in a domain that only a route names.
const otherRules = `
domain: other
descriptors:
- {key: user, rate_limit: {unit: day, requests_per_unit: 1}}
`

// filterBootstrap is an Envoy with three listeners: http asks the Tollgate at
// %[1]s; closed and open ask one that is not there, and differ in
// failure_mode_deny. The upstream is at port %[2]s.
const filterBootstrap = `
admin: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}
static_resources:
  listeners:
  - name: http
    address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: http
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: {prefix: /other.}
                route: {cluster: upstream}
                typed_per_filter_config:
                  envoy.filters.http.ext_authz: {"@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute, disabled: true}
                  envoy.filters.http.ratelimit: {"@type": type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimitPerRoute, domain: other}
              - match: {prefix: /costly.}
                route: {cluster: upstream}
                typed_per_filter_config:
                  envoy.filters.http.ext_authz:
                    "@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute
                    check_settings: {context_extensions: {mode: authenticate, cost: "4"}}
              - match: {prefix: /override.}
                route: {cluster: upstream}
                typed_per_filter_config:
                  envoy.filters.http.ext_authz:
                    "@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute
                    check_settings: {context_extensions: {mode: authenticate}}
              - match: {prefix: /}
                route: {cluster: upstream}
                typed_per_filter_config:
                  envoy.filters.http.ext_authz: {"@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute, disabled: true}
          http_filters:
          - name: envoy.filters.http.ext_authz
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz
              transport_api_version: V3
              grpc_service: {envoy_grpc: {cluster_name: tollgate}, timeout: 10s}
          - name: envoy.filters.http.ratelimit
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimit
              domain: mesh
              timeout: 10s
              failure_mode_deny: true
              rate_limited_as_resource_exhausted: true
              enable_x_ratelimit_headers: DRAFT_VERSION_03
              rate_limit_service: {transport_api_version: V3, grpc_service: {envoy_grpc: {cluster_name: tollgate}}}
              rate_limits:
              - actions: [{request_headers: {header_name: x-user, descriptor_key: user}}]
              - actions:
                - request_headers: {header_name: x-buyer, descriptor_key: buyer}
                hits_addend: {format: "%%DYNAMIC_METADATA(envoy.filters.http.ext_authz:cost)%%"}
              - actions: [{request_headers: {header_name: x-look, descriptor_key: used}}]
                hits_addend: {number: 0}
              - actions: [{request_headers: {header_name: x-use, descriptor_key: used}}]
                apply_on_stream_done: true
                hits_addend: {format: "%%RESP(x-tokens-used)%%"}
              - actions:
                - metadata: {descriptor_key: member, metadata_key: {key: envoy.filters.http.ext_authz, path: [{key: consumer}]}}
                limit: {dynamic_metadata: {metadata_key: {key: envoy.filters.http.ext_authz, path: [{key: rate_limit}]}}}
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
%[3]s
  clusters:
  - name: upstream
    type: STATIC
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        use_downstream_protocol_config: {http_protocol_options: {}, http2_protocol_options: {}}
    load_assignment: {cluster_name: upstream, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %[2]s}}}}]}]}
  - name: tollgate
    type: STATIC
    typed_extension_protocol_options: &h2
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
    load_assignment: {cluster_name: tollgate, endpoints: [{lb_endpoints: [{endpoint: {address: {pipe: {path: %[1]s}}}}]}]}
  - name: dead
    type: STATIC
    typed_extension_protocol_options: *h2
    load_assignment: {cluster_name: dead, endpoints: [{lb_endpoints: [{endpoint: {address: {pipe: {path: %[1]s.dead}}}}]}]}
`

// deadListener asks nobody.
const deadListener = `
  - name: %[1]s
    address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: %[1]s
          route_config:
            virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: upstream}}]}]
          http_filters:
          - name: envoy.filters.http.ratelimit
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimit
              domain: mesh
              failure_mode_deny: %[2]t
              status_on_error: {code: ServiceUnavailable}
              rate_limit_service: {transport_api_version: V3, grpc_service: {envoy_grpc: {cluster_name: dead}}}
              rate_limits: [{actions: [{request_headers: {header_name: x-user, descriptor_key: user}}]}]
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
`

func TestRateLimitFilter(t *testing.T) {
	t.Parallel()
	for listener, fast := range listeners() {
		t.Run(listener, func(t *testing.T) {
			t.Parallel()
			g := newGate(t, filterRules, otherRules)
			g.fast = fast
			g.serve(t, unixSocket(t), envoy.ServerOptions{})
			_, port, _ := strings.Cut(envoytest.StartUpstream(t).Addr, ":")
			dead := fmt.Sprintf(deadListener, "closed", true) + fmt.Sprintf(deadListener, "open", false)
			e := envoytest.Start(t, envoytest.Binary(t), fmt.Appendf(nil, filterBootstrap, strings.TrimPrefix(g.addr, "unix:"), port, dead))
			protocols := clients(t, e)
			closed, open := clientsOf(t, e, "closed"), clientsOf(t, e, "open")
			for protocol := range maps.Keys(protocols) {
				t.Run(protocol, func(t *testing.T) {
					t.Parallel()
					f := filtered{g: g, client: protocols[protocol], id: protocol}
					t.Run("x-ratelimit headers", f.headers)
					t.Run("a route's domain", f.domain)
					t.Run("hits from metadata", f.hits)
					t.Run("hits at the end of the stream", f.streamDone)
					t.Run("limit from metadata", f.override)
					t.Run("nobody to ask", func(t *testing.T) {
						a := envoytest.Get(t, closed[protocol], "/plain.S/M", "x-user", "u")
						if a.Reached || a.Status != http.StatusServiceUnavailable && a.Code != codes.Unavailable {
							t.Errorf("failure_mode_deny: %+v, want 503 or UNAVAILABLE", a)
						}
						if a := envoytest.Get(t, open[protocol], "/plain.S/M", "x-user", "u"); !a.Reached {
							t.Errorf("without failure_mode_deny: %+v, want the upstream's answer", a)
						}
					})
				})
			}
		})
	}
}

// filtered is one client behind the filter, with keys of its own.
type filtered struct {
	g      *gate
	client envoytest.Client
	id     string
}

// admitted and refused ask once and say how it should go.
func (f filtered) admitted(t *testing.T, path string, headers ...string) envoytest.Answer {
	t.Helper()
	a := envoytest.Get(t, f.client, path, headers...)
	if !a.Reached || a.Code != codes.OK {
		t.Fatalf("%s %q: %+v, want the upstream's answer", path, headers, a)
	}
	return a
}

func (f filtered) refused(t *testing.T, path string, headers ...string) envoytest.Answer {
	t.Helper()
	a := envoytest.Get(t, f.client, path, headers...)
	if !isLimited(a) {
		t.Fatalf("%s %q: %+v, want 429 or RESOURCE_EXHAUSTED", path, headers, a)
	}
	return a
}

func isLimited(a envoytest.Answer) bool {
	return !a.Reached && (a.Status == http.StatusTooManyRequests || a.Code == codes.ResourceExhausted)
}

func (f filtered) headers(t *testing.T) {
	const want = `2, 2;w=86400;name="gold"`
	for _, remaining := range []string{"1", "0"} {
		a := f.admitted(t, "/plain.S/M", "x-user", f.id)
		if a.Header.Get("x-ratelimit-limit") != want || a.Header.Get("x-ratelimit-remaining") != remaining || a.Header.Get("x-ratelimit-reset") == "" {
			t.Errorf("admitted with %v, want x-ratelimit-limit %s with %s left", a.Header, want, remaining)
		}
	}
	a := f.refused(t, "/plain.S/M", "x-user", f.id)
	if a.Header.Get("x-ratelimit-limit") != want || a.Header.Get("x-ratelimit-remaining") != "0" || a.Header.Get("retry-after") == "" {
		t.Errorf("refused with %v, want x-ratelimit-limit %s with 0 left and retry-after", a.Header, want)
	}
}

func (f filtered) domain(t *testing.T) {
	f.admitted(t, "/other.S/M", "x-user", f.id+"-other")
	f.refused(t, "/other.S/M", "x-user", f.id+"-other")
	f.admitted(t, "/plain.S/M", "x-user", f.id+"-other") // in the filter's domain it has another counter
}

// hits has Tollgate's ext_authz say what a request costs, 4 of 10.
func (f filtered) hits(t *testing.T) {
	id := "buyer-" + f.id
	f.g.put(t, consumers.Consumer{ID: id}, "prod")
	ask := []string{"x-buyer", f.id, "authorization", "Bearer " + secretOf(id, "prod")}
	for _, remaining := range []string{"6", "2"} {
		a := f.admitted(t, "/costly.S/M", ask...)
		if got := a.Header.Get("x-ratelimit-remaining"); got != remaining {
			t.Errorf("x-ratelimit-remaining: %s, want %s", got, remaining)
		}
	}
	f.refused(t, "/costly.S/M", ask...)
}

// streamDone charges what the upstream says that a request has used, 3 of 6.
func (f filtered) streamDone(t *testing.T) {
	for range 2 {
		f.admitted(t, "/plain.S/M", "x-look", f.id, "x-use", f.id, envoytest.ReplyHeader, "x-tokens-used=3")
	}
	// Envoy charges when the stream is over, and waits for nobody.
	envoytest.Eventually(t, func() error {
		if a := envoytest.Get(t, f.client, "/plain.S/M", "x-look", f.id); !isLimited(a) {
			return fmt.Errorf("after 3 and 3 of 6: %+v", a)
		}
		return nil
	})
}

// override has Tollgate's ext_authz say what the consumer may do, 2 an hour.
func (f filtered) override(t *testing.T) {
	id := "member-" + f.id
	f.g.put(t, consumers.Consumer{ID: id, Limits: perSecond(2, time.Hour, 2)}, "prod")
	ask := []string{"authorization", "Bearer " + secretOf(id, "prod")}
	for range 2 {
		a := f.admitted(t, "/override.S/M", ask...)
		if got := a.Header.Get("x-ratelimit-limit"); !strings.HasPrefix(got, "2, 2;w=3600") {
			t.Errorf("x-ratelimit-limit: %s, want the consumer's 2 an hour", got)
		}
	}
	f.refused(t, "/override.S/M", ask...)
}
