// Package otlptest is a receiver of OpenTelemetry traces for tests: what a
// collector is to those who export, over gRPC and over HTTP.
package otlptest

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

// Span is a received span and the resource that sent it.
type Span struct {
	*tracepb.Span
	Resource map[string]any
}

// Attributes returns the span's own.
func (s Span) Attributes() map[string]any { return values(s.Span.GetAttributes()) }

// Receiver keeps the spans that it gets. It is safe for concurrent use.
type Receiver struct {
	collectorpb.UnimplementedTraceServiceServer
	GRPC, HTTP string // HOST:PORT

	mu    sync.Mutex
	spans []Span
}

// Start serves a receiver until the test's end.
func Start(tb testing.TB) *Receiver {
	tb.Helper()
	r := &Receiver{}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	server := grpc.NewServer()
	collectorpb.RegisterTraceServiceServer(server, r)
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(listener) }()
	tb.Cleanup(func() { server.Stop(); <-served })
	r.GRPC = listener.Addr().String()
	web := httptest.NewServer(http.HandlerFunc(r.post))
	tb.Cleanup(web.Close)
	r.HTTP = web.Listener.Addr().String()
	return r
}

// Export implements the collector's TraceService.
func (r *Receiver) Export(_ context.Context, req *collectorpb.ExportTraceServiceRequest) (*collectorpb.ExportTraceServiceResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, rs := range req.GetResourceSpans() {
		resource := values(rs.GetResource().GetAttributes())
		for _, ss := range rs.GetScopeSpans() {
			for _, span := range ss.GetSpans() {
				r.spans = append(r.spans, Span{Span: span, Resource: resource})
			}
		}
	}
	return &collectorpb.ExportTraceServiceResponse{}, nil
}

func (r *Receiver) post(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	var message collectorpb.ExportTraceServiceRequest
	if err == nil {
		err = proto.Unmarshal(body, &message)
	}
	if err != nil || req.URL.Path != "/v1/traces" || req.Header.Get("content-type") != "application/x-protobuf" {
		http.Error(w, "want POST /v1/traces with a body in protobuf", http.StatusBadRequest)
		return
	}
	_, _ = r.Export(req.Context(), &message) // never fails
	w.Header().Set("content-type", "application/x-protobuf")
}

// Spans returns what has come so far.
func (r *Receiver) Spans() []Span {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]Span{}, r.spans...)
}

// Await returns the first span that is wanted, and fails the test where none
// comes within 20 seconds.
func (r *Receiver) Await(tb testing.TB, wanted func(Span) bool) Span {
	tb.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); <-tick.C {
		for _, s := range r.Spans() {
			if wanted(s) {
				return s
			}
		}
	}
	tb.Fatalf("no such span among %d", len(r.Spans()))
	return Span{}
}

func values(attributes []*commonpb.KeyValue) map[string]any {
	m := map[string]any{}
	for _, a := range attributes {
		switch v := a.GetValue().GetValue().(type) {
		case *commonpb.AnyValue_StringValue:
			m[a.GetKey()] = v.StringValue
		case *commonpb.AnyValue_DoubleValue:
			m[a.GetKey()] = v.DoubleValue
		case *commonpb.AnyValue_IntValue:
			m[a.GetKey()] = v.IntValue
		default:
			m[a.GetKey()] = a.GetValue().String()
		}
	}
	return m
}
