package consumers

import (
	"cmp"
	"time"

	"github.com/tollgate-dev/tollgate/limits"
)

// Limit is one limit of a consumer or a plan, and whose requests count against it.
type Limit struct {
	limits.Limit
	PerConsumer bool // all tokens of the consumer share one limiter; else each has its own
	OwnWarmUp   bool // WarmUp stands as it is, off included; else a rate gets the configured one
}

// Limits is a list of limits. Nil means that none are given, so that others
// (a plan's, the default) apply; empty but not nil means unlimited.
type Limits []Limit

// Unlimited reports whether the list says that nothing is limited.
func (ls Limits) Unlimited() bool {
	return ls != nil && len(ls) == 0
}

// kinds are the keys that give a limit its kind, in the order of messages.
var kinds = []limits.Kind{
	limits.Rate, limits.Window, limits.Quota, limits.Pace, limits.IdleReset,
	limits.FixedWindow, limits.SmoothBursty, limits.SmoothWarmingUp,
}

// none is the value that stands for "unlimited", and for a warm-up switched off.
const none = "none"

// compile makes a limit ready. A rate without a warm-up of its own gets w, and
// in any case w's idle period; Guava's kind warms up for as long as w's ramp, or
// a second where that is off.
func (l Limit) compile(w limits.WarmUp) (*limits.Spec, error) {
	switch {
	case l.Kind == limits.Rate && !l.OwnWarmUp:
		l.WarmUp = w
	case l.Kind == limits.Rate && l.WarmUp != limits.WarmUp{}:
		l.WarmUp.Idle = w.Idle
	case l.Kind == limits.SmoothWarmingUp && !l.OwnWarmUp:
		l.WarmUp = limits.WarmUp{Ramp: cmp.Or(w.Ramp, time.Second)}
	}
	return limits.Compile(l.Limit)
}

// Location reads a time zone's name.
func Location(name string) (*time.Location, error) {
	if name == "" || name == "UTC" {
		return nil, nil
	}
	return time.LoadLocation(name)
}
