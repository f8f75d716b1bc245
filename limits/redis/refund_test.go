package redis

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/tollgate-dev/tollgate/limits"
	"github.com/tollgate-dev/tollgate/limits/redis/redistest"
)

// TestRefundsOfAWindow: of what three instances take of a window at several times
// the limit, a third comes back up to half a period later. No period has more of
// the rest than the limit, and what came back is used by others.
func TestRefundsOfAWindow(t *testing.T) {
	s := redistest.Start(t)
	for name, l := range map[string]limits.Limit{
		"kept":  {Kind: limits.Window, N: 200, Period: time.Second},
		"small": {Kind: limits.Window, N: 60, Period: time.Second},
		"long":  {Kind: limits.Window, N: 1000, Period: 20 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			clock := newFake()
			all, own := threeByHand(t, compile(t, l), Options{Addresses: []string{s.Addr}, Prefix: "refunds/" + name, fake: clock.now, Timeout: time.Minute})
			type request struct {
				at, back limits.Time // back: 0, or when it is given back
				of       *limits.Limiter
			}
			rng := rand.New(rand.NewPCG(5, 6))
			var used []limits.Time
			var open []request
			every := l.Period / time.Duration(l.N) / 4
			began := clock.now()
			for clock.now() < began.Add(6*l.Period) {
				clock.advance(every)
				now := clock.now()
				for i := 0; i < len(open); i++ {
					if r := open[i]; now >= r.back {
						r.of.Refund(r.at, 1)
						open = append(open[:i], open[i+1:]...)
						i--
					}
				}
				i := rng.IntN(3)
				claims := []limits.Claim{{Limiter: own[i], N: 1}}
				refused := limits.Try(now, claims)
				if claims[0].Decision.Pending {
					step(all)
					refused = limits.Try(now, claims)
				}
				if refused < 0 && !claims[0].Decision.Pending {
					if rng.IntN(3) == 0 {
						open = append(open, request{now, now.Add(1 + time.Duration(rng.Int64N(int64(l.Period/2)))), own[i]})
					} else {
						used = append(used, now)
					}
				}
				step(all)
			}
			most, from := 0, 0
			for i, at := range used {
				for at.Sub(used[from]) >= l.Period {
					from++
				}
				most = max(most, i-from+1)
			}
			t.Logf("at most %d of %d in a period, %.1f %% of what is possible", most, l.N, 100*float64(len(used))/float64(6*l.N))
			if float64(len(used)) < 0.8*float64(6*l.N) {
				t.Errorf("%d were used, want nearly %d", len(used), 6*l.N)
			}
			if most > int(l.N) {
				t.Errorf("%d in a period, of a limit of %d", most, l.N)
			}
		})
	}
}
