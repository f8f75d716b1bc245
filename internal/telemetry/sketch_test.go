package telemetry_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/tollgate-dev/tollgate/extauthz"
	"github.com/tollgate-dev/tollgate/internal/telemetry"
)

// TestTopKeepsItsBounds holds the sketch against exact counts, on streams in
// which many call about as often and in which few do most.
func TestTopKeepsItsBounds(t *testing.T) {
	for _, skew := range []float64{1.01, 1.2, 2} {
		t.Run(fmt.Sprint(skew), func(t *testing.T) {
			o := newTold(100)
			random := rand.New(rand.NewPCG(1, 2))
			zipf := rand.NewZipf(random, skew, 1, 99_999)
			exact := map[string]uint64{}
			const requests = 400_000
			for range requests {
				consumer := fmt.Sprint("c", zipf.Uint64())
				exact[consumer]++
				o.Observe(&extauthz.Event{API: "ext_authz", Outcome: extauthz.Admitted, Consumer: consumer})
			}
			tracked := o.top.Weights()
			if len(tracked) > 2048 {
				t.Errorf("%d are tracked", len(tracked))
			}
			inShard, capacity := map[int]uint64{}, 2048/16
			for consumer, n := range exact {
				inShard[o.top.Shard(consumer)] += n
			}
			for consumer, n := range exact {
				w, ok := tracked[consumer]
				most := inShard[o.top.Shard(consumer)] / uint64(capacity)
				switch {
				case !ok && n > most:
					t.Errorf("%s made %d requests and is not tracked, though no more than %d may be overlooked", consumer, n, most)
				case ok && (w.Weight < n || w.Weight-w.Excess > n || w.Excess > most):
					t.Errorf("%s made %d requests and weighs %d, of which %d may be too much, at most %d", consumer, n, w.Weight, w.Excess, most)
				}
			}
		})
	}
}

// TestTopIsExactOnceTracked, from many goroutines.
func TestTopIsExactOnceTracked(t *testing.T) {
	o := newTold(10)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 2000 {
				o.Observe(&extauthz.Event{API: "ext_authz", Outcome: extauthz.Admitted, Domain: "mesh", Consumer: fmt.Sprint("c", (i+g)%50), Took: time.Microsecond})
			}
		})
	}
	wg.Wait()
	for _, a := range o.top.Busiest(100) {
		if a.Admitted != 320 {
			t.Errorf("%s was admitted %d times, want 320", a.Consumer, a.Admitted)
		}
	}
	if n := counted(t, o.registry, "tollgate_decisions_total"); n != 16_000 {
		t.Errorf("%v decisions, want 16000", n)
	}
}

func counted(t *testing.T, from prometheus.Gatherer, name string) (n float64) {
	t.Helper()
	families, err := from.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				n += m.GetCounter().GetValue()
			}
		}
	}
	return n
}

// TestDurationsAreTheLibrarys has ours and the library's histogram take in the
// same durations, at the bounds of buckets too.
func TestDurationsAreTheLibrarys(t *testing.T) {
	o := newTold(10)
	library := prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "x", Buckets: telemetry.Classic, NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 1000, NativeHistogramZeroThreshold: telemetry.Lowest,
	})
	durations := []time.Duration{0, 1, 59, 60, 61, time.Hour}
	for _, b := range telemetry.Classic {
		d := time.Duration(b * 1e9)
		durations = append(durations, d-1, d, d+1)
	}
	random := rand.New(rand.NewPCG(3, 4))
	for range 20_000 {
		durations = append(durations, time.Duration(1)<<random.IntN(37)+time.Duration(random.Int64N(1<<random.IntN(37))))
	}
	for _, d := range durations {
		library.Observe(min(d.Seconds(), telemetry.Longest)) // ours has no buckets beyond
		o.Observe(&extauthz.Event{API: "ext_authz", Outcome: extauthz.Admitted, Took: d})
	}
	var want dto.Metric
	if err := library.Write(&want); err != nil {
		t.Fatal(err)
	}
	families, err := o.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(families, func(f *dto.MetricFamily) bool { return f.GetName() == "tollgate_decision_seconds" })
	got := families[i].GetMetric()[0].GetHistogram()
	if diff := cmp.Diff(want.GetHistogram(), got, protocmp.Transform(), protocmp.IgnoreFields(&dto.Histogram{}, "sample_sum", "created_timestamp")); diff != "" {
		t.Errorf("(-library +ours):\n%s", diff)
	}
}
