package xds_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	serverv3 "github.com/envoyproxy/go-control-plane/pkg/server/v3"
	rlsconfigv3 "github.com/envoyproxy/go-control-plane/ratelimit/config/ratelimit/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/tollgate-dev/tollgate/descriptors"
	"github.com/tollgate-dev/tollgate/envoy/ratelimit/xds"
)

// management is a management server on a socket file, which can go away and
// come back. It keeps every request that it gets.
type management struct {
	t        *testing.T
	address  string
	cache    cache.SnapshotCache
	server   *grpc.Server
	served   sync.WaitGroup
	requests chan *discoveryv3.DiscoveryRequest
	headers  chan metadata.MD
}

func newManagement(t *testing.T) *management {
	m := &management{
		t:        t,
		address:  filepath.Join(t.TempDir(), "xds.sock"),
		cache:    cache.NewSnapshotCache(true, cache.IDHash{}, nil),
		requests: make(chan *discoveryv3.DiscoveryRequest, 100),
		headers:  make(chan metadata.MD, 100),
	}
	t.Cleanup(func() { m.stop() })
	return m
}

func (m *management) start() {
	m.t.Helper()
	lis, err := net.Listen("unix", m.address)
	if err != nil {
		m.t.Fatal(err)
	}
	callbacks := serverv3.CallbackFuncs{
		StreamOpenFunc: func(ctx context.Context, _ int64, _ string) error {
			md, _ := metadata.FromIncomingContext(ctx)
			m.headers <- md
			return nil
		},
		StreamRequestFunc: func(_ int64, r *discoveryv3.DiscoveryRequest) error {
			m.requests <- r
			return nil
		},
	}
	m.server = grpc.NewServer()
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(m.server, serverv3.NewServer(context.Background(), m.cache, callbacks))
	server := m.server
	m.served.Go(func() { _ = server.Serve(lis) })
}

func (m *management) stop() {
	if m.server != nil {
		m.server.Stop()
		m.served.Wait()
	}
}

// publish offers resources under a version.
func (m *management) publish(version string, resources ...*rlsconfigv3.RateLimitConfig) {
	m.t.Helper()
	list := make([]types.Resource, len(resources))
	for i, r := range resources {
		list[i] = r
	}
	snapshot, err := cache.NewSnapshot(version, map[resource.Type][]types.Resource{resource.RateLimitConfigType: list})
	if err != nil {
		m.t.Fatal(err)
	}
	if err := m.cache.SetSnapshot(context.Background(), "gateway", snapshot); err != nil {
		m.t.Fatal(err)
	}
}

// request returns the next request that a client has sent.
func (m *management) request() *discoveryv3.DiscoveryRequest {
	m.t.Helper()
	return receive(m.t, m.requests, "a request")
}

// receive bounds the wait for what another goroutine is about to send.
func receive[T any](t *testing.T, from <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(time.Minute):
		t.Fatalf("no %s came", what)
		panic("unreachable")
	}
}

func limit(domain, key string) *rlsconfigv3.RateLimitConfig {
	return &rlsconfigv3.RateLimitConfig{Name: domain, Domain: domain, Descriptors: []*rlsconfigv3.RateLimitDescriptor{{
		Key: key, RateLimit: &rlsconfigv3.RateLimitPolicy{Unit: rlsconfigv3.RateLimitUnit_MINUTE, RequestsPerUnit: 7},
	}}}
}

// run starts a client and stops it with the test. Applied rules come as text.
func run(t *testing.T, m *management, o xds.Options, change func(*xds.Client)) (applied chan string, rejected chan error) {
	t.Helper()
	applied, rejected = make(chan string, 100), make(chan error, 100)
	o.Server, o.NodeID = "unix:"+m.address, "gateway"
	o.Apply = func(r *descriptors.Rules) { applied <- r.String() }
	o.Rejected = func(err error) { rejected <- err }
	c, err := xds.New(o)
	if err != nil {
		t.Fatal(err)
	}
	c.SetWait(func(ctx context.Context, _ time.Duration) error { return ctx.Err() })
	if change != nil {
		change(c)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := receive(t, done, "end of Run"); !errors.Is(err, context.Canceled) {
			t.Errorf("Run = %v, want its context's error", err)
		}
	})
	return applied, rejected
}

func line(domain, key string) string {
	return fmt.Sprintf("%s.%s: unit=MINUTE requests_per_unit=7, shadow_mode: false, quota_mode: false\n", domain, key)
}

func TestAppliesAndAcknowledges(t *testing.T) {
	m := newManagement(t)
	m.start()
	m.publish("1", limit("b", "k"), limit("a", "k"))
	applied, _ := run(t, m, xds.Options{
		NodeMetadata: map[string]string{"zone": "z"},
		Headers:      map[string]string{"X-Tenant": "t"},
	}, nil)

	if got, want := receive(t, applied, "rules"), line("a", "k")+line("b", "k"); got != want {
		t.Errorf("applied %q, want %q", got, want)
	}
	if got := receive(t, m.headers, "headers").Get("x-tenant"); len(got) != 1 || got[0] != "t" {
		t.Errorf("header x-tenant = %q, want t", got)
	}
	first := m.request()
	if first.GetTypeUrl() != resource.RateLimitConfigType || first.GetNode().GetId() != "gateway" || first.GetVersionInfo() != "" ||
		first.GetNode().GetMetadata().GetFields()["zone"].GetStringValue() != "z" {
		t.Errorf("first request = %v", first)
	}
	if ack := m.request(); ack.GetVersionInfo() != "1" || ack.GetResponseNonce() == "" || ack.GetErrorDetail() != nil {
		t.Errorf("acknowledgement = %v", ack)
	}

	m.publish("2", limit("a", "other"))
	if got, want := receive(t, applied, "rules"), line("a", "other"); got != want {
		t.Errorf("applied %q, want %q", got, want)
	}
	if ack := m.request(); ack.GetVersionInfo() != "2" || ack.GetErrorDetail() != nil {
		t.Errorf("acknowledgement = %v", ack)
	}

	m.publish("3")
	if got := receive(t, applied, "rules"); got != "" {
		t.Errorf("applied %q, want no rules", got)
	}
}

// held makes a client's waits visible, and ends each when it is received.
func held(waits chan time.Duration) func(*xds.Client) {
	return func(c *xds.Client) {
		c.SetWait(func(ctx context.Context, d time.Duration) error {
			select {
			case waits <- d:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}
}

func TestRefusesBadRulesAndKeepsTheOld(t *testing.T) {
	m := newManagement(t)
	m.start()
	m.publish("good", limit("a", "k"))
	waits := make(chan time.Duration)
	applied, rejected := run(t, m, xds.Options{}, held(waits))
	receive(t, applied, "rules")
	m.request()
	m.request()

	bad := limit("b", "")
	bad.Descriptors[0].RateLimit.Unit = rlsconfigv3.RateLimitUnit_UNKNOWN
	again := limit("a", "k")
	again.Name = "again"
	m.publish("bad", limit("a", "k"), bad, again)
	nack := m.request()
	got := nack.GetErrorDetail().GetMessage()
	for _, want := range []string{
		`: domain "a": already given in a`,
		`b: key is missing: want the key of a descriptor's entry`,
		`b: unit is missing: want one of second, minute, hour, day, week, month, year`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("refusal says\n%s\nwant %s", got, want)
		}
	}
	if nack.GetVersionInfo() != "good" || nack.GetResponseNonce() == "" || nack.GetErrorDetail().GetCode() != 3 {
		t.Errorf("refusal = %v, want the version before and the code of InvalidArgument", nack)
	}
	if err := receive(t, rejected, "a refusal"); err.Error() != nack.GetErrorDetail().GetMessage() {
		t.Errorf("Rejected(%v), but the server is told %q", err, nack.GetErrorDetail().GetMessage())
	}
	select {
	case rules := <-applied:
		t.Errorf("applied %q of a bad update", rules)
	default:
	}

	// The server offers the same again, which the client does not refuse at once.
	for _, want := range []time.Duration{1, 2, 4, 8, 10, 10} {
		if got := receive(t, waits, "a pause"); got != want*time.Second {
			t.Errorf("pause before the next refusal = %v, want %v", got, want*time.Second)
		}
		if nack := m.request(); nack.GetErrorDetail() == nil || nack.GetVersionInfo() != "good" {
			t.Errorf("refusal = %v", nack)
		}
	}
	m.publish("better", limit("c", "k"))
	receive(t, waits, "a pause")
	m.request()
	if got, want := receive(t, applied, "rules"), line("c", "k"); got != want {
		t.Errorf("applied %q, want %q", got, want)
	}
	if ack := m.request(); ack.GetVersionInfo() != "better" || ack.GetErrorDetail() != nil {
		t.Errorf("acknowledgement = %v", ack)
	}
}

func TestMergesDomains(t *testing.T) {
	m := newManagement(t)
	m.start()
	one, two := limit("d", "k"), limit("d", "l")
	one.Name, two.Name = "one", "two"
	m.publish("1", one, two)
	applied, _ := run(t, m, xds.Options{MergeDomains: true}, nil)
	if got := receive(t, applied, "rules"); !strings.Contains(got, line("d", "k")) || !strings.Contains(got, line("d", "l")) {
		t.Errorf("applied %q, want both resources' rules", got)
	}
}

func TestComesBack(t *testing.T) {
	m := newManagement(t)
	m.start()
	m.publish("1", limit("a", "k"))
	waits := make(chan time.Duration)
	applied, _ := run(t, m, xds.Options{Backoff: xds.Backoff{Initial: time.Second, Max: 8 * time.Second, Jitter: -1}}, held(waits))
	receive(t, applied, "rules")
	m.request()
	m.request()
	for range 2 {
		// A server that is gone: the waits grow, and nothing is applied.
		m.stop()
		for _, want := range []time.Duration{1, 2, 4, 8, 8} {
			if got := receive(t, waits, "a wait"); got != want*time.Second {
				t.Errorf("wait = %v, want %v", got, want*time.Second)
			}
		}
		select {
		case rules := <-applied:
			t.Errorf("applied %q without a server", rules)
		default:
		}
		// It comes back, and the same version is asked for and applied anew.
		m.start()
		got := ""
		for got == "" {
			select {
			case got = <-applied:
			case <-waits:
			case <-time.After(time.Minute):
				t.Fatal("the client did not come back")
			}
		}
		if want := line("a", "k"); got != want {
			t.Errorf("applied %q, want %q", got, want)
		}
		if first := m.request(); first.GetVersionInfo() != "" || first.GetNode().GetId() != "gateway" {
			t.Errorf("first request after coming back = %v", first)
		}
		m.request()
	}
}

// answering is a server that sends what it is given, whatever is asked.
type answering struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer
	m         *management
	responses []*discoveryv3.DiscoveryResponse
}

func (a answering) StreamAggregatedResources(s discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	for i := 0; ; i++ {
		r, err := s.Recv()
		if err != nil {
			return err
		}
		a.m.requests <- r
		if i < len(a.responses) {
			if err := s.Send(a.responses[i]); err != nil {
				return err
			}
		}
	}
}

func (m *management) answer(responses ...*discoveryv3.DiscoveryResponse) {
	m.t.Helper()
	lis, err := net.Listen("unix", m.address)
	if err != nil {
		m.t.Fatal(err)
	}
	m.server = grpc.NewServer()
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(m.server, answering{m: m, responses: responses})
	server := m.server
	m.served.Go(func() { _ = server.Serve(lis) })
}

func TestRefusesWhatIsNoRule(t *testing.T) {
	m := newManagement(t)
	good, err := anyOf(limit("a", "k"))
	if err != nil {
		t.Fatal(err)
	}
	wrapped, err := anyOf(&discoveryv3.Resource{Name: "a", Resource: good})
	if err != nil {
		t.Fatal(err)
	}
	other, err := anyOf(&discoveryv3.DiscoveryRequest{})
	if err != nil {
		t.Fatal(err)
	}
	m.answer(
		&discoveryv3.DiscoveryResponse{TypeUrl: "type.googleapis.com/envoy.config.cluster.v3.Cluster", VersionInfo: "1", Nonce: "1"},
		&discoveryv3.DiscoveryResponse{TypeUrl: xds.TypeURL, VersionInfo: "2", Nonce: "2", Resources: anys(good, other)},
		&discoveryv3.DiscoveryResponse{TypeUrl: xds.TypeURL, VersionInfo: "3", Nonce: "3", Resources: anys(good, torn())},
		&discoveryv3.DiscoveryResponse{TypeUrl: xds.TypeURL, VersionInfo: "4", Nonce: "4", Resources: anys(nil)},
		&discoveryv3.DiscoveryResponse{TypeUrl: xds.TypeURL, VersionInfo: "5", Nonce: "5", Resources: anys(wrapped)},
	)
	applied, _ := run(t, m, xds.Options{}, nil)
	m.request()
	for _, nonce := range []string{"1", "2", "3", "4"} {
		nack := m.request()
		if nack.GetErrorDetail().GetMessage() == "" || nack.GetResponseNonce() != nonce || nack.GetVersionInfo() != "" {
			t.Errorf("refusal of %s = %v", nonce, nack)
		}
	}
	if ack := m.request(); ack.GetErrorDetail() != nil || ack.GetVersionInfo() != "5" {
		t.Errorf("acknowledgement = %v", ack)
	}
	if got, want := receive(t, applied, "rules"), line("a", "k"); got != want {
		t.Errorf("applied %q, want %q", got, want)
	}
}

// TestSilentServer: one that answers nothing holds up neither the start nor the end.
func TestSilentServer(t *testing.T) {
	m := newManagement(t)
	m.answer()
	applied, _ := run(t, m, xds.Options{}, nil)
	m.request()
	if len(applied) > 0 {
		t.Errorf("applied %q, which nobody sent", <-applied)
	}
}

func TestLongComplaintsAreShortened(t *testing.T) {
	m := newManagement(t)
	many := limit("a", "k")
	for i := range 1000 {
		d := &rlsconfigv3.RateLimitDescriptor{Key: fmt.Sprint("ü", i)}
		many.Descriptors = append(many.Descriptors, d, d)
	}
	all, err := anyOf(many)
	if err != nil {
		t.Fatal(err)
	}
	m.answer(&discoveryv3.DiscoveryResponse{TypeUrl: xds.TypeURL, VersionInfo: "1", Nonce: "1", Resources: anys(all)})
	_, rejected := run(t, m, xds.Options{}, nil)
	m.request()
	nack := m.request()
	if n := len(nack.GetErrorDetail().GetMessage()); n == 0 || n > 4200 {
		t.Errorf("refusal is %d bytes long, want some and 4200 at most", n)
	}
	if err := receive(t, rejected, "a refusal"); strings.Count(err.Error(), "\n") != 999 {
		t.Errorf("Rejected got %d problems, want 1000", strings.Count(err.Error(), "\n")+1)
	}
}

func TestNewChecksOptions(t *testing.T) {
	apply := func(*descriptors.Rules) {}
	for _, o := range []xds.Options{{}, {Server: "localhost:18000"}, {Apply: apply}, {Server: "nosuch:///\x7f", Apply: apply}} {
		if c, err := xds.New(o); err == nil {
			t.Errorf("New(%+v) = %v, want an error", o, c)
		}
	}
}
