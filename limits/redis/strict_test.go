package redis

import (
	"context"
	"errors"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"github.com/tollgate-dev/tollgate/limits"
	"github.com/tollgate-dev/tollgate/limits/limitstest"
	"github.com/tollgate-dev/tollgate/limits/redis/redistest"
)

func kinds() map[string]limits.Limit {
	const s = time.Second
	return map[string]limits.Limit{
		"rate":         {Kind: limits.Rate, N: 10, Period: s, Burst: 5},
		"rate/odd":     {Kind: limits.Rate, N: 3, Period: s, Burst: 7},
		"pace":         {Kind: limits.Pace, N: 10, Period: s},
		"fixed_window": {Kind: limits.FixedWindow, N: 10, Period: 2 * s},
		"quota":        {Kind: limits.Quota, N: 20, Calendar: limits.Minute},
		"window":       {Kind: limits.Window, N: 10, Period: 2 * s},
		"idle_reset":   {Kind: limits.IdleReset, N: 5, Period: s},
	}
}

// TestStrictDecidesAsTheModel has three instances decide about one limit in
// turns, which must be as the slow and obvious model decides alone.
func TestStrictDecidesAsTheModel(t *testing.T) {
	s := redistest.Start(t)
	for name, l := range kinds() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			clock := newFake()
			var all []*Cluster
			for range 3 {
				all = append(all, join(t, Options{Addresses: []string{s.Addr}, Mode: Strict, Prefix: "model/" + name, fake: clock.now}))
			}
			for seed := range uint64(4) {
				clock.advance(24 * time.Hour)
				rng := rand.New(rand.NewPCG(seed, 7))
				spec := compile(t, l)
				var own []*limits.Limiter
				for _, c := range all {
					own = append(own, c.limiter(spec, "g", itoa(int(seed))))
				}
				model := limitstest.NewModel(spec.Limit())
				for step := range 250 {
					// Redis counts in microseconds.
					clock.advance(time.Duration(rng.Int64N(300_000)) * time.Microsecond)
					n := 1 + rng.Int64N(3)
					i := rng.IntN(3)
					got, want := all[i].take(own[i], n), model.Take(clock.now(), n)
					if got.Allowed != want {
						t.Fatalf("seed %d, step %d: instance %d takes %d: %+v, the model says %v", seed, step, i, n, got, want)
					}
					if got.Allowed || rng.IntN(5) > 0 || got.Wait == limits.Never {
						continue
					}
					clock.advance(got.Wait - 1)
					early := []limits.Claim{{Limiter: own[0], N: n}}
					if at, _ := all[0].PeekAll(context.Background(), clock.now(), early); at < 0 {
						t.Fatalf("step %d: %d are admitted before the wait of %v is over", step, n, got.Wait)
					}
					clock.advance(1)
					if d := all[0].take(own[0], n); !d.Allowed || !model.Take(clock.now(), n) {
						t.Fatalf("step %d: after the wait of %v for %d: %+v", step, got.Wait, n, d)
					}
				}
			}
		})
	}
}

func TestStrictTakesAllOrNothing(t *testing.T) {
	s := redistest.Start(t)
	clock := newFake()
	c := join(t, Options{Addresses: []string{s.Addr}, Mode: Strict, fake: clock.now})
	wide := c.limiter(compile(t, limits.Limit{Kind: limits.Window, N: 10, Period: time.Second}), "g", "wide")
	tight := c.limiter(compile(t, limits.Limit{Kind: limits.Quota, N: 2, Calendar: limits.Day}), "g", "tight")
	watches := c.limiter(compile(t, limits.Limit{Kind: limits.Pace, N: 1, Period: time.Hour, Shadow: true}), "g", "watches")
	for i, want := range []int{-1, -1, 1, 1} {
		claims := []limits.Claim{{Limiter: wide, N: 1}, {Limiter: tight, N: 1}, {Limiter: watches, N: 1}}
		before := c.stats.calls.Load()
		if got, _ := c.TakeAll(context.Background(), nil, clock.now(), claims); got != want {
			t.Errorf("request %d: %d, want %d: %+v", i, got, want, claims)
		}
		if n := c.stats.calls.Load() - before; n > 1 && i > 0 {
			t.Errorf("request %d took %d calls", i, n)
		}
	}
	look := []limits.Claim{{Limiter: wide, N: 0}, {Limiter: watches, N: 0}}
	_, _ = c.PeekAll(context.Background(), clock.now(), look)
	if got := look[0].Decision.Remaining; got != 8 {
		t.Errorf("%d of 10 remain after two that were admitted, want 8", got)
	}
	if look[1].Decision.Allowed {
		t.Error("the shadow counted nothing")
	}
}

func TestStrictFollowsAChangeOfLimit(t *testing.T) {
	s := redistest.Start(t)
	clock := newFake()
	o := Options{Addresses: []string{s.Addr}, Mode: Strict, fake: clock.now}
	c, d := join(t, o), join(t, o)
	five := compile(t, limits.Limit{Kind: limits.Rate, N: 5, Period: time.Second})
	ten := compile(t, limits.Limit{Kind: limits.Window, N: 10, Period: time.Second})
	a, b := c.limiter(five, "g", "k"), d.limiter(five, "g", "k")
	for range 4 {
		c.take(a, 1)
	}
	a.SetSpec(clock.now(), ten)
	b.SetSpec(clock.now(), ten)
	for i, want := range []bool{true, true, false} {
		if got := d.take(b, 1); got.Allowed != want {
			t.Errorf("request %d under ten, of which eight were used: %+v", i, got)
		}
	}
}

func TestKeysLiveNoLongerThanTheLimitNeeds(t *testing.T) {
	s := redistest.Start(t)
	clock := limits.NewClock()
	c := join(t, Options{Addresses: []string{s.Addr}, Mode: Strict, Clock: clock})
	for name, most := range map[string]struct {
		limit limits.Limit
		ms    int64
	}{
		"rate":   {limits.Limit{Kind: limits.Rate, N: 5, Period: 100 * time.Second}, 150_000},
		"window": {limits.Limit{Kind: limits.Window, N: 5, Period: 300 * time.Second}, 410_000},
	} {
		l := c.limiter(compile(t, most.limit), "ttl", name)
		if d := c.take(l, 1); !d.Allowed {
			t.Fatal(d)
		}
		ttl, err := strconv.ParseInt(s.CLI("pttl", limitOf(l).key), 10, 64)
		if err != nil || ttl < 1 || ttl > most.ms {
			t.Errorf("%s lives %d ms, want at most %d: %v", name, ttl, most.ms, err)
		}
	}
}

// TestGroupsRefuseTogether: a quota that is used up does no harm while another one
// is not, in one call, and takes nothing then.
func TestGroupsRefuseTogether(t *testing.T) {
	s := redistest.Start(t)
	for _, mode := range []Mode{Leased, Strict} {
		clock := newFake()
		c := join(t, Options{Addresses: []string{s.Addr}, Mode: mode, fake: clock.now, Prefix: "groups/" + string(mode)})
		quota := func(name string, n int64) *limits.Limiter {
			return c.limiter(compile(t, limits.Limit{Kind: limits.Quota, N: n, Calendar: limits.Day}), "g", name)
		}
		plain, beside, one, three := quota("plain", 10), quota("beside", 10), quota("one", 1), quota("three", 3)
		for i, want := range []int{-1, -1, -1, 3, 3} {
			claims := []limits.Claim{
				{Limiter: plain, N: 1},
				{Limiter: one, N: 1, Group: 1}, {Limiter: beside, N: 1, Group: 1},
				{Limiter: three, N: 1, Group: 2},
			}
			before := c.stats.calls.Load()
			got, err := c.TakeAll(t.Context(), nil, clock.now(), claims)
			if err != nil || (got < 0) != (want < 0) || got >= 0 && got != 1 && got != 3 {
				t.Errorf("%s: request %d: %d, %v, want %d: %+v", mode, i, got, err, want, claims)
			}
			if n := c.stats.calls.Load() - before; mode == Strict && n > 1 && i > 0 {
				t.Errorf("request %d took %d calls", i, n)
			}
		}
		for l, want := range map[*limits.Limiter]int64{plain: 7, beside: 9} {
			look := []limits.Claim{{Limiter: l}}
			if _, err := c.PeekAll(t.Context(), clock.now(), look); err != nil || look[0].Decision.Remaining != want {
				t.Errorf("%s: %+v remain, %v, want %d: a group that did not count used something up", mode, look[0].Decision, err, want)
			}
		}
	}
}

// TestNobodyWaitsWhoMustNot: a goroutine that must not block is told so, and
// nothing is taken, where Redis has to be asked.
func TestNobodyWaitsWhoMustNot(t *testing.T) {
	s := redistest.Start(t)
	for _, mode := range []Mode{Leased, Strict} {
		c := join(t, Options{Addresses: []string{s.Addr}, Mode: mode, Prefix: "inline/" + string(mode)})
		l := c.limiter(compile(t, limits.Limit{Kind: limits.Quota, N: 2, Calendar: limits.Day}), "g", "k")
		inline := limits.WithoutWaiting(t.Context())
		s.Stall() // whoever asked would wait
		began := time.Now()
		for range 100 {
			claims := []limits.Claim{{Limiter: l, N: 1}}
			if i, err := c.TakeAll(inline, nil, c.now(), claims); !errors.Is(err, limits.ErrWouldWait) || i >= 0 {
				t.Fatalf("%s: %d, %v", mode, i, err)
			}
			if i, err := c.PeekAll(inline, c.now(), claims); !errors.Is(err, limits.ErrWouldWait) || i >= 0 {
				t.Fatalf("%s: a look: %d, %v", mode, i, err)
			}
		}
		if took := time.Since(began); took > 10*time.Second { // one alone would wait for longer
			t.Errorf("%s: a hundred times two answers took %v", mode, took)
		}
		s.Resume()
		admitted := 0
		for range 5 {
			if c.take(l, 1).Allowed {
				admitted++
			}
		}
		if admitted != 2 || l.Usage() != (limits.Usage{Admitted: 2, Refused: 3}) {
			t.Errorf("%s: %d admitted, %+v", mode, admitted, l.Usage())
		}
	}
}

// TestALateStrictCallCountsOnceMore: a call that was given up and is carried out all
// the same takes its request, which was decided about here meanwhile, once more.
func TestALateStrictCallCountsOnceMore(t *testing.T) {
	s := redistest.Start(t)
	clock, w := newFake(), &wire{rng: rand.New(rand.NewPCG(1, 1)), faults: []string{"late"}}
	c := byHand(t, Options{Addresses: []string{s.Addr}, Mode: Strict, fake: clock.now, wire: w.carry})
	l := c.limiter(compile(t, limits.Limit{Kind: limits.Quota, N: 10, Calendar: limits.Day}), "g", "k")
	w.often = 1
	if d := c.take(l, 1); !d.Allowed || c.Stats().Up {
		t.Fatalf("%+v, %+v: want it admitted without Redis", d, c.Stats())
	}
	w.often = 0
	for len(w.late) > 0 {
		w.deliver()
	}
	c.heal(&c.links[0])
	clock.advance(settleFor)
	done := limitOf(l).ticket(0)
	c.drain()
	<-done
	look := []limits.Claim{{Limiter: l}}
	if _, err := c.PeekAll(t.Context(), clock.now(), look); err != nil || look[0].Decision.Remaining != 8 {
		t.Errorf("%+v, %v, want eight left of ten: the request counts twice", look[0].Decision, err)
	}
}
