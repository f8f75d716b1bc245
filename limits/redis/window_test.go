package redis

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/tollgate-dev/tollgate/limits"
	"github.com/tollgate-dev/tollgate/limits/limitstest"
	"github.com/tollgate-dev/tollgate/limits/redis/redistest"
)

// TestAKeptWindowHolds has four instances keep a window between them while the
// load moves from one to another, falls and rises, requests are given back, and in
// every other run instances vanish without a word: the window holds at every moment. Most of it is
// usable whenever all of it is wanted, but for what who is gone had.
func TestAKeptWindowHolds(t *testing.T) {
	s := redistest.Start(t)
	for name, limit := range map[string]limits.Limit{
		"sliding": {Kind: limits.Window, N: 300, Period: time.Second},
		"fixed":   {Kind: limits.FixedWindow, N: 300, Period: time.Second},
		"long":    {Kind: limits.Window, N: 600, Period: 3 * time.Second},
	} {
		for seed := range uint64(2) {
			t.Run(name+" "+itoa(int(seed)), func(t *testing.T) {
				t.Parallel()
				clock, rng, spec := newFake(), rand.New(rand.NewPCG(seed, 5)), compile(t, limit)
				o := Options{Addresses: []string{s.Addr}, Prefix: "kept/" + name + itoa(int(seed)), fake: clock.now, Timeout: 20 * time.Second}
				var all []*Cluster
				var own []*limits.Limiter
				come := func() {
					c := byHand(t, o)
					all, own = append(all, c), append(own, c.limiter(spec, "g", "k"))
				}
				for range 4 {
					come()
				}
				model, most := limitstest.NewModel(limit), limitstest.NewModel(limit)
				var admitted, possible, kept int
				weights, demand := []int{90, 5, 5, 0}, 600.0
				begin, shift := clock.now(), clock.now()
				for clock.now() < begin.Add(24*time.Second) {
					clock.advance(time.Duration(rng.ExpFloat64() * 1e9 / demand))
					if now := clock.now(); now.Sub(shift) > 1500*time.Millisecond {
						shift = now
						rng.Shuffle(len(weights), func(i, j int) { weights[i], weights[j] = weights[j], weights[i] })
						demand = []float64{100, 300, 600, 3000}[rng.IntN(4)]
						if seed%2 == 0 && rng.IntN(8) == 0 {
							all, own = all[1:], own[1:]
							come()
						}
					}
					i, at := 0, rng.IntN(100)
					for at >= weights[i] {
						at -= weights[i]
						i++
					}
					n, now := int64(1+rng.IntN(20)/19), clock.now()
					claims := []limits.Claim{{Limiter: own[i], N: n}}
					refused := limits.Try(now, claims)
					for range 3 {
						if !claims[0].Decision.Pending {
							break
						}
						step(all)
						refused = limits.Try(now, claims)
					}
					back := rng.IntN(10) == 0
					switch {
					case refused >= 0:
						own[i].Tally(false)
					case back:
						own[i].Refund(now, n)
					default:
						admitted++
						if !model.Take(now, n) {
							t.Fatalf("after %v: beyond the limit", now.Sub(begin))
						}
					}
					if !back && most.Take(now, n) {
						possible++
					}
					if limitOf(own[i]).window.keeps {
						kept++
					}
					step(all)
				}
				t.Logf("%d of %d admitted, %d decisions by who keeps", admitted, possible, kept)
				if admitted*100 < possible*[]int{60, 75}[seed%2] || kept == 0 {
					t.Errorf("%d of %d admitted, %d decisions by who keeps", admitted, possible, kept)
				}
			})
		}
	}
}
