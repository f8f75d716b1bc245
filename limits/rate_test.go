package limits_test

import (
	"testing"
	"time"

	"github.com/tollgate-dev/tollgate/limits"
)

const epoch = limits.Time(1_700_000_000_000_000_000)

func spec(t testing.TB, l limits.Limit) *limits.Spec {
	t.Helper()
	s, err := limits.Compile(l)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestRateSteps(t *testing.T) {
	type row struct {
		at        time.Duration
		n         int64
		allowed   bool
		remaining int64
		wait      time.Duration
		reset     time.Duration
	}
	const ms = time.Millisecond
	tests := []struct {
		name  string
		limit limits.Limit
		steps []row
	}{
		{"a burst, then one by one", limits.Limit{Kind: limits.Rate, N: 10, Period: time.Second, Burst: 2}, []row{
			{0, 1, true, 1, 0, 100 * ms},
			{0, 1, true, 0, 0, 200 * ms},
			{0, 1, false, 0, 100 * ms, 200 * ms},
			{99 * ms, 1, false, 0, 1 * ms, 101 * ms},
			{100 * ms, 1, true, 0, 0, 200 * ms},
			{10 * time.Second, 2, true, 0, 0, 200 * ms},
		}},
		{"more than fits", limits.Limit{Kind: limits.Rate, N: 10, Period: time.Second, Burst: 2}, []row{
			{0, 3, false, 2, limits.Never, 0},
			{0, 2, true, 0, 0, 200 * ms},
		}},
		{"a clock a little behind refills nothing", limits.Limit{Kind: limits.Rate, N: 10, Period: time.Second, Burst: 1}, []row{
			{0, 1, true, 0, 0, 100 * ms},
			{-500 * ms, 1, false, 0, 600 * ms, 600 * ms},
			{99 * ms, 1, false, 0, 1 * ms, 1 * ms},
			{100 * ms, 1, true, 0, 0, 100 * ms},
		}},
		{"a clock set back refills from there", limits.Limit{Kind: limits.Rate, N: 10, Period: time.Second, Burst: 5}, []row{
			{0, 5, true, 0, 0, 500 * ms},
			{-time.Hour, 1, false, 0, 100 * ms, 500 * ms},
			{-time.Hour + 100*ms, 1, false, 0, 100 * ms, 500 * ms},
			{-time.Hour + 200*ms, 1, true, 0, 0, 500 * ms},
		}},
		{"zero blocks", limits.Limit{Kind: limits.Rate, N: 0, Period: time.Second, WarmUp: limits.WarmUp{Grace: time.Second}}, []row{
			{0, 1, false, 0, limits.Never, 0},
		}},
		{"pace", limits.Limit{Kind: limits.Pace, N: 1, Period: 2 * time.Second}, []row{
			{0, 1, true, 0, 0, 2 * time.Second},
			{1999 * ms, 1, false, 0, 1 * ms, 1 * ms},
			{2000 * ms, 1, true, 0, 0, 2 * time.Second},
			{time.Hour, 2, false, 1, limits.Never, 0},
		}},
		{"an open grace, then a ramp", limits.Limit{Kind: limits.Rate, N: 1, Period: time.Second, Burst: 1,
			WarmUp: limits.WarmUp{Grace: time.Second, Ramp: time.Second}}, []row{
			{0, 1, true, limits.MaxN, 0, 2 * time.Second},
			{0, 1, true, limits.MaxN, 0, 2 * time.Second},
			{time.Second, 1, true, 0, 0, time.Second},
			{time.Second, 1, false, 0, 585786438, time.Second},
			{2 * time.Second, 1, true, 0, 0, time.Second},
			{2*time.Second + 999*ms, 1, false, 0, 1 * ms, 1 * ms},
			{3 * time.Second, 1, true, 0, 0, time.Second},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := limits.New(spec(t, tt.limit), epoch)
			for i, r := range tt.steps {
				now := epoch.Add(r.at)
				want := limits.Decision{Allowed: r.allowed, Remaining: r.remaining, Wait: r.wait, Reset: r.reset}
				if got := l.Take(now, r.n); got != want {
					t.Errorf("step %d: Take(%v, %d) = %+v, want %+v", i, r.at, r.n, got, want)
				}
			}
		})
	}
}
