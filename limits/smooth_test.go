package limits_test

import (
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tollgate-dev/tollgate/limits"
)

// guava is RateLimiter as its source has it, on a clock of microseconds.
type guava struct {
	warm                    bool
	stored, max, threshold  float64
	stable, slope, coolDown float64
	nextFree                int64
}

func newGuava(l limits.Limit, now int64) *guava {
	rate := float64(l.N) / l.Period.Seconds()
	g := &guava{stable: 1e6 / rate, nextFree: now}
	if l.Kind == limits.SmoothBursty {
		g.max, g.coolDown = rate, g.stable
		return g
	}
	up := float64(l.WarmUp.Ramp.Microseconds())
	cold := g.stable * 3
	g.warm, g.threshold = true, 0.5*up/g.stable
	g.max = g.threshold + 2*up/(g.stable+cold)
	g.slope = (cold - g.stable) / (g.max - g.threshold)
	g.stored, g.coolDown = g.max, up/g.max
	return g
}

func (g *guava) tryAcquire(now, permits int64) bool {
	if g.nextFree > now {
		return false
	}
	if now > g.nextFree {
		g.stored = min(g.max, g.stored+float64(now-g.nextFree)/g.coolDown)
		g.nextFree = now
	}
	spend := min(float64(permits), g.stored)
	fresh := float64(permits) - spend
	var wait int64
	if g.warm {
		rest := spend
		if above := g.stored - g.threshold; above > 0 {
			dear := min(above, rest)
			length := g.stable + above*g.slope + (g.stable + (above-dear)*g.slope)
			wait = int64(dear * length / 2)
			rest -= dear
		}
		wait += int64(g.stable * rest)
	}
	g.nextFree += wait + int64(fresh*g.stable)
	g.stored -= spend
	return true
}

// TestAgainstGuava runs random sequences on a limiter and on Guava's own code,
// which must agree about every decision and on the microsecond of the next,
// also after reloads and restarts.
func TestAgainstGuava(t *testing.T) {
	const s = time.Second
	up := func(d time.Duration) limits.WarmUp { return limits.WarmUp{Ramp: d} }
	for _, l := range []limits.Limit{
		{Kind: limits.SmoothBursty, N: 5, Period: s},
		{Kind: limits.SmoothBursty, N: 3, Period: 7 * s},
		{Kind: limits.SmoothBursty, N: 977, Period: s},
		{Kind: limits.SmoothBursty, N: 1_000_000, Period: s},
		{Kind: limits.SmoothWarmingUp, N: 10, Period: s, WarmUp: up(4 * s)},
		{Kind: limits.SmoothWarmingUp, N: 333, Period: s, WarmUp: up(s)},
		{Kind: limits.SmoothWarmingUp, N: 1_000_000, Period: s, WarmUp: up(time.Minute)},
	} {
		sp := spec(t, l)
		interval := int64(l.Period) / l.N
		for seed := range uint64(50) {
			rng := rand.New(rand.NewPCG(seed, 3))
			now, lim := epoch, limits.New(sp, epoch)
			g := newGuava(l, int64(epoch)/1000)
			for i := range 500 {
				switch rng.IntN(20) {
				case 0:
					now = now.Add(time.Duration(rng.Int64N(100 * interval)))
				case 1:
					now = now.Add(lim.Peek(now, 1).Wait)
				case 2:
					lim.SetSpec(now, spec(t, l))
				case 3:
					lim = limits.Restore(sp, now, lim.State())
				default:
					now = now.Add(time.Duration(rng.Int64N(interval + 2)))
				}
				n := 1 + rng.Int64N(3)
				if rng.IntN(50) == 0 {
					n = 1 + rng.Int64N(l.N)
				}
				d, want := lim.Take(now, n), g.tryAcquire(int64(now)/1000, n)
				wait := max(0, limits.Time(g.nextFree*1000).Sub(now))
				if got := lim.Peek(now, 1).Wait; d.Allowed != want || got != wait {
					t.Fatalf("%s, seed %d, step %d: Take(%d) = %+v, Guava says %v; the next waits %v, Guava's %v", sp.Limit().Name, seed, i, n, d, want, got, wait)
				}
			}
		}
	}
}

// TestStoredPermitsUnderContention has 8 goroutines take and give back at one
// instant what idleness has stored: all of it goes, and no more.
func TestStoredPermitsUnderContention(t *testing.T) {
	const stored = 5000
	s := spec(t, ofKind(limits.SmoothBursty, stored, time.Second))
	for range 10 {
		l, now := limits.New(s, epoch), epoch.Add(10*time.Second)
		var admitted atomic.Int64
		parallel(func(g int) {
			for i := range stored {
				switch ok := l.Take(now, 1).Allowed; {
				case ok && i%50 == g:
					l.Refund(now, 1)
				case ok:
					admitted.Add(1)
				}
			}
		})
		left := l.Peek(now, 1).Remaining
		if got := admitted.Load() + left; got != stored+1 {
			t.Fatalf("%d admitted and %d left, want %d in all", got-left, left, stored+1)
		}
	}
}
