package upstreams_test

import (
	"testing"
	"time"

	"github.com/tollgate-dev/tollgate/extauthz/upstreams"
	"github.com/tollgate-dev/tollgate/extauthz/upstreams/upstreamstest"
	"github.com/tollgate-dev/tollgate/limits"
)

// What is left of a limit by its margin: at least the margin's complement of
// what it allows, a smaller count, and a longer period.
func TestMargin(t *testing.T) {
	for _, c := range []struct {
		limit  limits.Limit
		margin float64
		n      int64
		period time.Duration
		left   int64
	}{
		{limits.Limit{Kind: limits.Window, N: 100, Period: 10 * time.Second}, 0, 100, 10 * time.Second, 100},
		{limits.Limit{Kind: limits.Window, N: 100, Period: 10 * time.Second}, 0.1, 92, 10150 * time.Millisecond, 92},
		{limits.Limit{Kind: limits.IdleReset, N: 200, Period: 10 * time.Second}, 0.2, 168, 10300 * time.Millisecond, 168},
		{limits.Limit{Kind: limits.Window, N: 1, Period: time.Second}, 0.1, 1, 1103260870, 1}, // nothing to give up but time
		{limits.Limit{Kind: limits.Rate, N: 40, Period: time.Second}, 0.1, 40, 1111111112, 36},
		{limits.Limit{Kind: limits.Rate, N: 40, Period: time.Second, Burst: 100}, 0.5, 40, 2 * time.Second, 50},
		{limits.Limit{Kind: limits.Pace, N: 10, Period: time.Second}, 0.5, 10, 2 * time.Second, 1},
		{limits.Limit{Kind: limits.Quota, N: 1000, Calendar: limits.Month}, 0.01, 990, 0, 990},
	} {
		b := upstreamstest.NewBench(t, config(upstreams.Limit{Limit: c.limit, Margin: c.margin}), nil, upstreams.Options{})
		l := b.Status().Limits[0]
		if l.Working != c.n || l.WorkingPeriod != c.period || l.Remaining != c.left || l.Limit != c.limit.N {
			t.Errorf("%+v less %v: %d per %v, %d at once, want %d per %v, %d", c.limit, c.margin, l.Working, l.WorkingPeriod, l.Remaining, c.n, c.period, c.left)
		}
		b.End()
	}
}
