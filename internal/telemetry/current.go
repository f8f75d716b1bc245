package telemetry

import (
	"cmp"
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tollgate-dev/tollgate/extauthz"
)

// current shows the bursts of refusals that go on as metrics, as many as
// consumers have metrics of their own: who is refused, by what, since when.
type current struct {
	refusals        *refusals
	shown           func() int
	since, requests *prometheus.Desc
}

func newCurrent(r *refusals, shown func() int) *current {
	by := []string{"consumer", "reason", "limit", "rule", "upstream"}
	return &current{
		refusals: r, shown: shown,
		since: prometheus.NewDesc("tollgate_refusals_since_timestamp_seconds",
			"When refusals began that go on (of telemetry.top_consumers bursts at most), in seconds since the Unix epoch.", by, nil),
		requests: prometheus.NewDesc("tollgate_refusals_since_requests",
			"How many requests have been refused since then.", by, nil),
	}
}

// why is what tells the series apart: the tokens of a consumer are one.
type why struct {
	consumer              string
	reason                extauthz.Reason
	limit, rule, upstream string
}

// Describe implements prometheus.Collector.
func (c *current) Describe(to chan<- *prometheus.Desc) { to <- c.since; to <- c.requests }

// Collect implements prometheus.Collector.
func (c *current) Collect(to chan<- prometheus.Metric) {
	sums := map[why]Refusal{}
	for _, r := range c.refusals.all() {
		r.Rule = valid(r.Rule)
		k := why{r.Consumer, r.Reason, r.Limit, r.Rule, r.Upstream}
		if s, ok := sums[k]; ok {
			r.Refused += s.Refused
			if s.Since.Before(r.Since) {
				r.Since = s.Since
			}
		}
		sums[k] = r
	}
	all := make([]Refusal, 0, len(sums))
	for _, r := range sums {
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b Refusal) int {
		return cmp.Or(cmp.Compare(b.Refused, a.Refused), a.Since.Compare(b.Since), cmp.Compare(a.Consumer, b.Consumer))
	})
	for _, r := range all[:min(len(all), c.shown())] {
		labels := []string{r.Consumer, string(r.Reason), r.Limit, r.Rule, r.Upstream}
		to <- prometheus.MustNewConstMetric(c.since, prometheus.GaugeValue, float64(r.Since.UnixMilli())/1e3, labels...)
		to <- prometheus.MustNewConstMetric(c.requests, prometheus.GaugeValue, float64(r.Refused), labels...)
	}
}
