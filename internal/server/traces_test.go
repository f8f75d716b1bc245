package server_test

import (
	"encoding/hex"
	"testing"

	rlcommonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/tollgate-dev/tollgate/internal/telemetry/otlptest"
)

// TestTraces has both listeners continue a trace, over the SDK's and the
// collector's own protocol.
func TestTraces(t *testing.T) {
	const id, call, header = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", "53995c3f42cd8ad8"
	receiver := otlptest.Start(t)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"+receiver.GRPC)
	t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
	r := start(t, `listen: {grpc: "127.0.0.1:0", fast: "127.0.0.1:0", http: "127.0.0.1:0", drain: 0s}
limits: {warm_up: {grace: 0s, ramp: 0s}}
rules: {files: [rules.yaml]}
telemetry: {traces: otlp}
`)
	token := r.newToken(t, "billing", "1000/s")
	for name, addr := range map[string]string{"grpc": r.GRPCAddr(), "fast": r.FastAddr()} {
		t.Run(name, func(t *testing.T) {
			conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			check := func(inCall, inHeader string) {
				ctx := t.Context()
				if inCall != "" {
					ctx = metadata.AppendToOutgoingContext(ctx, "traceparent", "00-"+id+"-"+inCall, "tracestate", "from="+name)
				}
				headers := map[string]string{"x-api-key": token}
				if inHeader != "" {
					headers["traceparent"] = "00-" + id + "-" + inHeader
				}
				_, err := authv3.NewAuthorizationClient(conn).Check(ctx, &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
					Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{Method: "GET", Path: "/", Host: "api", Headers: headers}},
				}})
				if err != nil {
					t.Fatal(err)
				}
			}
			before := len(receiver.Spans())
			check(call+"-00", header+"-01") // Envoy does not record this one, so nobody does
			check(call+"-01", header+"-01")
			span := receiver.Await(t, func(s otlptest.Span) bool {
				return s.GetName() == "envoy.service.auth.v3.Authorization/Check" && s.GetTraceState() == "from="+name
			})
			if hex.EncodeToString(span.GetTraceId()) != id || hex.EncodeToString(span.GetParentSpanId()) != call {
				t.Errorf("the span stands in %x below %x", span.GetTraceId(), span.GetParentSpanId())
			}
			if a := span.Attributes(); a["tollgate.consumer"] != "billing" || a["tollgate.outcome"] != "admitted" || a["tollgate.wait"] != 0.0 {
				t.Errorf("attributes %v", a)
			}
			if n := len(receiver.Spans()) - before; n != 1 {
				t.Errorf("%d spans of one sampled and one unsampled call", n)
			}
			check("", header+"-01")
			receiver.Await(t, func(s otlptest.Span) bool { return hex.EncodeToString(s.GetParentSpanId()) == header })

			ctx := metadata.AppendToOutgoingContext(t.Context(), "traceparent", "00-"+id+"-"+call+"-01", "tracestate", "limits="+name)
			for range 2 { // the rule admits one in the hour
				_, err = rlsv3.NewRateLimitServiceClient(conn).ShouldRateLimit(ctx, &rlsv3.RateLimitRequest{Domain: "mesh",
					Descriptors: []*rlcommonv3.RateLimitDescriptor{{Entries: []*rlcommonv3.RateLimitDescriptor_Entry{{Key: "user", Value: name}}}}})
				if err != nil {
					t.Fatal(err)
				}
			}
			span = receiver.Await(t, func(s otlptest.Span) bool {
				return s.GetTraceState() == "limits="+name && s.Attributes()["tollgate.outcome"] == "throttled"
			})
			if a := span.Attributes(); a["tollgate.limit"] == nil || a["tollgate.rule"] != "user" || hex.EncodeToString(span.GetParentSpanId()) != call {
				t.Errorf("attributes %v below %x", a, span.GetParentSpanId())
			}
		})
	}
}
