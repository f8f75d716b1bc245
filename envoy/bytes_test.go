package envoy_test

import (
	"bytes"
	"context"
	"net"
	"strings"
	"sync"
	"testing"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/tollgate-dev/tollgate/envoy"
	"github.com/tollgate-dev/tollgate/envoy/fastgrpc"
)

// parrot answers in bytes. Its answer's body is the request's path, so that
// calls whose buffers were mixed up would be seen.
func parrot(_ context.Context, request, response []byte) ([]byte, error) {
	var req authv3.CheckRequest
	if err := proto.Unmarshal(request, &req); err != nil {
		return response, status.Error(codes.Internal, err.Error())
	}
	path := strings.Clone(req.GetAttributes().GetRequest().GetHttp().GetPath())
	switch path {
	case "/panic":
		panic("asked to")
	case "/error":
		return append(response, "to be forgotten"...), status.Error(codes.InvalidArgument, "asked to")
	}
	answer, err := proto.Marshal(&authv3.CheckResponse{HttpResponse: &authv3.CheckResponse_DeniedResponse{
		DeniedResponse: &authv3.DeniedHttpResponse{Body: path},
	}})
	return append(response, answer...), err
}

func asking(path string) *authv3.CheckRequest {
	return &authv3.CheckRequest{Attributes: &authv3.AttributeContext{Request: &authv3.AttributeContext_Request{
		Http: &authv3.AttributeContext_HttpRequest{Path: path},
	}}}
}

// serveBytes runs a server on both listeners until the test's end.
func serveBytes(t *testing.T, metrics *prometheus.Registry) map[string]string {
	t.Helper()
	s, err := envoy.NewServer(envoy.ServerOptions{Metrics: metrics})
	if err != nil {
		t.Fatal(err)
	}
	s.RegisterBytes(authv3.Authorization_ServiceDesc, checker{}, "Check", parrot)
	addresses := map[string]string{}
	var running sync.WaitGroup
	for name, serve := range map[string]func(net.Listener) error{"grpc": s.Serve, "fast": s.ServeFast} {
		lis, err := envoy.Listen("127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addresses[name] = lis.Addr().String()
		running.Go(func() {
			if err := serve(lis); err != nil {
				t.Errorf("serve %s: %v", name, err)
			}
		})
	}
	t.Cleanup(func() {
		s.Close()
		running.Wait()
	})
	return addresses
}

func TestAnswersInBytes(t *testing.T) {
	metrics := prometheus.NewRegistry()
	for name, addr := range serveBytes(t, metrics) {
		t.Run(name, func(t *testing.T) {
			client := authv3.NewAuthorizationClient(plaintext(t, addr))
			for _, tt := range []struct {
				path string
				code codes.Code
			}{
				{"", codes.OK}, {"/", codes.OK}, {"/error", codes.InvalidArgument}, {"/panic", codes.Internal}, {"/after", codes.OK},
				{"/" + strings.Repeat("x", 3000), codes.OK}, {"/" + strings.Repeat("y", 1<<20), codes.OK}, {"/" + strings.Repeat("z", 9<<20), codes.ResourceExhausted},
			} {
				r, err := client.Check(t.Context(), asking(tt.path))
				if status.Code(err) != tt.code || err == nil && r.GetDeniedResponse().GetBody() != tt.path {
					t.Errorf("Check(%.20q) = %.40v, %v, want code %v and the path", tt.path, r, err, tt.code)
				}
			}
		})
	}
	t.Run("compressed", func(t *testing.T) {
		client := authv3.NewAuthorizationClient(plaintext(t, serveBytes(t, prometheus.NewRegistry())["grpc"]))
		path := "/" + strings.Repeat("x", 3000)
		r, err := client.Check(t.Context(), asking(path), grpc.UseCompressor(gzip.Name))
		if err != nil || r.GetDeniedResponse().GetBody() != path {
			t.Errorf("Check = %.40v, %v, want the path", r, err)
		}
	})
	want := `# HELP grpc_server_panics_total Panics in handlers; each was answered INTERNAL and is a bug.
# TYPE grpc_server_panics_total counter
grpc_server_panics_total 2
`
	if err := testutil.GatherAndCompare(metrics, bytes.NewBufferString(want), "grpc_server_panics_total"); err != nil {
		t.Error(err)
	}
	if n, err := testutil.GatherAndCount(metrics, "grpc_server_handled_total"); err != nil || n != 3 {
		t.Errorf("%d codes were counted, %v, want OK, InvalidArgument and Internal", n, err)
	}
}

// TestBytesOfManyCalls has many calls share the buffers.
func TestBytesOfManyCalls(t *testing.T) {
	for name, addr := range serveBytes(t, prometheus.NewRegistry()) {
		t.Run(name, func(t *testing.T) {
			client := authv3.NewAuthorizationClient(plaintext(t, addr))
			var asked sync.WaitGroup
			for worker := range 16 {
				asked.Go(func() {
					for call := range 100 {
						path := strings.Repeat(string(rune('a'+worker)), 1+call*37)
						r, err := client.Check(t.Context(), asking(path))
						if err != nil || r.GetDeniedResponse().GetBody() != path {
							t.Errorf("Check(%.20q) = %.60v, %v", path, r, err)
							return
						}
					}
				})
			}
			asked.Wait()
		})
	}
}

// TestFastAllocatesNothing is about what lies between the fast transport, which
// has a test of its own, and a handler in bytes.
func TestFastAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector empties pools")
	}
	s, err := envoy.NewServer(envoy.ServerOptions{Metrics: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	s.RegisterBytes(authv3.Authorization_ServiceDesc, checker{}, "Check", func(_ context.Context, request, response []byte) ([]byte, error) {
		return append(response, request...), nil
	})
	handler := s.FastHandler(authv3.Authorization_Check_FullMethodName)
	call, request, room := new(fastgrpc.Call), []byte("asked"), make([]byte, 0, 64)
	if n := testing.AllocsPerRun(200, func() {
		if out, st := handler.ServeUnary(call, request, room); st != (fastgrpc.Status{}) || string(out) != "asked" {
			t.Fatalf("ServeUnary = %q, %v", out, st)
		}
	}); n > 0 {
		t.Errorf("a call took %v allocations, want none", n)
	}
}
