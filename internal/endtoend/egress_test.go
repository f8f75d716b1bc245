package endtoend_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tollgate-dev/tollgate/envoy/config"
	"github.com/tollgate-dev/tollgate/envoy/envoytest"
	"github.com/tollgate-dev/tollgate/envoy/envoytest/throttle"
	"github.com/tollgate-dev/tollgate/internal/server"
)

// outward is a whole Tollgate and an Envoy before an upstream that throttles.
type outward struct{ addr string } // of Envoy

// tollgate starts a whole Tollgate. upstreams is what stands under that key.
func tollgate(t *testing.T, upstreams string) *server.Server {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "tollgate.yaml")
	text := "listen: {grpc: \"unix:" + filepath.Join(dir, "gate.sock") + "\", fast: \"unix:" + filepath.Join(dir, "fast.sock") + "\", http: \"127.0.0.1:0\", drain: 0s}\nupstreams:\n" + upstreams
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := server.Start(t.Context(), server.Options{ConfigPath: path, DataDir: filepath.Join(dir, "data"), Log: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// sendOut starts a Tollgate and an Envoy before an upstream.
func sendOut(t *testing.T, upstreams string, handler http.Handler, e config.Egress) outward {
	t.Helper()
	upstream := httptest.NewServer(handler)
	t.Cleanup(upstream.Close)
	s := tollgate(t, upstreams)
	e.Plaintext = true
	var b bytes.Buffer
	err := config.Print(&b, config.Options{Mode: config.ToEgress, Listen: "127.0.0.1:0", Admin: "127.0.0.1:0", Upstream: upstream.Listener.Addr().String(),
		Tollgate: []string{s.FastAddr()}, Streams: []string{s.GRPCAddr()}, MaxWait: 30 * time.Second, Timeout: 40 * time.Second, Egress: e})
	if err != nil {
		t.Fatal(err)
	}
	return outward{envoytest.Start(t, envoytest.Binary(t), b.Bytes()).Addr("http")}
}

// reply is what a caller got.
type reply struct {
	status int
	header http.Header
	body   string
}

// call makes one call to a host, with pairs of header names and values.
func (o outward) call(ctx context.Context, host string, headers ...string) (reply, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+o.addr+"/api/rest/sm/v1/get_secret", nil)
	if err != nil {
		return reply{}, err
	}
	req.Host = host
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := outwardClient.Do(req)
	if err != nil {
		return reply{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return reply{resp.StatusCode, resp.Header, string(body)}, err
}

// outwardClient uses one connection: hundreds of handshakes at once would be
// what the tests measure.
var outwardClient = &http.Client{Transport: &http.Transport{Protocols: plainHTTP2()}, Timeout: time.Minute}

func plainHTTP2() *http.Protocols {
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	return p
}

// scripted refuses the first call, takes all others, and remembers when they came.
type scripted struct {
	refuse http.HandlerFunc

	mu sync.Mutex
	at []time.Time
}

func (s *scripted) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.at = append(s.at, time.Now())
	first := len(s.at) == 1
	s.mu.Unlock()
	if first {
		s.refuse(w, r)
	}
}

func (s *scripted) times() []time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.at)
}

// TestRefusalStopsEverybody: from the moment on that one caller has a refusal of
// the upstream, nothing reaches it until the time, whoever asks how often. Who
// may wait passes then, all others get an answer of Tollgate's at once.
func TestRefusalStopsEverybody(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		refuse http.HandlerFunc
		pause  time.Duration
		limit  string
	}{
		"403 throttled": {throttle.Refuse, 2 * time.Second, ""},
		"403 gzip": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			w.WriteHeader(http.StatusForbidden)
			z := gzip.NewWriter(w)
			_, _ = io.WriteString(z, `{"error":"throttled"}`)
			_ = z.Close()
		}, 2 * time.Second, ""},
		"bare 429":        {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTooManyRequests) }, 2 * time.Second, ""},
		"503 until later": {func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Retry-After", "3"); w.WriteHeader(503) }, 3 * time.Second, ""},
		"held":            {throttle.Refuse, 2 * time.Second, "limits: [{window: 1000/s, max_wait: 30s}]"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			upstream := &scripted{refuse: c.refuse}
			o := sendOut(t, `
  - id: keeper
    match: {host: keeper.example}
    pressure: {signals: [{status: 429}, {status: 403, body: throttled}, {status: 503, header: retry-after}], initial: 2s, max: 1m, ramp: 100ms}
    answer: keeper
    `+c.limit+"\n", upstream, config.Egress{})
			if r, err := o.call(t.Context(), "keeper.example"); err != nil || r.status < 400 || r.header.Get("x-tollgate-reason") != "" {
				t.Fatalf("the first call: %+v, %v, want the upstream's own refusal", r, err)
			}
			refused := upstream.times()[0]
			var local, passed atomic.Int64
			var callers sync.WaitGroup
			for range 5 {
				callers.Go(func() {
					tick := time.NewTicker(20 * time.Millisecond)
					defer tick.Stop()
					for ; time.Since(refused) < c.pause+time.Second || passed.Load() < 10 && !t.Failed(); <-tick.C {
						r, err := o.call(t.Context(), "keeper.example")
						switch {
						case err != nil:
							t.Error(err)
							return
						case r.status == 200:
							passed.Add(1)
						case checkPressure(t, r):
							local.Add(1)
						}
					}
				})
			}
			callers.Wait()
			at := upstream.times()
			if len(at) < 2 {
				t.Fatal("nothing reached the upstream after the pause")
			}
			if early := at[1].Sub(refused); early < c.pause {
				t.Errorf("the next call came %v after the refusal, want %v", early, c.pause)
			}
			held := c.limit != ""
			if held && local.Load() > 0 {
				t.Errorf("%d were refused that might have waited", local.Load())
			}
			if !held && local.Load() == 0 {
				t.Error("nobody asked meanwhile")
			}
			t.Logf("%d refused here, %d passed, the first %v after the refusal", local.Load(), passed.Load(), at[1].Sub(refused))
		})
	}
}

// checkPressure reports whether a refusal is Tollgate's, in Keeper's style.
func checkPressure(t *testing.T, r reply) bool {
	if r.status != 429 || r.header.Get("x-tollgate-reason") == "" || r.header.Get("retry-after") == "" ||
		!strings.Contains(r.body, `"error":"throttled"`) || !strings.Contains(r.body, `"retry_after":`) {
		t.Errorf("%+v, want a refusal by Tollgate that Keeper's clients understand", r)
		return false
	}
	return true
}

// TestAccessLogStopsEverybody: by the access log a little later.
func TestAccessLogStopsEverybody(t *testing.T) {
	t.Parallel()
	upstream := &scripted{refuse: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTooManyRequests) }}
	o := sendOut(t, `
  - id: models
    match: {host: "*.models.example"}
    pressure: {initial: 1h, max: 1h}
`, upstream, config.Egress{Learn: config.ByAccessLog})
	if r, err := o.call(t.Context(), "api.models.example"); err != nil || r.status != 429 {
		t.Fatalf("the first call: %+v, %v", r, err)
	}
	envoytest.Eventually(t, func() error {
		r, err := o.call(t.Context(), "api.models.example")
		if reason := r.header.Get("x-tollgate-reason"); err != nil || reason != "upstream-pressure" {
			return fmt.Errorf("%d %s, %w", r.status, reason, err)
		}
		return nil
	})
	before := len(upstream.times())
	for range 50 {
		if _, err := o.call(t.Context(), "api.models.example"); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(upstream.times()); n != before {
		t.Errorf("%d calls reached the upstream in the pause", n-before)
	}
	if r, err := o.call(t.Context(), "models.example"); err != nil || r.status != 200 {
		t.Errorf("a host of no upstream: %+v, %v, want it to pass", r, err)
	}
}

// TestHostOfAnUpstreamIsNoWayIn: a client chooses the host that it names, and
// must not get round authentication by an upstream's.
func TestHostOfAnUpstreamIsNoWayIn(t *testing.T) {
	t.Parallel()
	s := tollgate(t, `
  - {id: keeper, match: {host: keeper.example}}
`)
	for _, mode := range []config.Mode{config.Fused, config.TwoPhase} {
		var b bytes.Buffer
		err := config.Print(&b, config.Options{Mode: mode, Listen: "127.0.0.1:0", Admin: "127.0.0.1:0", Upstream: envoytest.StartUpstream(t).Addr,
			Tollgate: []string{s.GRPCAddr()}, Timeout: 5 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		in := outward{addr: envoytest.Start(t, envoytest.Binary(t), b.Bytes()).Addr("http")}
		if r, err := in.call(t.Context(), "keeper.example"); err != nil || r.status != http.StatusUnauthorized {
			t.Errorf("%s: %+v, %v, want 401", mode, r, err)
		}
	}
}

// counting is a throttle that remembers who called.
type counting struct {
	*throttle.Throttle

	mu     sync.Mutex
	called map[string]time.Time // when first
}

func (c *counting) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	if _, again := c.called[r.Header.Get("x-caller")]; !again {
		c.called[r.Header.Get("x-caller")] = time.Now()
	}
	c.mu.Unlock()
	c.Throttle.ServeHTTP(w, r)
}

// TestCallersWhoLeaveTakeNothing: of 500 callers at once half go away while they
// are held. The others get what they want, and what the upstream takes after its
// first silence is all theirs.
func TestCallersWhoLeaveTakeNothing(t *testing.T) {
	const n, leaveAfter = 500, 1500 * time.Millisecond
	upstream := &counting{Throttle: throttle.New(throttle.Options{Model: throttle.IdleReset, N: 200, Window: 6 * time.Second}), called: map[string]time.Time{}}
	o := sendOut(t, `
  - id: keeper
    match: {host: keeper.example}
    limits: [{idle_reset: 200/6s, margin: 10%, max_wait: 30s}]
    pressure: {signals: [{status: 403, body: throttled}]}
`, upstream, config.Egress{})
	began := time.Now()
	var served, left atomic.Int64
	var leftAt [n]time.Time
	var callers sync.WaitGroup
	for i := range n {
		callers.Go(func() {
			ctx := t.Context()
			if i%2 == 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, leaveAfter)
				defer cancel()
			}
			r, err := o.call(ctx, "keeper.example", "x-caller", strconv.Itoa(i))
			switch {
			case errors.Is(err, context.DeadlineExceeded):
				left.Add(1)
				leftAt[i] = time.Now()
			case err != nil || r.status != 200:
				t.Errorf("caller %d: %+v, %v", i, r, err)
			default:
				served.Add(1)
			}
		})
	}
	callers.Wait()
	took := time.Since(began)
	t.Logf("%d served in %v, %d left, %d calls reached the upstream", served.Load(), took, left.Load(), len(upstream.Calls()))
	if n := upstream.Throttled(); n > 0 {
		t.Errorf("%d throttled, want none", n)
	}
	if served.Load()+left.Load() != n || left.Load() < n/4 {
		t.Errorf("%d served and %d left, want %d and most of the half", served.Load(), left.Load(), n)
	}
	for i := 0; i < n; i += 2 {
		// It may take a moment until all know that it left; the next silence ends later.
		if at, called := upstream.called[strconv.Itoa(i)]; called && !leftAt[i].IsZero() && at.Sub(leftAt[i]) > 4*time.Second {
			t.Errorf("caller %d left after %v, and its call went out %v later", i, leftAt[i].Sub(began), at.Sub(leftAt[i]))
		}
	}
}

// TestTwoNamesOneAccount: two stores call by names of their own, and together
// they stay within what the one account allows, and use it.
func TestTwoNamesOneAccount(t *testing.T) {
	upstream := throttle.New(throttle.Options{Model: throttle.IdleReset, N: 100, Window: 2 * time.Second})
	o := sendOut(t, `
  - id: keeper
    match: {host: keeper.example}
    limits: [{idle_reset: 100/2s, margin: 10%, max_wait: 30s}]
    pressure: {signals: [{status: 403, body: throttled}]}
`, upstream, config.Egress{Upstreams: []config.ThrottlingUpstream{{ID: "keeper", Hosts: []string{"keeper.example"}}},
		Aliases: []config.Alias{{Name: "team-a.internal", Host: "keeper.example"}, {Name: "team-b.internal", Host: "keeper.example"}}})
	names := []string{"team-a.internal", "team-b.internal"}
	var served [2]atomic.Int64
	var callers sync.WaitGroup
	began := time.Now()
	for i := range 120 {
		callers.Go(func() {
			for time.Since(began) < 5*time.Second {
				r, err := o.call(t.Context(), names[i%2])
				if err != nil || r.status != 200 {
					t.Errorf("%+v, %v", r, err)
					return
				}
				served[i%2].Add(1)
			}
		})
	}
	callers.Wait()
	took, calls := time.Since(began), upstream.Calls()
	t.Logf("%d and %d served in %v", served[0].Load(), served[1].Load(), took)
	if n := upstream.Throttled(); n > 0 {
		t.Errorf("%d throttled, want none", n)
	}
	if least := int(took/(3*time.Second)) * 90; len(calls) < least {
		t.Errorf("%d calls in %v, want %d", len(calls), took, least)
	}
	if a, b := served[0].Load(), served[1].Load(); a < b/2 || b < a/2 {
		t.Errorf("%d and %d served, want about as many", a, b)
	}
}
