package redis

import (
	"context"
	"slices"
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

// BenchmarkSideBySide has the three take turns in one run, in blocks, so that
// whatever else the machine does befalls all alike, and compares the medians:
//
//	go test ./limits/redis -run '^$' -bench SideBySide -benchtime 300x
func BenchmarkSideBySide(b *testing.B) {
	spec := compile(b, limits.Limit{Kind: limits.Rate, N: 1_000_000_000, Period: time.Second, Burst: limits.MaxN / 1_000_000})
	clock := limits.NewClock()
	s := redistest.Start(b)
	ctx := context.Background()
	own := []limits.Claim{{Limiter: limits.New(spec, clock.Now()), N: 1}}
	ways := []struct {
		name string
		n    int
		take func()
		took []float64
	}{{name: "alone", n: 2000, take: func() { limits.TakeAll(clock.Now(), own) }}}
	for _, mode := range []Mode{Leased, Strict} {
		c, err := Open(ctx, Options{Addresses: []string{s.Addr}, Mode: mode, Clock: clock, Timeout: 5 * time.Second, Prefix: string(mode)})
		if err != nil {
			b.Fatal(err)
		}
		defer c.Close()
		claims := []limits.Claim{{Limiter: c.limiter(spec, "g", "k"), N: 1}}
		n := map[Mode]int{Leased: 2000, Strict: 20}[mode]
		w := ways[0]
		w.name, w.n, w.take = string(mode), n, func() { _, _ = c.TakeAll(ctx, nil, clock.Now(), claims) }
		ways = append(ways, w)
		for range 1000 {
			w.take()
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		for i := range ways {
			w := &ways[i]
			began := time.Now()
			for range w.n {
				w.take()
			}
			w.took = append(w.took, float64(time.Since(began).Nanoseconds())/float64(w.n))
		}
	}
	var medians []float64
	for _, w := range ways {
		slices.Sort(w.took)
		medians = append(medians, w.took[len(w.took)/2])
		b.ReportMetric(medians[len(medians)-1], w.name+"-ns")
	}
	b.ReportMetric(medians[1]/medians[0], "leased/alone")
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
