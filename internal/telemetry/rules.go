package telemetry

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tollgate-dev/tollgate/descriptors"
)

// rules are what each rule has said of hits, whichever rule decided the request
// in the end, read at each scrape. Their labels are configured.
type rules struct {
	tallies                    func() []descriptors.Tally
	within, near, over, shadow *prometheus.Desc
}

func newRules(tallies func() []descriptors.Tally) *rules {
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc("tollgate_rule_"+name+"_total", help, []string{"domain", "rule", "limit"}, nil)
	}
	return &rules{
		tallies: tallies,
		within:  desc("within_limit", "Hits that a rule's limit admits, also where another refuses the request."),
		near:    desc("near_limit", "Hits that were taken beyond 80 % of a rule's limit."),
		over:    desc("over_limit", "Hits that a rule's limit refuses, also where it only watches."),
		shadow:  desc("shadow_mode", "Hits that a rule in shadow_mode would have refused."),
	}
}

// Describe implements prometheus.Collector.
func (r *rules) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{r.within, r.near, r.over, r.shadow} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (r *rules) Collect(to chan<- prometheus.Metric) {
	for i, t := range r.tallies() {
		if i >= maxSeries {
			return // far more than anybody writes
		}
		for d, n := range map[*prometheus.Desc]uint64{r.within: t.Within, r.near: t.Near, r.over: t.Over, r.shadow: t.Shadow} {
			to <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), t.Domain, valid(t.Path), t.Limit)
		}
	}
}
