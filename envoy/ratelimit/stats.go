package ratelimit

import (
	"cmp"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tollgate-dev/tollgate/descriptors"
	"github.com/tollgate-dev/tollgate/extauthz"
	"github.com/tollgate-dev/tollgate/limits"
)

// maxStats bounds the limits that are counted apart; all further ones are
// counted under the domain and key "other". It is far above what rules name.
const maxStats = 10_000

// The counters of a limit, in the order of limitStats.
const (
	totalHits = iota
	overLimit
	nearLimit
	withinLimit
	shadowMode
	kinds
)

var limitStats = [kinds][2]string{
	totalHits:   {"total_hits", "Hits that were asked for."},
	overLimit:   {"over_limit", "Hits that the limit refuses, also where it only watches."},
	nearLimit:   {"near_limit", "Admitted hits beyond NEAR_LIMIT_RATIO of the limit."},
	withinLimit: {"within_limit", "Hits that the limit admits, also where another refuses the request."},
	shadowMode:  {"shadow_mode", "Hits that a limit in shadow_mode would have refused."},
}

// Stats are metrics under the names that envoyproxy/ratelimit gives them in
// Prometheus, for dashboards that are there. A limit has a label for each level
// of its rule: key1, key2 and so on. Safe for concurrent use.
type Stats struct {
	nearRatio float64

	mu     sync.RWMutex // guards what follows
	series map[statsKey]*limitSeries
	shown  map[string]*limitSeries // by labels, which several limits may have in common

	requests, global, failures, loaded, notLoaded, unknown prometheus.Counter
	seconds                                                prometheus.Histogram
}

type statsKey struct{ domain, label string }

// limitSeries are the counters of one limit.
type limitSeries struct {
	descs  [kinds]*prometheus.Desc
	labels []string // values
	counts [kinds]atomic.Uint64
}

// NewStats returns metrics to register with a registry. From nearRatio of its
// limit on, a hit counts as near it.
func NewStats(nearRatio float64) *Stats {
	counter := func(name, help string, labels prometheus.Labels) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help, ConstLabels: labels})
	}
	method := prometheus.Labels{"grpc_method": "ShouldRateLimit"}
	s := &Stats{
		nearRatio: nearRatio, series: map[statsKey]*limitSeries{}, shown: map[string]*limitSeries{},
		requests:  counter("ratelimit_service_total_requests", "Calls.", method),
		global:    counter("ratelimit_service_global_shadow_mode", "Requests that SHADOW_MODE alone has admitted.", nil),
		failures:  counter("ratelimit_service_should_rate_limit_error", "Calls that could not be decided.", prometheus.Labels{"err_type": "service_error"}),
		loaded:    counter("ratelimit_service_config_load_success", "Rules that were put in force.", nil),
		notLoaded: counter("ratelimit_service_config_load_error", "Rules that were refused.", nil),
		unknown:   counter("ratelimit_service_rate_limit_domain_not_found", "Requests whose domain has no rules.", nil),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "ratelimit_service_response_time_seconds", Help: "Time to decide, that of waiting for a turn included.", ConstLabels: method,
			Buckets: append([]float64{1e-5, 1e-4, 1e-3}, prometheus.DefBuckets...),
		}),
	}
	return s
}

// Loaded counts an attempt to put rules in force.
func (s *Stats) Loaded(err error) {
	if err != nil {
		s.notLoaded.Inc()
		return
	}
	s.loaded.Inc()
}

// Describe implements prometheus.Collector. It names nothing, since rules of
// different depth have different labels under one name.
func (s *Stats) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (s *Stats) Collect(out chan<- prometheus.Metric) {
	for _, c := range []prometheus.Metric{s.requests, s.global, s.failures, s.loaded, s.notLoaded, s.unknown, s.seconds} {
		out <- c
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, l := range s.shown {
		for kind := range l.counts {
			out <- prometheus.MustNewConstMetric(l.descs[kind], prometheus.CounterValue, float64(l.counts[kind].Load()), l.labels...)
		}
	}
}

func (s *Stats) called(took time.Duration, err error) {
	s.requests.Inc()
	s.seconds.Observe(took.Seconds())
	if err != nil {
		s.failures.Inc()
	}
}

// count takes a decision in.
func (s *Stats) count(d *decision) {
	global := false
	for i := range d.claims {
		o := d.origins[i]
		p := &d.parts[o.part]
		global = global || !d.claims[i].Decision.Allowed && !d.watches(i) && !p.refund
		if o.rule != nil && !p.refund {
			s.hits(d, p, o.rule, d.claims[i].N, &d.claims[i].Decision)
		}
	}
	for i := range d.parts {
		p := &d.parts[i]
		if p.spentFrom.rule != nil {
			s.hits(d, p, p.spentFrom.rule, p.spent.N, &p.spent.Decision)
		}
		for r := p.rule; r != nil && !p.refund; r = r.Next {
			if r.Unlimited && !d.replaced(r) {
				s.hits(d, p, r, p.hits, nil)
			}
		}
	}
	if d.unknown {
		s.unknown.Inc()
	}
	if global && d.policy.Mode == extauthz.Shadow {
		s.global.Inc()
	}
}

// hits counts what one limit, nil if it has none, has said of n hits.
func (s *Stats) hits(d *decision, p *part, r *descriptors.Rule, n int64, said *limits.Decision) {
	l := s.find(d, p, r)
	l.counts[totalHits].Add(uint64(n))
	switch {
	case said == nil:
		l.counts[withinLimit].Add(uint64(n))
	case said.Allowed:
		l.counts[withinLimit].Add(uint64(n))
		if d.refused {
			break // another limit refuses, and nothing was taken
		}
		limit := r.Spec.Limit().N
		threshold := int64(math.Floor(float64(limit) * s.nearRatio))
		l.counts[nearLimit].Add(uint64(min(n, max(0, limit-said.Remaining-threshold))))
	default:
		l.counts[overLimit].Add(uint64(n))
		if r.Shadow {
			l.counts[shadowMode].Add(uint64(n))
		}
	}
}

func (s *Stats) find(d *decision, p *part, r *descriptors.Rule) *limitSeries {
	key := statsKey{d.rules.Name(), d.server.o.Book.Label(r, p.entries)}
	s.mu.RLock()
	l := s.series[key]
	if l == nil && len(s.series) >= maxStats {
		l = s.series[statsKey{}]
	}
	s.mu.RUnlock()
	if l == nil {
		l = s.add(key, r.Levels(key.label, p.entries))
	}
	return l
}

// add makes a series, of which the last one is for all others.
func (s *Stats) add(key statsKey, levels []string) *limitSeries {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.series) >= maxStats-1 {
		key, levels = statsKey{}, []string{"other"}
	}
	if l := s.series[key]; l != nil {
		return l
	}
	l := newLimitSeries(cmp.Or(key.domain, "other"), levels)
	text := fmt.Sprintf("%q", l.labels)
	if same := s.shown[text]; same != nil {
		l = same
	}
	s.series[key], s.shown[text] = l, l
	return l
}

func newLimitSeries(domain string, levels []string) *limitSeries {
	names := []string{"domain"}
	l := &limitSeries{labels: []string{sanitize(domain)}}
	for i, level := range levels {
		names = append(names, "key"+strconv.Itoa(i+1))
		l.labels = append(l.labels, sanitize(level))
	}
	for kind, stat := range limitStats {
		l.descs[kind] = prometheus.NewDesc("ratelimit_service_rate_limit_"+stat[0], stat[1], names, nil)
	}
	return l
}

var (
	ipv4     = regexp.MustCompile(`\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}`)
	unstatsd = strings.NewReplacer(":", "_", "|", "_")
)

// sanitize writes a name as statsd would have let it through, which is how
// dashboards know it.
func sanitize(name string) string {
	name = ipv4.ReplaceAllStringFunc(name, func(ip string) string { return strings.ReplaceAll(ip, ".", "_") })
	return strings.ToValidUTF8(unstatsd.Replace(name), "_")
}
