package endtoend_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/grpc/status"

	"github.com/tollgate-dev/tollgate/envoy"
	"github.com/tollgate-dev/tollgate/envoy/config"
	"github.com/tollgate-dev/tollgate/envoy/envoytest"
	"github.com/tollgate-dev/tollgate/limits/redis/redistest"
)

// How long the soak goes on, and how many requests it sends: `make soak` says
// half an hour; otherwise each kind of trouble comes once.
var (
	soakFor  = flag.Duration("soak", 0, "how long TestSoak goes on; 0: until one instance has had each trouble")
	soakRate = flag.Int("soak.rate", 500, "requests a second of TestSoak, roughly")
)

const (
	tryTimeout  = 3 * time.Second // of one try; the machine may be busy
	callTimeout = 4 * tryTimeout
)

// TestSoak has every supported Envoy and grpc-go's client ask the fast
// listeners of two instances whose connections retire all the time, while one
// instance after the other drains and restarts, dies and comes back, or is not
// heard of for longer than a try may take. Clients cancel and give up beside
// it. No request may fail that was not given up, and nothing may be left
// behind.
func TestSoak(t *testing.T) {
	before, files := runtime.NumGoroutine(), openFiles(t)
	t.Run("troubles", func(t *testing.T) {
		s := newSoak(t)
		start := time.Now()
		for round := 1; ; round++ {
			for i := range s.gates {
				if i > 0 && *soakFor == 0 {
					break // a test like others: one instance has its troubles
				}
				s.restart(t, i)
				s.kill(t, i)
				s.stall(t, i)
			}
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			t.Logf("%v, round %d: %v; %d goroutines, %d files, heap %.1f MiB",
				time.Since(start).Round(time.Second), round, s, runtime.NumGoroutine(), openFiles(t), float64(m.HeapAlloc)/(1<<20))
			if time.Since(start) >= *soakFor || t.Failed() {
				break
			}
		}
		s.end(t)
	})
	envoytest.Eventually(t, func() error {
		if n, f := runtime.NumGoroutine(), openFiles(t); n > before || f > files {
			return fmt.Errorf("%d goroutines and %d files after it all, %d and %d before", n, f, before, files)
		}
		return nil
	})
}

// soak is what runs while instances have their troubles.
type soak struct {
	gates   []*gate
	links   []*link
	envoys  []*envoytest.Envoy
	askers  []*asker
	options envoy.ServerOptions

	stop  context.CancelFunc
	wg    sync.WaitGroup
	tonic func() // waits for tonic's client; nil: it does not ask

	direct, given, cancelled, failed atomic.Int64
}

// String says what was asked so far, and what came of it.
func (s *soak) String() string {
	through := int64(0)
	for _, a := range s.askers {
		through += a.total.Load()
	}
	return fmt.Sprintf("%d requests through Envoy and %d calls of grpc-go's client, %d failed; beside them %d held beyond their deadline, %d cancelled",
		through, s.direct.Load(), s.failed.Load(), s.given.Load(), s.cancelled.Load())
}

func newSoak(t *testing.T) *soak {
	s := &soak{options: envoy.ServerOptions{Drain: 3 * time.Second, MaxConnectionAge: 5 * time.Second}}
	for range 2 {
		g := newSoakedGate(t)
		g.serve(t, redistest.FreeAddr(t), s.options) // which stays free while it is away
		s.gates, s.links = append(s.gates, g), append(s.links, startLink(t, g.addr))
	}
	modes := []config.Mode{config.TwoPhase, config.Fused, config.TwoPhase}
	binaries := envoytest.Binaries(t)
	for i, binary := range binaries {
		e := s.startEnvoy(t, binary, modes[i%len(modes)])
		s.envoys = append(s.envoys, e)
		for _, client := range clients(t, e) {
			interval := time.Duration(2*3*len(binaries)) * time.Second / time.Duration(*soakRate)
			s.askers = append(s.askers, ask(t, client, 2, interval, secretOf("steady", "prod"), s.see(t)))
		}
	}
	t.Logf("the instances can be asked at %s and %s with x-api-key: %s", s.links[0].addr, s.links[1].addr, secretOf("steady", "prod"))
	ctx, cancel := context.WithCancel(t.Context())
	s.stop = cancel
	t.Cleanup(cancel)
	if peer := tonicPeer(t); peer != "" && *soakFor > 0 {
		s.tonic = askByTonic(ctx, t, peer, *soakFor, *soakRate/5, s.links[0].addr, s.links[1].addr)
	}
	client := s.connect(t)
	interval := 4 * time.Second / time.Duration(*soakRate)
	for range 2 {
		s.repeat(ctx, interval, func() { s.call(t, client) })
		s.repeat(ctx, 50*interval, func() { s.giveUp(t, client) })
		s.repeat(ctx, 50*interval, func() { s.cancel(t, client) })
	}
	return s
}

// startEnvoy starts an Envoy whose tries end before its calls do, so that a
// try that hears nothing is made again elsewhere.
func (s *soak) startEnvoy(t *testing.T, binary string, mode config.Mode) *envoytest.Envoy {
	o := config.Options{Mode: mode, Timeout: tryTimeout, Listen: "127.0.0.1:0", Admin: "127.0.0.1:0", Upstream: envoytest.StartUpstream(t).Addr}
	for _, l := range s.links {
		o.Tollgate = append(o.Tollgate, l.addr)
	}
	var b bytes.Buffer
	if err := config.Print(&b, o); err != nil {
		t.Fatal(err)
	}
	whole, parts := fmt.Sprintf(" timeout: %v\n", tryTimeout), fmt.Sprintf(" timeout: %v\n", callTimeout)
	if !strings.Contains(b.String(), whole) {
		t.Fatalf("the configuration has no%s%s", whole, b.String())
	}
	return envoytest.Start(t, binary, bytes.ReplaceAll(b.Bytes(), []byte(whole), []byte(parts)))
}

// see counts and tells a request that did not reach the upstream.
func (s *soak) see(t *testing.T) func(envoytest.Answer, error) {
	must := mustReach(t)
	return func(a envoytest.Answer, err error) {
		if err != nil || !a.Reached || a.Code != codes.OK {
			s.failed.Add(1)
		}
		must(a, err)
	}
}

// connect is a client of both instances that tries again what failed on the
// way.
func (s *soak) connect(t *testing.T) authv3.AuthorizationClient {
	both := manual.NewBuilderWithScheme("both")
	var state resolver.State
	for _, l := range s.links {
		state.Endpoints = append(state.Endpoints, resolver.Endpoint{Addresses: []resolver.Address{{Addr: l.addr}}})
	}
	both.InitialState(state)
	conn, err := grpc.NewClient("both:///", grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithResolvers(both),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig": [{"round_robin": {}}], "methodConfig": [{"name": [{}], "waitForReady": true,
			"retryPolicy": {"maxAttempts": 5, "initialBackoff": "0.05s", "maxBackoff": "1s", "backoffMultiplier": 2, "retryableStatusCodes": ["UNAVAILABLE"]}}]}`))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return authv3.NewAuthorizationClient(conn)
}

func (s *soak) repeat(ctx context.Context, interval time.Duration, do func()) {
	s.wg.Go(func() {
		pace := time.NewTicker(interval)
		defer pace.Stop()
		for ctx.Err() == nil {
			do()
			select {
			case <-pace.C:
			case <-ctx.Done():
			}
		}
	})
}

func (s *soak) call(t *testing.T, client authv3.AuthorizationClient) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	answer, err := client.Check(ctx, checkOf(secretOf("steady", "prod")))
	s.direct.Add(1)
	if err != nil || answer.GetOkResponse() == nil {
		s.fail(t, "a call of grpc-go's client: %v, %v", answer, err)
	}
}

// giveUp asks for what is held, with a deadline that passes, mostly.
func (s *soak) giveUp(t *testing.T, client authv3.AuthorizationClient) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(1+rand.IntN(300))*time.Millisecond)
	defer cancel()
	_, err := client.Check(ctx, checkOf(secretOf("held", "prod")))
	switch status.Code(err) {
	case codes.OK: // a turn, or the refusal of a wait that is longer than the deadline
	case codes.DeadlineExceeded, codes.Canceled: // whichever side's clock was first
		s.given.Add(1)
	default:
		s.fail(t, "a held call beyond its deadline: %v", err)
	}
}

// cancel asks for what is held and resets the stream.
func (s *soak) cancel(t *testing.T, client authv3.AuthorizationClient) {
	ctx, cancel := context.WithCancel(context.Background())
	gone := time.AfterFunc(time.Duration(rand.IntN(100))*time.Millisecond, cancel)
	defer gone.Stop()
	_, err := client.Check(ctx, checkOf(secretOf("held", "prod")))
	switch status.Code(err) {
	case codes.OK:
	case codes.Canceled:
		s.cancelled.Add(1)
	default:
		s.fail(t, "a cancelled call: %v", err)
	}
	cancel()
}

func (s *soak) fail(t *testing.T, format string, args ...any) {
	if s.failed.Add(1) <= 10 {
		t.Errorf(format, args...)
	}
}

// restart drains an instance and starts it anew, as a rolling update does.
func (s *soak) restart(t *testing.T, i int) {
	s.gates[i].drain(t)
	s.comeBack(t, i)
}

// kill ends an instance from one moment to the next, and starts it anew.
func (s *soak) kill(t *testing.T, i int) {
	s.gates[i].server.Close()
	if err := <-s.gates[i].served; err != nil {
		t.Errorf("Serve: %v", err)
	}
	s.comeBack(t, i)
}

// stall lets nobody hear from an instance for longer than a try may take.
func (s *soak) stall(t *testing.T, i int) {
	s.links[i].stall(true)
	<-time.After(tryTimeout + time.Second)
	s.links[i].stall(false)
	s.recover(t)
}

func (s *soak) comeBack(t *testing.T, i int) {
	g := s.gates[i]
	g.serve(t, g.addr, s.options)
	s.recover(t)
}

// recover waits until all Envoys hold both instances for well, and a while
// beyond.
func (s *soak) recover(t *testing.T) {
	for _, e := range s.envoys {
		envoytest.Eventually(t, func() error { return allHealthy(e, len(s.gates)) })
	}
	<-time.After(time.Second)
}

// end stops the clients and looks for what is left.
func (s *soak) end(t *testing.T) {
	for _, a := range s.askers {
		a.stop()
	}
	if t.Failed() {
		s.stop() // tonic's client has its own time otherwise
	}
	if s.tonic != nil {
		s.tonic()
	}
	s.stop()
	s.wg.Wait()
	t.Log(s)
	if n := s.direct.Load(); n < 100 {
		t.Errorf("only %d calls of grpc-go's client", n)
	}
	retried, timedOut := int64(0), int64(0)
	for _, e := range s.envoys {
		retried += e.Stat("cluster.tollgate.upstream_rq_retry_success")
		timedOut += e.Stat("cluster.tollgate.upstream_rq_per_try_timeout")
		if t.Failed() {
			why, err := e.Stats(context.Background(), `^cluster\.tollgate\.(upstream_(cx_connect|cx_destroy|cx_none|rq_retry|rq_timeout|rq_per_try|rq_rx|rq_tx|rq_pending|rq_max|rq_503|rq_504)|health_check\.f|outlier_detection\.ejections_(active|overflow)|lb_healthy_panic)`)
			t.Logf("%v, %v", why, err)
		}
	}
	t.Logf("Envoys: %d tries timed out, %d calls succeeded when tried again", timedOut, retried)
	if retried == 0 || timedOut == 0 {
		t.Error("no try timed out, or none was made again: the troubles were none")
	}
	nothingHeld(t, s.gates...)
}

// checkOf is what Envoy asks for a request with a secret.
func checkOf(secret string) *authv3.CheckRequest {
	return &authv3.CheckRequest{Attributes: &authv3.AttributeContext{Request: &authv3.AttributeContext_Request{
		Http: &authv3.AttributeContext_HttpRequest{Method: "GET", Host: "api", Path: "/", Headers: map[string]string{"x-api-key": secret}},
	}}}
}

// openFiles is how many files this process has open, where that can be told.
func openFiles(t *testing.T) int {
	names, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}
