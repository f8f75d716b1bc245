package redis

import (
	"context"
	"testing"
	"time"

	"github.com/tollgate-dev/tollgate/limits"
	"github.com/tollgate-dev/tollgate/limits/redis/redistest"
)

// BenchmarkTake has a decision without a cluster, leased and strict, side by side.
func BenchmarkTake(b *testing.B) {
	spec := compile(b, limits.Limit{Kind: limits.Rate, N: 1_000_000_000, Period: time.Second, Burst: limits.MaxN / 1_000_000})
	clock := limits.NewClock()
	b.Run("alone", func(b *testing.B) {
		claims := []limits.Claim{{Limiter: limits.New(spec, clock.Now()), N: 1}}
		b.ReportAllocs()
		for b.Loop() {
			if limits.TakeAll(clock.Now(), claims) >= 0 {
				b.Fatal("refused")
			}
		}
	})
	for _, mode := range []Mode{Leased, Strict} {
		b.Run(string(mode), func(b *testing.B) {
			s := redistest.Start(b)
			c, err := Open(context.Background(), Options{Addresses: []string{s.Addr}, Mode: mode, Clock: clock, Timeout: time.Second})
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			l := c.limiter(spec, "g", "k")
			claims := []limits.Claim{{Limiter: l, N: 1}}
			for range 1000 {
				_, _ = c.TakeAll(b.Context(), nil, clock.Now(), claims)
			}
			began := c.Stats().Calls
			b.ReportAllocs()
			for b.Loop() {
				if refused, err := c.TakeAll(context.Background(), nil, clock.Now(), claims); refused >= 0 || err != nil {
					b.Fatal("refused")
				}
			}
			b.ReportMetric(float64(c.Stats().Calls-began)/float64(b.N), "calls/op")
		})
	}
}

// TestALeasedDecisionAllocatesNothing covers the whole way through TakeAll.
func TestALeasedDecisionAllocatesNothing(t *testing.T) {
	s := redistest.Start(t)
	clock := newFake()
	c := join(t, Options{Addresses: []string{s.Addr}, fake: clock.now})
	l := c.limiter(compile(t, limits.Limit{Kind: limits.Rate, N: 100_000, Period: time.Second}), "g", "k")
	limitOf(l).lease.Grant(l.Spec(), 50_000, clock.now(), clock.now().Add(time.Hour))
	claims := []limits.Claim{{Limiter: l, N: 1}}
	if n := testing.AllocsPerRun(1000, func() { _, _ = c.TakeAll(context.Background(), nil, clock.now(), claims) }); n != 0 {
		t.Errorf("%v allocations a decision from what is in hand", n)
	}
}
