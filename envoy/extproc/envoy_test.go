package extproc_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/tollgate-dev/tollgate/envoy"
	"github.com/tollgate-dev/tollgate/envoy/config"
	"github.com/tollgate-dev/tollgate/envoy/envoytest"
	"github.com/tollgate-dev/tollgate/envoy/extproc"
	"github.com/tollgate-dev/tollgate/extauthz/upstreams"
	"github.com/tollgate-dev/tollgate/limits"
)

// admitting lets every request pass and says which upstream it is for: the one
// that the request names.
type admitting struct {
	authv3.UnimplementedAuthorizationServer
}

func (admitting) Check(_ context.Context, r *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	id := structpb.NewStringValue(r.GetAttributes().GetRequest().GetHttp().GetHeaders()["x-upstream"])
	return &authv3.CheckResponse{DynamicMetadata: &structpb.Struct{Fields: map[string]*structpb.Value{"upstream": id}}}, nil
}

// row is an answer of an upstream and what becomes of it.
type row struct {
	status int
	header http.Header
	body   string
	stream bool   // without content-length, in pieces
	method string // empty means GET

	pause time.Duration // 0: none
}

const (
	throttled = `{"path":"https://keeper.example/api/rest/sm/v1/get_secret, POST, Go","additional_info":"throttled","location":"","error":"throttled","message":"get_secret"}`
	first     = 10 * time.Second // the pause when the upstream asks for none
)

// rows are the answers that an upstream may give, and which of them ask for a
// pause under the signals of the preset for Keeper.
func rows() map[string]row {
	long := throttled + strings.Repeat(" ", 1<<20)
	coded := func(body string) row {
		return row{status: 403, header: http.Header{"Content-Encoding": {"gzip"}}, body: body, pause: first}
	}
	return map[string]row{
		"throttled":            {status: 403, body: throttled, pause: first},
		"throttled in pieces":  {status: 403, body: throttled, stream: true, pause: first},
		"result code":          {status: 403, body: `{"result_code":"throttled","message":"wait"}`, pause: first},
		"retry_after":          {status: 403, body: `{"error":"throttled","retry_after":77}`, pause: 77 * time.Second},
		"retry_after as text":  {status: 429, body: `{"error":"throttled","retry_after":"88"}`, pause: 88 * time.Second},
		"no JSON":              {status: 403, body: "<html>you are throttled</html>", pause: first},
		"gzip":                 coded(zipped(throttled)),
		"gzip cut short":       coded(zipped(long)[:300]),
		"gzip of 1 MB":         coded(zipped(long)),
		"said gzip, is not":    coded(throttled),
		"1 MB":                 {status: 403, body: long, pause: first},
		"1 MB in pieces":       {status: 403, body: long, stream: true, pause: first},
		"JSON cut short":       {status: 403, body: `{"error":"throttled","retry_after":`, pause: first},
		"bare 429":             {status: 429, pause: first},
		"429 until later":      {status: 429, header: http.Header{"Retry-After": {"99"}}, pause: 99 * time.Second},
		"503 until later":      {status: 503, header: http.Header{"Retry-After": {"66"}}, body: "later", pause: 66 * time.Second},
		"503":                  {status: 503, body: throttled},
		"access denied":        {status: 403, body: `{"error":"access_denied","message":"no"}`},
		"another key":          {status: 401, body: `{"error":"key","key_id":7}`},
		"denied to look":       {status: 403, body: throttled, method: "HEAD"},
		"behind the first 64K": {status: 403, body: strings.Repeat(" ", 64<<10) + throttled},
		"fine":                 {status: 200, body: throttled},
		"fine and long":        {status: 200, body: long, stream: true},
	}
}

func zipped(s string) string {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = io.WriteString(w, s)
	_ = w.Close()
	return b.String()
}

// TestRealEnvoy shows which answers start a pause and how long it is, that it is
// in force before the caller has the answer, and that the answer arrives as it
// was sent.
func TestRealEnvoy(t *testing.T) {
	for _, binary := range envoytest.Binaries(t) {
		t.Run(filepath.Base(filepath.Dir(binary)), func(t *testing.T) {
			t.Parallel()
			realEnvoy(t, binary)
		})
	}
}

func realEnvoy(t *testing.T, binary string) {
	all := rows()
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		all[r.Header.Get("x-upstream")].write(w)
	}))
	t.Cleanup(upstream.Close)

	// A pause is being kept while Observe has not returned. Meanwhile the caller must not have the answer.
	var answered atomic.Pointer[chan struct{}]
	nobody := make(chan struct{})
	answered.Store(&nobody)
	var early atomic.Bool
	clock := limits.NewClock()
	registry := upstreams.New(upstreams.Options{Clock: clock, Keep: func(string, upstreams.Saved) error {
		select {
		case <-*answered.Load():
			early.Store(true)
		case <-time.After(30 * time.Millisecond): // time for an answer that is on its way to arrive
		}
		return nil
	}})
	var configs []*upstreams.Config
	for name := range all {
		configs = append(configs, &upstreams.Config{ID: name, Signals: []upstreams.Signal{{Status: 429}, {Status: 403, Body: "throttled"}, {Status: 503, Header: "retry-after"}}})
	}
	registry.Configure(configs)
	addr := start(t, binary, upstream.Listener.Addr().String(), extproc.New(extproc.Options{Upstreams: registry, Clock: clock}))
	transport := &http.Transport{DisableCompression: true}
	t.Cleanup(transport.CloseIdleConnections)
	for name, r := range all {
		done := make(chan struct{})
		answered.Store(&done)
		early.Store(false)
		r.check(t, name, transport, addr, func() { close(done) })
		status := registry.ByID(name).Status(clock.Now())
		if r.pause == 0 {
			if status.State != upstreams.Open || status.Counts.Taken+status.Counts.Failed != 1 {
				t.Errorf("%s: %s for %q, %+v, want it seen and open", name, status.State, status.Reason, status.Counts)
			}
			continue
		}
		if left := status.Until.Sub(clock.Now()); status.State != upstreams.Frozen || left > r.pause || left < r.pause-5*time.Second {
			t.Errorf("%s: %s for %v, want a pause of %v", name, status.State, left, r.pause)
		}
		if early.Load() {
			t.Errorf("%s: the caller had the answer before the pause was in force", name)
		}
	}
}

// write answers a request.
func (r row) write(w http.ResponseWriter) {
	for name, values := range r.header {
		w.Header()[name] = values
	}
	w.Header().Set("Set-Cookie", "session=secret")
	w.Header().Set("Server", "keeper")
	if !r.stream {
		w.Header().Set("Content-Length", fmt.Sprint(len(r.body)))
	}
	w.WriteHeader(r.status)
	for rest := r.body; rest != ""; {
		n := min(len(rest), 100<<10)
		if _, err := io.WriteString(w, rest[:n]); err != nil {
			return // HEAD
		}
		rest = rest[n:]
		w.(http.Flusher).Flush()
	}
}

// check asks for the row through Envoy and compares what arrives.
func (r row) check(t *testing.T, name string, transport *http.Transport, addr string, answered func()) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, r.method, "http://"+addr+"/api/rest/sm/v1/get_secret", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "keeper.example:443"
	req.Header.Set("x-upstream", name)
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	answered()
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Errorf("%s: %v", name, err)
	}
	want := r.body
	if r.method == http.MethodHead {
		want = ""
	}
	if resp.StatusCode != r.status || string(body) != want || resp.Header.Get("Server") != "keeper" || resp.Header.Get("Set-Cookie") == "" {
		t.Errorf("%s: the caller got %d, %d bytes, %v", name, resp.StatusCode, len(body), resp.Header)
	}
	if length := resp.Header.Get("Content-Length"); !r.stream && length != fmt.Sprint(len(r.body)) {
		t.Errorf("%s: content-length %q, want %d", name, length, len(r.body))
	}
}

// start runs a server and an Envoy before an upstream and returns where Envoy
// listens.
func start(t *testing.T, binary, upstream string, processor extprocv3.ExternalProcessorServer) string {
	t.Helper()
	addr := envoytest.Serve(t, func(s *envoy.Server) {
		authv3.RegisterAuthorizationServer(s, admitting{})
		extprocv3.RegisterExternalProcessorServer(s, processor)
	})
	var b bytes.Buffer
	err := config.Print(&b, config.Options{Mode: config.ToEgress, Listen: "127.0.0.1:0", Admin: "127.0.0.1:0", Upstream: upstream,
		Timeout: 10 * time.Second, Tollgate: []string{addr}, Egress: config.Egress{Plaintext: true}})
	if err != nil {
		t.Fatal(err)
	}
	return envoytest.Start(t, binary, b.Bytes()).Addr("http")
}
