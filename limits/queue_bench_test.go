package limits_test

import (
	"context"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tollgate-dev/tollgate/limits"
)

// BenchmarkQueueLateness has 10,000 requests wait for their turns, which are
// spread over a second on a thousand keys. It reports how much later than its
// turn a caller was told, and how many goroutines there were beside the callers.
// timer-p99 is how late a goroutine woke that did nothing but sleep: what the
// machine adds.
func BenchmarkQueueLateness(b *testing.B) {
	const keys, each = 1000, 10
	const interval = time.Second / each
	clock := limits.NewClock()
	spec := compile(b, limits.Limit{Kind: limits.Rate, N: each, Period: time.Second, Burst: 1, MaxWait: time.Minute})
	var late, timer []time.Duration
	var beside int
	ctx, cancel := context.WithCancel(b.Context())
	var sleeper sync.WaitGroup
	sleeper.Go(func() {
		for ctx.Err() == nil {
			begun := clock.Now()
			time.Sleep(10 * time.Millisecond)
			timer = append(timer, clock.Now().Sub(begun)-10*time.Millisecond)
		}
	})
	for b.Loop() {
		q := limits.NewQueue(clock, limits.QueueOptions{})
		goroutines := runtime.NumGoroutine()
		var wg sync.WaitGroup
		var mu sync.Mutex
		ready := clock.Now().Add(700 * time.Millisecond) // by then all wait
		for range keys {
			start := ready.Add(time.Duration(rand.Int64N(int64(interval))))
			l := limits.New(spec, start)
			l.Take(start, 1) // the turns are start + 1, 2, 3 … intervals
			told := make([]limits.Time, 0, each)
			for range each {
				wg.Go(func() {
					claims := []limits.Claim{{Limiter: l, N: 1}}
					i, err := q.TakeAll(b.Context(), claims)
					now := clock.Now()
					if i >= 0 || err != nil {
						b.Errorf("refused: %+v, %v", claims[0].Decision, err)
					}
					mu.Lock()
					defer mu.Unlock()
					told = append(told, now)
					late = append(late, now.Sub(start.Add(time.Duration(len(told))*interval)))
				})
			}
		}
		beside = max(beside, runtime.NumGoroutine()-goroutines-keys*each)
		wg.Wait()
		q.Close()
	}
	cancel()
	sleeper.Wait()
	b.ReportMetric(percentile(late, 0.5), "p50-ms")
	b.ReportMetric(percentile(late, 0.99), "p99-ms")
	b.ReportMetric(percentile(late, 1), "max-ms")
	b.ReportMetric(percentile(timer, 0.99), "timer-p99-ms")
	b.ReportMetric(float64(beside), "goroutines-beside")
	b.ReportMetric(0, "ns/op")
}

func percentile(d []time.Duration, p float64) (ms float64) {
	slices.Sort(d)
	return d[int(p*float64(len(d)-1))].Seconds() * 1000
}
