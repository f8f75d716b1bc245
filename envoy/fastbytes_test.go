package envoy_test

import (
	"context"
	"io"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/tollgate-dev/tollgate/envoy"
	"github.com/tollgate-dev/tollgate/extauthz"
	"github.com/tollgate-dev/tollgate/limits"
)

// TestFastAsksAgainWhereItCanWait has a request that would be held decided
// twice: first in line, where it must not wait, then where it can. It is one
// call to the metrics, and knows the same of itself both times.
func TestFastAsksAgainWhereItCanWait(t *testing.T) {
	metrics := prometheus.NewRegistry()
	s, err := envoy.NewServer(envoy.ServerOptions{Metrics: metrics})
	if err != nil {
		t.Fatal(err)
	}
	type asked struct {
		mayWait  bool
		deadline bool
		address  string
		request  string
	}
	calls := make(chan asked, 2)
	s.RegisterBytes(authv3.Authorization_ServiceDesc, checker{}, "Check", func(ctx context.Context, request, response []byte) ([]byte, error) {
		a := asked{mayWait: limits.MayWait(ctx), request: string(request)}
		_, a.deadline = ctx.Deadline()
		if m, ok := ctx.Value(extauthz.MetadataKey{}).(extauthz.Metadata); ok {
			a.address = m.Metadata("x-client-ip")
		} else if values := metadata.ValueFromIncomingContext(ctx, "x-client-ip"); len(values) == 1 {
			a.address = values[0]
		}
		calls <- a
		if !a.mayWait {
			return append(response, "to be forgotten"...), limits.ErrWouldWait
		}
		return parrot(ctx, request, response)
	})
	lis, err := envoy.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.ServeFast(lis) }()
	t.Cleanup(func() {
		s.Close()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), "x-client-ip", "192.0.2.1"), time.Minute)
	defer cancel()
	r, err := authv3.NewAuthorizationClient(plaintext(t, lis.Addr().String())).Check(ctx, asking("/held"))
	if err != nil || r.GetDeniedResponse().GetBody() != "/held" {
		t.Errorf("Check = %v, %v, want the path", r, err)
	}
	first, second := <-calls, <-calls
	if first.mayWait || !second.mayWait {
		t.Errorf("may wait: %v, then %v; want not, then yes", first.mayWait, second.mayWait)
	}
	second.mayWait = false
	if first != second || !first.deadline || first.address != "192.0.2.1" {
		t.Errorf("asked with %+v, then %+v; want the same", first, second)
	}
	for _, name := range []string{"grpc_server_started_total", "grpc_server_handled_total"} {
		if n := total(t, metrics, name); n != 1 {
			t.Errorf("%s = %v, want 1", name, n)
		}
	}
}

// TestFastLeavesTheRest: what is not a hot call is UNIMPLEMENTED, streams
// that the server has on its other listener included, and the connection goes
// on.
func TestFastLeavesTheRest(t *testing.T) {
	_, addr := serveOn(t, "fast", envoy.ServerOptions{}, checker{})
	conn := plaintext(t, addr)
	for _, method := range []string{
		"/grpc.health.v1.Health/Watch",
		"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
		"/envoy.service.ext_proc.v3.ExternalProcessor/Process",
		"/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs",
		"/envoy.service.auth.v3.Authorization/Other",
		"/other.Service/Method",
	} {
		stream, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method)
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.SendMsg(&healthpb.HealthCheckRequest{}); err != nil && err != io.EOF {
			t.Errorf("%s: SendMsg = %v", method, err)
		}
		if err := stream.RecvMsg(&healthpb.HealthCheckResponse{}); status.Code(err) != codes.Unimplemented {
			t.Errorf("a stream of %s = %v, want UNIMPLEMENTED", method, err)
		}
		if err := conn.Invoke(t.Context(), method, &healthpb.HealthCheckRequest{}, &healthpb.HealthCheckResponse{}); status.Code(err) != codes.Unimplemented {
			t.Errorf("a call of %s = %v, want UNIMPLEMENTED", method, err)
		}
	}
	if _, err := authv3.NewAuthorizationClient(conn).Check(t.Context(), asking("/")); err != nil {
		t.Errorf("a Check after it all = %v", err)
	}
}

// total adds up a counter's series.
func total(t *testing.T, metrics prometheus.Gatherer, name string) (sum float64) {
	t.Helper()
	families, err := metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				sum += m.GetCounter().GetValue()
			}
		}
	}
	return sum
}
