package redis

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/tollgate-dev/tollgate/limits"
	"github.com/tollgate-dev/tollgate/limits/limitstest"
	"github.com/tollgate-dev/tollgate/limits/redis/redistest"
)

// TestAFlushOpensNoDoor loses the key of a limit again and again, of which three
// instances have more than enough use, without any call failing. What others have in
// hand is not lent a second time, though they come to tell of it only seconds later,
// so that the limit holds; and it is usable again soon.
func TestAFlushOpensNoDoor(t *testing.T) {
	s := redistest.Start(t)
	const sec = time.Second
	for name, limit := range map[string]limits.Limit{
		"window": {Kind: limits.Window, N: 200, Period: sec},
		"fixed":  {Kind: limits.FixedWindow, N: 200, Period: sec},
		"long":   {Kind: limits.Window, N: 1000, Period: 10 * sec},
		"rate":   {Kind: limits.Rate, N: 200, Period: sec},
		"quota":  {Kind: limits.Quota, N: 5000, Calendar: limits.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			clock, rng, spec := newFake(), rand.New(rand.NewPCG(8, 5)), compile(t, limit)
			all, own := threeByHand(t, spec, Options{Addresses: []string{s.Addr}, Prefix: "flush/" + name, fake: clock.now, Timeout: time.Minute})
			model, most := limitstest.NewModel(spec.Limit()), limitstest.NewModel(spec.Limit())
			admitted, possible, beyond := 0, 0, 0
			begin, next := clock.now(), clock.now().Add(3*sec)
			for clock.now() < begin.Add(30*sec) {
				clock.advance(2500 * time.Microsecond)
				now := clock.now()
				if now >= next {
					next = now.Add(time.Duration(3000+rng.IntN(2000)) * time.Millisecond)
					s.CLI("del", limitOf(own[0]).key)
				}
				i := max(0, rng.IntN(10)-7)
				claims := []limits.Claim{{Limiter: own[i], N: 1}}
				refused := limits.Try(now, claims)
				for range 3 {
					if !claims[0].Decision.Pending {
						break
					}
					step(all)
					refused = limits.Try(now, claims)
				}
				if most.Take(now, 1) {
					possible++
				}
				if refused >= 0 {
					own[i].Tally(false)
				} else {
					admitted++
					if !model.Take(now, 1) {
						beyond++
					}
				}
				step(all)
			}
			t.Logf("%d of %d admitted, %d beyond", admitted, possible, beyond)
			if beyond > 0 || admitted*100 < 80*possible {
				t.Errorf("%d of %d admitted, %d beyond the limit", admitted, possible, beyond)
			}
		})
	}
}
