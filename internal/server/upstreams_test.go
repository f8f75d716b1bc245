package server_test

import (
	"context"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/tollgate-dev/tollgate/internal/admin"
)

const egress = `listen: {grpc: "127.0.0.1:0", fast: "127.0.0.1:0", http: "127.0.0.1:0", drain: 50ms}
upstreams:
  - preset: keeper
    match: {host: keeper.example}
    limits: [{window: 3/1h, max_wait: 2s}]
    budget: {calls: 100/month, alerts: [3%]}
  - id: slow
    match: {host: slow.example}
    limits: [{pace: 1/500ms, max_wait: 1m}]
`

// out asks whether a request to a host may pass, and returns the answer.
func (r *running) out(t *testing.T, conn *grpc.ClientConn, host string) *authv3.CheckResponse {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	resp, err := authv3.NewAuthorizationClient(conn).Check(ctx, &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{Method: "POST", Path: "/api", Host: host}},
	}})
	if err != nil {
		t.Error(err)
		return new(authv3.CheckResponse)
	}
	return resp
}

// answered tells what an upstream answered, as Envoy would, and waits until Tollgate has heard it.
func (r *running) answered(t *testing.T, upstream, status, retryAfter string) {
	t.Helper()
	stream, err := extprocv3.NewExternalProcessorClient(r.conn).Process(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	err = stream.Send(&extprocv3.ProcessingRequest{
		Request: &extprocv3.ProcessingRequest_ResponseHeaders{ResponseHeaders: &extprocv3.HttpHeaders{EndOfStream: true, Headers: &corev3.HeaderMap{
			Headers: []*corev3.HeaderValue{{Key: ":status", RawValue: []byte(status)}, {Key: "retry-after", RawValue: []byte(retryAfter)}}}}},
		MetadataContext: &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{
			"envoy.filters.http.ext_authz": {Fields: map[string]*structpb.Value{"upstream": structpb.NewStringValue(upstream)}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil && err != io.EOF {
		t.Fatal(err)
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
}

func (r *running) upstreams(t *testing.T) map[string]admin.Upstream {
	t.Helper()
	var list admin.Upstreams
	r.must(t, http.StatusOK, "GET", "/v1/upstreams", "", &list)
	byID := map[string]admin.Upstream{}
	for _, u := range list.Upstreams {
		byID[u.ID] = u
	}
	return byID
}

func reason(r *authv3.CheckResponse) string {
	for _, h := range r.GetDeniedResponse().GetHeaders() {
		if h.GetHeader().GetKey() == "x-tollgate-reason" {
			return h.GetHeader().GetValue()
		}
	}
	return ""
}

// A pause that was heard of is in force, in the API and the metrics, and after
// a kill: the store is copied as it was in the moment after.
func TestPauseSurvivesKill(t *testing.T) {
	r := start(t, egress)
	for i, want := range []string{"", "", "", "rate-limited"} {
		if got := reason(r.out(t, r.conn, "keeper.example")); got != want {
			t.Fatalf("request %d: %q, want %q", i, got, want)
		}
	}
	r.answered(t, "keeper", "429", "3600")
	killed := &running{dir: t.TempDir(), log: new(buffer)}
	copyStore(t, r, killed)

	refused := r.out(t, r.conn, "keeper.example")
	if got := reason(refused); got != "upstream-pressure" {
		t.Errorf("after the pause %q, want upstream-pressure", got)
	}
	if body := refused.GetDeniedResponse().GetBody(); !strings.HasPrefix(body, `{"error":"throttled"`) {
		t.Errorf("body %s, want Keeper's", body)
	}
	u := r.upstreams(t)["keeper"]
	if u.State != "frozen" || u.Until == nil || time.Until(*u.Until) < 3500*time.Second || u.Violations != 1 || u.Reason != "429" || u.Budget[0].Used != 3 || u.Limit != 3 {
		t.Errorf("upstream %+v, want frozen for an hour", u)
	}
	if log := r.log.String(); !strings.Contains(log, `"upstream":"keeper","rate"`) {
		t.Errorf("the log does not name the upstream that refused: %s", log)
	}
	metrics := r.text(t, "/metrics")
	for _, want := range []string{
		`tollgate_upstream_state{state="frozen",upstream="keeper"} 1`,
		`tollgate_upstream_requests_total{outcome="passed",upstream="keeper"} 3`,
		`tollgate_upstream_requests_total{outcome="paused",upstream="keeper"} 1`,
		`tollgate_upstream_budget_used_calls{period="month",upstream="keeper"} 3`,
		`tollgate_upstream_budget_alert_ratio{period="month",upstream="keeper"} 0.03`,
		`tollgate_upstream_violations_total{upstream="keeper"} 1`,
	} {
		if !strings.Contains(metrics, want+"\n") {
			t.Errorf("metrics lack %s", want)
		}
	}

	killed.start(t)
	again := killed.upstreams(t)["keeper"]
	if again.State != "frozen" || again.Until == nil || !again.Until.Equal(*u.Until) || again.Budget[0].Used != 3 {
		t.Errorf("after the kill %+v, want frozen until %v with 3 used", again, u.Until)
	}
	if got := reason(killed.out(t, killed.conn, "keeper.example")); got != "upstream-pressure" {
		t.Errorf("after the kill %q, want upstream-pressure", got)
	}
	killed.must(t, http.StatusNoContent, "DELETE", "/v1/upstreams/keeper/pressure", "", nil)
	killed.must(t, http.StatusNotFound, "DELETE", "/v1/upstreams/other/pressure", "", nil)
	if s := killed.upstreams(t)["keeper"]; s.State != "open" || s.Until != nil {
		t.Errorf("after its end %+v, want open", s)
	}
}

// copyStore copies the data directory as a kill would leave it.
func copyStore(t *testing.T, from, to *running) {
	t.Helper()
	if err := os.CopyFS(to.dir, os.DirFS(from.dir)); err != nil {
		t.Fatal(err)
	}
}

func (r *running) text(t *testing.T, path string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+r.HTTPAddr()+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Requests that are held on either listener finish though the server is told to
// stop; a reload in the meantime loses none.
func TestHeldFinishThroughReloadAndStop(t *testing.T) {
	r := start(t, egress)
	fast, err := grpc.NewClient("passthrough:///"+r.FastAddr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer fast.Close()
	var held sync.WaitGroup
	for i := range 10 {
		held.Go(func() {
			conn := []*grpc.ClientConn{r.conn, fast}[i%2]
			if resp := r.out(t, conn, "slow.example"); resp.GetOkResponse() == nil {
				t.Errorf("request %d was refused: %v", i, resp)
			}
		})
	}
	eventually(t, "some are held", func() bool { return r.upstreams(t)["slow"].Waiting >= 5 })
	write(t, r.dir+"/tollgate.yaml", egress+"  - {id: third}\n")
	if err := r.Reload(); err != nil {
		t.Fatal(err)
	}
	if u := r.upstreams(t); u["slow"].Waiting == 0 || u["third"].State != "open" {
		t.Errorf("after the reload %+v, want the queue kept and a third upstream", u)
	}
	if err := r.Drain(t.Context()); err != nil {
		t.Error(err)
	}
	held.Wait()
}
