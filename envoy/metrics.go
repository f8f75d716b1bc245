package envoy

import (
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
)

// metrics are the grpc_server_* series under the names that go-grpc-middleware
// has made common, so that existing dashboards fit.
type metrics struct {
	started, handled *prometheus.CounterVec
	seconds          *prometheus.HistogramVec
	panics           prometheus.Counter

	// methods is filled when serving begins, so that no series depends on what
	// a caller sends and a request looks up no label.
	methods map[string]*methodMetrics
}

// methodMetrics are the series of one method.
type methodMetrics struct {
	all     *metrics
	labels  []string // type, service, method
	started prometheus.Counter
	seconds prometheus.Observer
	handled [codes.Unauthenticated + 1]atomic.Pointer[prometheus.Counter] // by code, made on first use
}

// buckets reach from a decision in memory to one that was held for a minute.
var buckets = []float64{.000025, .00005, .0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10, 60}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	method := []string{"grpc_type", "grpc_service", "grpc_method"}
	m := &metrics{
		started: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "grpc_server_started_total", Help: "RPCs started on the server."}, method),
		handled: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "grpc_server_handled_total", Help: "RPCs completed on the server, whatever the result."}, append(method, "grpc_code")),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "grpc_server_handling_seconds", Help: "How long RPCs took in the server.", Buckets: buckets}, method),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "grpc_server_panics_total", Help: "Panics in handlers; each was answered INTERNAL and is a bug."}),
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.started, m.handled, m.seconds, m.panics} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("register grpc_server metrics: %w", err)
		}
	}
	return m, nil
}

// know makes the series of every method of the server.
func (m *metrics) know(services map[string]grpc.ServiceInfo) {
	m.methods = make(map[string]*methodMetrics)
	for service, info := range services {
		for _, method := range info.Methods {
			labels := []string{kind(method), service, method.Name}
			m.methods["/"+service+"/"+method.Name] = &methodMetrics{all: m, labels: labels,
				started: m.started.WithLabelValues(labels...), seconds: m.seconds.WithLabelValues(labels...)}
		}
	}
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

// begin counts a started call. Methods that are not known are not counted; the
// nil result then counts nothing either.
func (m *metrics) begin(method string) *methodMetrics {
	mm := m.methods[method]
	if mm != nil {
		mm.started.Inc()
	}
	return mm
}

func (mm *methodMetrics) end(start time.Time, code codes.Code) {
	if mm == nil {
		return
	}
	mm.seconds.Observe(time.Since(start).Seconds())
	if int(code) >= len(mm.handled) {
		code = codes.Unknown
	}
	counter := mm.handled[code].Load()
	if counter == nil {
		made := mm.all.handled.WithLabelValues(append(mm.labels[:len(mm.labels):len(mm.labels)], code.String())...)
		counter = &made
		mm.handled[code].Store(counter)
	}
	(*counter).Inc()
}
