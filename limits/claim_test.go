package limits_test

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tollgate-dev/tollgate/limits"
)

// TestRefusalsTogetherUseUpNothing has three callers race for one request of
// each of two limits: one wants both, the others one each. Whatever the order,
// either the first gets both or the two others get theirs. Should one be refused
// by what another takes and gives back, somebody gets less.
func TestRefusalsTogetherUseUpNothing(t *testing.T) {
	for name, l := range everyKind() {
		if l.Kind == limits.SmoothWarmingUp || name == "rate/fast" || name == "fixed_window/huge" || name == "window/in chunks" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			one := l
			one.N, one.Burst = 1, 0
			s := spec(t, one)
			rounds := 20_000
			if testing.Short() {
				rounds = 2_000
			}
			var a, b *limits.Limiter
			both := 0
			race(rounds, func() {
				a, b = limits.New(s, epoch), limits.New(s, epoch)
			}, func(who int) bool {
				claims := []limits.Claim{{Limiter: a, N: 1}, {Limiter: b, N: 1}}
				if who > 0 {
					claims = claims[who-1 : who]
				}
				return limits.TakeAll(epoch, claims) < 0
			}, func(got [3]bool) {
				if got[0] == got[1] || got[0] == got[2] {
					t.Errorf("both %v, the first %v, the second %v", got[0], got[1], got[2])
				}
				if got[0] {
					both++
				}
			})
			if both == 0 || both == rounds {
				t.Logf("%d of %d times both: there was no race", both, rounds)
			}
		})
	}
}

// race lets three call f at the same time, over and over, with before before and
// after after.
func race(rounds int, before func(), f func(who int) bool, after func([3]bool)) {
	var round, arrived atomic.Int64
	var got [3]bool
	var wg sync.WaitGroup
	for who := range got {
		wg.Go(func() {
			for r := range int64(rounds) {
				for round.Load() <= r {
					runtime.Gosched()
				}
				got[who] = f(who)
				arrived.Add(1)
			}
		})
	}
	for r := range int64(rounds) {
		before()
		round.Add(1)
		for arrived.Load() < 3*(r+1) {
			runtime.Gosched()
		}
		after(got)
	}
	wg.Wait()
}

// TestTogetherFromTwoSides has everyone want the same two limits, in one order or
// the other. Nobody waits for the other, and all that there is is admitted.
func TestTogetherFromTwoSides(t *testing.T) {
	s := spec(t, burst(1, 1000))
	rounds := 50
	if testing.Short() {
		rounds = 5
	}
	for range rounds {
		a, b := limits.New(s, epoch), limits.New(s, epoch)
		var admitted atomic.Int64
		parallel(func(g int) {
			for range 200 {
				claims := []limits.Claim{{Limiter: a, N: 1}, {Limiter: b, N: 1}}
				if g%2 == 0 {
					claims[0], claims[1] = claims[1], claims[0]
				}
				if limits.TakeAll(epoch.Add(time.Nanosecond), claims) < 0 {
					admitted.Add(1)
				}
			}
		})
		if got := admitted.Load(); got != 1000 {
			t.Fatalf("%d admitted, want 1000", got)
		}
	}
}
