package telemetry

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Source is how a database that consumers come from is doing.
type Source struct {
	Up       bool      // the last attempt to read it succeeded
	Synced   time.Time // when the last one did; zero: never
	Errors   uint64    // attempts that failed
	Changes  uint64    // changes of consumers that it told of
	Unusable int       // consumers that cannot be used as they stand there
}

// RegisterSource registers metrics of a source that is read at each scrape.
func RegisterSource(reg prometheus.Registerer, read func() Source) {
	gauge := func(name, help string, value func(Source) float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return value(read()) })
	}
	counter := func(name, help string, value func(Source) float64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, func() float64 { return value(read()) })
	}
	prometheus.WrapRegistererWithPrefix("tollgate_source_", reg).MustRegister(
		gauge("up", "1 if the source of the consumers answered last, 0 if decisions go on with what is known.", func(s Source) float64 {
			if s.Up {
				return 1
			}
			return 0
		}),
		gauge("sync_timestamp_seconds", "When the consumers in force were last like the source, in seconds since the Unix epoch; 0: never.", func(s Source) float64 {
			if s.Synced.IsZero() {
				return 0
			}
			return float64(s.Synced.UnixMilli()) / 1e3
		}),
		gauge("unusable_consumers", "Consumers that cannot be used as they stand in the source; what was in force before stays.", func(s Source) float64 { return float64(s.Unusable) }),
		counter("errors_total", "Attempts to read the source that failed.", func(s Source) float64 { return float64(s.Errors) }),
		counter("changes_total", "Changes of consumers that the source told of.", func(s Source) float64 { return float64(s.Changes) }),
	)
}
