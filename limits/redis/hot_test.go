package redis

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/tollgate-dev/tollgate/limits"
	"github.com/tollgate-dev/tollgate/limits/limitstest"
	"github.com/tollgate-dev/tollgate/limits/redis/redistest"
)

// TestCallsOfAHotKey: on a key in much use, of which three instances make 80, 10
// and 10 % of the decisions, one call is made for 100 of them, whether the limit
// is far off, reached or long used up; one to four for 200 a second. More are made
// about a pace and a bucket that is small. At least 95 % of the limit can be used, 92 % of a small
// window of which just all is wanted.
func TestCallsOfAHotKey(t *testing.T) {
	s := redistest.Start(t)
	const sec = time.Second
	for name, c := range map[string]struct {
		limit  limits.Limit
		demand int     // a second
		calls  float64 // for 100 decisions, at most
	}{
		"far off":                {limits.Limit{Kind: limits.Rate, N: 10_000, Period: sec}, 3000, 1},
		"far off, 500/s":         {limits.Limit{Kind: limits.Rate, N: 10_000, Period: sec}, 500, 1},
		"far off, 200/s":         {limits.Limit{Kind: limits.Rate, N: 10_000, Period: sec}, 200, 2},
		"near":                   {limits.Limit{Kind: limits.Rate, N: 2000, Period: sec}, 1500, 1},
		"reached":                {limits.Limit{Kind: limits.Rate, N: 1000, Period: sec}, 1000, 1},
		"reached, 200/s":         {limits.Limit{Kind: limits.Rate, N: 200, Period: sec}, 200, 4},
		"ten times over":         {limits.Limit{Kind: limits.Rate, N: 200, Period: sec}, 2000, 1},
		"small, far over":        {limits.Limit{Kind: limits.Rate, N: 5, Period: sec}, 1000, 1},
		"quota":                  {limits.Limit{Kind: limits.Quota, N: 1_000_000, Calendar: limits.Day}, 500, 1},
		"pace, thrice over":      {limits.Limit{Kind: limits.Pace, N: 200, Period: sec}, 600, 45},
		"pace, far over":         {limits.Limit{Kind: limits.Pace, N: 200, Period: sec}, 4000, 15},
		"small burst":            {limits.Limit{Kind: limits.Rate, N: 1000, Period: sec, Burst: 100}, 1000, 9},
		"quota, used up":         {limits.Limit{Kind: limits.Quota, N: 100, Calendar: limits.Day}, 300, 1},
		"fixed":                  {limits.Limit{Kind: limits.FixedWindow, N: 2000, Period: sec}, 1500, 1},
		"fixed, reached":         {limits.Limit{Kind: limits.FixedWindow, N: 1000, Period: sec}, 1000, 1},
		"fixed, thrice over":     {limits.Limit{Kind: limits.FixedWindow, N: 1000, Period: sec}, 3000, 1},
		"fixed, far over":        {limits.Limit{Kind: limits.FixedWindow, N: 100, Period: sec}, 2000, 1},
		"window of a minute":     {limits.Limit{Kind: limits.Window, N: 100_000, Period: time.Minute}, 1000, 1},
		"window, far off":        {limits.Limit{Kind: limits.Window, N: 2000, Period: sec}, 1000, 1},
		"window, small":          {limits.Limit{Kind: limits.Window, N: 100, Period: sec}, 2000, 1},
		"window, near":           {limits.Limit{Kind: limits.Window, N: 1000, Period: sec}, 800, 1},
		"window, reached, 200/s": {limits.Limit{Kind: limits.Window, N: 200, Period: sec}, 200, 4},
		"window, reached":        {limits.Limit{Kind: limits.Window, N: 1000, Period: sec}, 1000, 1},
		"window, twice over":     {limits.Limit{Kind: limits.Window, N: 1000, Period: sec}, 2000, 1},
		"window, far over":       {limits.Limit{Kind: limits.Window, N: 1000, Period: sec}, 5000, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			clock := newFake()
			spec := compile(t, c.limit)
			all, own := threeByHand(t, spec, Options{Addresses: []string{s.Addr}, Prefix: "hot/" + name, fake: clock.now})
			rng, model := rand.New(rand.NewPCG(1, 2)), limitstest.NewModel(spec.Limit())
			most := limitstest.NewModel(spec.Limit())
			const warm, lasts = 2 * sec, 12 * sec
			var decided, calls, admitted, possible float64
			begin := clock.now()
			for end := begin.Add(lasts); clock.now() < end; {
				clock.advance(sec / time.Duration(c.demand))
				i := max(0, rng.IntN(10)-7)
				claims := []limits.Claim{{Limiter: own[i], N: 1}}
				refused := limits.Try(clock.now(), claims)
				for range 3 {
					if !claims[0].Decision.Pending {
						break
					}
					step(all)
					refused = limits.Try(clock.now(), claims)
				}
				if refused >= 0 {
					own[i].Tally(false)
				} else {
					admitted++
					if !model.Take(clock.now(), 1) {
						t.Fatal("beyond the limit")
					}
				}
				if most.Take(clock.now(), 1) {
					possible++
				}
				step(all)
				if clock.now() < begin.Add(warm) {
					calls = -float64(all[0].stats.calls.Load() + all[1].stats.calls.Load() + all[2].stats.calls.Load())
					continue
				}
				decided++
			}
			for _, i := range all {
				calls += float64(i.stats.calls.Load())
			}
			usable := 0.95
			if name == "window, reached, 200/s" { // just as many as go free, each where it was used
				usable = 0.92
			}
			t.Logf("%s: %.2f calls for 100 decisions, %.1f%% usable", name, 100*calls/decided, 100*admitted/possible)
			if calls > c.calls*decided/100 {
				t.Errorf("%.0f calls for %.0f decisions, want %g in 100", calls, decided, c.calls)
			}
			if admitted < usable*possible {
				t.Errorf("%.0f of %.0f are admitted", admitted, possible)
			}
		})
	}
}
