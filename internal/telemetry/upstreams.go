package telemetry

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tollgate-dev/tollgate/extauthz/upstreams"
	"github.com/tollgate-dev/tollgate/limits"
)

// Upstreams are the metrics of upstreams, read at each scrape. Its labels are
// configured names and fixed words.
type Upstreams struct {
	registry *upstreams.Registry
	clock    *limits.Clock
}

// NewUpstreams registers the metrics of a registry's upstreams.
func NewUpstreams(r prometheus.Registerer, registry *upstreams.Registry, clock *limits.Clock) {
	r.MustRegister(&Upstreams{registry, clock})
}

func upstreamDesc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("tollgate_upstream_"+name, help, append([]string{"upstream"}, labels...), nil)
}

// upstreamDescs are what is told of an upstream.
type upstreamDescs struct {
	state, pause, violations, violationsTotal, observed, limit, working, waiting, requests, held, heldSeconds, answers *prometheus.Desc
	budgetCalls, budgetUsed, budgetForecast, budgetAlert                                                               *prometheus.Desc
}

func newUpstreamDescs() *upstreamDescs {
	return &upstreamDescs{
		state:           upstreamDesc("state", "1 for the state that the upstream is in.", "state"),
		pause:           upstreamDesc("pause_seconds", "How long the pause goes on that the upstream asked for; 0 without one."),
		violations:      upstreamDesc("violations", "Refusals by the upstream in a row, each the beginning of a pause."),
		violationsTotal: upstreamDesc("violations_total", "Refusals by the upstream that began a pause."),
		observed:        upstreamDesc("observed_requests", "Requests that the upstream had taken in the period before the last violation."),
		limit:           upstreamDesc("limit_requests", "Requests that a limit allows in its period, as configured.", "limit"),
		working:         upstreamDesc("working_limit_requests", "Requests that are let pass in that period, less the margin and what was learned.", "limit"),
		waiting:         upstreamDesc("waiting_requests", "Requests that are held."),
		requests:        upstreamDesc("requests_total", "Requests to the upstream by how they ended: passed, paused, limited, full, spent or left.", "outcome"),
		held:            upstreamDesc("held_requests_total", "Requests that were held."),
		heldSeconds:     upstreamDesc("held_seconds_total", "How long requests were held that passed in the end."),
		answers:         upstreamDesc("answers_total", "Answers of the upstream: taken, refused or failed.", "answer"),
		budgetCalls:     upstreamDesc("budget_calls", "Calls in the budget of a period.", "period"),
		budgetUsed:      upstreamDesc("budget_used_calls", "Calls that were made in the current period.", "period"),
		budgetForecast:  upstreamDesc("budget_forecast_calls", "Calls at the end of the period, if they go on as so far.", "period"),
		budgetAlert:     upstreamDesc("budget_alert_ratio", "The highest part of the budget that was reached of those that are told; 0: none.", "period"),
	}
}

// Describe implements prometheus.Collector: without descriptions, since which
// upstreams there are changes with the configuration.
func (*Upstreams) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c *Upstreams) Collect(to chan<- prometheus.Metric) {
	now, d := c.clock.Now(), newUpstreamDescs()
	for _, u := range c.registry.All() {
		d.collect(to, now, u.Status(now))
	}
}

func (d *upstreamDescs) collect(to chan<- prometheus.Metric, now limits.Time, s upstreams.Status) {
	tell := func(desc *prometheus.Desc, kind prometheus.ValueType, v float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(desc, kind, v, append([]string{s.ID}, labels...)...)
	}
	gauge := func(desc *prometheus.Desc, v float64, labels ...string) {
		tell(desc, prometheus.GaugeValue, v, labels...)
	}
	count := func(desc *prometheus.Desc, v int64, labels ...string) {
		tell(desc, prometheus.CounterValue, float64(v), labels...)
	}
	for _, state := range []upstreams.State{upstreams.Open, upstreams.Held, upstreams.Frozen, upstreams.Probing} {
		is := 0.0
		if s.State == state {
			is = 1
		}
		gauge(d.state, is, string(state))
	}
	pause := time.Duration(0)
	if s.Until != 0 {
		pause = max(0, s.Until.Sub(now))
	}
	gauge(d.pause, pause.Seconds())
	gauge(d.violations, float64(s.Violations))
	gauge(d.observed, float64(s.Observed))
	gauge(d.waiting, float64(s.Waiting))
	named := map[string]int{}
	for _, l := range s.Limits {
		name := l.Name
		if named[l.Name]++; named[l.Name] > 1 {
			name += "-" + strconv.Itoa(named[l.Name])
		}
		gauge(d.limit, float64(l.Limit), name)
		gauge(d.working, float64(l.Per(l.Period)), name)
	}
	n := &s.Counts
	count(d.violationsTotal, n.Violations)
	count(d.requests, n.Passed, "passed")
	count(d.requests, n.Paused, "paused")
	count(d.requests, n.Limited, "limited")
	count(d.requests, n.Full, "full")
	count(d.requests, n.Spent, "spent")
	count(d.requests, n.Left, "left")
	count(d.held, n.Held)
	tell(d.heldSeconds, prometheus.CounterValue, n.HeldFor.Seconds())
	count(d.answers, n.Taken, "taken")
	count(d.answers, n.Refused, "refused")
	count(d.answers, n.Failed, "failed")
	for _, b := range s.Budget {
		period := string(b.Period)
		gauge(d.budgetCalls, float64(b.Calls), period)
		gauge(d.budgetUsed, float64(b.Used), period)
		gauge(d.budgetForecast, float64(b.Forecast), period)
		gauge(d.budgetAlert, b.Alert, period)
	}
}
