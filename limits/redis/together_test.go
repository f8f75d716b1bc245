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

// byHand opens an instance whose background a test drives.
func byHand(t *testing.T, o Options) *Cluster {
	t.Helper()
	c := join(t, o)
	c.stop()
	c.running.Wait()
	return c
}

// threeByHand returns three such instances, and the limiter that they share as each
// of them has it.
func threeByHand(t *testing.T, spec *limits.Spec, o Options) (all []*Cluster, own []*limits.Limiter) {
	t.Helper()
	for range 3 {
		c := byHand(t, o)
		all, own = append(all, c), append(own, c.limiter(spec, "g", "k"))
	}
	return all, own
}

// TestTheWarmUpIsOneForAll opens a limit gently on two instances at once; a
// third that comes later finds the grace over.
func TestTheWarmUpIsOneForAll(t *testing.T) {
	s := redistest.Start(t)
	for _, mode := range []Mode{Leased, Strict} {
		clock := newFake()
		o := Options{Addresses: []string{s.Addr}, fake: clock.now, Mode: mode, Prefix: "warm/" + string(mode)}
		spec := compile(t, limits.Limit{Kind: limits.Rate, N: 10, Period: time.Second, WarmUp: limits.WarmUp{Grace: time.Second, Ramp: time.Second, Idle: time.Hour}})
		all := []*Cluster{join(t, o), join(t, o), join(t, o)}
		var own []*limits.Limiter
		for _, c := range all {
			own = append(own, c.limiter(spec, "g", "k"))
		}
		var grace, ramp, after, late int
		begin := clock.now()
		for clock.now() < begin.Add(5*time.Second) {
			clock.advance(5 * time.Millisecond)
			since := clock.now().Sub(begin) - 5*time.Millisecond
			for i, c := range all[:2] {
				switch d := c.take(own[i], 1); {
				case since < time.Second && !d.Allowed:
					t.Fatalf("%s: refused in the grace, after %v: %+v", mode, since, d)
				case !d.Allowed:
				case since < time.Second:
					grace++
				case since < 2*time.Second:
					ramp++
				default:
					after++
				}
			}
			if since > 3*time.Second && all[2].take(own[2], 1).Allowed {
				late++
			}
		}
		// The ramp comes down linearly from what was seen in the grace.
		if grace != 400 || ramp < 50 || ramp > 10+(grace+10)/2 {
			t.Errorf("%s: %d in the grace, %d in the ramp", mode, grace, ramp)
		}
		if total := after + late; total < 28 || total > 31 || late > 20 {
			t.Errorf("%s: in the three seconds after it %d, of which %d by the instance that came late; want 30", mode, total, late)
		}
	}
}

// TestRequestsAreHeld has requests wait for their turn at a limit that is shared.
func TestRequestsAreHeld(t *testing.T) {
	s := redistest.Start(t)
	for _, mode := range []Mode{Leased, Strict} {
		clock := limits.NewClock()
		c := join(t, Options{Addresses: []string{s.Addr}, Clock: clock, Mode: mode, Prefix: "held/" + string(mode)})
		q := limits.NewQueue(clock, limits.QueueOptions{})
		l := c.limiter(compile(t, limits.Limit{Kind: limits.Pace, N: 20, Period: time.Second, MaxWait: 5 * time.Second}), "g", "k")
		began := time.Now()
		var wg sync.WaitGroup
		for range 6 {
			wg.Go(func() {
				claims := []limits.Claim{{Limiter: l, N: 1}}
				if refused, err := c.TakeAll(context.Background(), q, clock.Now(), claims); refused >= 0 || err != nil {
					t.Errorf("%s: %d, %v: %+v", mode, refused, err, claims)
				}
			})
		}
		wg.Wait()
		if took := time.Since(began); took < 249*time.Millisecond || took > patience {
			t.Errorf("%s: six at 20/s took %v, want 250ms", mode, took)
		}
		q.Close()
	}
}

// TestInstancesComeAndGo scales from one to five and down to two, without a
// word of those who go: the limit holds throughout, and is soon usable again.
func TestInstancesComeAndGo(t *testing.T) {
	s := redistest.Start(t)
	clock := newFake()
	spec := compile(t, limits.Limit{Kind: limits.Rate, N: 500, Period: time.Second})
	model := limitstest.NewModel(spec.Limit())
	rng := rand.New(rand.NewPCG(3, 4))
	var all []*Cluster
	var own []*limits.Limiter
	for _, n := range []int{1, 5, 2} {
		for len(all) < n {
			c := byHand(t, Options{Addresses: []string{s.Addr}, fake: clock.now})
			all, own = append(all, c), append(own, c.limiter(spec, "g", "k"))
		}
		all, own = all[:n], own[:n]
		admitted, began := 0, clock.now()
		for clock.now() < began.Add(8*time.Second) {
			clock.advance(500 * time.Microsecond)
			i := rng.IntN(n)
			claims := []limits.Claim{{Limiter: own[i], N: 1}}
			refused := limits.Try(clock.now(), claims)
			if claims[0].Decision.Pending {
				step(all)
				refused = limits.Try(clock.now(), claims)
			}
			if refused < 0 && !claims[0].Decision.Pending {
				admitted++
				if !model.Take(clock.now(), 1) {
					t.Fatalf("with %d instances, after %v: beyond the limit", n, clock.now().Sub(began))
				}
			}
			step(all)
		}
		if want := 500 * 8 * 95 / 100; admitted < want {
			t.Errorf("with %d instances %d were admitted, want %d at least", n, admitted, want)
		}
	}
}

// TestAResetIsForAll gives back what was used, on every instance.
func TestAResetIsForAll(t *testing.T) {
	s := redistest.Start(t)
	for _, mode := range []Mode{Leased, Strict} {
		clock := newFake()
		o := Options{Addresses: []string{s.Addr}, fake: clock.now, Mode: mode, Prefix: "reset/" + string(mode)}
		c, d := join(t, o), join(t, o)
		spec := compile(t, limits.Limit{Kind: limits.Quota, N: 3, Calendar: limits.Day})
		a, b := c.limiter(spec, "g", "k"), d.limiter(spec, "g", "k")
		for range 5 {
			c.take(a, 1)
			d.take(b, 1)
		}
		a.Reset(clock.now())
		eventually(t, 5*time.Second, func() bool { return c.take(a, 1).Allowed }, func() string { return string(mode) + ": still used up" })
	}
}

// TestAChangeOfLimitCountsAtOnce raises a quota that is used up, and lowers one
// of which much is in hand.
func TestAChangeOfLimitCountsAtOnce(t *testing.T) {
	s := redistest.Start(t)
	for _, mode := range []Mode{Leased, Strict} {
		clock := newFake()
		c := join(t, Options{Addresses: []string{s.Addr}, fake: clock.now, Mode: mode, Prefix: "change/" + string(mode)})
		quota := func(n int64) *limits.Spec {
			return compile(t, limits.Limit{Kind: limits.Quota, N: n, Calendar: limits.Day})
		}
		l := c.limiter(quota(4), "g", "k")
		for c.take(l, 1).Allowed {
		}
		l.SetSpec(clock.now(), quota(8))
		if d := c.take(l, 1); !d.Allowed {
			t.Errorf("%s: refused after a raise: %+v", mode, d)
		}
		for c.take(l, 1).Allowed {
		}
		for i, step := range []struct{ n, want int64 }{{10, 1}, {8, 0}, {10, 0}, {5, 0}, {12, 1}, {12, 0}} {
			l.SetSpec(clock.now(), quota(step.n))
			admitted := int64(0)
			for c.take(l, 1).Allowed {
				admitted++
			}
			if admitted != step.want {
				t.Errorf("%s: change %d of what is used up, to %d, admits %d, want %d", mode, i, step.n, admitted, step.want)
			}
		}
		m := c.limiter(quota(1000), "g", "m")
		for range 200 {
			clock.advance(5 * time.Millisecond)
			c.take(m, 1)
		}
		m.SetSpec(clock.now(), quota(10))
		left := 0
		for c.take(m, 1).Allowed {
			left++
		}
		if left > 8 || left < 5 {
			t.Errorf("%s: %d admitted of ten, of which a fifth was used", mode, left)
		}
	}
}

// TestAReplicaThatIsBehind: what an instance holds of which the store has not
// heard, as after a failover, is held again, and nothing is lost or counted twice.
func TestAReplicaThatIsBehind(t *testing.T) {
	s := redistest.Start(t)
	clock := newFake()
	c := byHand(t, Options{Addresses: []string{s.Addr}, fake: clock.now})
	l := c.limiter(compile(t, limits.Limit{Kind: limits.Quota, N: 20, Calendar: limits.Day}), "g", "k")
	take := func() bool {
		clock.advance(5 * time.Millisecond)
		claims := []limits.Claim{{Limiter: l, N: 1}}
		refused := limits.Try(clock.now(), claims)
		for range 3 {
			if !claims[0].Decision.Pending {
				break
			}
			step([]*Cluster{c})
			refused = limits.Try(clock.now(), claims)
		}
		step([]*Cluster{c})
		return refused < 0
	}
	admitted, old := 0, ""
	for i := range 60 {
		if take() {
			admitted++
		}
		switch i {
		case 4:
			old = s.CLI("get", limitOf(l).key)
		case 8:
			s.CLI("set", limitOf(l).key, old)
		}
	}
	if admitted != 20 || c.Stats().Corrupt != 0 {
		t.Errorf("%d admitted of a quota of 20, %+v", admitted, c.Stats())
	}
}
