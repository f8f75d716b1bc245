package envoytest_test

import (
	"fmt"
	"net"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/tollgate-dev/tollgate/envoy/envoytest"
)

// TestPlainEnvoy shows that each Envoy starts and that each client reaches the
// upstream through it, so that a failure elsewhere is not the harness's.
func TestPlainEnvoy(t *testing.T) {
	for _, binary := range envoytest.Binaries(t) {
		t.Run(binary, func(t *testing.T) {
			t.Parallel()
			upstream := envoytest.StartUpstream(t)
			e := envoytest.Start(t, binary, plain(t, upstream.Addr))
			addr := e.Addr("http")
			for name, c := range map[string]envoytest.Client{
				"HTTP/1.1": envoytest.HTTP1(t, addr),
				"HTTP/2.0": envoytest.HTTP2(t, addr),
				"raw":      envoytest.Raw(addr),
				"gRPC":     envoytest.GRPC(t, addr),
			} {
				a := envoytest.Get(t, c, "/echo.Echo/Call", "x-hello", "there")
				if !a.Reached || a.Echo.Path != "/echo.Echo/Call" || a.Echo.Header("x-hello") != "there" || a.Code != codes.OK {
					t.Errorf("%s: answer %+v did not come from the upstream", name, a)
				}
			}
			if got := e.Stat("cluster.upstream.upstream_rq_completed"); got != 4 {
				t.Errorf("Envoy says %d requests went upstream, want 4", got)
			}
		})
	}
}

func plain(t *testing.T, upstream string) []byte {
	host, port, err := net.SplitHostPort(upstream)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Appendf(nil, `
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
          stat_prefix: ingress
          route_config:
            virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: upstream}}]}]
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
  clusters:
  - name: upstream
    type: STATIC
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        use_downstream_protocol_config: {http2_protocol_options: {}}
    load_assignment: {cluster_name: upstream, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: %s, port_value: %s}}}}]}]}
`, host, port)
}
