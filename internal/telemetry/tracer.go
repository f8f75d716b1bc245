package telemetry

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/tollgate-dev/tollgate/extauthz"
	"github.com/tollgate-dev/tollgate/limits"
)

// Tracer makes an OpenTelemetry span of each decision whose trace is sampled and
// exports it over OTLP. What is not sampled costs no allocation. Safe for
// concurrent use; nil records nothing.
type Tracer struct {
	provider *sdktrace.TracerProvider
	tracer   trace.Tracer
	sampler  sampler
}

// TracerOptions say who speaks. The rest is in the standard variables of
// OpenTelemetry, OTEL_*.
type TracerOptions struct {
	Build  Build
	Log    *slog.Logger
	Lookup func(name string) (string, bool) // as os.LookupEnv
}

// NewTracer returns a tracer that exports as the OTEL_* variables say, or nil
// where they say that nothing is to be exported. Close it.
func NewTracer(ctx context.Context, o TracerOptions) (*Tracer, error) {
	value := func(name string) string { s, _ := o.Lookup(name); return strings.TrimSpace(s) }
	if strings.EqualFold(value("OTEL_SDK_DISABLED"), "true") || value("OTEL_TRACES_EXPORTER") == "none" {
		return nil, nil
	}
	if name := value("OTEL_TRACES_EXPORTER"); name != "" && name != "otlp" {
		return nil, fmt.Errorf("OTEL_TRACES_EXPORTER: %q: want otlp or none", name)
	}
	s, err := newSampler(o.Lookup)
	if err != nil {
		return nil, err
	}
	e, err := newExporter(ctx, cmp.Or(value("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"), value("OTEL_EXPORTER_OTLP_PROTOCOL")))
	if err != nil {
		return nil, fmt.Errorf("OpenTelemetry exporter: %w", err)
	}
	r, err := resource.New(ctx, resource.WithTelemetrySDK(),
		resource.WithAttributes(attribute.String("service.name", "tollgate"), attribute.String("service.version", o.Build.Version)),
		resource.WithFromEnv())
	if err != nil {
		return nil, fmt.Errorf("OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	p := sdktrace.NewTracerProvider(sdktrace.WithResource(r), sdktrace.WithBatcher(&exporter{SpanExporter: e, log: o.Log}),
		sdktrace.WithSampler(sdktrace.AlwaysSample())) // Tracer asks its own before
	return &Tracer{provider: p, tracer: p.Tracer("github.com/tollgate-dev/tollgate", trace.WithInstrumentationVersion(o.Build.Version)), sampler: s}, nil
}

func newExporter(ctx context.Context, protocol string) (sdktrace.SpanExporter, error) {
	switch protocol {
	case "grpc":
		return otlptracegrpc.New(ctx)
	case "", "http/protobuf":
		return otlptracehttp.New(ctx)
	}
	return nil, fmt.Errorf("OTEL_EXPORTER_OTLP_PROTOCOL: %q: want grpc or http/protobuf", protocol)
}

// Close exports what is waiting, as long as ctx lasts.
func (t *Tracer) Close(ctx context.Context) error {
	if t == nil {
		return nil
	}
	return t.provider.Shutdown(ctx)
}

// exporter logs when exporting begins to fail and when it works again, once each.
type exporter struct {
	sdktrace.SpanExporter
	log     *slog.Logger
	failing bool // of the one goroutine that exports
}

// ExportSpans overrides the exporter's own. An error that was logged is not returned.
func (e *exporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	err := e.SpanExporter.ExportSpans(ctx, spans)
	if failed := err != nil; failed != e.failing {
		e.failing = failed
		if failed {
			e.log.Warn("traces cannot be exported", "err", err)
		} else {
			e.log.Info("traces are exported again")
		}
	}
	return nil
}

// record makes a span of a decision that has just been taken and returns the id
// of its trace; ok is false where the trace is not sampled.
func (t *Tracer) record(e *extauthz.Event) (id trace.TraceID, ok bool) {
	if t == nil || !t.sampler.samples(&e.Trace) {
		return id, false
	}
	ctx := context.Background()
	if e.Trace.Valid() {
		ctx = trace.ContextWithRemoteSpanContext(ctx, parent(&e.Trace))
	}
	end := time.Now()
	service, method := names(e.API)
	_, span := t.tracer.Start(ctx, service+"/"+method, trace.WithSpanKind(trace.SpanKindServer),
		trace.WithTimestamp(end.Add(-e.Took-e.Wait)), trace.WithAttributes(attributes(e, service, method)...))
	if e.Outcome == extauthz.Failed {
		span.SetStatus(codes.Error, "no decision could be taken")
	}
	span.End(trace.WithTimestamp(end))
	return span.SpanContext().TraceID(), true
}

func parent(t *extauthz.Trace) trace.SpanContext {
	c := trace.SpanContextConfig{TraceID: t.ID, SpanID: t.Span, Remote: true}
	if t.Sampled {
		c.TraceFlags = trace.FlagsSampled
	}
	c.TraceState, _ = trace.ParseTraceState(t.State) // one that cannot be read is dropped (W3C Trace Context, 4.3)
	return trace.NewSpanContext(c)
}

// names returns the service and the method of an API.
func names(api string) (service, method string) {
	switch api {
	case "ext_authz":
		return authv3.Authorization_ServiceDesc.ServiceName, "Check"
	case "ratelimit":
		return rlsv3.RateLimitService_ServiceDesc.ServiceName, "ShouldRateLimit"
	}
	return "tollgate", api
}

// attributes tell what was decided. What callers send is made valid UTF-8, which
// OTLP demands of a whole batch.
func attributes(e *extauthz.Event, service, method string) []attribute.KeyValue {
	all := make([]attribute.KeyValue, 0, 17)
	text := func(key, value string) {
		if value != "" {
			all = append(all, attribute.String(key, strings.ToValidUTF8(value, "\uFFFD")))
		}
	}
	text("rpc.system", "grpc")
	text("rpc.service", service)
	text("rpc.method", method)
	text("tollgate.outcome", string(e.Outcome))
	text("tollgate.reason", string(e.Reason))
	text("tollgate.domain", e.Domain)
	text("tollgate.rule", e.Rule)
	text("tollgate.consumer", e.Consumer)
	text("tollgate.token", e.Token)
	text("tollgate.limit", limitName(e))
	text("http.request.method", strings.Clone(e.Method)) // the span outlives the request
	text("url.path", strings.Clone(path(e)))
	all = append(all, attribute.Float64("tollgate.wait", e.Wait.Seconds()))
	if e.Outcome == extauthz.Throttled && e.Decision.Wait != limits.Never {
		all = append(all, attribute.Float64("tollgate.retry_after", e.Decision.Wait.Seconds()))
	}
	return all
}
