package plan

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tollgate-dev/tollgate/extauthz/upstreams"
	"github.com/tollgate-dev/tollgate/internal/admin"
	"github.com/tollgate-dev/tollgate/limits"
)

// Allowance is what an upstream allows.
type Allowance struct {
	Limits  []limits.Limit // as kept: less their margins; no quotas
	Budgets []Budget
	Price   float64       // of a call, in whatever currency
	Call    time.Duration // how long a call takes: the calls of a batch come one after the other
}

// Budget is calls in a calendar period.
type Budget struct {
	Calls    int64
	Calendar limits.Calendar
}

// ParseBudget reads 10000/day.
func ParseBudget(s string) (Budget, error) {
	n, c, err := limits.ParseQuota(s)
	return Budget{Calls: n, Calendar: c}, err
}

// longest is the length of the longest period of each calendar.
var longest = map[limits.Calendar]time.Duration{
	limits.Minute: time.Minute, limits.Hour: time.Hour, limits.Day: day, limits.Week: 7 * day, limits.Month: month, limits.Year: 366 * day,
}

const (
	day   = 24 * time.Hour
	month = 31 * day
)

// FromConfig returns what an upstream of Tollgate's configuration allows.
func FromConfig(c *upstreams.Config) Allowance {
	var a Allowance
	for i := range c.Limits {
		a.add(c.Limits[i].Kept())
	}
	if c.Budget != nil {
		a.Price = c.Budget.Price
		for _, p := range c.Budget.Periods {
			a.Budgets = append(a.Budgets, Budget{Calls: p.Calls, Calendar: p.Calendar})
		}
	}
	return a
}

// FromServer returns what a running Tollgate says that an upstream allows: its
// working limits, which are below the configured ones after refusals.
func FromServer(u admin.Upstream) (Allowance, error) {
	var a Allowance
	for _, l := range u.Limits {
		kept := limits.Limit{Kind: l.Kind}
		var err error
		if l.Kind == limits.Quota {
			kept.N, kept.Calendar, err = limits.ParseQuota(l.Working)
		} else {
			kept.N, kept.Period, err = limits.ParseRate(l.Working)
			kept.Burst = l.Burst
		}
		if err != nil || kept.Kind == "" {
			return a, fmt.Errorf("upstream %s: limit %q of kind %q: is Tollgate older than this program? %v", u.ID, l.Working, l.Kind, err)
		}
		a.add(kept)
	}
	for _, b := range u.Budget {
		a.Budgets = append(a.Budgets, Budget{Calls: b.Calls, Calendar: b.Period})
		if b.Used > 0 {
			a.Price = b.Cost / float64(b.Used)
		}
	}
	return a, nil
}

func (a *Allowance) add(l limits.Limit) {
	if l.Kind == limits.Quota {
		a.Budgets = append(a.Budgets, Budget{Calls: l.N, Calendar: l.Calendar})
		return
	}
	a.Limits = append(a.Limits, l)
}

// atOnce returns how many calls a limit takes at once.
func atOnce(l limits.Limit) int64 {
	switch l.Kind {
	case limits.Pace, limits.SmoothWarmingUp:
		return min(1, l.N)
	case limits.Rate:
		if l.Burst > 0 {
			return l.Burst
		}
		return min(l.N, max(1, int64(float64(l.N)/l.Period.Seconds())))
	case limits.SmoothBursty:
		return min(l.N, max(1, int64(float64(l.N)/l.Period.Seconds())))
	}
	return l.N
}

// Batch returns how many calls may come together, and how long it is from the
// beginning of a batch to that of the next. Without limits calls is unlimited
// and pitch a second; a limit of 0 allows no call.
func (a Allowance) Batch() (calls int64, pitch time.Duration) {
	calls, pitch = unlimited, time.Second
	for _, l := range a.Limits {
		calls = min(calls, atOnce(l))
	}
	if calls == 0 || calls == unlimited {
		return calls, pitch
	}
	lasts := time.Duration(calls) * a.Call
	for _, l := range a.Limits {
		switch l.Kind {
		case limits.Rate, limits.Pace, limits.SmoothBursty, limits.SmoothWarmingUp:
			pitch = max(pitch, time.Duration(float64(l.Period)*float64(calls)/float64(l.N))+1)
		case limits.IdleReset: // it forgets after silence only
			pitch = max(pitch, l.Period+lasts+1)
		default: // the last call of a batch is counted for a period
			pitch = max(pitch, ceil(l.Period+lasts, l.N/calls))
		}
	}
	return calls, pitch
}

func ceil(d time.Duration, n int64) time.Duration {
	return (d + time.Duration(n) - 1) / time.Duration(n)
}

const unlimited = 1 << 40

// String writes the limits as people know them.
func (a Allowance) String() string {
	var parts []string
	for _, l := range a.Limits {
		parts = append(parts, fmt.Sprintf("%s %s", l.Kind, limits.FormatRate(l.N, l.Period)))
	}
	for _, b := range a.Budgets {
		parts = append(parts, "budget "+limits.FormatQuota(b.Calls, b.Calendar))
	}
	if len(parts) == 0 {
		return "anything"
	}
	return strings.Join(slices.Compact(parts), ", ")
}
