package envoy_test

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	"github.com/tollgate-dev/tollgate/envoy"
)

// checker is an Authorization server that does as it is told.
type checker struct {
	authv3.UnimplementedAuthorizationServer
	check func(*authv3.CheckRequest) error
}

func (c checker) Check(_ context.Context, r *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	if c.check == nil {
		return &authv3.CheckResponse{}, nil
	}
	return &authv3.CheckResponse{}, c.check(r)
}

// onBoth runs a test of what both listeners must do.
func onBoth(t *testing.T, test func(t *testing.T, listener string)) {
	for _, listener := range []string{"grpc", "fast"} {
		t.Run(listener, func(t *testing.T) { test(t, listener) })
	}
}

// serve runs a server until the test's end and returns its address.
func serve(t *testing.T, o envoy.ServerOptions, c checker) (*envoy.Server, string) {
	t.Helper()
	return serveOn(t, "grpc", o, c)
}

// serveOn is serve on one of the listeners.
func serveOn(t *testing.T, listener string, o envoy.ServerOptions, c checker) (*envoy.Server, string) {
	t.Helper()
	s, err := envoy.NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	authv3.RegisterAuthorizationServer(s, c)
	lis, err := envoy.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	answer := s.Serve
	if listener == "fast" {
		answer = s.ServeFast
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := answer(lis); err != nil {
			t.Errorf("Serve: %v", err)
		}
	}()
	t.Cleanup(func() {
		s.Close()
		<-done
	})
	return s, lis.Addr().String()
}

func dial(t *testing.T, addr string, c credentials.TransportCredentials) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(c))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func plaintext(t *testing.T, addr string) *grpc.ClientConn {
	return dial(t, addr, insecure.NewCredentials())
}

func TestHealthAnswersForEveryName(t *testing.T) { onBoth(t, healthAnswersForEveryName) }

func healthAnswersForEveryName(t *testing.T, listener string) {
	s, addr := serveOn(t, listener, envoy.ServerOptions{}, checker{})
	client := healthpb.NewHealthClient(plaintext(t, addr))
	want := func(status healthpb.HealthCheckResponse_ServingStatus) {
		t.Helper()
		for _, name := range []string{"", "envoy.service.auth.v3.Authorization", "envoy.service.ratelimit.v3.RateLimitService", "ratelimit"} {
			got, err := client.Check(t.Context(), &healthpb.HealthCheckRequest{Service: name})
			if err != nil || got.GetStatus() != status {
				t.Errorf("health of %q = %v, %v, want %v", name, got.GetStatus(), err, status)
			}
		}
	}
	want(healthpb.HealthCheckResponse_SERVING)
	s.MarkUnready()
	want(healthpb.HealthCheckResponse_NOT_SERVING)
	s.MarkReady()
	want(healthpb.HealthCheckResponse_SERVING)
}

func TestReflectionListsServices(t *testing.T) {
	_, addr := serve(t, envoy.ServerOptions{}, checker{})
	stream, err := reflectionpb.NewServerReflectionClient(plaintext(t, addr)).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ask := &reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}}
	if err := stream.Send(ask); err != nil {
		t.Fatal(err)
	}
	got, err := stream.Recv()
	if err != nil || !strings.Contains(got.String(), "envoy.service.auth.v3.Authorization") {
		t.Errorf("services = %v, %v, want Authorization among them", got, err)
	}
}

func TestDrainLosesNothing(t *testing.T) {
	entered, release := make(chan struct{}, 1), make(chan struct{})
	s, addr := serve(t, envoy.ServerOptions{Drain: 3 * time.Second}, checker{check: func(r *authv3.CheckRequest) error {
		if r.GetAttributes().GetContextExtensions()["hold"] != "" {
			entered <- struct{}{}
			<-release
		}
		return nil
	}})
	conn := plaintext(t, addr)
	health, auth := healthpb.NewHealthClient(conn), authv3.NewAuthorizationClient(conn)

	held := make(chan error, 1)
	go func() {
		_, err := auth.Check(context.Background(), request(map[string]string{"hold": "yes"}))
		held <- err
	}()
	<-entered
	watch, err := health.Watch(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if first, err := watch.Recv(); err != nil || first.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Fatalf("watch = %v, %v, want SERVING", first, err)
	}

	drained := make(chan error, 1)
	go func() { drained <- s.Drain(context.Background()) }()
	if second, err := watch.Recv(); err != nil || second.GetStatus() != healthpb.HealthCheckResponse_NOT_SERVING {
		t.Fatalf("watch = %v, %v, want NOT_SERVING at once", second, err)
	}
	if _, err := auth.Check(t.Context(), request(nil)); err != nil {
		t.Errorf("a call after NOT_SERVING: %v, want an answer", err)
	}
	if _, err := watch.Recv(); err == nil { // ends by itself once no new call is taken
		t.Error("the watch goes on")
	}
	if _, err := net.Dial("tcp", addr); err == nil {
		t.Error("still listening after the drain")
	}
	select {
	case err := <-drained:
		t.Fatalf("Drain = %v while a request is held", err)
	default:
	}
	close(release)
	if err := <-held; err != nil {
		t.Errorf("the held request: %v, want its answer", err)
	}
	if err := <-drained; err != nil {
		t.Errorf("Drain = %v", err)
	}
}

func TestDrainGivesUpWithItsContext(t *testing.T) {
	entered := make(chan struct{})
	release := make(chan struct{})
	s, addr := serve(t, envoy.ServerOptions{Drain: time.Hour}, checker{check: func(*authv3.CheckRequest) error {
		close(entered)
		<-release
		return nil
	}})
	failed := make(chan error, 1)
	go func() {
		_, err := authv3.NewAuthorizationClient(plaintext(t, addr)).Check(context.Background(), request(nil))
		failed <- err
	}()
	<-entered
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	drained := make(chan error, 1)
	go func() { drained <- s.Drain(ctx) }()
	if err := <-failed; status.Code(err) != codes.Unavailable {
		t.Errorf("the held request = %v, want it cut off", err)
	}
	close(release)
	if err := <-drained; err != context.Canceled {
		t.Errorf("Drain = %v, want %v", err, context.Canceled)
	}
}

func TestPanicIsOneAnswer(t *testing.T) { onBoth(t, panicIsOneAnswer) }

func panicIsOneAnswer(t *testing.T, listener string) {
	var log bytes.Buffer
	reg := prometheus.NewRegistry()
	_, addr := serveOn(t, listener, envoy.ServerOptions{Log: slog.New(slog.NewJSONHandler(&log, nil)), Metrics: reg}, checker{check: func(r *authv3.CheckRequest) error {
		if len(r.GetAttributes().GetContextExtensions()) > 0 {
			panic("a bug")
		}
		return nil
	}})
	client := authv3.NewAuthorizationClient(plaintext(t, addr))
	if _, err := client.Check(t.Context(), request(map[string]string{"authorization": "s3cret"})); status.Code(err) != codes.Internal || strings.Contains(err.Error(), "a bug") {
		t.Errorf("Check = %v, want INTERNAL without details", err)
	}
	if _, err := client.Check(t.Context(), request(nil)); err != nil {
		t.Errorf("the next Check = %v", err)
	}
	if got := log.String(); !strings.Contains(got, "a bug") || !strings.Contains(got, "server_test.go") || strings.Contains(got, "s3cret") {
		t.Errorf("log %q, want the panic and its stack, and nothing of the request", got)
	}
	want := `
# HELP grpc_server_handled_total RPCs completed on the server, whatever the result.
# TYPE grpc_server_handled_total counter
grpc_server_handled_total{grpc_code="Internal",grpc_method="Check",grpc_service="envoy.service.auth.v3.Authorization",grpc_type="unary"} 1
grpc_server_handled_total{grpc_code="OK",grpc_method="Check",grpc_service="envoy.service.auth.v3.Authorization",grpc_type="unary"} 1
# HELP grpc_server_panics_total Panics in handlers; each was answered INTERNAL and is a bug.
# TYPE grpc_server_panics_total counter
grpc_server_panics_total 1
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "grpc_server_handled_total", "grpc_server_panics_total"); err != nil {
		t.Error(err)
	}
	if problems, err := testutil.GatherAndLint(reg); err != nil || len(problems) > 0 {
		t.Errorf("lint: %v %v", problems, err)
	}
}

func TestLargeRequests(t *testing.T) { onBoth(t, largeRequests) }

func largeRequests(t *testing.T, listener string) {
	_, addr := serveOn(t, listener, envoy.ServerOptions{}, checker{})
	client := authv3.NewAuthorizationClient(plaintext(t, addr))
	for size, want := range map[int]codes.Code{1 << 20: codes.OK, 7 << 20: codes.OK, 9 << 20: codes.ResourceExhausted} {
		r := request(nil)
		r.Attributes.Request.Http.Headers["x-large"] = strings.Repeat("a", size)
		if _, err := client.Check(t.Context(), r); status.Code(err) != want {
			t.Errorf("a header of %d bytes: %v, want %v", size, err, want)
		}
	}
}

// TestPingsAreWelcome pings as Envoy's connection_keepalive does, faster than
// any sensible setting. grpc-go's default sends GOAWAY after the third.
func TestPingsAreWelcome(t *testing.T) { onBoth(t, pingsAreWelcome) }

func pingsAreWelcome(t *testing.T, listener string) {
	_, addr := serveOn(t, listener, envoy.ServerOptions{}, checker{})
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(http2.ClientPreface)); err != nil {
		t.Fatal(err)
	}
	framer := http2.NewFramer(conn, conn)
	if err := framer.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	pace := time.NewTicker(110 * time.Millisecond)
	defer pace.Stop()
	for range 6 {
		<-pace.C
		if err := framer.WritePing(false, [8]byte{1}); err != nil {
			t.Fatal(err)
		}
		for acknowledged := false; !acknowledged; {
			frame, err := framer.ReadFrame()
			if err != nil {
				t.Fatal(err)
			}
			if frame.Header().Type == http2.FrameGoAway {
				t.Fatalf("got %v", frame)
			}
			ping, ok := frame.(*http2.PingFrame)
			acknowledged = ok && ping.IsAck()
		}
	}
}

func TestListenOnUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tollgate.sock")
	first, err := envoy.Listen("unix:" + path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("mode = %v, %v, want 0660", info.Mode(), err)
	}
	if _, err := envoy.Listen("unix:" + path); err == nil {
		t.Error("took a socket that another instance listens on")
	}
	first.(*net.UnixListener).SetUnlinkOnClose(false) // as a killed process leaves it
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second, err := envoy.Listen("unix:" + path)
	if err != nil {
		t.Fatalf("an abandoned socket: %v", err)
	}
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := envoy.Listen("unix:" + path); err == nil {
		t.Error("replaced a file that is no socket")
	}
	if got, err := os.ReadFile(path); string(got) != "precious" {
		t.Errorf("the file is now %q, %v", got, err)
	}
}

func TestMethodKinds(t *testing.T) {
	reg := prometheus.NewRegistry()
	_, addr := serve(t, envoy.ServerOptions{Metrics: reg}, checker{})
	if _, err := healthpb.NewHealthClient(plaintext(t, addr)).Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil {
		t.Fatal(err)
	}
	got := make(map[string]string)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "grpc_server_started_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			labels := make(map[string]string)
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			if strings.HasSuffix(labels["grpc_service"], "Health") {
				got[labels["grpc_method"]] = labels["grpc_type"]
			}
		}
	}
	want := map[string]string{"Check": "unary", "List": "unary", "Watch": "server_stream"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("types of methods (-want +got):\n%s", diff)
	}
}

func request(context map[string]string) *authv3.CheckRequest {
	return &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		ContextExtensions: context,
		Source:            &authv3.AttributeContext_Peer{Address: &corev3.Address{}},
		Request:           &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{Headers: map[string]string{}}},
	}}
}
