package config_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/google/go-cmp/cmp"

	"github.com/tollgate-dev/tollgate/envoy"
	"github.com/tollgate-dev/tollgate/envoy/config"
	"github.com/tollgate-dev/tollgate/envoy/envoytest"
)

// asked is an authorization service that lets everything pass and remembers
// what it was asked.
type asked struct {
	authv3.UnimplementedAuthorizationServer

	mu   sync.Mutex
	last *authv3.AttributeContext
}

func (a *asked) Check(_ context.Context, r *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.last = r.GetAttributes()
	return &authv3.CheckResponse{}, nil
}

func (a *asked) take() *authv3.AttributeContext {
	a.mu.Lock()
	defer a.mu.Unlock()
	last := a.last
	a.last = nil
	return last
}

// api is somebody else's API: it speaks TLS and remembers what it got.
type api struct {
	addr string

	mu   sync.Mutex
	got  []*http.Request
	code int
}

func startAPI(t *testing.T, authority *envoytest.Authority, names ...string) *api {
	t.Helper()
	cert, key := authority.Issue(t, names[0], names...)
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	a := &api{code: http.StatusOK}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.got = append(a.got, r)
		w.Header().Set("x-tollgate-reason", "spoofed")
		w.WriteHeader(a.code)
	}))
	s.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	s.EnableHTTP2 = true
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	a.addr = s.Listener.Addr().String()
	return a
}

// answer makes the API answer so from now on, and returns what it got before.
func (a *api) answer(code int) []*http.Request {
	a.mu.Lock()
	defer a.mu.Unlock()
	got := a.got
	a.got, a.code = nil, code
	return got
}

// serveAuthorization serves until the test's end, and returns where.
func serveAuthorization(t *testing.T, gate *asked) string {
	t.Helper()
	return envoytest.Serve(t, func(s *envoy.Server) { authv3.RegisterAuthorizationServer(s, gate) })
}

func egress(t *testing.T, binary string, o config.Options) (*asked, *envoytest.Envoy) {
	t.Helper()
	gate := &asked{}
	addr := serveAuthorization(t, gate) // and no external processing: answers pass all the same
	o.Mode, o.Listen, o.Admin, o.Timeout, o.Tollgate = config.ToEgress, "127.0.0.1:0", "127.0.0.1:0", 10*time.Second, []string{addr}
	var b bytes.Buffer
	if err := config.Print(&b, o); err != nil {
		t.Fatal(err)
	}
	return gate, envoytest.Start(t, binary, b.Bytes())
}

// call asks through Envoy for a host.
func call(t *testing.T, client *http.Client, scheme, addr, host string, headers ...string) *http.Response {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+addr+"/v1/secret?a=b", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	return resp
}

// TestEgress runs what is printed before an API over TLS.
func TestEgress(t *testing.T) {
	for _, binary := range envoytest.Binaries(t) {
		t.Run(filepath.Base(filepath.Dir(binary)), func(t *testing.T) {
			t.Parallel()
			t.Run("fixed", func(t *testing.T) { egressFixed(t, binary) })
			t.Run("anywhere", func(t *testing.T) { egressAnywhere(t, binary) })
		})
	}
}

func egressFixed(t *testing.T, binary string) {
	authority := envoytest.NewAuthority(t)
	a := startAPI(t, authority, "keepersecurity.com")
	cert, key := authority.Issue(t, "front", "keeper-a.internal", "keepersecurity.com", "eu.keepersecurity.com")
	gate, e := egress(t, binary, config.Options{Upstream: a.addr, Egress: config.Egress{CA: authority.CA, Cert: cert, Key: key,
		Upstreams: []config.ThrottlingUpstream{keeper()}, Aliases: []config.Alias{{Name: "keeper-a.internal", Host: "keepersecurity.com"}}}})
	pem, err := os.ReadFile(authority.CA)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	for _, c := range []struct {
		host, extension string
		status, reached int
	}{
		{"keepersecurity.com", "*", 200, 1},
		{"keeper-a.internal", "keeper", 200, 1},
		{"keeper-a.internal:443", "keeper", 200, 1},
		{"eu.keepersecurity.com", "*", 503, 0}, // the API's certificate is for another name
	} {
		name, _, _ := strings.Cut(c.host, ":")
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, ServerName: name}}
		resp := call(t, &http.Client{Transport: transport}, "https", e.Addr("http"), c.host,
			"Authorization", "Signature abc", "Cookie", "a=b", "User-Agent", "sdk", "X-Tollgate-Consumer", "root", "X-Request-Id", "mine",
			"X-Envoy-Retry-On", "5xx", "X-Envoy-Max-Retries", "3", "X-Envoy-Upstream-Rq-Timeout-Ms", "1")
		transport.CloseIdleConnections()
		got := a.answer(http.StatusOK)
		if resp.StatusCode != c.status || len(got) != c.reached {
			t.Errorf("%s: HTTP %d, %d calls, want %d, %d", c.host, resp.StatusCode, len(got), c.status, c.reached)
		}
		if reason := resp.Header.Get("x-tollgate-reason"); reason != "" {
			t.Errorf("%s: x-tollgate-reason: %s by the API", c.host, reason)
		}
		question := gate.take()
		if x := question.GetContextExtensions()["upstream"]; x != c.extension {
			t.Errorf("%s: Tollgate was asked about the upstream %q, want %q", c.host, x, c.extension)
		}
		for _, secret := range []string{"authorization", "cookie"} {
			if _, ok := question.GetRequest().GetHttp().GetHeaders()[secret]; ok {
				t.Errorf("%s: Tollgate was shown %s", c.host, secret)
			}
		}
		if len(got) == 0 {
			continue
		}
		if r := got[0]; r.TLS.ServerName != "keepersecurity.com" || r.Host != "keepersecurity.com" || r.ProtoMajor != 2 || r.RequestURI != "/v1/secret?a=b" {
			t.Errorf("%s: SNI %q, host %q, %s, %s", c.host, r.TLS.ServerName, r.Host, r.Proto, r.RequestURI)
		}
		want := http.Header{"Authorization": {"Signature abc"}, "Cookie": {"a=b"}, "User-Agent": {"sdk"}, "X-Request-Id": {"mine"}, "Accept-Encoding": {"gzip"}}
		if diff := cmp.Diff(want, got[0].Header); diff != "" {
			t.Errorf("%s: the API got other headers than the caller sent (-want +got):\n%s", c.host, diff)
		}
	}
	// A refusal is passed on as it is, after one attempt.
	a.answer(http.StatusServiceUnavailable)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, ServerName: "keepersecurity.com"}}
	defer transport.CloseIdleConnections()
	resp := call(t, &http.Client{Transport: transport}, "https", e.Addr("http"), "keepersecurity.com", "X-Envoy-Retry-On", "5xx,retriable-status-codes", "X-Envoy-Max-Retries", "3")
	if got := a.answer(http.StatusOK); resp.StatusCode != http.StatusServiceUnavailable || len(got) != 1 {
		t.Errorf("HTTP %d after %d attempts, want 503 after one", resp.StatusCode, len(got))
	}
}

func egressAnywhere(t *testing.T, binary string) {
	authority, stranger := envoytest.NewAuthority(t), envoytest.NewAuthority(t)
	known, unknown := startAPI(t, authority, "localhost"), startAPI(t, stranger, "localhost")
	_, e := egress(t, binary, config.Options{Egress: config.Egress{CA: authority.CA,
		Upstreams: []config.ThrottlingUpstream{{ID: "here", Hosts: []string{"localhost"}}},
		Aliases:   []config.Alias{{Name: "there.internal", Host: "localhost"}}}})
	_, port, _ := net.SplitHostPort(known.addr)
	_, other, _ := net.SplitHostPort(unknown.addr)
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	if resp := call(t, client, "http", e.Addr("http"), "localhost:"+port); resp.StatusCode != 200 || len(known.answer(200)) != 1 {
		t.Errorf("HTTP %d, want the API's answer", resp.StatusCode)
	}
	if resp := call(t, client, "http", e.Addr("http"), "localhost:"+other); resp.StatusCode != 503 || len(unknown.answer(200)) != 0 {
		t.Errorf("an API of another authority: HTTP %d, want 503 and nothing sent", resp.StatusCode)
	}
}
