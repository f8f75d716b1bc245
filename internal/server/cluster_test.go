package server_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	rlcommonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc/codes"

	"github.com/tollgate-dev/tollgate/limits/redis/redistest"
)

const sharedConsumers = `
consumers:
  - id: billing
    limits: [{quota: 4/day}]
    tokens: [{id: prod, value: s3cret-token-of-billing}]
`

// hit asks the rate limit service for a user's descriptor.
func (r *running) hit(t *testing.T, user string) rlsv3.RateLimitResponse_Code {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	resp, err := rlsv3.NewRateLimitServiceClient(r.conn).ShouldRateLimit(ctx, &rlsv3.RateLimitRequest{Domain: "mesh", Descriptors: []*rlcommonv3.RateLimitDescriptor{
		{Entries: []*rlcommonv3.RateLimitDescriptor_Entry{{Key: "user", Value: user}}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return resp.GetOverallCode()
}

// TestInstancesShareLimits runs two servers on one Redis: a consumer's quota
// and a rule's limit are used up by both together.
func TestInstancesShareLimits(t *testing.T) {
	addr := redistest.Start(t).Addr
	for _, mode := range []string{"leased", "strict"} {
		t.Run(mode, func(t *testing.T) {
			config := base + fmt.Sprintf("consumers: {source: file, file: consumers.yaml}\ncluster: {redis: {addresses: [%q], prefix: %s, timeout: 10s}, mode: %s}\n", addr, mode, mode)
			var all []*running
			for range 2 {
				all = append(all, startShared(t, config))
			}
			admitted := 0
			for i := range 10 {
				if all[i%2].check(t, "s3cret-token-of-billing") == http.StatusOK {
					admitted++
				}
			}
			if admitted != 4 {
				t.Errorf("%d admitted of a quota of 4", admitted)
			}
			ok := 0
			for i := range 4 {
				if all[i%2].hit(t, "anna") == rlsv3.RateLimitResponse_OK {
					ok++
				}
			}
			if ok != 1 {
				t.Errorf("%d of a user's hits pass a limit of 1", ok)
			}
			resp, err := http.Get("http://" + all[1].HTTPAddr() + "/metrics")
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			text, _ := io.ReadAll(resp.Body)
			for _, want := range []string{"tollgate_cluster_up 1", "tollgate_cluster_instances 2", "tollgate_cluster_calls_total"} {
				if !strings.Contains(string(text), want) {
					t.Errorf("metrics lack %s", want)
				}
			}
		})
	}
}

func startShared(t *testing.T, config string) *running {
	t.Helper()
	r := &running{dir: t.TempDir(), log: new(buffer)}
	write(t, r.dir+"/tollgate.yaml", config)
	write(t, r.dir+"/rules.yaml", fmt.Sprintf(rules, 1))
	write(t, r.dir+"/consumers.yaml", sharedConsumers)
	r.start(t)
	return r
}

// TestWithoutRedisItIsReady has no Redis at all: local and allow go on, deny
// says 503, and a change of state is one line of the log.
func TestWithoutRedisItIsReady(t *testing.T) {
	for onError, want := range map[string][]int{"local": {200, 200, 429}, "allow": {200, 200, 200, 200, 200}, "deny": {503}} {
		t.Run(onError, func(t *testing.T) {
			config := base + fmt.Sprintf("consumers: {source: file, file: consumers.yaml}\ncluster: {redis: {addresses: [\"127.0.0.1:1\"]}, on_error: %s, instances: 2}\n", onError)
			r := startShared(t, config)
			resp, err := http.Get("http://" + r.HTTPAddr() + "/readyz")
			if err != nil || resp.StatusCode != http.StatusOK {
				t.Errorf("not ready: %v %v", resp, err)
			}
			resp.Body.Close()
			for i, want := range want {
				if got := r.check(t, "s3cret-token-of-billing"); got != want {
					t.Errorf("request %d: %d, want %d", i, got, want)
				}
			}
			if n := strings.Count(r.log.String(), "the cluster's store is away"); n != 1 {
				t.Errorf("%d lines say that the store is away, want 1", n)
			}
		})
	}
}

// TestTheStoreHoldsUpNobody stalls Redis under a strict limit, of which one
// request waits: others on the same connection of the fast listener, of consumers
// without such a limit, are answered meanwhile.
func TestTheStoreHoldsUpNobody(t *testing.T) {
	for _, mode := range []string{"strict", "leased"} {
		t.Run(mode, func(t *testing.T) {
			s := redistest.Start(t)
			config := strings.Replace(base, "grpc:", `fast: "127.0.0.1:0", grpc:`, 1) +
				fmt.Sprintf("consumers: {source: file, file: consumers.yaml}\ncluster: {redis: {addresses: [%q], timeout: 10s}, mode: %s}\n", s.Addr, mode)
			r := startShared(t, config)
			conn := connect(t, r.FastAddr()) // one connection for all
			if got := ask(t, conn, "s3cret-token-of-billing"); got != codes.OK {
				t.Fatalf("the first: %v", got)
			}
			waits := regexp.MustCompile(`(?m)^tollgate_cluster_waits_total .*`)
			before := waits.FindString(r.text(t, "/metrics"))
			s.Stall()
			defer s.Resume()
			held := make(chan codes.Code, 1)
			go func() { held <- ask(t, conn, "s3cret-token-of-billing") }()
			eventually(t, "it waits for the store", func() bool { return waits.FindString(r.text(t, "/metrics")) != before })
			if got := ask(t, conn, "nobody's"); got != codes.Unauthenticated && got != codes.PermissionDenied {
				t.Errorf("an unknown token: %v", got)
			}
			if len(held) > 0 {
				t.Error("another request was answered after the one that waited for the store")
			}
			s.Resume()
			if got := <-held; got != codes.OK {
				t.Errorf("the request that waited: %v", got)
			}
		})
	}
}
