package telemetry_test

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/tollgate-dev/tollgate/extauthz/upstreams"
	"github.com/tollgate-dev/tollgate/internal/telemetry"
	"github.com/tollgate-dev/tollgate/limits"
)

func TestUpstreamMetrics(t *testing.T) {
	clock := limits.NewClock()
	r := upstreams.New(upstreams.Options{Clock: clock})
	defer func() { _ = r.Close() }()
	window := upstreams.Limit{Limit: limits.Limit{Kind: limits.Window, N: 100, Period: 10 * time.Second}, Margin: 0.1}
	r.Configure([]*upstreams.Config{
		{ID: "a", Limits: []upstreams.Limit{window, window, {Limit: limits.Limit{Kind: limits.Rate, N: 40, Period: time.Second}, Margin: 0.1}},
			Signals: []upstreams.Signal{{Status: 429}}, Budget: &upstreams.Budget{Periods: []upstreams.Period{{Calls: 10, Calendar: limits.Day}}}},
		{ID: "b"},
	})
	if _, err := r.ByID("a").Admit(t.Context(), upstreams.Request{Cost: 1}); err != nil {
		t.Fatal(err)
	}
	r.ByID("a").Observe(clock.Now(), upstreams.Answer{Status: 500})
	registry := prometheus.NewRegistry()
	telemetry.NewUpstreams(registry, r, clock)
	problems, err := testutil.GatherAndLint(registry)
	if err != nil || len(problems) > 0 {
		t.Errorf("lint: %v, %v", problems, err)
	}
	want := `
# HELP tollgate_upstream_answers_total Answers of the upstream: taken, refused or failed.
# TYPE tollgate_upstream_answers_total counter
tollgate_upstream_answers_total{answer="failed",upstream="a"} 1
tollgate_upstream_answers_total{answer="failed",upstream="b"} 0
tollgate_upstream_answers_total{answer="refused",upstream="a"} 0
tollgate_upstream_answers_total{answer="refused",upstream="b"} 0
tollgate_upstream_answers_total{answer="taken",upstream="a"} 0
tollgate_upstream_answers_total{answer="taken",upstream="b"} 0
# HELP tollgate_upstream_budget_used_calls Calls that were made in the current period.
# TYPE tollgate_upstream_budget_used_calls gauge
tollgate_upstream_budget_used_calls{period="day",upstream="a"} 1
# HELP tollgate_upstream_working_limit_requests Requests that are let pass in that period, less the margin and what was learned.
# TYPE tollgate_upstream_working_limit_requests gauge
tollgate_upstream_working_limit_requests{limit="rate-40-s",upstream="a"} 36
tollgate_upstream_working_limit_requests{limit="window-100-10s",upstream="a"} 92
tollgate_upstream_working_limit_requests{limit="window-100-10s-2",upstream="a"} 92
`
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want),
		"tollgate_upstream_answers_total", "tollgate_upstream_budget_used_calls", "tollgate_upstream_working_limit_requests"); err != nil {
		t.Error(err)
	}
	// Nothing is left of an upstream that is gone.
	r.Configure(nil)
	if n, err := testutil.GatherAndCount(registry); err != nil || n != 0 {
		t.Errorf("%d metrics of no upstream, %v", n, err)
	}
}
