package server_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	rlcommonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/tollgate-dev/tollgate/internal/server"
)

// buffer is a log that may be read while it is written.
type buffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// running is a server under test with its files and clients.
type running struct {
	*server.Server
	dir  string
	log  *buffer
	conn *grpc.ClientConn
}

const base = `listen: {grpc: "127.0.0.1:0", http: "127.0.0.1:0", drain: 300ms}
limits: {warm_up: {grace: 0s, ramp: 0s}}
rules: {files: [rules.yaml]}
`

const rules = `domain: mesh
descriptors: [{key: user, rate_limit: {unit: day, requests_per_unit: %d}}]
`

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func start(t *testing.T, config string) *running {
	t.Helper()
	r := &running{dir: t.TempDir(), log: new(buffer)}
	write(t, r.dir+"/tollgate.yaml", config)
	write(t, r.dir+"/rules.yaml", fmt.Sprintf(rules, 1))
	r.start(t)
	return r
}

func (r *running) start(t *testing.T) {
	t.Helper()
	s, err := server.Start(t.Context(), server.Options{ConfigPath: r.dir + "/tollgate.yaml", DataDir: r.dir + "/data", Log: r.log})
	if err != nil {
		t.Fatal(err)
	}
	r.Server = s
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	r.conn, err = grpc.NewClient("passthrough:///"+s.GRPCAddr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.conn.Close() })
}

// check asks for a token and returns the HTTP status that a client would see.
func (r *running) check(t *testing.T, token string) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	resp, err := authv3.NewAuthorizationClient(r.conn).Check(ctx, &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
			Method: "GET", Path: "/a?token=in-the-query", Host: "api", Headers: map[string]string{"x-api-key": token},
		}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if resp.GetStatus().GetCode() == 0 {
		return http.StatusOK
	}
	return int(resp.GetDeniedResponse().GetStatus().GetCode())
}

// overLimit asks the rate limit service for a user.
func (r *running) overLimit(t *testing.T, user string) bool {
	t.Helper()
	resp, err := rlsv3.NewRateLimitServiceClient(r.conn).ShouldRateLimit(t.Context(), &rlsv3.RateLimitRequest{
		Domain:      "mesh",
		Descriptors: []*rlcommonv3.RateLimitDescriptor{{Entries: []*rlcommonv3.RateLimitDescriptor_Entry{{Key: "user", Value: user}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return resp.GetOverallCode() == rlsv3.RateLimitResponse_OVER_LIMIT
}

// send calls the HTTP port and returns the status and the body of the answer.
func (r *running) send(t *testing.T, method, path, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+r.HTTPAddr()+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("content-type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// call is send that decodes a JSON answer into out, if that is not nil.
func (r *running) call(t *testing.T, method, path, body string, out any) int {
	t.Helper()
	status, text := r.send(t, method, path, body)
	if out != nil {
		if err := json.Unmarshal([]byte(text), out); err != nil {
			t.Fatalf("%s %s: %v in %s", method, path, err, text)
		}
	}
	return status
}

func (r *running) must(t *testing.T, status int, method, path, body string, out any) {
	t.Helper()
	if got := r.call(t, method, path, body, out); got != status {
		t.Fatalf("%s %s = %d, want %d", method, path, got, status)
	}
}

func (r *running) newToken(t *testing.T, consumer, limit string) string {
	t.Helper()
	r.must(t, 200, "PUT", "/v1/consumers/"+consumer, `{"limits":"`+limit+`"}`, nil)
	var issued struct{ Token string }
	r.must(t, 201, "POST", "/v1/consumers/"+consumer+"/tokens", `{"id":"prod"}`, &issued)
	return issued.Token
}

func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); <-tick.C {
		if done() {
			return
		}
	}
	t.Fatalf("still not: %s", what)
}

func TestFromChangeToDecision(t *testing.T) {
	r := start(t, base)
	token := r.newToken(t, "billing", "1/h")
	for i, want := range []int{200, 429} {
		if got := r.check(t, token); got != want {
			t.Fatalf("check %d = %d, want %d", i, got, want)
		}
	}
	if got := r.check(t, "guessed"); got != 401 {
		t.Errorf("a guessed token: %d, want 401", got)
	}
	r.must(t, 204, "DELETE", "/v1/consumers/billing/usage", "", nil)
	if got := r.check(t, token); got != 200 {
		t.Errorf("after a reset: %d, want 200", got)
	}
	for _, s := range []struct {
		mode string
		want int
	}{{"shadow", 200}, {"enforce", 429}, {"off", 200}, {"enforce", 429}} {
		r.must(t, 200, "PUT", "/v1/settings", `{"mode":"`+s.mode+`"}`, nil)
		if got := r.check(t, token); got != s.want {
			t.Errorf("mode %s: %d, want %d", s.mode, got, s.want)
		}
	}
	var top struct {
		Top []struct {
			Consumer          string
			Admitted, Refused int
		}
	}
	r.must(t, 200, "GET", "/v1/top", "", &top)
	if len(top.Top) != 1 || top.Top[0].Consumer != "billing" || top.Top[0].Refused != 3 {
		t.Errorf("top = %+v, want billing with 3 refusals", top)
	}
	for _, secret := range []string{token, "in-the-query", "guessed"} {
		if strings.Contains(r.log.String(), secret) {
			t.Errorf("the log holds %q", secret)
		}
	}
}

func TestSettingsOutliveARestartUntilTheFileChanges(t *testing.T) {
	r := start(t, base)
	r.must(t, 200, "PUT", "/v1/settings", `{"mode":"shadow","default_limit":"3/s"}`, nil)
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	r.start(t)
	mode := func() string {
		var s struct {
			Mode    string
			Default string `json:"default_limit"`
		}
		r.must(t, 200, "GET", "/v1/settings", "", &s)
		return s.Mode + " " + s.Default
	}
	if got := mode(); got != "shadow 3/s" {
		t.Errorf("after a restart: %s, want shadow 3/s", got)
	}
	write(t, r.dir+"/tollgate.yaml", strings.Replace(base, "limits: {", "limits: {mode: off, ", 1))
	if err := r.Reload(); err != nil {
		t.Fatal(err)
	}
	if got := mode(); got != "off 3/s" {
		t.Errorf("after a change of the file: %s, want off 3/s", got)
	}
}

func TestReloadIsWholeOrNotAtAll(t *testing.T) {
	r := start(t, base)
	over := func(user string) bool { return r.overLimit(t, user) }
	if over("u") || !over("u") {
		t.Fatal("the rule of 1 an hour does not count")
	}
	write(t, r.dir+"/rules.yaml", fmt.Sprintf(rules, 3))
	eventually(t, "the changed rule is in force", func() bool {
		var c struct {
			LastError *string `json:"last_error"`
		}
		r.must(t, 200, "GET", "/v1/config", "", &c)
		return strings.Contains(r.log.String(), "configuration reloaded")
	})
	if over("u") {
		t.Error("3 an hour, 1 used, and the next is refused")
	}
	write(t, r.dir+"/rules.yaml", "domain: mesh\ndescriptors: [{kee: user}]\n")
	eventually(t, "the bad file is reported", func() bool {
		var c struct {
			LastError *string `json:"last_error"`
		}
		r.must(t, 200, "GET", "/v1/config", "", &c)
		return c.LastError != nil && strings.Contains(*c.LastError, "rules.yaml:2:16")
	})
	if got := []bool{over("u"), over("u")}; !slices.Equal(got, []bool{false, true}) {
		t.Errorf("a bad file changed the rules, or what was used: over limit %v, want false, then true", got)
	}
	if err := r.Reload(); err == nil {
		t.Error("Reload of a bad file says nothing")
	}
	write(t, r.dir+"/rules.yaml", fmt.Sprintf(rules, 3))
	if err := r.Reload(); err != nil {
		t.Errorf("after the repair: %v", err)
	}
}

func TestDrainLosesNothing(t *testing.T) {
	const drain = 3 * time.Second // what is asked meanwhile is asked in time, on a busy machine too
	r := start(t, strings.Replace(base, "drain: 300ms", "drain: "+drain.String(), 1))
	token := r.newToken(t, "billing", "none")
	health := healthpb.NewHealthClient(r.conn)
	if h, err := health.Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil || h.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Fatalf("health = %v, %v", h, err)
	}
	r.must(t, 200, "GET", "/readyz", "", nil)
	done := make(chan error, 1)
	began := time.Now()
	go func() { done <- r.Drain(context.Background()) }()
	eventually(t, "not ready", func() bool { return r.call(t, "GET", "/readyz", "", nil) == 503 })
	if h, err := health.Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil || h.GetStatus() != healthpb.HealthCheckResponse_NOT_SERVING {
		t.Errorf("health while draining = %v, %v", h, err)
	}
	if got := r.check(t, token); got != 200 {
		t.Errorf("a decision while draining: %d, want 200", got)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took < drain {
		t.Errorf("drained after %s, want decisions for %s", took, drain)
	}
	if conn, err := net.Dial("tcp", r.HTTPAddr()); err == nil {
		_ = conn.Close()
		t.Error("the HTTP port still listens")
	}
}

func TestAFailedStartReleasesEverything(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	dir := t.TempDir()
	o := server.Options{ConfigPath: dir + "/tollgate.yaml", DataDir: filepath.Join(dir, "data"), Log: io.Discard}
	write(t, o.ConfigPath, fmt.Sprintf("listen: {grpc: '127.0.0.1:0', http: %q}\n", taken.Addr()))
	if s, err := server.Start(t.Context(), o); err == nil || !strings.Contains(err.Error(), "listen.http: ") {
		t.Fatalf("Start on a taken port = %v, %v", s, err)
	}
	write(t, o.ConfigPath, "listen: {grpc: '127.0.0.1:0', http: '127.0.0.1:0'}\n")
	s, err := server.Start(t.Context(), o) // the data directory is free again
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestFileSourceIsReadOnlyAndRefreshed(t *testing.T) {
	r := &running{dir: t.TempDir(), log: new(buffer)}
	write(t, r.dir+"/rules.yaml", fmt.Sprintf(rules, 1))
	write(t, r.dir+"/tollgate.yaml", base+"consumers: {source: file, file: consumers.yaml}\n")
	write(t, r.dir+"/consumers.yaml", "consumers: [{id: a, limit: none, tokens: [{id: t, value: secret-a}]}]\n")
	r.start(t)
	if got := r.check(t, "secret-a"); got != 200 {
		t.Errorf("a's token: %d, want 200", got)
	}
	r.must(t, 501, "PUT", "/v1/consumers/b", `{}`, nil)
	r.must(t, 501, "POST", "/v1/consumers/a/tokens", `{"id":"x"}`, nil)
	write(t, r.dir+"/consumers.yaml", "consumers: [{id: b, limit: none, tokens: [{id: t, value: secret-b}]}]\n")
	r.must(t, 204, "POST", "/v1/refresh", "", nil)
	if a, b := r.check(t, "secret-a"), r.check(t, "secret-b"); a != 401 || b != 200 {
		t.Errorf("after the refresh a = %d and b = %d, want 401 and 200", a, b)
	}
	write(t, r.dir+"/consumers.yaml", "")
	r.must(t, 422, "POST", "/v1/refresh", "", nil)
	if got := r.check(t, "secret-b"); got != 200 {
		t.Errorf("an empty file changed something: %d, want 200", got)
	}
}
