package server_test

import (
	"encoding/hex"
	"net/http"
	"runtime"
	"strings"
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
	t.Run("json", func(t *testing.T) {
		body := `{"domain":"mesh","descriptors":[{"entries":[{"key":"user","value":"json"}]}]}`
		req, err := http.NewRequestWithContext(t.Context(), "POST", "http://"+r.HTTPAddr()+"/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("traceparent", "00-"+id+"-"+call+"-01")
		req.Header.Set("tracestate", "from=json")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		span := receiver.Await(t, func(s otlptest.Span) bool { return s.GetTraceState() == "from=json" })
		if hex.EncodeToString(span.GetTraceId()) != id || hex.EncodeToString(span.GetParentSpanId()) != call {
			t.Errorf("the span stands in %x below %x", span.GetTraceId(), span.GetParentSpanId())
		}
	})
}

// TestUnsampledTracesCostNothing counts the allocations of a call on both
// listeners, client's and all, with traces and without: what is not sampled adds
// none, but for the one with which grpc-go hands out a field of the metadata.
func TestUnsampledTracesCostNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("counts allocations, which the race detector adds to")
	}
	receiver := otlptest.Start(t)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"+receiver.HTTP)
	const listen = "listen: {grpc: \"127.0.0.1:0\", fast: \"127.0.0.1:0\", http: \"127.0.0.1:0\", drain: 0s}\n"
	allocations := func(traces, listener string) float64 {
		r := start(t, listen+"telemetry: {traces: "+traces+"}\n")
		token := r.newToken(t, "billing", "1000000/s")
		conn, err := grpc.NewClient("passthrough:///"+map[string]string{"grpc": r.GRPCAddr(), "fast": r.FastAddr()}[listener], grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		ctx := metadata.AppendToOutgoingContext(t.Context(), "traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00")
		request := &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
			Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{Method: "GET", Path: "/", Host: "api", Headers: map[string]string{"x-api-key": token}}}}}
		calls := func(n int) uint64 {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			for range n {
				if _, err := authv3.NewAuthorizationClient(conn).Check(ctx, request); err != nil {
					t.Fatal(err)
				}
			}
			runtime.ReadMemStats(&after)
			return after.Mallocs - before.Mallocs
		}
		calls(200)
		const n = 400
		least := calls(n) // of several counts: what goes on beside allocates too
		for range 4 {
			least = min(least, calls(n))
		}
		return float64(least) / n
	}
	for listener, most := range map[string]float64{"fast": 0.5, "grpc": 1.5} {
		without, with := allocations("none", listener), allocations("otlp", listener)
		if t.Logf("%s: %.2f allocations without traces, %.2f with", listener, without, with); with-without > most {
			t.Errorf("%s: traces that are not sampled add %.2f allocations", listener, with-without)
		}
	}
	if n := len(receiver.Spans()); n > 0 {
		t.Errorf("%d spans of calls that are not sampled", n)
	}
}
