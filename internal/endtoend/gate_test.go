package endtoend_test

import (
	"bytes"
	"context"
	"path/filepath"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"

	"github.com/tollgate-dev/tollgate/descriptors"
	"github.com/tollgate-dev/tollgate/descriptors/consumers"
	"github.com/tollgate-dev/tollgate/envoy"
	"github.com/tollgate-dev/tollgate/envoy/config"
	"github.com/tollgate-dev/tollgate/envoy/envoytest"
	"github.com/tollgate-dev/tollgate/envoy/ratelimit"
	"github.com/tollgate-dev/tollgate/extauthz"
	"github.com/tollgate-dev/tollgate/limits"
)

// domain is that of the rules in all tests.
const domain = "mesh"

// gate is one Tollgate with both services, and what it knows.
type gate struct {
	registry *consumers.Registry
	book     *descriptors.Book
	queue    *limits.Queue
	clock    *limits.Clock
	fast     bool // served on the fast listener

	server *envoy.Server
	served chan error
	addr   string
}

// newGate returns a gate that knows nobody and does not serve yet.
func newGate(t *testing.T, rules ...string) *gate {
	t.Helper()
	g := &gate{clock: limits.NewClock(), registry: consumers.NewRegistry(consumers.RegistryOptions{})}
	g.book = descriptors.NewBook(limits.NewTable(limits.TableOptions{}))
	g.queue = limits.NewQueue(g.clock, limits.QueueOptions{})
	t.Cleanup(func() {
		if g.server != nil {
			g.server.Close()
		}
		g.queue.Close()
	})
	g.setRules(t, rules...)
	return g
}

// setRules puts rules in force, one text for each domain.
func (g *gate) setRules(t *testing.T, texts ...string) {
	t.Helper()
	var files []descriptors.File
	for _, text := range texts {
		files = append(files, descriptors.File{Name: "rules.yaml", Data: []byte(text)})
	}
	parsed, err := descriptors.Parse(files, descriptors.Options{})
	if err != nil {
		t.Fatal(err)
	}
	g.book.Swap(parsed)
}

// put adds a consumer or changes it. Its tokens are secretOf(id, token).
func (g *gate) put(t *testing.T, c consumers.Consumer, tokens ...string) {
	t.Helper()
	for _, token := range tokens {
		c.Tokens = append(c.Tokens, consumers.Token{ID: token, Hash: consumers.HashOf(secretOf(c.ID, token))})
	}
	if err := g.registry.Put(g.clock.Now(), c); err != nil {
		t.Fatal(err)
	}
}

func secretOf(consumer, token string) string { return "secret-of-" + consumer + "-" + token }

// perSecond is a limit without warm-up.
func perSecond(n int64, period time.Duration, burst int64) consumers.Limits {
	return consumers.Limits{{Limit: limits.Limit{Kind: limits.Rate, N: n, Period: period, Burst: burst}}}
}

// serve serves on an address until the test's end, or until stop.
func (g *gate) serve(t *testing.T, address string, o envoy.ServerOptions) {
	t.Helper()
	s, err := envoy.NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	policy := extauthz.Policy{
		Credentials: []extauthz.Place{{Header: "authorization", Scheme: "Bearer"}, {Header: "x-api-key"}},
		Strip:       true,
		Domain:      domain,
		Descriptors: [][]extauthz.Source{{{Key: "path", From: "path"}}},
	}
	authz := extauthz.New(extauthz.Options{Registry: g.registry, Book: g.book, Queue: g.queue, Clock: g.clock}, &policy)
	rls := ratelimit.New(ratelimit.Options{Registry: g.registry, Book: g.book, Queue: g.queue, Clock: g.clock}, ratelimit.Policy{})
	s.RegisterBytes(authv3.Authorization_ServiceDesc, authz, "Check", authz.CheckBytes)
	s.RegisterBytes(rlsv3.RateLimitService_ServiceDesc, rls, "ShouldRateLimit", rls.ShouldRateLimitBytes)
	lis, err := envoy.Listen(address)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	serve := s.Serve
	if g.fast {
		serve = s.ServeFast
	}
	go func() { served <- serve(lis) }()
	g.server, g.served, g.addr = s, served, address
	if lis.Addr().Network() == "tcp" {
		g.addr = lis.Addr().String()
	}
}

// drain shuts down as on SIGTERM.
func (g *gate) drain(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := g.server.Drain(ctx); err != nil {
		t.Errorf("Drain: %v", err)
	}
	if err := <-g.served; err != nil {
		t.Errorf("Serve: %v", err)
	}
}

// wire starts an Envoy on the configuration that is printed for o, before an
// upstream and these gates.
func wire(t *testing.T, o config.Options, gates ...*gate) *envoytest.Envoy {
	t.Helper()
	return wireTo(t, envoytest.Binary(t), o, gates...)
}

// wireTo is wire for an Envoy of the caller's choice.
func wireTo(t *testing.T, binary string, o config.Options, gates ...*gate) *envoytest.Envoy {
	t.Helper()
	o.Listen, o.Admin, o.Upstream = "127.0.0.1:0", "127.0.0.1:0", envoytest.StartUpstream(t).Addr
	for _, g := range gates {
		o.Tollgate = append(o.Tollgate, g.addr)
	}
	if o.Timeout == 0 {
		// The tests share a busy machine; that an answer comes in time is not what they are about.
		o.Timeout = o.MaxWait + 5*time.Second
	}
	var b bytes.Buffer
	if err := config.Print(&b, o); err != nil {
		t.Fatal(err)
	}
	return envoytest.Start(t, binary, b.Bytes())
}

// listeners are both ways to serve a gate: what holds for one holds for the
// other.
func listeners() map[string]bool { return map[string]bool{"grpc": false, "fast": true} }

// clients returns one client for each protocol.
func clients(t *testing.T, e *envoytest.Envoy) map[string]envoytest.Client {
	return clientsOf(t, e, "http")
}

// clientsOf is clients for another listener than the usual one.
func clientsOf(t *testing.T, e *envoytest.Envoy, listener string) map[string]envoytest.Client {
	addr := e.Addr(listener)
	return map[string]envoytest.Client{
		"HTTP1": envoytest.HTTP1(t, addr),
		"HTTP2": envoytest.HTTP2(t, addr),
		"gRPC":  envoytest.GRPC(t, addr),
	}
}

// unixSocket returns an address for a gate in a folder of the test.
func unixSocket(t *testing.T) string {
	return "unix:" + filepath.Join(t.TempDir(), "gate.sock")
}
