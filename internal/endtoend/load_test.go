package endtoend_test

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/tollgate-dev/tollgate/descriptors/consumers"
	"github.com/tollgate-dev/tollgate/envoy"
	"github.com/tollgate-dev/tollgate/envoy/config"
	"github.com/tollgate-dev/tollgate/envoy/envoytest"
	"github.com/tollgate-dev/tollgate/limits"
)

// asker sends requests from many goroutines until it is stopped.
type asker struct {
	wg     sync.WaitGroup
	cancel context.CancelFunc
	total  atomic.Int64
}

// ask has n goroutines send a request every interval each, and hands answers
// to see, which must be safe for concurrent use.
func ask(t *testing.T, client envoytest.Client, n int, interval time.Duration, secret string, see func(envoytest.Answer, error)) *asker {
	ctx, cancel := context.WithCancel(context.Background())
	a := &asker{cancel: cancel}
	for range n {
		a.wg.Go(func() {
			pace := time.NewTicker(interval)
			defer pace.Stop()
			for ctx.Err() == nil {
				answer, err := client.Try(context.Background(), method, "x-api-key", secret)
				a.total.Add(1)
				see(answer, err)
				select {
				case <-pace.C:
				case <-ctx.Done():
				}
			}
		})
	}
	t.Cleanup(a.stop)
	return a
}

func (a *asker) stop() {
	a.cancel()
	a.wg.Wait()
}

// mustReach fails the test, a few times at most, for every request that did not
// reach the upstream.
func mustReach(t *testing.T) func(envoytest.Answer, error) {
	var failed atomic.Int64
	return func(a envoytest.Answer, err error) {
		if err == nil && a.Reached && a.Code == codes.OK {
			return
		}
		if failed.Add(1) <= 5 {
			t.Errorf("a request did not reach the upstream: HTTP %d, gRPC %v, reason %q, body %q, %v",
				a.Status, a.Code, a.Header.Get("x-tollgate-reason"), a.Body, err)
		}
	}
}

// unlimited is more than any test asks for.
func unlimited() consumers.Limits { return perSecond(1_000_000, time.Second, 1_000_000) }

func TestTokensDoNotDisturbEachOther(t *testing.T) {
	t.Parallel()
	for _, mode := range []config.Mode{config.Fused, config.TwoPhase} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			g := newGate(t, "domain: mesh\n")
			g.serve(t, unixSocket(t), envoy.ServerOptions{})
			client := envoytest.HTTP1(t, wire(t, config.Options{Mode: mode}, g).Addr("http"))
			g.put(t, consumers.Consumer{ID: "noisy", Limits: perSecond(5, time.Minute, 5)}, "loud", "quiet")
			g.put(t, consumers.Consumer{ID: "other", Limits: perSecond(5, time.Minute, 5)}, "quiet")

			var admitted, refused atomic.Int64
			loud := ask(t, client, 4, time.Millisecond, secretOf("noisy", "loud"), func(a envoytest.Answer, err error) {
				switch {
				case err == nil && a.Reached:
					admitted.Add(1)
				case err == nil && a.Status == http.StatusTooManyRequests:
					refused.Add(1)
				default:
					t.Errorf("HTTP %d, %v", a.Status, err)
				}
			})
			envoytest.Eventually(t, func() error {
				if refused.Load() < 100 {
					return fmt.Errorf("only %d refused", refused.Load())
				}
				return nil
			})
			// Another token of the same consumer, and one of another: all that is theirs, while the first goes on.
			for _, secret := range []string{secretOf("noisy", "quiet"), secretOf("other", "quiet")} {
				for i := range 5 {
					if a := envoytest.Get(t, client, method, "x-api-key", secret); !a.Reached {
						t.Errorf("request %d of a quiet token: %d, %s", i, a.Status, a.Body)
					}
				}
			}
			loud.stop()
			if got := admitted.Load(); got != 5 && got != 6 { // the sixth if it took 12 s
				t.Errorf("the loud token got %d through, want 5", got)
			}
		})
	}
}

// TestRetryAfterIsEnough: who waits as long as it is told, alone, is admitted.
func TestRetryAfterIsEnough(t *testing.T) {
	t.Parallel()
	g := newGate(t, "domain: mesh\n")
	g.serve(t, unixSocket(t), envoy.ServerOptions{})
	e := wire(t, config.Options{Mode: config.Fused}, g)
	for protocol, client := range clients(t, e) {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			id := "patient-" + protocol
			g.put(t, consumers.Consumer{ID: id, Limits: perSecond(1, time.Second, 1)}, "prod")
			secret := secretOf(id, "prod")
			for range 3 {
				for a := envoytest.Get(t, client, method, "x-api-key", secret); a.Reached; {
					a = envoytest.Get(t, client, method, "x-api-key", secret)
				}
				a := envoytest.Get(t, client, method, "x-api-key", secret)
				if a.Reached {
					continue // this took a second
				}
				seconds, err := strconv.Atoi(a.Header.Get("retry-after"))
				if err != nil {
					t.Fatal(err)
				}
				<-time.After(time.Duration(seconds) * time.Second)
				if a := envoytest.Get(t, client, method, "x-api-key", secret); !a.Reached {
					t.Errorf("after the %d s that were asked for: %s", seconds, a.Body)
				}
			}
		})
	}
}

// TestReloadLosesNothing changes consumers, limits and rules while requests are
// on their way.
func TestReloadLosesNothing(t *testing.T) {
	t.Parallel()
	for _, mode := range []config.Mode{config.Fused, config.TwoPhase} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			g := newGate(t, "domain: mesh\n")
			g.serve(t, unixSocket(t), envoy.ServerOptions{})
			e := wire(t, config.Options{Mode: mode}, g)
			g.put(t, consumers.Consumer{ID: "steady", Limits: unlimited()}, "prod")
			var askers []*asker
			for _, client := range clients(t, e) {
				askers = append(askers, ask(t, client, 2, 2*time.Millisecond, secretOf("steady", "prod"), mustReach(t)))
			}
			tick := time.NewTicker(5 * time.Millisecond)
			defer tick.Stop()
			for i := range 400 {
				<-tick.C
				g.setRules(t, fmt.Sprintf("domain: mesh\ndescriptors:\n- key: path\n  rate_limit: {unit: second, requests_per_unit: %d, algorithm: rate, burst: 1000000}\n", 1_000_000+i))
				g.put(t, consumers.Consumer{ID: "steady", Limits: perSecond(1_000_000+int64(i), time.Second, 1_000_000)}, "prod")
				g.put(t, consumers.Consumer{ID: "other-" + strconv.Itoa(i)}, "prod")
			}
			for _, a := range askers {
				a.stop()
				if n := a.total.Load(); n < 100 {
					t.Errorf("only %d requests were sent", n)
				}
			}
		})
	}
}

// TestRestartLosesNothing restarts two instances one after the other, as a
// rolling update does.
func TestRestartLosesNothing(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes ten seconds")
	}
	for _, mode := range []config.Mode{config.Fused, config.TwoPhase} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			options := envoy.ServerOptions{Drain: 3 * time.Second}
			gates := []*gate{newGate(t, "domain: mesh\n"), newGate(t, "domain: mesh\n")}
			for _, g := range gates {
				g.put(t, consumers.Consumer{ID: "steady", Limits: unlimited()}, "prod")
				g.serve(t, unixSocket(t), options)
			}
			e := wire(t, config.Options{Mode: mode}, gates...)
			var askers []*asker
			for _, client := range clients(t, e) {
				askers = append(askers, ask(t, client, 2, 4*time.Millisecond, secretOf("steady", "prod"), mustReach(t)))
			}
			for i, g := range gates {
				g.drain(t)
				g.serve(t, g.addr, options)
				envoytest.Eventually(t, func() error { return allHealthy(e, len(gates)) })
				if i == 0 {
					continue
				}
				for _, a := range askers {
					envoytest.Eventually(t, func() error { return sent(a, 300) })
					a.stop()
				}
			}
		})
	}
}

// TestKilledInstanceLosesNothing: one of two instances is gone from one moment
// to the next.
func TestKilledInstanceLosesNothing(t *testing.T) {
	t.Parallel()
	gates := []*gate{newGate(t, "domain: mesh\n"), newGate(t, "domain: mesh\n")}
	for _, g := range gates {
		g.put(t, consumers.Consumer{ID: "steady", Limits: unlimited()}, "prod")
		g.serve(t, unixSocket(t), envoy.ServerOptions{})
	}
	e := wire(t, config.Options{Mode: config.Fused}, gates...)
	a := ask(t, envoytest.HTTP1(t, e.Addr("http")), 8, 4*time.Millisecond, secretOf("steady", "prod"), mustReach(t))
	envoytest.Eventually(t, func() error { return sent(a, 200) })
	gates[0].server.Close()
	before := a.total.Load()
	envoytest.Eventually(t, func() error { return sent(a, before+1500) })
	a.stop()
}

func sent(a *asker, want int64) error {
	if n := a.total.Load(); n < want {
		return fmt.Errorf("%d requests sent, want %d", n, want)
	}
	return nil
}

func allHealthy(e *envoytest.Envoy, n int) error {
	stats, err := e.Stats(context.Background(), `^cluster\.tollgate\.membership_healthy$`)
	if err != nil {
		return err
	}
	if got := stats["cluster.tollgate.membership_healthy"]; got != int64(n) {
		return fmt.Errorf("%d healthy, want %d", got, n)
	}
	return nil
}

// TestSaturatingClientGetsItsLimit: after the warm-up, to 2 %.
func TestSaturatingClientGetsItsLimit(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	t.Parallel()
	g := newGate(t, "domain: mesh\n")
	g.registry.SetOptions(g.clock.Now(), consumers.RegistryOptions{WarmUp: limits.WarmUp{Grace: time.Second, Ramp: time.Second}})
	g.serve(t, unixSocket(t), envoy.ServerOptions{})
	var all sync.WaitGroup // not subtests, of which only as many run at once as there are cores
	defer all.Wait()
	for _, mode := range []config.Mode{config.Fused, config.TwoPhase} {
		client := envoytest.HTTP1(t, wire(t, config.Options{Mode: mode}, g).Addr("http"))
		for _, c := range []struct {
			n        int64
			period   time.Duration
			askers   int
			interval time.Duration
		}{
			{1, 2 * time.Second, 1, 10 * time.Millisecond},
			{1, time.Second, 1, 10 * time.Millisecond},
			{5, time.Second, 1, 10 * time.Millisecond},
			{100, time.Second, 4, 5 * time.Millisecond},
		} {
			id := fmt.Sprintf("saturating-%s-%d-in-%v", mode, c.n, c.period)
			// More than by default, so that no turn is lost to who, on a busy machine, asks late.
			burst := 10 * max(1, c.n*int64(time.Second/c.period))
			g.put(t, consumers.Consumer{ID: id, Limits: perSecond(c.n, c.period, burst)}, "prod")
			all.Go(func() {
				saturate(t, client, c.askers, c.interval, id, float64(c.n)/c.period.Seconds())
			})
		}
	}
}

// turn is when a bucket that was empty had a token again: after a request was
// asked that was refused, and before the next was answered that was admitted.
type turn struct{ after, before time.Time }

// saturate measures over 20 s after the warm-up, from one turn to another, so that
// neither what the bucket held nor the edges of the interval count. How exactly
// the two are known is up to the machine.
func saturate(t *testing.T, client envoytest.Client, askers int, interval time.Duration, id string, rate float64) {
	const warmUp, measured = 3 * time.Second, 20 * time.Second
	var mu sync.Mutex
	var asked, inGrace, admitted, upToLast int
	var first, last turn
	var refused time.Time // when it was asked that was refused last, if nothing was admitted since
	began := time.Now()
	var warm time.Time // when the warm-up, which begins with the first request, is over for certain
	see := func(at time.Time, a envoytest.Answer, err error) {
		now := time.Now()
		mu.Lock()
		defer mu.Unlock()
		if asked++; asked == 1 {
			warm = now.Add(warmUp)
		}
		switch {
		case err != nil || !a.Reached && a.Status != http.StatusTooManyRequests:
			t.Errorf("HTTP %d, %v", a.Status, err)
		case !a.Reached && now.Sub(began) < time.Second:
			t.Errorf("%s: refused in the grace", id)
		case !a.Reached:
			refused = at
		case now.Sub(began) < time.Second:
			inGrace++
		case now.After(warm):
			admitted++
			if !refused.IsZero() && first.before.IsZero() {
				first, admitted = turn{refused, now}, 0
			}
			if !refused.IsZero() {
				last, upToLast = turn{refused, now}, admitted
			}
			refused = time.Time{}
		}
	}
	var all sync.WaitGroup
	for range askers {
		all.Go(func() {
			pace := time.NewTicker(interval)
			defer pace.Stop()
			for end := began.Add(warmUp + measured + time.Duration(float64(time.Second)/rate)); time.Now().Before(end); <-pace.C {
				at := time.Now()
				a, err := client.Try(context.Background(), method, "x-api-key", secretOf(id, "prod"))
				see(at, a, err)
			}
		})
	}
	all.Wait()
	shortest, longest := last.after.Sub(first.before), last.before.Sub(first.after)
	if shortest < measured/2 {
		if t.Logf("%s: NOT MEASURED: turns over %v only, of %d asked", id, shortest, asked); float64(asked) > 3*rate*measured.Seconds() {
			t.Errorf("%s: %d were asked, and hardly one of %d admitted had to wait for its turn", id, asked, admitted)
		}
		return
	}
	least, most := float64(upToLast)/longest.Seconds(), float64(upToLast)/shortest.Seconds()
	t.Logf("%s: %.4g/s to %.4g/s over %.1f s; %d in the first second, of %d asked in all", id, least, most, longest.Seconds(), inGrace, asked)
	if most < rate*0.98 || least > rate*1.02 {
		t.Errorf("%s: admitted %.4g/s to %.4g/s, want %g/s ± 2 %%", id, least, most, rate)
	}
}
