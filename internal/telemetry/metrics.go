package telemetry

import (
	"maps"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/tollgate-dev/tollgate/extauthz"
)

// maxSeries bounds the number of different decisions that are counted apart. It
// is far above what a configuration names; beyond it the rule becomes "other".
const maxSeries = 10_000

// Build says which build runs.
type Build struct{ Version, Revision string }

// Live is what is read at each scrape.
type Live struct {
	Limiters  func() int    // live limiters of descriptors
	Evictions func() uint64 // limiters forgotten to make room
	Consumers func() int    // known consumers

	// Unknown is how many requests named a domain without rules; nil: nobody counts them.
	Unknown func() uint64
}

// Metrics are the metrics of one Tollgate. Safe for concurrent use.
type Metrics struct {
	decisions *prometheus.CounterVec
	seconds   *prometheus.HistogramVec

	// series is read without a lock. What is new waits in fresh until it has
	// been asked for often enough to pay for a copy of the whole.
	series atomic.Pointer[map[labels]series]
	mu     sync.Mutex // guards what follows, and writes of series
	fresh  map[labels]series
	misses int

	reloaded     prometheus.Gauge
	reloadedLast prometheus.Gauge
}

// labels are the label values of tollgate_decisions_total.
type labels struct {
	api     string
	outcome extauthz.Outcome
	domain  string
	rule    string
}

// series is where decisions with the same labels are counted.
type series struct {
	count   prometheus.Counter
	seconds prometheus.Observer
}

// NewMetrics registers Tollgate's metrics, and those of the Go runtime and the
// process, with reg. It panics if they are registered there already.
func NewMetrics(reg prometheus.Registerer, b Build, live Live, top *Top) *Metrics {
	m := &Metrics{
		decisions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "decisions_total",
			Help: "Decisions by API, outcome, domain and the rule that decided (empty: a consumer's own limits).",
		}, []string{"api", "outcome", "domain", "rule"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "decision_seconds",
			Help:    "Time to decide, without the time that a request was held for its turn.",
			Buckets: []float64{1e-6, 2.5e-6, 5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 1e-3, 1e-2, 0.1, 1},

			// For whoever scrapes native histograms; others get the buckets above.
			NativeHistogramBucketFactor:     1.1,
			NativeHistogramMaxBucketNumber:  100,
			NativeHistogramMinResetDuration: time.Hour,
		}, []string{"api", "outcome"}),
		reloaded: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "config_last_reload_successful",
			Help: "1 if the configuration on disk is in force, 0 if it has problems and the one before is kept.",
		}),
		reloadedLast: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "config_last_reload_success_timestamp_seconds",
			Help: "When a configuration was last put in force, in seconds since the Unix epoch.",
		}),
	}
	m.series.Store(&map[labels]series{})
	m.fresh = map[labels]series{}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "build_info",
		Help:        "Always 1; the labels say which build runs.",
		ConstLabels: prometheus.Labels{"version": b.Version, "revision": b.Revision, "goversion": runtime.Version()},
	})
	build.Set(1)
	prefixed := prometheus.WrapRegistererWithPrefix("tollgate_", reg)
	prefixed.MustRegister(m.decisions, m.seconds, m.reloaded, m.reloadedLast, build, top,
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

func (m *Metrics) count(e *extauthz.Event) {
	s := m.find(e)
	s.count.Inc()
	s.seconds.Observe(e.Took.Seconds())
}

// exemplify is count for a decision whose trace is recorded.
func (m *Metrics) exemplify(e *extauthz.Event, traceID string) {
	s := m.find(e)
	s.count.Inc()
	if o, ok := s.seconds.(prometheus.ExemplarObserver); ok {
		o.ObserveWithExemplar(e.Took.Seconds(), prometheus.Labels{"trace_id": traceID})
	}
}

func (m *Metrics) find(e *extauthz.Event) series {
	l := labels{e.API, e.Outcome, e.Domain, e.Rule}
	found, ok := (*m.series.Load())[l]
	if !ok {
		found = m.add(l)
	}
	return found
}

// add finds or makes the series that are not in the lock-free map.
func (m *Metrics) add(l labels) series {
	m.mu.Lock()
	defer m.mu.Unlock()
	have := *m.series.Load()
	if s, ok := have[l]; ok {
		return s
	}
	if _, ok := m.fresh[l]; !ok && len(have)+len(m.fresh) >= maxSeries {
		l.domain, l.rule = "other", "other"
	}
	s, ok := m.fresh[l]
	if !ok {
		s = series{
			count:   m.decisions.WithLabelValues(l.api, string(l.outcome), strings.ToValidUTF8(l.domain, "\uFFFD"), strings.ToValidUTF8(l.rule, "\uFFFD")),
			seconds: m.seconds.WithLabelValues(l.api, string(l.outcome)),
		}
		m.fresh[l] = s
	}
	if m.misses++; m.misses > len(have)/4 {
		more := maps.Clone(have)
		maps.Copy(more, m.fresh)
		m.series.Store(&more)
		clear(m.fresh)
		m.misses = 0
	}
	return s
}
