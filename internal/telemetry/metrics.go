package telemetry

import (
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/tollgate-dev/tollgate/descriptors"
)

// Build says which build runs.
type Build struct{ Version, Revision string }

// Live is what is read at each scrape.
type Live struct {
	Limiters  func() int    // live limiters of descriptors
	Evictions func() uint64 // limiters forgotten to make room
	Consumers func() int    // known consumers

	Rules func() []descriptors.Tally // what rules have said; nil: nobody counts

	// Unknown is how many requests named a domain without rules; nil: nobody counts them.
	Unknown func() uint64
}

// Metrics are the metrics of one Tollgate. Safe for concurrent use.
type Metrics struct {
	registry     prometheus.Registerer
	decisions    *decisions
	reloaded     prometheus.Gauge
	reloadedLast prometheus.Gauge
}

// NewMetrics registers Tollgate's metrics, and those of the Go runtime and the
// process, with reg. It panics if they are registered there already.
func NewMetrics(reg prometheus.Registerer, b Build, live Live, top *Top) *Metrics {
	m := &Metrics{
		registry:  reg,
		decisions: newDecisions(),
		reloaded: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "config_last_reload_successful",
			Help: "1 if the configuration on disk is in force, 0 if it has problems and the one before is kept.",
		}),
		reloadedLast: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "config_last_reload_success_timestamp_seconds",
			Help: "When a configuration was last put in force, in seconds since the Unix epoch.",
		}),
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "build_info",
		Help:        "Always 1; the labels say which build runs.",
		ConstLabels: prometheus.Labels{"version": b.Version, "revision": b.Revision, "goversion": runtime.Version()},
	})
	build.Set(1)
	prefixed := prometheus.WrapRegistererWithPrefix("tollgate_", reg)
	reg.MustRegister(m.decisions)
	prefixed.MustRegister(m.reloaded, m.reloadedLast, build, top,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "limiters", Help: "Live limiters of descriptors, bounded by limits.cache.size.",
		}, func() float64 { return float64(live.Limiters()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "consumers", Help: "Known consumers.",
		}, func() float64 { return float64(live.Consumers()) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "evictions_total", Help: "Limiters of descriptors that were forgotten to make room.",
		}, func() float64 { return float64(live.Evictions()) }),
	)
	if live.Rules != nil {
		reg.MustRegister(newRules(live.Rules))
	}
	if live.Unknown != nil {
		prefixed.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "unknown_domains_total", Help: "Requests to the rate limit service that were admitted because their domain has no rules.",
		}, func() float64 { return float64(live.Unknown()) }))
	}
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Reloaded records whether a configuration that was read at a time is in force.
func (m *Metrics) Reloaded(at time.Time, err error) {
	if err != nil {
		m.reloaded.Set(0)
		return
	}
	m.reloaded.Set(1)
	m.reloadedLast.Set(float64(at.UnixNano()) / 1e9)
}
