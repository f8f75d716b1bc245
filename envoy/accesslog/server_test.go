package accesslog_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	datav3 "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"
	alsv3 "github.com/envoyproxy/go-control-plane/envoy/service/accesslog/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/tollgate-dev/tollgate/envoy"
	"github.com/tollgate-dev/tollgate/envoy/accesslog"
	"github.com/tollgate-dev/tollgate/envoy/config"
	"github.com/tollgate-dev/tollgate/envoy/envoytest"
	"github.com/tollgate-dev/tollgate/extauthz/upstreams"
	"github.com/tollgate-dev/tollgate/limits"
)

func models(t *testing.T) (*upstreams.Registry, *limits.Clock) {
	clock := limits.NewClock()
	r := upstreams.New(upstreams.Options{Clock: clock})
	r.Configure([]*upstreams.Config{{ID: "models", Hosts: []string{"api.models.example"}, Signals: []upstreams.Signal{{Status: 429}, {Status: 503, Header: "retry-after"}}}})
	t.Cleanup(func() { _ = r.Close() })
	return r, clock
}

// fakeStream is what Envoy logs.
type fakeStream struct {
	grpc.ServerStream
	ctx      context.Context
	messages []*alsv3.StreamAccessLogsMessage
	lasting  bool // Envoy keeps the stream open
	closed   bool
}

func (s *fakeStream) Context() context.Context { return s.ctx }

func (s *fakeStream) Recv() (*alsv3.StreamAccessLogsMessage, error) {
	if len(s.messages) == 0 {
		if s.lasting {
			<-s.ctx.Done()
			return nil, s.ctx.Err()
		}
		return nil, io.EOF
	}
	m := s.messages[0]
	s.messages = s.messages[1:]
	return m, nil
}

func (s *fakeStream) SendAndClose(*alsv3.StreamAccessLogsResponse) error {
	s.closed = true
	return nil
}

func logged(id, host string, status uint32, details string, header map[string]string) *alsv3.StreamAccessLogsMessage {
	entry := &datav3.HTTPAccessLogEntry{
		CommonProperties: &datav3.AccessLogCommon{Metadata: &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{
			"envoy.filters.http.ext_authz": {Fields: map[string]*structpb.Value{"upstream": structpb.NewStringValue(id)}}}}},
		Request:  &datav3.HTTPRequestProperties{Authority: host},
		Response: &datav3.HTTPResponseProperties{ResponseCode: wrapperspb.UInt32(status), ResponseCodeDetails: details, ResponseHeaders: header},
	}
	return &alsv3.StreamAccessLogsMessage{LogEntries: &alsv3.StreamAccessLogsMessage_HttpLogs{
		HttpLogs: &alsv3.StreamAccessLogsMessage_HTTPAccessLogEntries{LogEntry: []*datav3.HTTPAccessLogEntry{entry}}}}
}

func TestStreamAccessLogs(t *testing.T) {
	const ours = "via_upstream"
	for _, c := range []struct {
		name  string
		entry *alsv3.StreamAccessLogsMessage
		state upstreams.State
		wait  time.Duration
	}{
		{"by id", logged("models", "", 429, ours, nil), upstreams.Frozen, 10 * time.Second},
		{"by host", logged("", "api.models.example:443", 429, ours, nil), upstreams.Frozen, 10 * time.Second},
		{"until later", logged("models", "", 503, ours, map[string]string{"retry-after": "77"}), upstreams.Frozen, 77 * time.Second},
		{"another host", logged("", "models.example", 429, ours, nil), upstreams.Open, 0},
		{"taken", logged("models", "", 200, ours, nil), upstreams.Open, 0},
		{"Tollgate's own", logged("models", "", 429, "ext_authz_denied", nil), upstreams.Open, 0},
		{"passed on from another Tollgate", logged("models", "", 429, ours, map[string]string{"x-tollgate-reason": "rate-limited"}), upstreams.Open, 0},
		{"Envoy's own", logged("models", "", 503, "upstream_reset_before_response_started", map[string]string{"retry-after": "1"}), upstreams.Open, 0},
		{"nothing", &alsv3.StreamAccessLogsMessage{}, upstreams.Open, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			registry, clock := models(t)
			stream := &fakeStream{ctx: t.Context(), messages: []*alsv3.StreamAccessLogsMessage{c.entry}}
			if err := accesslog.New(accesslog.Options{Upstreams: registry, Clock: clock}).StreamAccessLogs(stream); err != nil || !stream.closed {
				t.Errorf("StreamAccessLogs = %v, want a good end", err)
			}
			s := registry.ByID("models").Status(clock.Now())
			if s.State != c.state {
				t.Fatalf("%s, want %s", s.State, c.state)
			}
			if left := s.Until.Sub(clock.Now()); c.wait > 0 && (left > c.wait || left < c.wait-5*time.Second || s.Source != "access-log") {
				t.Errorf("a pause of %v by %s, want %v by access-log", left, s.Source, c.wait)
			}
		})
	}
}

// TestServerStops: a stream of Envoy lasts for ever, and must not hold up the end.
func TestServerStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry, clock := models(t)
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Hour, cancel)
		stream := &fakeStream{ctx: ctx, lasting: true}
		began := time.Now()
		_ = accesslog.New(accesslog.Options{Upstreams: registry, Clock: clock}).StreamAccessLogs(stream)
		if took := time.Since(began); took != time.Hour {
			t.Errorf("ended after %v, want when the server stops", took)
		}
	})
}

// admitting lets every request pass.
type admitting struct {
	authv3.UnimplementedAuthorizationServer
}

func (admitting) Check(context.Context, *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	return &authv3.CheckResponse{}, nil
}

// TestRealEnvoy: of the answers of a real upstream the refusals arrive, and
// nothing else does.
func TestRealEnvoy(t *testing.T) {
	for _, binary := range envoytest.Binaries(t) {
		t.Run(filepath.Base(filepath.Dir(binary)), func(t *testing.T) {
			t.Parallel()
			realEnvoy(t, binary)
		})
	}
}

func realEnvoy(t *testing.T, binary string) {
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		status, _ := strconv.Atoi(r.Header.Get("x-status"))
		w.Header().Set("Retry-After", "77")
		w.WriteHeader(status)
	}))
	t.Cleanup(upstream.Close)
	registry, clock := models(t)
	var served *envoy.Server
	addr := envoytest.Serve(t, func(s *envoy.Server) {
		served = s
		authv3.RegisterAuthorizationServer(s, admitting{})
		alsv3.RegisterAccessLogServiceServer(s, accesslog.New(accesslog.Options{Upstreams: registry, Clock: clock}))
	})
	var b bytes.Buffer
	err := config.Print(&b, config.Options{Mode: config.ToEgress, Listen: "127.0.0.1:0", Admin: "127.0.0.1:0", Upstream: upstream.Listener.Addr().String(),
		Timeout: 10 * time.Second, Tollgate: []string{addr}, Egress: config.Egress{Plaintext: true, Learn: config.ByAccessLog,
			Upstreams: []config.ThrottlingUpstream{{ID: "models", Hosts: []string{"api.models.example"}, Statuses: []int{429, 503}, Headers: []string{"retry-after"}}}}})
	if err != nil {
		t.Fatal(err)
	}
	e := envoytest.Start(t, binary, b.Bytes())
	for _, status := range []int{200, 404, 503} {
		get(t, e.Addr("http"), status)
	}
	envoytest.Eventually(t, func() error {
		if s := registry.ByID("models").Status(clock.Now()); s.State != upstreams.Frozen || s.Until.Sub(clock.Now()) < time.Minute || s.Counts.Taken > 0 {
			return fmt.Errorf("%+v, want a pause of 77 s and to hear of nothing else", s)
		}
		return nil
	})
	// The server ends with Envoy's stream open.
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := served.Drain(ctx); err != nil {
		t.Errorf("Drain: %v", err)
	}
}

func get(t *testing.T, addr string, status int) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "api.models.example"
	req.Header.Set("x-status", strconv.Itoa(status))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != status {
		t.Errorf("HTTP %d, want %d", resp.StatusCode, status)
	}
}
