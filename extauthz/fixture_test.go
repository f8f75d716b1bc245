package extauthz_test

import (
	"context"
	"strings"
	"sync"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"github.com/tollgate-dev/tollgate/descriptors"
	"github.com/tollgate-dev/tollgate/descriptors/consumers"
	"github.com/tollgate-dev/tollgate/extauthz"
	"github.com/tollgate-dev/tollgate/extauthz/upstreams"
	"github.com/tollgate-dev/tollgate/limits"
)

// epoch is when tests begin: a full hour, so that windows are easy to read.
const epoch = limits.Time(1_700_002_800_000_000_000)

var bearer = extauthz.Place{Header: "authorization", Scheme: "Bearer"}

// fixture is a server with what it decides with, and a twin of it that is asked
// in bytes whatever the server is asked.
type fixture struct {
	*extauthz.Server
	tb        testing.TB
	registry  *consumers.Registry
	clock     *limits.Clock
	upstreams *upstreams.Registry
	book      *descriptors.Book
	seen      *recorder
	twin      *fixture
}

type setup struct {
	policy    extauthz.Policy
	consumers []consumers.Consumer // nil: someone
	rules     string
	queue     *limits.Queue
	clock     *limits.Clock // nil: a new one
	random    func() float64
	upstreams []*upstreams.Config

	unobserved bool
}

// someone is billing, with the token prod, whose secret is "sesame".
func someone() []consumers.Consumer {
	return []consumers.Consumer{{
		ID: "billing", Labels: map[string]string{"team": "payments"},
		Tokens: []consumers.Token{{ID: "prod", Hash: consumers.HashOf("sesame")}},
	}}
}

func newFixture(t testing.TB, s setup) *fixture {
	t.Helper()
	if s.clock == nil {
		s.clock = limits.NewClock()
	}
	f := newServer(t, s)
	f.twin = newServer(t, s)
	return f
}

func newServer(t testing.TB, s setup) *fixture {
	t.Helper()
	if s.consumers == nil {
		s.consumers = someone()
	}
	f := &fixture{tb: t, clock: s.clock, registry: consumers.NewRegistry(consumers.RegistryOptions{}), seen: &recorder{}}
	if err := f.registry.Replace(epoch, consumers.Set{Consumers: s.consumers}); err != nil {
		t.Fatal(err)
	}
	f.book = descriptors.NewBook(limits.NewTable(limits.TableOptions{}))
	if s.rules != "" {
		rules, err := descriptors.Parse([]descriptors.File{{Name: "rules.yaml", Data: []byte(s.rules)}}, descriptors.Options{})
		if err != nil {
			t.Fatal(err)
		}
		f.book.Swap(rules)
	}
	if s.random == nil {
		s.random = func() float64 { return 0 }
	}
	out := upstreams.New(upstreams.Options{Clock: s.clock})
	out.Configure(s.upstreams)
	t.Cleanup(func() { _ = out.Close() })
	o := extauthz.Options{Upstreams: out, Registry: f.registry, Book: f.book, Queue: s.queue, Clock: s.clock, Observer: f.seen, Random: s.random}
	if s.unobserved {
		o.Observer = nil
	}
	f.upstreams = out
	f.Server = extauthz.New(o, &s.policy)
	return f
}

// decide decides about v at a time of the test's choice.
func (f *fixture) decide(t testing.TB, at limits.Time, v *extauthz.View) *extauthz.Verdict {
	t.Helper()
	var d extauthz.Verdict
	if err := f.Decide(context.Background(), at, v, &d); err != nil {
		t.Fatalf("Decide(%+v): %v", v, err)
	}
	return &d
}

func (f *fixture) check(t testing.TB, req *authv3.CheckRequest) *authv3.CheckResponse {
	t.Helper()
	r, err := f.Check(context.Background(), req)
	if err != nil {
		t.Fatalf("Check: %v", err)
	}
	return r
}

// recorder is an Observer that keeps what it is told.
type recorder struct {
	mu     sync.Mutex
	events []extauthz.Event
}

func (r *recorder) Observe(e *extauthz.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	kept := *e
	kept.Method, kept.Path, kept.RequestID = strings.Clone(e.Method), strings.Clone(e.Path), strings.Clone(e.RequestID)
	r.events = append(r.events, kept)
}

func (r *recorder) last(t testing.TB) extauthz.Event {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.events) == 0 {
		t.Fatal("the observer was told nothing")
	}
	return r.events[len(r.events)-1]
}

// request is a GET of path with the given headers.
func request(path string, headers map[string]string) *authv3.CheckRequest {
	return &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
			Id: "req-1", Method: "GET", Path: path, Host: "api.example.com", Scheme: "https", Protocol: "HTTP/1.1", Headers: headers,
		}},
	}}
}

// rawRequest is the same as Envoy sends it with encode_raw_headers.
func rawRequest(path string, headers ...[2]string) *authv3.CheckRequest {
	req := request(path, nil)
	list := &corev3.HeaderMap{}
	for _, h := range headers {
		list.Headers = append(list.Headers, &corev3.HeaderValue{Key: h[0], RawValue: []byte(h[1])})
	}
	req.Attributes.Request.Http.HeaderMap = list
	return req
}

func withContext(req *authv3.CheckRequest, pairs ...string) *authv3.CheckRequest {
	m := map[string]string{}
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i]] = pairs[i+1]
	}
	req.Attributes.ContextExtensions = m
	return req
}

// headersOf returns headers as a map, values of one name joined.
func headersOf(options []*corev3.HeaderValueOption) map[string]string {
	m := map[string]string{}
	for _, o := range options {
		if old, ok := m[o.Header.Key]; ok {
			m[o.Header.Key] = old + " | " + o.Header.Value
			continue
		}
		m[o.Header.Key] = o.Header.Value
	}
	return m
}
