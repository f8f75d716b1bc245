package limits_test

import (
	"flag"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tollgate-dev/tollgate/limits"
)

var stress = flag.Int("limits.stress", 400_000, "decisions of the stress test, per kind")

// parallel runs f in several goroutines and waits for them.
func parallel(f func(g int)) {
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() { f(g) })
	}
	wg.Wait()
}

// event is n requests admitted at an instant, and when the limiter will be as
// good as new, which tells what it counted them in.
type event struct {
	at    limits.Time
	n     int64
	until limits.Time
}

// TestStress has 8 goroutines take from one limiter on a clock that each reads
// at its own moment, records what was admitted, and checks the whole history
// afterwards: not one request too many. make stress makes 10^8 decisions.
func TestStress(t *testing.T) {
	const s = time.Second
	for name, tt := range map[string]struct {
		limit limits.Limit
		check func(t *testing.T, l limits.Limit, history []event)
	}{
		"rate":         {burst(100_000, 50), checkRate},
		"rate/wide":    {burst(1_000_000, 1000), checkRate},
		"pace":         {ofKind(limits.Pace, 100_000, s), checkRate},
		"window":       {ofKind(limits.Window, 100, ms), checkWindow},
		"window/wide":  {ofKind(limits.Window, 5000, 5*ms), checkWindow},
		"fixed_window": {ofKind(limits.FixedWindow, 100, ms), checkFixed},
		"quota":        {limits.Limit{Kind: limits.Quota, N: 3000, Calendar: limits.Minute}, checkFixed},
		"idle_reset":   {ofKind(limits.IdleReset, 100, ms), checkIdle},
	} {
		t.Run(name, func(t *testing.T) {
			round := 200_000
			if testing.Short() {
				round = 50_000
				*stress = min(*stress, round)
			}
			for made := 0; made < *stress && !t.Failed(); made += round {
				history, stalled := hammer(t, tt.limit, round, uint64(made))
				if stalled {
					t.Log("a thread stood still between its clock and its limiter, which counts it at another instant: this round proves nothing")
					continue
				}
				tt.check(t, tt.limit, history)
			}
		})
	}
}

// hammer makes decisions, half of them half a minute later, and returns those that
// admitted, by instant, and whether a decision came long after its instant.
func hammer(t *testing.T, l limits.Limit, decisions int, seed uint64) (history []event, stalled bool) {
	const begin, later = limits.Time(1_699_920_030_000_000_000), 30 * time.Second // when a minute ends
	clock := limits.NewClock()
	late := clock.Now().Sub(begin)
	lim := limits.New(spec(t, l), begin)
	// What is given back to a bucket after it would have overflowed is a gift,
	// which Refund says.
	refunds := l.Kind != limits.Rate && l.Kind != limits.Pace
	var mu sync.Mutex
	half := func(g int) {
		rng := rand.New(rand.NewPCG(seed, uint64(g)))
		var mine []event
		var slowest time.Duration
		for range decisions / goroutines / 2 {
			now, n := clock.Now().Add(-late), int64(1)
			if rng.IntN(10) == 0 {
				n += rng.Int64N(5)
			}
			switch d := lim.Take(now, n); {
			case !d.Allowed:
			case refunds && rng.IntN(20) == 0:
				lim.Refund(now, n)
			default:
				mine = append(mine, event{now, n, now.Add(d.Reset)})
			}
			slowest = max(slowest, clock.Now().Add(-late).Sub(now))
		}
		mu.Lock()
		defer mu.Unlock()
		history = append(history, mine...)
		stalled = stalled || slowest > time.Second/2
	}
	parallel(half)
	late -= later
	parallel(half)
	slices.SortFunc(history, func(a, b event) int { return int(a.at - b.at) })
	if len(history) < 10 {
		t.Fatalf("only %d requests admitted", len(history))
	}
	return history, stalled
}

// checkRate replays the history on the plainest bucket there is. That all of it
// fits is the same as that no interval has more than burst + rate * t.
func checkRate(t *testing.T, l limits.Limit, history []event) {
	l = spec(t, l).Limit()
	interval := (int64(l.Period) + l.N - 1) / l.N
	full := interval * l.Burst
	credit, at := full, history[0].at
	for _, e := range history {
		credit = min(full, credit+int64(e.at-at))
		at = e.at
		if credit -= e.n * interval; credit < 0 {
			t.Errorf("%d too many at %v", -credit/interval+1, at.Sub(epoch))
			return
		}
	}
}

// checkWindow slides a window over the history.
func checkWindow(t *testing.T, l limits.Limit, history []event) {
	var in, most int64
	first := 0
	for _, e := range history {
		for history[first].at.Add(l.Period) <= e.at {
			in -= history[first].n
			first++
		}
		in += e.n
		most = max(most, in)
	}
	if most > l.N {
		t.Errorf("%d in one window, want at most %d", most, l.N)
	}
}

// checkFixed sums up by period. A goroutine that has read the clock just before
// a period's end may decide when others are in the next, and then counts there.
func checkFixed(t *testing.T, l limits.Limit, history []event) {
	in := map[limits.Time]int64{}
	for _, e := range history {
		if in[e.until] += e.n; in[e.until] > l.N {
			t.Errorf("%d in the period until %v, want at most %d", in[e.until], e.until.Std(), l.N)
			return
		}
	}
	if len(in) < 2 {
		t.Errorf("%d periods, want at least 2", len(in))
	}
}

// checkIdle plays the upstream, which sees requests when they were counted.
func checkIdle(t *testing.T, l limits.Limit, history []event) {
	slices.SortStableFunc(history, func(a, b event) int { return int(a.until - b.until) })
	var count int64
	var last limits.Time
	for _, e := range history {
		if e.until.Sub(last) >= l.Period {
			count = 0
		}
		last = e.until
		if count += e.n; count > l.N {
			t.Errorf("%d since the last silence, want at most %d", count, l.N)
			return
		}
	}
}
