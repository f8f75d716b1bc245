package envoy

import (
	"fmt"
	"maps"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
)

// metrics are the grpc_server_* series under the names that go-grpc-middleware
// has made common, so that existing dashboards fit. Nil counts nothing.
//
// They are counters of our own, and collected when somebody asks: those of the
// library are shared by all processors, which at some hundred thousand calls a
// second costs a call as much as its decision.
type metrics struct {
	started, handled, seconds *prometheus.Desc
	panics                    prometheus.Counter

	// methods is filled when serving begins, so that no series depends on what
	// a caller sends.
	methods atomic.Pointer[map[string]*methodMetrics]
}

// methodMetrics are the series of one method.
type methodMetrics struct {
	all    *metrics
	labels []string // type, service, method
	lanes  []lane
	last   atomic.Uint32
	pool   sync.Pool // of *lane: it hands a processor the one that it had before
}

// lane counts the calls of about one processor, so that none waits for the
// memory of another. That two share one is rare and does no harm.
type lane struct {
	started atomic.Uint64
	mu      sync.Mutex // guards what follows
	handled [codes.Unauthenticated + 1]uint64
	within  [buckets + 1]uint64
	took    time.Duration
	_       [64]byte // the next one's cache line is another
}

// buckets is how many upper bounds there are.
const buckets = 18

// bounds reach from a decision in memory to one that was held for a minute.
var bounds = [buckets]time.Duration{
	25 * time.Microsecond, 50 * time.Microsecond, 100 * time.Microsecond, 250 * time.Microsecond, 500 * time.Microsecond,
	time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond, 10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond, time.Second, 2500 * time.Millisecond, 10 * time.Second, time.Minute,
}

// newMetrics registers the metrics with r; where that is nil, there are none.
func newMetrics(r prometheus.Registerer) (*metrics, error) {
	if r == nil {
		return nil, nil
	}
	method := []string{"grpc_type", "grpc_service", "grpc_method"}
	m := &metrics{
		started: prometheus.NewDesc("grpc_server_started_total", "RPCs started on the server.", method, nil),
		handled: prometheus.NewDesc("grpc_server_handled_total", "RPCs completed on the server, whatever the result.", append(method, "grpc_code"), nil),
		seconds: prometheus.NewDesc("grpc_server_handling_seconds", "How long RPCs took in the server.", method, nil),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "grpc_server_panics_total", Help: "Panics in handlers; each was answered INTERNAL and is a bug."}),
	}
	m.methods.Store(&map[string]*methodMetrics{})
	for _, c := range []prometheus.Collector{m, m.panics} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("register grpc_server metrics: %w", err)
		}
	}
	return m, nil
}

// know makes the series of every method of the server.
func (m *metrics) know(services map[string]grpc.ServiceInfo) {
	if m == nil {
		return
	}
	methods := make(map[string]*methodMetrics)
	for service, info := range services {
		for _, method := range info.Methods {
			methods["/"+service+"/"+method.Name] = newMethodMetrics(m, kind(method), service, method.Name)
		}
	}
	m.methods.Store(&methods)
}

func newMethodMetrics(m *metrics, labels ...string) *methodMetrics {
	mm := &methodMetrics{all: m, labels: labels, lanes: make([]lane, 2*runtime.GOMAXPROCS(0))}
	mm.pool.New = func() any { return &mm.lanes[mm.last.Add(1)%uint32(len(mm.lanes))] }
	return mm
}

func kind(m grpc.MethodInfo) string {
	var words []string
	if m.IsClientStream {
		words = append(words, "client")
	}
	if m.IsServerStream {
		words = append(words, "server")
	}
	if len(words) == 0 {
		return "unary"
	}
	return strings.Replace(strings.Join(words, "_"), "client_server", "bidi", 1) + "_stream"
}

// method returns the series of a method, nil of one that is not known: its
// calls are not counted.
func (m *metrics) method(name string) *methodMetrics {
	if m == nil {
		return nil
	}
	return (*m.methods.Load())[name]
}

func (m *metrics) panicked() {
	if m != nil {
		m.panics.Inc()
	}
}

// measured is a call that was started. The zero value counts nothing.
type measured struct {
	lane  *lane
	start time.Time
}

// begin counts a call that starts now.
func (mm *methodMetrics) begin() measured { return mm.beginAt(time.Now()) }

// beginAt counts a call that has started.
func (mm *methodMetrics) beginAt(start time.Time) measured {
	if mm == nil {
		return measured{}
	}
	l := mm.lane()
	l.started.Add(1)
	return measured{l, start}
}

// add counts calls that have started and ended.
func (mm *methodMetrics) add(calls uint64, code codes.Code, took time.Duration) {
	if mm == nil {
		return
	}
	l := mm.lane()
	l.started.Add(calls)
	l.add(calls, code, took)
}

// lane is where the calls of this processor are counted.
func (mm *methodMetrics) lane() *lane {
	l := mm.pool.Get().(*lane)
	mm.pool.Put(l)
	return l
}

func (c measured) end(code codes.Code) {
	if c.lane == nil {
		return
	}
	c.lane.add(1, code, time.Since(c.start))
}

// add counts calls that ended in the same way.
func (l *lane) add(calls uint64, code codes.Code, took time.Duration) {
	bucket := 0
	for bucket < buckets && took > bounds[bucket] {
		bucket++
	}
	if int(code) >= len(l.handled) {
		code = codes.Unknown
	}
	l.mu.Lock()
	l.handled[code] += calls
	l.within[bucket] += calls
	l.took += took * time.Duration(calls)
	l.mu.Unlock()
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(to chan<- *prometheus.Desc) {
	to <- m.started
	to <- m.handled
	to <- m.seconds
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(to chan<- prometheus.Metric) {
	for mm := range maps.Values(*m.methods.Load()) {
		mm.collect(to)
	}
}

func (mm *methodMetrics) collect(to chan<- prometheus.Metric) {
	var sum lane
	for i := range mm.lanes {
		mm.lanes[i].addTo(&sum)
	}
	to <- prometheus.MustNewConstMetric(mm.all.started, prometheus.CounterValue, float64(sum.started.Load()), mm.labels...)
	for code, n := range sum.handled {
		if n > 0 {
			labels := append(mm.labels[:len(mm.labels):len(mm.labels)], codes.Code(code).String())
			to <- prometheus.MustNewConstMetric(mm.all.handled, prometheus.CounterValue, float64(n), labels...)
		}
	}
	count, within := uint64(0), make(map[float64]uint64, buckets)
	for i, bound := range bounds {
		count += sum.within[i]
		within[bound.Seconds()] = count
	}
	count += sum.within[buckets]
	to <- prometheus.MustNewConstHistogram(mm.all.seconds, count, sum.took.Seconds(), within, mm.labels...)
}

func (l *lane) addTo(sum *lane) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for code, n := range l.handled {
		sum.handled[code] += n
	}
	for i, n := range l.within {
		sum.within[i] += n
	}
	sum.took += l.took
	sum.started.Add(l.started.Load()) // after handled: none is handled that was not started
}
