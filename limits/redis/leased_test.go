package redis

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/tollgate-dev/tollgate/limits"
	"github.com/tollgate-dev/tollgate/limits/limitstest"
	"github.com/tollgate-dev/tollgate/limits/redis/redistest"
)

// step lets the instances do by a fake clock what they do in the background.
func step(all []*Cluster) {
	for _, c := range all {
		if int64(c.now())/int64(time.Millisecond)%tick.Milliseconds() == 0 {
			c.slice(c.now())
		}
		c.renew(c.now())
		c.drain()
	}
}

// drain exchanges about all that is enqueued.
func (c *Cluster) drain() {
	for {
		c.mu.Lock()
		some := c.pending
		c.pending = nil
		c.mu.Unlock()
		if len(some) == 0 {
			return
		}
		c.exchange(context.Background(), c.now(), some)
	}
}

// TestLeasedStaysWithinTheLimit drives three instances, of which the first has
// nine tenths of the traffic, for a while of fake time at several times the
// limit. What is admitted must be what the limit admits at the most, at every
// moment, and nearly all of it.
func TestLeasedStaysWithinTheLimit(t *testing.T) {
	s := redistest.Start(t)
	const sec = time.Second
	for name, c := range map[string]struct {
		limit  limits.Limit
		usable float64
		every  time.Duration // between requests
		calls  float64       // to Redis per decision, at most
	}{
		"hot rate":     {limits.Limit{Kind: limits.Rate, N: 2000, Period: sec}, 0.95, 100 * time.Microsecond, 0.01},
		"rate":         {limits.Limit{Kind: limits.Rate, N: 1000, Period: sec, Burst: 100}, 0.95, 200 * time.Microsecond, 0.06},
		"small rate":   {limits.Limit{Kind: limits.Rate, N: 5, Period: sec}, 0.95, 10 * time.Millisecond, 0.3},
		"window":       {limits.Limit{Kind: limits.Window, N: 200, Period: sec}, 0.95, time.Millisecond, 0.2},
		"small window": {limits.Limit{Kind: limits.Window, N: 5, Period: sec}, 0.95, 10 * time.Millisecond, 0.3},
		"fixed":        {limits.Limit{Kind: limits.FixedWindow, N: 500, Period: sec}, 0.95, time.Millisecond, 0.2},
		"quota":        {limits.Limit{Kind: limits.Quota, N: 500, Calendar: limits.Minute}, 0.95, 4 * time.Millisecond, 0.2},
		"pace":         {limits.Limit{Kind: limits.Pace, N: 20, Period: sec}, 0.90, 5 * time.Millisecond, 0.3},
		"idle_reset":   {limits.Limit{Kind: limits.IdleReset, N: 20, Period: sec}, 0.9, 5 * time.Millisecond, 0.2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			clock := newFake()
			spec := compile(t, c.limit)
			all, own := threeByHand(t, spec, Options{Addresses: []string{s.Addr}, Prefix: "bound/" + name, fake: clock.now})
			rng := rand.New(rand.NewPCG(1, 2))
			model := limitstest.NewModel(spec.Limit())
			most := limitstest.NewModel(spec.Limit())
			var admitted, possible, decided float64
			last := clock.now()
			for clock.now() < last.Add(12*sec) {
				clock.advance(c.every)
				i := 0
				if rng.IntN(10) == 0 {
					i = 1 + rng.IntN(2)
				}
				claims := []limits.Claim{{Limiter: own[i], N: 1}}
				decided++
				refused := limits.Try(clock.now(), claims)
				for range 3 {
					if !claims[0].Decision.Pending {
						break
					}
					step(all)
					refused = limits.Try(clock.now(), claims)
				}
				if most.Take(clock.now(), 1) {
					possible++
				}
				if refused >= 0 {
					own[i].Tally(false)
				} else {
					admitted++
					if !model.Take(clock.now(), 1) {
						t.Fatalf("%v after %v, the limit would have been exceeded", claims[0].Decision, clock.now().Sub(last))
					}
				}
				step(all)
			}
			var calls float64
			for _, i := range all {
				calls += float64(i.stats.calls.Load())
			}
			t.Logf("%.1f%% of what is possible, %.4f calls per decision", 100*admitted/possible, calls/decided)
			if c.limit.Kind != limits.IdleReset && admitted < c.usable*possible {
				t.Errorf("%.0f of %.0f are admitted", admitted, possible)
			}
			if calls > c.calls*decided {
				t.Errorf("%.0f calls for %.0f decisions", calls, decided)
			}
		})
	}
}

// TestLeasedRunsByItself has real time, goroutines and Redis' own clock.
func TestLeasedRunsByItself(t *testing.T) {
	s := redistest.Start(t)
	spec := compile(t, limits.Limit{Kind: limits.Rate, N: 2000, Period: time.Second, Burst: 200})
	clock := limits.NewClock()
	var mu sync.Mutex
	var admitted, possible, decided, calls int64
	var wg sync.WaitGroup
	alone := limitstest.NewModel(spec.Limit())
	began := time.Now()
	var all []*Cluster
	for i := range 3 {
		c := join(t, Options{Addresses: []string{s.Addr}, Clock: clock})
		l := c.limiter(spec, "g", "k")
		all = append(all, c)
		wg.Go(func() {
			var a, d int64
			for time.Since(began) < 2*time.Second {
				for range 10 {
					d++
					if c.take(l, 1).Allowed {
						a++
					}
					mu.Lock()
					if alone.Take(clock.Now(), 1) {
						possible++
					}
					mu.Unlock()
				}
				time.Sleep(time.Duration(1+9*min(i, 1)) * time.Millisecond)
			}
			mu.Lock()
			admitted, decided = admitted+a, decided+d
			mu.Unlock()
		})
	}
	wg.Wait()
	took := time.Since(began)
	for _, c := range all {
		calls += c.stats.calls.Load()
	}
	most := 200 + 2000*took.Seconds()
	t.Logf("%d admitted of at most %.0f, of %d possible, %d decisions, %d calls", admitted, most, possible, decided, calls)
	if float64(admitted) > most*1.01 || float64(admitted) < 0.6*float64(possible) {
		t.Errorf("%d admitted, want at most %.0f and about %d", admitted, most, possible)
	}
	for _, c := range all {
		c.Close()
		if n := c.Stats().Leases; n != 0 {
			t.Errorf("%d leases are held after Close", n)
		}
	}
}

// TestSlicesOfAWindow: what was used is reported as of the tick when it was. What
// came back was used nobody knows when: at first, so that nothing is too early.
func TestSlicesOfAWindow(t *testing.T) {
	s := redistest.Start(t)
	for back, want := range map[int64]string{0: "3/0,5/20000000,", 3: "6/0,2/20000000,"} {
		clock := newFake()
		c := byHand(t, Options{Addresses: []string{s.Addr}, Prefix: "slices" + itoa(int(back)), fake: clock.now})
		own := c.limiter(compile(t, limits.Limit{Kind: limits.Window, N: 10_000, Period: time.Minute}), "g", "k")
		for range 200 {
			clock.advance(time.Millisecond)
			for range 2 {
				own.Take(clock.now(), 1)
				c.drain()
			}
		}
		l := limitOf(own)
		l.enqueue()
		c.drain()
		clock.advance(time.Millisecond)
		used := clock.now()
		own.Take(used, 5)
		l.cut()
		clock.advance(20 * time.Millisecond)
		own.Refund(used, back)
		own.Take(clock.now(), 3+back)
		left := l.cut()
		if got := l.spent(clock.now(), left == 0); got != want {
			t.Errorf("with %d given back: %s, want %s", back, got, want)
		}
	}
}
