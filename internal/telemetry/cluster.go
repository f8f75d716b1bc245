package telemetry

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tollgate-dev/tollgate/limits/redis"
)

// NewCluster registers the metrics of limits that instances share, read at each scrape.
func NewCluster(r prometheus.Registerer, stats func() redis.Stats) {
	gauge := func(name, help string, value func(redis.Stats) float64) {
		r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "tollgate_cluster_" + name, Help: help}, func() float64 { return value(stats()) }))
	}
	counter := func(name, help string, value func(redis.Stats) int64) {
		r.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "tollgate_cluster_" + name, Help: help}, func() float64 { return float64(value(stats())) }))
	}
	gauge("up", "1 while the store answers for all keys, 0 while some limits are decided without it.", func(s redis.Stats) float64 {
		if s.Up {
			return 1
		}
		return 0
	})
	gauge("instances", "Instances that share limits, as last seen.", func(s redis.Stats) float64 { return float64(s.Instances) })
	gauge("leases", "Limiters that hold something of a shared limit.", func(s redis.Stats) float64 { return float64(s.Leases) })
	counter("calls_total", "Calls to the store.", func(s redis.Stats) int64 { return s.Calls })
	counter("errors_total", "Times that the store was found not to answer.", func(s redis.Stats) int64 { return s.Errors })
	counter("corrupt_total", "Values in the store that could not be meant.", func(s redis.Stats) int64 { return s.Corrupt })
	counter("waits_total", "Requests that waited for the store.", func(s redis.Stats) int64 { return s.Waits })
	counter("granted_total", "Requests that were taken in hand before they came.", func(s redis.Stats) int64 { return s.Granted })
	counter("returned_total", "Requests that were given back unused.", func(s redis.Stats) int64 { return s.Returned })
}
