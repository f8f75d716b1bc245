package upstreams_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/tollgate-dev/tollgate/extauthz/upstreams"
	"github.com/tollgate-dev/tollgate/extauthz/upstreams/upstreamstest"
	"github.com/tollgate-dev/tollgate/limits"
)

// config is an upstream as Keeper's, with these limits.
func config(ls ...upstreams.Limit) *upstreams.Config {
	return &upstreams.Config{
		ID: "keeper", Limits: ls,
		Signals: []upstreams.Signal{{Status: 429}, {Status: 403, Body: `"throttled"`}, {Status: 503, Header: "retry-after"}},
	}
}

// limit is one with a margin of 10 %.
func limit(kind limits.Kind, n int64, period, wait time.Duration) upstreams.Limit {
	return upstreams.Limit{Limit: limits.Limit{Kind: kind, N: n, Period: period, MaxWait: wait}, Margin: 0.1}
}

// TestModels is K-1 and K-2: ten minutes of any load against each model of an
// upstream that allows 100 per 10 s throttle nobody, and use at least 90 % of
// what could be used.
func TestModels(t *testing.T) {
	for model, kind := range map[string]limits.Kind{"fixed": limits.Window, "sliding": limits.Window, "idle": limits.IdleReset} {
		for name, load := range upstreamstest.Loads(100, 10*time.Second) {
			t.Run(model+"/"+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					f := &upstreamstest.Fake{Model: model, N: 100, Period: 10 * time.Second, Penalty: 10 * time.Second}
					b := upstreamstest.NewBench(t, config(limit(kind, 100, 10*time.Second, time.Minute)), f, upstreams.Options{})
					defer b.End()
					start := time.Now()
					load(b, start.Add(10*time.Minute))
					seen := f.Seen()
					offered := float64(b.Passed() + len(b.Refused()) + b.Status().Waiting)
					best := min(offered, 100*time.Since(start).Seconds()/10)
					t.Logf("%.0f offered, %d passed, %.1f %% of the optimum, %d throttled", offered, seen.Passed, 100*float64(seen.Passed)/best, seen.Refused)
					if seen.Refused > 0 {
						t.Errorf("the upstream throttled %d requests, want 0", seen.Refused)
					}
					if float64(seen.Passed) < 0.9*best {
						t.Errorf("%d passed, want at least 90 %% of %.0f", seen.Passed, best)
					}
				})
			})
		}
	}
}
