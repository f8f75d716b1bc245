package server_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/tollgate-dev/tollgate/internal/server"
)

// TestFastListener asks both listeners of one Tollgate: they share buckets,
// held requests hold up nobody, and both drain.
func TestFastListener(t *testing.T) {
	for name, slow := range map[string]string{"decided in line": "rate: 1/h", "some may be held": "rate: 1/200ms, burst: 1, max_wait: 1m"} {
		t.Run(name, func(t *testing.T) { fastListener(t, slow) })
	}
}

func fastListener(t *testing.T, limit string) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write("consumers.yaml", fmt.Sprintf(`
consumers:
  - {id: two, limits: [{rate: 2/h, burst: 2}], tokens: [{id: t, value: token-of-two}]}
  - {id: slow, limits: [{%s}], tokens: [{id: t, value: token-of-slow}]}
`, limit))
	config := write("tollgate.yaml", fmt.Sprintf(`
listen: {grpc: "127.0.0.1:0", fast: "unix:%s/fast.sock", http: "127.0.0.1:0", drain: 0s}
consumers: {source: file, file: consumers.yaml}
limits: {warm_up: {grace: 0s, ramp: 0s}}
`, dir))
	s, err := server.Start(t.Context(), server.Options{ConfigPath: config, DataDir: dir, Log: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	slow, fast := connect(t, s.GRPCAddr()), connect(t, s.FastAddr())

	for i, want := range []codes.Code{codes.OK, codes.OK, codes.ResourceExhausted} {
		conn := fast
		if i == 1 {
			conn = slow
		}
		if got := ask(t, conn, "token-of-two"); (got == codes.OK) != (want == codes.OK) {
			t.Errorf("request %d of a bucket of 2: %v, want %v", i, got, want)
		}
	}
	if ask(t, fast, "token-of-slow") != codes.OK {
		t.Error("the first of a slow consumer is refused")
	}
	held := make(chan codes.Code, 1)
	go func() { held <- ask(t, fast, "token-of-slow") }()
	if got := ask(t, fast, "nobody's"); got != codes.Unauthenticated && got != codes.PermissionDenied {
		t.Errorf("an unknown token: %v, want a refusal", got)
	}
	if got := <-held; (got == codes.OK) != strings.Contains(limit, "max_wait") {
		t.Errorf("one beyond the slow limit: %v, with %q", got, limit)
	}
	health, err := healthpb.NewHealthClient(fast).Check(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil || health.Status != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("health on the fast listener = %v, %v", health, err)
	}
	if _, err := healthpb.NewHealthClient(fast).List(t.Context(), &healthpb.HealthListRequest{}); status.Code(err) != codes.Unimplemented {
		t.Errorf("another call on the fast listener = %v, want UNIMPLEMENTED", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := s.Drain(ctx); err != nil {
		t.Errorf("Drain() = %v", err)
	}
}

func connect(t *testing.T, addr string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// ask is a Check with a bearer token; it returns the code of the decision.
func ask(t *testing.T, conn *grpc.ClientConn, token string) codes.Code {
	t.Helper()
	headers := []*corev3.HeaderValue{{Key: "authorization", Value: "Bearer " + token}}
	answer, err := authv3.NewAuthorizationClient(conn).Check(t.Context(), &authv3.CheckRequest{
		Attributes: &authv3.AttributeContext{Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
			Method: "GET", Path: "/", HeaderMap: &corev3.HeaderMap{Headers: headers},
			Headers: map[string]string{"authorization": "Bearer " + token},
		}}},
	})
	if err != nil {
		t.Errorf("Check: %v", err)
		return codes.Unknown
	}
	return codes.Code(answer.GetStatus().GetCode())
}
