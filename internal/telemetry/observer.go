package telemetry

import (
	"log/slog"
	"time"

	"github.com/tollgate-dev/tollgate/extauthz"
)

// Observer is told of every decision. It implements extauthz.Observer and is
// safe for concurrent use.
type Observer struct {
	metrics  *Metrics
	top      *Top
	tracer   *Tracer
	refusals *refusals
}

// NewObserver returns an observer that counts in m and top, logs refusals and,
// unless t is nil, traces. Who is refused just now becomes a metric beside those of m, which has
// one observer therefore.
func NewObserver(m *Metrics, top *Top, t *Tracer, log *slog.Logger) *Observer {
	o := &Observer{metrics: m, top: top, tracer: t, refusals: newRefusals(log)}
	m.registry.MustRegister(newCurrent(o.refusals, func() int { return int(top.shown.Load()) }))
	return o
}

// Observe takes one decision in. It keeps nothing of e.
func (o *Observer) Observe(e *extauthz.Event) {
	if trace, sampled := o.tracer.record(e); sampled {
		o.metrics.decisions.exemplify(e, trace.String())
	} else {
		o.metrics.decisions.add(e)
	}
	last := o.top.count(e)
	if last == nil {
		last = &o.refusals.last
	}
	o.refusals.add(e, last)
}

// Flush logs the refusals that followed the first of their burst. Call it every
// interval, and once at the end.
func (o *Observer) Flush(interval time.Duration) { o.refusals.flush(interval) }

// Refusals returns who is being refused just now, by what and since when, those
// with most refusals first.
func (o *Observer) Refusals() []Refusal { return o.refusals.all() }
