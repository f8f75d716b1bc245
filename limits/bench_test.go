package limits_test

import (
	"runtime"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/tollgate-dev/tollgate/limits"
)

// BenchmarkTake is one decision, the reading of the clock included. Refused is
// what a saturating client gets; admitted has the clock run ahead, so that each
// request comes just as the limit allows it.
func BenchmarkTake(b *testing.B) {
	clock := limits.NewClock()
	b.Run("clock alone", func(b *testing.B) {
		for b.Loop() {
			clock.Now()
		}
	})
	for name, l := range everyKind() {
		ahead := (l.Period + time.Duration(l.N-1)) / time.Duration(l.N)
		switch l.Kind {
		case limits.Quota:
			ahead = 0
		case limits.IdleReset:
			ahead = l.Period
		}
		for verdict, step := range map[string]time.Duration{"admitted": ahead, "refused": 0} {
			b.Run(name+"/"+verdict, func(b *testing.B) {
				l := l
				if l.Kind == limits.Quota && verdict == "admitted" {
					l.N = limits.MaxN / 1024
				}
				lim := limits.New(spec(b, l), clock.Now())
				var later time.Duration
				b.ReportAllocs()
				for b.Loop() {
					later += step
					lim.Take(clock.Now().Add(later), 1)
				}
				u := lim.Usage()
				if share := float64(u.Admitted) / float64(b.N+1); b.N > 1_000_000 && (share > 0.5) != (verdict == "admitted") && name != "rate/fast" {
					b.Errorf("%+v: want them %s", u, verdict)
				}
			})
		}
	}
	b.Run("rate/after a warm-up", func(b *testing.B) {
		lim := limits.Restore(spec(b, warmed(1_000_000, time.Second)), clock.Now(), limits.State{Kind: limits.Rate})
		for b.Loop() {
			lim.Take(clock.Now(), 1)
		}
	})
}

// BenchmarkHotKey is one limiter that 8 goroutines share.
func BenchmarkHotKey(b *testing.B) {
	clock := limits.NewClock()
	for name, l := range everyKind() {
		for verdict, n := range map[string]int64{"refused": l.N, "as many as come": 1_000_000} {
			b.Run(name+"/"+verdict, func(b *testing.B) {
				l := l
				if l.N = n; l.Kind == limits.IdleReset || l.Kind == limits.Quota {
					l.N = n * n
				}
				l.Burst = 0
				lim := limits.New(spec(b, l), clock.Now())
				b.SetParallelism((goroutines + runtime.GOMAXPROCS(0) - 1) / runtime.GOMAXPROCS(0))
				b.ReportAllocs()
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						lim.Take(clock.Now(), 1)
					}
				})
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds()/1e6, "M/s")
			})
		}
	}
}

const goroutines = 8

// BenchmarkTakeAll is a request with three limits.
func BenchmarkTakeAll(b *testing.B) {
	clock := limits.NewClock()
	now := clock.Now()
	claims := make([]limits.Claim, 3)
	for i := range claims {
		claims[i] = limits.Claim{Limiter: limits.New(spec(b, burst(1_000_000, 0)), now), N: 1}
	}
	b.ReportAllocs()
	for b.Loop() {
		limits.TakeAll(clock.Now(), claims)
	}
}

// TestSizeOfALimiter: a million of them must fit.
func TestSizeOfALimiter(t *testing.T) {
	if n := unsafe.Sizeof(limits.Limiter{}); n > 64 {
		t.Errorf("a limiter has %d bytes, want at most 64", n)
	}
	n := 1_000_000
	if testing.Short() {
		n = 100_000
	}
	s := spec(t, warmed(10, time.Second))
	measure := func() float64 {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		slabs := make([]*limits.Slab, n/limits.SlabSize)
		for i := range slabs {
			slabs[i] = limits.NewSlab()
			for j := range limits.SlabSize {
				l := slabs[i].At(j)
				l.Init(s, epoch)
				for _, after := range []time.Duration{0, 2 * time.Second, 2 * time.Hour} { // grace, ramp, warm
					l.Take(epoch.Add(after), 1)
				}
			}
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		runtime.KeepAlive(slabs)
		return float64(after.HeapAlloc-before.HeapAlloc) / float64(len(slabs)*limits.SlabSize)
	}
	each := measure()
	for range 4 { // what others allocate meanwhile, such as the runtime, is none of a limiter's
		each = min(each, measure())
	}
	if each > 66 {
		t.Errorf("%.1f bytes a limiter that has warmed up, want at most 66", each)
	}
	t.Logf("%.1f bytes a limiter", each)
}

// TestOneHotKey: 8 goroutines get all the decisions that they ask for.
func TestOneHotKey(t *testing.T) {
	each := 20_000
	if testing.Short() {
		each = 2_000
	}
	for name, l := range everyKind() {
		t.Run(name, func(t *testing.T) {
			lim := limits.New(spec(t, l), epoch)
			var clock atomic.Int64
			parallel(func(int) {
				for range each {
					lim.Take(epoch.Add(time.Duration(clock.Add(1000))), 1)
				}
			})
			u := lim.Usage()
			if got := u.Admitted + u.Refused; got != int64(goroutines*each) || u.Admitted == 0 {
				t.Errorf("usage %+v, want %d decisions", u, goroutines*each)
			}
		})
	}
}
