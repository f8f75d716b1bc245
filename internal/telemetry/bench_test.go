package telemetry_test

import (
	"fmt"
	"io"
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tollgate-dev/tollgate/extauthz"
	"github.com/tollgate-dev/tollgate/internal/telemetry"
	"github.com/tollgate-dev/tollgate/limits"
)

// BenchmarkObserve is what telling of a decision costs, of one consumer, of a
// thousand, and of more than are tracked, in one goroutine and in many.
func BenchmarkObserve(b *testing.B) {
	spec, err := limits.Compile(limits.Limit{Kind: limits.Rate, N: 100, Period: time.Second})
	if err != nil {
		b.Fatal(err)
	}
	reasons := map[extauthz.Outcome]extauthz.Reason{extauthz.Throttled: extauthz.RateLimited}
	for _, outcome := range []extauthz.Outcome{extauthz.Admitted, extauthz.Throttled} {
		for _, consumers := range []int{1, 1000, 100_000} {
			top := telemetry.NewTop(100)
			metrics := telemetry.NewMetrics(prometheus.NewRegistry(), telemetry.Build{}, telemetry.Live{}, top)
			o := telemetry.NewObserver(metrics, top, nil, telemetry.NewLogger(io.Discard, "json", new(slog.LevelVar)))
			events := make([]extauthz.Event, consumers)
			for i := range events {
				events[i] = extauthz.Event{Reason: reasons[outcome], API: "ext_authz", Outcome: outcome, Domain: "mesh", Consumer: fmt.Sprintf("consumer-%08d", i), Token: "prod", Limit: spec,
					Took: 3 * time.Microsecond, Method: "GET", Path: "/v1/orders/42", RequestID: "5b2c1b3f-6a0e-4f6e-9d0a-3f1f7f4b9a11"}
			}
			name := fmt.Sprintf("%s/%d", outcome, consumers)
			b.Run(name, func(b *testing.B) {
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					o.Observe(&events[i%consumers])
				}
			})
			b.Run(name+"/parallel", func(b *testing.B) {
				b.ReportAllocs()
				b.RunParallel(func(pb *testing.PB) {
					for i := 0; pb.Next(); i++ {
						o.Observe(&events[i%consumers])
					}
				})
			})
		}
	}
}
