package telemetry_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/tollgate-dev/tollgate/extauthz"
	"github.com/tollgate-dev/tollgate/internal/telemetry"
	"github.com/tollgate-dev/tollgate/internal/telemetry/otlptest"
	"github.com/tollgate-dev/tollgate/limits"
)

const (
	traceID = "4bf92f3577b34da6a3ce929d0e0e4736"
	spanID  = "00f067aa0ba902b7"
)

// newTracer returns an observer that traces as these variables say.
func newTracer(t *testing.T, env map[string]string) (*telemetry.Observer, *telemetry.Tracer, *prometheus.Registry) {
	t.Helper()
	for name, value := range env {
		t.Setenv(name, value) // the exporters read the environment themselves
	}
	tracer, err := telemetry.NewTracer(t.Context(), telemetry.TracerOptions{
		Build: telemetry.Build{Version: "1.2.3"}, Log: slog.New(slog.DiscardHandler), Lookup: lookup(env),
	})
	if err != nil {
		t.Fatal(err)
	}
	registry, top := prometheus.NewPedanticRegistry(), telemetry.NewTop(1)
	metrics := telemetry.NewMetrics(registry, telemetry.Build{}, telemetry.Live{
		Limiters: func() int { return 0 }, Evictions: func() uint64 { return 0 }, Consumers: func() int { return 0 },
	}, top)
	return telemetry.NewObserver(metrics, top, tracer, slog.New(slog.DiscardHandler)), tracer, registry
}

func lookup(env map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) { v, ok := env[name]; return v, ok }
}

func TestSpans(t *testing.T) {
	for _, protocol := range []string{"grpc", "http/protobuf"} {
		t.Run(protocol, func(t *testing.T) {
			receiver := otlptest.Start(t)
			endpoint := "http://" + receiver.GRPC
			if protocol != "grpc" {
				endpoint = "http://" + receiver.HTTP
			}
			observer, tracer, registry := newTracer(t, map[string]string{
				"OTEL_EXPORTER_OTLP_PROTOCOL": protocol, "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
				"OTEL_RESOURCE_ATTRIBUTES": "deployment.environment=test", "OTEL_SERVICE_NAME": "gate",
			})
			spec, err := limits.Compile(limits.Limit{Kind: limits.Rate, N: 100, Period: time.Second})
			if err != nil {
				t.Fatal(err)
			}
			parent := extauthz.ParseTrace("00-" + traceID + "-" + spanID + "-01")
			parent.State = "vendor=1"
			observer.Observe(&extauthz.Event{API: "ext_authz", Outcome: extauthz.Throttled, Domain: "mesh", Rule: "bad\xff", Consumer: "billing", Token: "prod",
				Limit: spec, Decision: limits.Decision{Wait: 3 * time.Second}, Took: time.Millisecond, Wait: 2 * time.Second,
				Method: "GET", Path: "/pay?api_key=secret", Trace: parent})
			observer.Observe(&extauthz.Event{API: "ratelimit", Outcome: extauthz.Failed})
			if err := tracer.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			spans := receiver.Spans()
			if len(spans) != 2 {
				t.Fatalf("%d spans, want 2", len(spans))
			}
			check := spans[0]
			if got := check.GetName(); got != "envoy.service.auth.v3.Authorization/Check" {
				t.Errorf("name %q", got)
			}
			if got := []string{hex.EncodeToString(check.GetTraceId()), hex.EncodeToString(check.GetParentSpanId()), check.GetTraceState()}; !cmp.Equal(got, []string{traceID, spanID, "vendor=1"}) {
				t.Errorf("stands in %v", got)
			}
			if took := time.Duration(check.GetEndTimeUnixNano() - check.GetStartTimeUnixNano()); took != 2*time.Second+time.Millisecond {
				t.Errorf("the span lasts %v", took)
			}
			want := map[string]any{"rpc.system": "grpc", "rpc.service": "envoy.service.auth.v3.Authorization", "rpc.method": "Check",
				"tollgate.outcome": "throttled", "tollgate.domain": "mesh", "tollgate.rule": "bad\uFFFD", "tollgate.consumer": "billing", "tollgate.token": "prod",
				"tollgate.limit": "rate-100-s", "tollgate.wait": 2.0, "tollgate.retry_after": 3.0, "http.request.method": "GET", "url.path": "/pay"}
			if diff := cmp.Diff(want, check.Attributes()); diff != "" {
				t.Errorf("attributes (-want +got):\n%s", diff)
			}
			if r := check.Resource; r["service.name"] != "gate" || r["service.version"] != "1.2.3" || r["deployment.environment"] != "test" {
				t.Errorf("resource %v", r)
			}
			if s := spans[1]; len(s.GetParentSpanId()) != 0 || s.GetStatus().GetCode().String() != "STATUS_CODE_ERROR" {
				t.Errorf("an error without a parent: %v", s)
			}
			wantExemplar(t, registry, traceID)
		})
	}
}

// wantExemplar looks for a trace beside both kinds of buckets.
func wantExemplar(t *testing.T, registry *prometheus.Registry, id string) {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "tollgate_decision_seconds" {
			continue
		}
		text := f.String()
		if h := f.GetMetric()[0].GetHistogram(); h.GetSchema() == 0 || len(h.GetPositiveSpan()) == 0 || len(h.GetBucket()) == 0 {
			t.Errorf("want a native histogram and classic buckets, got %v", h)
		}
		if strings.Count(text, id) < 2 {
			t.Errorf("no exemplar of trace %s in %s", id, text)
		}
		return
	}
	t.Error("no tollgate_decision_seconds")
}

func TestUnsampledSpanCostsNothing(t *testing.T) {
	for _, c := range []struct{ sampler, parent string }{
		{"", "00-" + traceID + "-" + spanID + "-00"},
		{"parentbased_traceidratio", "00-" + traceID + "-" + spanID + "-00"},
		{"always_off", "00-" + traceID + "-" + spanID + "-01"},
		{"parentbased_always_off", ""},
	} {
		receiver := otlptest.Start(t)
		observer, tracer, _ := newTracer(t, map[string]string{"OTEL_TRACES_SAMPLER": c.sampler, "OTEL_EXPORTER_OTLP_ENDPOINT": "http://" + receiver.HTTP})
		e := &extauthz.Event{API: "ext_authz", Outcome: extauthz.Admitted, Domain: "mesh", Consumer: "a", Token: "b", Took: time.Microsecond, Trace: extauthz.ParseTrace(c.parent)}
		observer.Observe(e)
		if n := testing.AllocsPerRun(1000, func() {
			e.Trace = extauthz.ParseTrace(c.parent)
			observer.Observe(e)
		}); n != 0 {
			t.Errorf("%s with %q allocates %v times", c.sampler, c.parent, n)
		}
		if err := tracer.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := len(receiver.Spans()); n > 0 {
			t.Errorf("%s with %q: %d spans", c.sampler, c.parent, n)
		}
	}
}

// TestSamplersAreTheSDKs has both decide about the same traces.
func TestSamplersAreTheSDKs(t *testing.T) {
	for name, sdk := range map[string]sdktrace.Sampler{
		"":                         sdktrace.ParentBased(sdktrace.AlwaysSample()),
		"always_on":                sdktrace.AlwaysSample(),
		"always_off":               sdktrace.NeverSample(),
		"traceidratio":             sdktrace.TraceIDRatioBased(0.3),
		"parentbased_always_on":    sdktrace.ParentBased(sdktrace.AlwaysSample()),
		"parentbased_always_off":   sdktrace.ParentBased(sdktrace.NeverSample()),
		"parentbased_traceidratio": sdktrace.ParentBased(sdktrace.TraceIDRatioBased(0.3)),
	} {
		receiver := otlptest.Start(t)
		observer, tracer, _ := newTracer(t, map[string]string{"OTEL_TRACES_SAMPLER": name, "OTEL_TRACES_SAMPLER_ARG": "0.3", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://" + receiver.HTTP})
		want := map[string]bool{}
		for i := range 400 {
			id := fmt.Sprintf("%032x", uint64(i+1)*0x9e3779b97f4a7c15)
			for flags := range 2 {
				parent := extauthz.ParseTrace(fmt.Sprintf("00-%s-%016x-%02x", id, i*2+flags+1, flags))
				observer.Observe(&extauthz.Event{API: "ext_authz", Outcome: extauthz.Admitted, Trace: parent})
				c := trace.NewSpanContext(trace.SpanContextConfig{TraceID: parent.ID, SpanID: parent.Span, TraceFlags: trace.TraceFlags(flags), Remote: true})
				decision := sdk.ShouldSample(sdktrace.SamplingParameters{ParentContext: trace.ContextWithRemoteSpanContext(context.Background(), c), TraceID: parent.ID})
				if decision.Decision == sdktrace.RecordAndSample {
					want[c.SpanID().String()] = true
				}
			}
		}
		if err := tracer.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		got := map[string]bool{}
		for _, s := range receiver.Spans() {
			got[hex.EncodeToString(s.GetParentSpanId())] = true
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q samples otherwise (-SDK +ours):\n%s", name, diff)
		}
	}
}

func TestTracerVariables(t *testing.T) {
	for _, c := range []struct {
		env  map[string]string
		want string // part of the error; empty: no tracer, no error
	}{
		{map[string]string{"OTEL_SDK_DISABLED": "true"}, ""},
		{map[string]string{"OTEL_TRACES_EXPORTER": "none"}, ""},
		{map[string]string{"OTEL_TRACES_EXPORTER": "zipkin"}, "want otlp or none"},
		{map[string]string{"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}, "want grpc or http/protobuf"},
		{map[string]string{"OTEL_TRACES_SAMPLER": "sometimes"}, "want always_on"},
		{map[string]string{"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "1.5"}, "want a number from 0 to 1"},
		{map[string]string{"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "NaN"}, "want a number from 0 to 1"},
	} {
		tracer, err := telemetry.NewTracer(t.Context(), telemetry.TracerOptions{Log: slog.New(slog.DiscardHandler), Lookup: lookup(c.env)})
		if tracer != nil || (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v, %v; want %q", c.env, tracer, err, c.want)
		}
	}
}

// TestExportFailureIsLoggedOnce has the receiver gone.
func TestExportFailureIsLoggedOnce(t *testing.T) {
	env := map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_TIMEOUT": "100", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "1"}
	for name, value := range env {
		t.Setenv(name, value)
	}
	var log bytes.Buffer
	tracer, err := telemetry.NewTracer(t.Context(), telemetry.TracerOptions{Log: telemetry.NewLogger(&log, "json", new(slog.LevelVar)), Lookup: lookup(env)})
	if err != nil {
		t.Fatal(err)
	}
	registry, top := prometheus.NewRegistry(), telemetry.NewTop(1)
	metrics := telemetry.NewMetrics(registry, telemetry.Build{}, telemetry.Live{}, top)
	observer := telemetry.NewObserver(metrics, top, tracer, slog.New(slog.DiscardHandler))
	for range 5 {
		observer.Observe(&extauthz.Event{API: "ext_authz", Outcome: extauthz.Admitted})
	}
	_ = tracer.Close(t.Context())
	if n := strings.Count(log.String(), "traces cannot be exported"); n != 1 {
		t.Errorf("%d lines, want 1:\n%s", n, log.String())
	}
}

// FuzzParseTrace compares with OpenTelemetry's own reader.
func FuzzParseTrace(f *testing.F) {
	for _, flags := range []string{"00", "01", "02", "ff", "0g", "0A"} {
		f.Add("00-" + traceID + "-" + spanID + "-" + flags)
	}
	f.Add("00-" + strings.ToUpper(traceID) + "-" + spanID + "-01")
	f.Add("01-" + traceID + "-" + spanID + "-01-more")
	f.Add("00-" + traceID + "-" + spanID + "-01-more")
	f.Add("ff-" + traceID + "-" + spanID + "-01")
	f.Fuzz(func(t *testing.T, parent string) {
		got := extauthz.ParseTrace(parent)
		ctx := propagation.TraceContext{}.Extract(context.Background(), propagation.MapCarrier{"traceparent": parent})
		want := trace.SpanContextFromContext(ctx)
		if want.IsValid() && (got.ID != want.TraceID() || got.Span != want.SpanID() || got.Sampled != want.IsSampled()) {
			t.Errorf("ParseTrace(%q) = %v, OpenTelemetry reads %v", parent, got, want)
		}
		if got.Valid() && !want.IsValid() && parent[53:55] <= "03" {
			t.Errorf("ParseTrace(%q) = %v, OpenTelemetry reads nothing", parent, got)
		}
	})
}
