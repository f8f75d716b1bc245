package telemetry

import (
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tollgate-dev/tollgate/extauthz"
)

// maxSeries bounds the number of different decisions that are counted apart. It
// is far above what a configuration names; beyond it the rule becomes "other".
const maxSeries = 10_000

// outcomes are all that a decision can come to.
var outcomes = [...]extauthz.Outcome{
	extauthz.Admitted, extauthz.Throttled, extauthz.Unauthenticated,
	extauthz.Forbidden, extauthz.Shadowed, extauthz.Failed,
}

// decisions are tollgate_decisions_total and tollgate_decision_seconds. The
// library's counters are memory that all processors share, and its native
// histograms a search in a map for each observation; here a processor adds to
// memory of its own, and the sums are made when somebody asks. Safe for
// concurrent use.
type decisions struct {
	count, seconds *prometheus.Desc
	born           time.Time
	cells          *cells
	lanes          []lane
	last           atomic.Uint32
	pool           sync.Pool // of *lane: it hands a processor the one that it had before

	mu        sync.Mutex // guards what follows
	known     map[labels]bool
	exemplars map[apiOutcome]map[int]prometheus.Exemplar // the latest of each classic bucket
}

// labels are the label values of tollgate_decisions_total.
type labels struct {
	api     string
	outcome extauthz.Outcome
	domain  string
	rule    string
}

// apiOutcome are those of tollgate_decision_seconds.
type apiOutcome struct {
	api     string
	outcome extauthz.Outcome
}

// lane counts the decisions of about one processor. That two share one is rare
// and does no harm.
type lane struct {
	mu     sync.Mutex // guards what follows
	counts map[labels]*uint64
	took   map[apiOutcome]*took
	recent [len(outcomes)]recent
	_      [64]byte // the next one's cache line is another
}

// took is how long the decisions of one outcome took.
type took struct {
	cells []uint64
	sum   time.Duration
}

// recent saves looking up what was counted last under an outcome: most
// decisions are like the one before.
type recent struct {
	labels labels
	count  *uint64
	took   *took
}

func newDecisions() *decisions {
	d := &decisions{
		count: prometheus.NewDesc("tollgate_decisions_total",
			"Decisions by API, outcome, domain and the rule that decided (empty: a consumer's own limits).", []string{"api", "outcome", "domain", "rule"}, nil),
		seconds: prometheus.NewDesc("tollgate_decision_seconds",
			"Time to decide, without the time that a request was held for its turn.", []string{"api", "outcome"}, nil),
		born: time.Now(), cells: newCells(), lanes: make([]lane, 2*runtime.GOMAXPROCS(0)),
		known: map[labels]bool{}, exemplars: map[apiOutcome]map[int]prometheus.Exemplar{},
	}
	for i := range d.lanes {
		d.lanes[i].counts, d.lanes[i].took = map[labels]*uint64{}, map[apiOutcome]*took{}
	}
	d.pool.New = func() any { return &d.lanes[d.last.Add(1)%uint32(len(d.lanes))] }
	return d
}

func (d *decisions) add(e *extauthz.Event) {
	outcome := slices.Index(outcomes[:], e.Outcome)
	if outcome < 0 {
		return
	}
	cell := d.cells.of(e.Took)
	l := d.pool.Get().(*lane)
	l.mu.Lock()
	r := &l.recent[outcome]
	if r.count == nil || r.labels.rule != e.Rule || r.labels.domain != e.Domain || r.labels.api != e.API {
		d.find(l, r, labels{e.API, e.Outcome, e.Domain, e.Rule})
	}
	*r.count++
	r.took.cells[cell]++
	r.took.sum += e.Took
	l.mu.Unlock()
	d.pool.Put(l)
}

// find sets what was counted last, and makes what is not there. The lane is locked.
func (d *decisions) find(l *lane, r *recent, of labels) {
	r.labels = of
	kind := apiOutcome{of.api, of.outcome}
	if r.took = l.took[kind]; r.took == nil {
		r.took = &took{cells: make([]uint64, len(d.cells.upTo)+1)}
		l.took[kind] = r.took
	}
	if r.count = l.counts[of]; r.count != nil {
		return
	}
	of = d.bounded(of)
	if r.count = l.counts[of]; r.count == nil {
		r.count = new(uint64)
		l.counts[of] = r.count
	}
}

// bounded returns labels that may be counted under, others where there are too
// many.
func (d *decisions) bounded(of labels) labels {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.known[of] && len(d.known) >= maxSeries {
		of.domain, of.rule = "other", "other"
	}
	d.known[of] = true
	return of
}

// exemplify is add for a decision whose trace is recorded.
func (d *decisions) exemplify(e *extauthz.Event, traceID string) {
	d.add(e)
	seconds := e.Took.Seconds()
	bucket, _ := slices.BinarySearch(classic[:], seconds)
	kind := apiOutcome{e.API, e.Outcome}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.exemplars[kind] == nil {
		d.exemplars[kind] = map[int]prometheus.Exemplar{}
	}
	d.exemplars[kind][bucket] = prometheus.Exemplar{Value: seconds, Timestamp: time.Now(), Labels: prometheus.Labels{"trace_id": traceID}}
}

// Describe implements prometheus.Collector.
func (d *decisions) Describe(to chan<- *prometheus.Desc) { to <- d.count; to <- d.seconds }

// Collect implements prometheus.Collector.
func (d *decisions) Collect(to chan<- prometheus.Metric) {
	counts, durations := map[labels]uint64{}, map[apiOutcome]*took{}
	for i := range d.lanes {
		d.lanes[i].addTo(counts, durations)
	}
	shown := map[labels]uint64{} // rules may be called after what callers send
	for l, n := range counts {
		l.domain, l.rule = valid(l.domain), valid(l.rule)
		shown[l] += n
	}
	for l, n := range shown {
		to <- prometheus.MustNewConstMetric(d.count, prometheus.CounterValue, float64(n), l.api, string(l.outcome), l.domain, l.rule)
	}
	for kind, t := range durations {
		h := d.cells.histogram(d.seconds, t.cells, t.sum, d.born, kind.api, string(kind.outcome))
		if exemplars := d.exemplarsOf(kind); len(exemplars) > 0 {
			h = prometheus.MustNewMetricWithExemplars(h, exemplars...)
		}
		to <- h
	}
}

// valid makes text fit to be a label's value.
func valid(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

func (l *lane) addTo(counts map[labels]uint64, durations map[apiOutcome]*took) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for of, n := range l.counts {
		counts[of] += *n
	}
	for kind, t := range l.took {
		sum := durations[kind]
		if sum == nil {
			sum = &took{cells: make([]uint64, len(t.cells))}
			durations[kind] = sum
		}
		sum.sum += t.sum
		for i, n := range t.cells {
			sum.cells[i] += n
		}
	}
}

func (d *decisions) exemplarsOf(kind apiOutcome) (all []prometheus.Exemplar) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, e := range d.exemplars[kind] {
		all = append(all, e)
	}
	slices.SortFunc(all, func(a, b prometheus.Exemplar) int { return a.Timestamp.Compare(b.Timestamp) })
	return all
}
