package upstreams

import (
	"math"
	"time"

	"github.com/tollgate-dev/tollgate/limits"
	"github.com/tollgate-dev/tollgate/limits/pressure"
)

// State is how an upstream stands, in a word.
type State string

// The states.
const (
	Open    State = "open"
	Held    State = "held"    // a queue has formed
	Frozen  State = "frozen"  // paused
	Probing State = "probing" // the pause is over, and one request finds out whether it is
)

// Status is all that is to be told of an upstream at one moment. Instants are 0
// where there is nothing to tell.
type Status struct {
	ID         string
	State      State
	Since      limits.Time // when the state began
	Until      limits.Time // Frozen: the end of the pause
	Reason     string      // the last violation: what the upstream answered
	Source     string      // and who saw it: response, access-log or peer
	Violations int         // in a row
	Observed   int64       // how many requests the upstream had taken in the period before it
	Share      float64     // of the configured limits that is used
	Waiting    int
	Limits     []LimitStatus
	Budget     []BudgetStatus
	Counts     Counts
}

// LimitStatus is a limit as configured and as it is kept just now.
type LimitStatus struct {
	Name          string
	Kind          limits.Kind
	Limit         int64 // requests
	Period        time.Duration
	Calendar      limits.Calendar // of a quota, instead of a period
	Working       int64
	WorkingPeriod time.Duration
	Burst         int64 // of a rate: how many at once, less the margin
	Remaining     int64
}

// Per returns how many requests of the working limit fall into a period, rounded.
func (l *LimitStatus) Per(period time.Duration) int64 {
	if l.Kind == limits.Quota || l.WorkingPeriod <= 0 || l.Kind != limits.Rate && l.Kind != limits.Pace {
		return l.Working
	}
	return int64(math.Round(float64(l.Working) * float64(period) / float64(l.WorkingPeriod)))
}

// BudgetStatus is a budget in its current period.
type BudgetStatus struct {
	Period             limits.Calendar
	Calls, Used        int64
	Forecast           int64 // at the end of the period
	Start, End         limits.Time
	Alert              float64 // the highest level that was reached, 0: none
	Cost, ForecastCost float64
	Classes, Labels    map[string]int64
}

// Counts are how often something happened since the start.
type Counts struct {
	Passed, Paused, Limited, Full, Spent, Left int64 // how requests ended
	Held                                       int64 // how many were held
	HeldFor                                    time.Duration
	Taken, Refused, Failed                     int64 // what the upstream answered
	Violations                                 int64
}

func (c *Counts) refused(r Reason) {
	switch r {
	case Paused:
		c.Paused++
	case Limited:
		c.Limited++
	case Full:
		c.Full++
	case Spent:
		c.Spent++
	}
}

// Kind says what an event is about.
type Kind string

// The kinds of events.
const (
	StateChanged  Kind = "state"
	BudgetReached Kind = "budget"
)

// Event is something that happened to an upstream.
type Event struct {
	At     limits.Time
	Kind   Kind
	Was    State // of StateChanged
	Alert  Alert // of BudgetReached
	Status Status
}

// Alert says that a part of a budget is used up.
type Alert struct {
	Calendar    limits.Calendar
	Level       float64
	Used, Calls int64
}

// state returns how the upstream stands.
func (u *Upstream) state(now limits.Time) State {
	switch p := u.gate.Phase(now); {
	case p == pressure.Frozen:
		return Frozen
	case p == pressure.Probing:
		return Probing
	case u.line.len > 0:
		return Held
	}
	return Open
}

// Status returns how the upstream stands at now.
func (u *Upstream) Status(now limits.Time) Status {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.status(now)
}

func (u *Upstream) status(now limits.Time) Status {
	s := Status{
		ID: u.id, State: u.state(now), Since: u.since, Source: u.source, Violations: u.gate.Violations(now),
		Observed: u.incident.seen.Plus(u.incident.others).Long, Share: u.share.Value(), Waiting: u.line.len,
		Budget: u.ledger.status(now), Counts: u.counts,
	}
	_, s.Reason = u.gate.Last()
	if s.State == Frozen {
		s.Until = u.gate.Until()
	}
	c := u.config.Load()
	for i := range c.Limits {
		l, w := &c.Limits[i], u.limiters[i].Spec().Limit()
		s.Limits = append(s.Limits, LimitStatus{
			Name: w.Name, Kind: w.Kind, Limit: l.N, Period: l.Period, Calendar: l.Calendar,
			Working: w.N, WorkingPeriod: w.Period, Burst: w.Burst, Remaining: u.remaining(now, i),
		})
	}
	return s
}
