package endtoend_test

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tollgate-dev/tollgate/envoy/config"
	"github.com/tollgate-dev/tollgate/envoy/envoytest"
	"github.com/tollgate-dev/tollgate/internal/server"
	"github.com/tollgate-dev/tollgate/internal/telemetry/otlptest"
)

// tracing is what a user adds to the printed configuration to have Envoy trace.
const tracing = `          tracing:
            spawn_upstream_span: true
            provider:
              name: envoy.tracers.opentelemetry
              typed_config:
                "@type": type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig
                service_name: edge
                grpc_service: {envoy_grpc: {cluster_name: collector}, timeout: 1s}
`

const collector = `  - name: collector
    type: STATIC
    load_assignment: {cluster_name: collector, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: %q, port_value: %s}}}}]}]}
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
`

// TestDecisionsStandInEnvoysTrace has a real Envoy trace: what Tollgate decides
// is a span inside Envoy's own, on both listeners and by both services.
func TestDecisionsStandInEnvoysTrace(t *testing.T) {
	binary := envoytest.Binary(t)
	receiver := otlptest.Start(t)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"+receiver.GRPC)
	t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
	dir := t.TempDir()
	for name, text := range map[string]string{
		"tollgate.yaml": `listen: {grpc: "127.0.0.1:0", fast: "127.0.0.1:0", http: "127.0.0.1:0", drain: 0s}
consumers: {source: file, file: consumers.yaml}
rules: {files: [rules.yaml]}
telemetry: {traces: otlp}
`,
		"consumers.yaml": `consumers: [{id: billing, limit: 1000/s, tokens: [{id: prod, value: dev-secret}]}]`,
		"rules.yaml":     "domain: mesh\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s, err := server.Start(t.Context(), server.Options{ConfigPath: filepath.Join(dir, "tollgate.yaml"), DataDir: dir, Log: new(bytes.Buffer)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	for name, addr := range map[string]string{"grpc": s.GRPCAddr(), "fast": s.FastAddr()} {
		t.Run(name, func(t *testing.T) {
			e := envoytest.Start(t, binary, traced(t, receiver, addr))
			path := "/asked-on-" + name
			if a := envoytest.Get(t, envoytest.HTTP1(t, e.Addr("http")), path, "x-api-key", "dev-secret"); !a.Reached {
				t.Fatalf("answered %d %s", a.Status, a.Body)
			}
			ingress := receiver.Await(t, func(s otlptest.Span) bool {
				url, _ := s.Attributes()["http.url"].(string)
				return s.Resource["service.name"] == "edge" && strings.HasSuffix(url, path) && len(s.GetParentSpanId()) == 0
			})
			for _, call := range []string{"envoy.service.auth.v3.Authorization/Check", "envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"} {
				ours := receiver.Await(t, func(s otlptest.Span) bool {
					return s.GetName() == call && bytes.Equal(s.GetTraceId(), ingress.GetTraceId())
				})
				egress := receiver.Await(t, func(s otlptest.Span) bool { return bytes.Equal(s.GetSpanId(), ours.GetParentSpanId()) })
				if egress.Resource["service.name"] != "edge" || egress.GetStartTimeUnixNano() > ours.GetStartTimeUnixNano() || egress.GetEndTimeUnixNano() < ours.GetEndTimeUnixNano() {
					t.Errorf("%s from %d to %d is not inside Envoy's %s from %d to %d", call, ours.GetStartTimeUnixNano(), ours.GetEndTimeUnixNano(),
						egress.GetName(), egress.GetStartTimeUnixNano(), egress.GetEndTimeUnixNano())
				}
			}
		})
	}
}

// traced prints a configuration for an Envoy that traces.
func traced(t *testing.T, receiver *otlptest.Receiver, tollgate string) []byte {
	t.Helper()
	var b bytes.Buffer
	err := config.Print(&b, config.Options{Mode: config.TwoPhase, Listen: "127.0.0.1:0", Admin: "127.0.0.1:0",
		Upstream: envoytest.StartUpstream(t).Addr, Tollgate: []string{tollgate}})
	if err != nil {
		t.Fatal(err)
	}
	host, port, err := net.SplitHostPort(receiver.GRPC)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(b.String(), "          stat_prefix: ingress\n", "          stat_prefix: ingress\n"+tracing, 1)
	return []byte(strings.Replace(text, "  clusters:\n", "  clusters:\n"+fmt.Sprintf(collector, host, port), 1))
}
