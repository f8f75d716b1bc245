package endtoend_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/tollgate-dev/tollgate/descriptors/consumers"
	"github.com/tollgate-dev/tollgate/internal/admin"
	"github.com/tollgate-dev/tollgate/internal/server"
)

// changing is a server that is asked and changed at the same time.
type changing struct {
	authz  authv3.AuthorizationClient
	client admin.Client
}

func newChanging(t *testing.T) changing {
	t.Helper()
	config := t.TempDir() + "/tollgate.yaml"
	text := "listen: {grpc: '127.0.0.1:0', http: '127.0.0.1:0', drain: 0s}\nlimits: {warm_up: {grace: 0s, ramp: 0s}}\ntelemetry: {audit: audit.log}\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := server.Start(t.Context(), server.Options{ConfigPath: config, DataDir: t.TempDir(), Log: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	conn, err := grpc.NewClient("passthrough:///"+s.GRPCAddr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	many := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	t.Cleanup(many.CloseIdleConnections)
	return changing{authv3.NewAuthorizationClient(conn), admin.Client{Server: "http://" + s.HTTPAddr(), HTTP: many}}
}

// set puts a consumer, whatever it was.
func (c changing) set(ctx context.Context, id, limit string) error {
	var ls consumers.Limits
	if err := ls.UnmarshalJSON([]byte(limit)); err != nil {
		return err
	}
	_, etag, err := c.client.Consumer(ctx, id)
	if err != nil {
		etag = ""
	}
	return c.client.PutConsumer(ctx, admin.Consumer{ID: id, Limits: ls}, etag)
}

func (c changing) newToken(t *testing.T, id, limit string) string {
	t.Helper()
	if err := c.set(t.Context(), id, limit); err != nil {
		t.Fatal(err)
	}
	issued, err := c.client.IssueToken(t.Context(), id, admin.NewToken{ID: "prod"})
	if err != nil {
		t.Fatal(err)
	}
	return issued.Token
}

// check asks once and returns whether it was admitted.
func (c changing) check(token string) (bool, error) {
	resp, err := c.authz.Check(context.Background(), &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Source:  &authv3.AttributeContext_Peer{Address: &corev3.Address{}},
		Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{Method: "GET", Path: "/", Host: "api", Headers: map[string]string{"x-api-key": token}}},
	}})
	return err == nil && resp.GetStatus().GetCode() == 0, err
}

// load has goroutines ask at a fixed pace for a time, and returns how long each
// answer took, in order of length.
func (c changing) load(t *testing.T, tokens []string, askers int, every, lasting time.Duration) []time.Duration {
	t.Helper()
	var mu sync.Mutex
	var took []time.Duration
	var failed atomic.Int64
	var wg sync.WaitGroup
	for i := range askers {
		wg.Go(func() {
			pace := time.NewTicker(every)
			defer pace.Stop()
			var mine []time.Duration
			for end := time.Now().Add(lasting); time.Now().Before(end); <-pace.C {
				began := time.Now()
				if ok, err := c.check(tokens[i%len(tokens)]); !ok && failed.Add(1) <= 5 {
					t.Errorf("a request failed: admitted %v, %v", ok, err)
				}
				mine = append(mine, time.Since(began))
			}
			mu.Lock()
			defer mu.Unlock()
			took = append(took, mine...)
		})
	}
	wg.Wait()
	slices.Sort(took)
	return took
}

func p99(sorted []time.Duration) time.Duration { return sorted[len(sorted)*99/100] }

// TestAThousandChangesASecond: under load no request and no change fails. How fast
// they are is told, and depends on the machine.
func TestAThousandChangesASecond(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	const changers, changes, phase = 40, 2000, 3 * time.Second
	c := newChanging(t)
	var tokens []string
	for i := range changers {
		tokens = append(tokens, c.newToken(t, fmt.Sprint("c", i), `"none"`))
	}
	quiet := func() []time.Duration { return c.load(t, tokens, 8, 5*time.Millisecond, phase) }
	before := quiet()

	var wg sync.WaitGroup
	began := time.Now()
	for i := range changers {
		wg.Go(func() { // 1000 changes a second, all together; the ETag of each is that of the one before
			pace := time.NewTicker(time.Second * changers / 1000)
			defer pace.Stop()
			id, limits := fmt.Sprint("c", i), []consumers.Limits{perSecond(1_000_000, time.Second, 1_000_000), {}}
			for n := range changes / changers {
				if err := c.client.PutConsumer(context.Background(), admin.Consumer{ID: id, Limits: limits[n%2]}, "*"); err != nil {
					t.Errorf("a change failed: %v", err)
					return
				}
				<-pace.C
			}
		})
	}
	var took time.Duration
	all := make(chan struct{})
	go func() { wg.Wait(); took = time.Since(began); close(all) }()
	during := quiet()
	<-all
	rate := changes / took.Seconds()
	after := quiet()
	t.Logf("%.0f changes/s; p99 of %d answers %v before, of %d %v during, of %d %v after; p50 %v, %v, %v", rate,
		len(before), p99(before), len(during), p99(during), len(after), p99(after), before[len(before)/2], during[len(during)/2], after[len(after)/2])
	if rate < 20 { // about what one fsync for each change would allow a slow disk
		t.Errorf("%.0f changes a second, want about 1000", rate)
	}
}

// TestUsageSurvivesChanges: a quota that is written anew all the time, with
// another max_wait, is not a request larger for it.
func TestUsageSurvivesChanges(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	const quota, changes = 500, 300
	c := newChanging(t)
	token := c.newToken(t, "metered", `[{"quota":"500/month"}]`)
	var changed atomic.Int64
	var wg sync.WaitGroup
	defer wg.Wait()
	for i := range 4 {
		wg.Go(func() {
			for n := 0; changed.Load() < changes; n++ {
				var ls consumers.Limits
				if err := ls.UnmarshalJSON(fmt.Appendf(nil, `[{"quota":"500/month","max_wait":"%dms"}]`, 1+(n+i)%2)); err != nil {
					t.Error(err)
					return
				}
				if err := c.client.PutConsumer(context.Background(), admin.Consumer{ID: "metered", Limits: ls}, "*"); err == nil {
					changed.Add(1) // else another was faster
				}
			}
		})
	}
	admitted, asked := 0, 0
	for ; asked < 3*quota || changed.Load() < changes && !t.Failed(); asked++ {
		ok, err := c.check(token)
		if err != nil {
			t.Fatal(err)
		}
		if ok {
			admitted++
		}
	}
	t.Logf("%d of %d were admitted during %d changes", admitted, asked, changed.Load())
	if admitted != quota {
		t.Errorf("%d were admitted under a quota of %d that was changed %d times", admitted, quota, changed.Load())
	}
}
