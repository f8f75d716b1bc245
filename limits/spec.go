package limits

import (
	"errors"
	"fmt"
	"math/bits"
	"sync/atomic"
	"time"
)

// Spec is a checked, immutable Limit, shared by all limiters that enforce it.
type Spec struct {
	limit  Limit
	engine engine
	given  Limit                // as it was before defaults were filled in
	kinds  Kinds                // that it was compiled with
	group  string               // whose floors it shares
	base   *Spec                // what was compiled: the spec itself, but of a lent one
	shared atomic.Pointer[Spec] // of limiters that decide by a lease
}

// Limit returns what the spec was compiled from, defaults and name filled in.
func (s *Spec) Limit() Limit { return s.limit }

// WithRate returns the same limit with n per period; of a quota the period must
// be 0. A name and a burst that were not given follow the rate.
func (s *Spec) WithRate(n int64, period time.Duration) (*Spec, error) {
	l := s.base.given
	l.N, l.Period = n, period
	r, err := s.base.kinds.Compile(l)
	if err == nil && s.base.group != "" {
		r = r.Grouped(s.base.group)
	}
	return r, err
}

// Grouped returns a spec for limiters that others of the same limit have nothing
// to do with: what a [Table] had to forget of one group counts against no other.
// A group goes on under its name when its limit is compiled anew.
func (s *Spec) Grouped(group string) *Spec {
	g := &Spec{limit: s.limit, engine: s.engine, given: s.given, kinds: s.kinds, group: group}
	g.base = g
	return g
}

// Compile checks l and returns it ready for use; the error names every
// problem. It knows the built-in kinds; see [Kinds] for others.
func Compile(l Limit) (*Spec, error) { return Kinds(nil).Compile(l) }

// capacity is how many requests a limiter of s holds when nobody used it.
func (s *Spec) capacity() int64 {
	if s.limit.Kind == Rate || s.limit.Kind == Pace {
		return s.limit.Burst
	}
	return s.limit.N
}

// longest bounds every span of time that a limiter reckons with, a period or
// the time that a bucket takes to fill: about 36 years.
const longest = time.Duration(1 << 60)

// problems collects what is wrong with a limit.
type problems []error

func (p *problems) unless(ok bool, format string, args ...any) {
	if !ok {
		*p = append(*p, fmt.Errorf(format, args...))
	}
}

func (l Limit) check(known bool) error {
	var p problems
	p.unless(known, "kind %q: want one of rate, window, quota, pace, idle_reset, fixed_window, smooth_bursty, smooth_warming_up", l.Kind)
	p.unless(l.N >= 0 && l.N <= MaxN, "n %d: want 0 to 2^53", l.N)
	if l.Kind == Quota {
		p.unless(l.Calendar.length() > 0, "calendar %q: want one of minute, hour, day, week, month, year", l.Calendar)
		p.unless(l.Period == 0, "period %v: a quota has a calendar period instead", l.Period)
	} else {
		p.unless(l.Period > 0, "period %v: want more than 0", l.Period)
		p.unless(l.Period <= longest, "period %v: want at most %v", l.Period, longest)
		p.unless(l.Calendar == "" && l.Location == nil, "calendar and location: only a quota has them")
	}
	p.unless(l.Burst >= 0 && l.Burst <= MaxN, "burst %d: want 0 to 2^53", l.Burst)
	p.unless(l.Burst == 0 || l.Kind == Rate || l.Kind == Pace && l.Burst == 1 || known && !l.Kind.builtIn(), "burst: only a rate has one")
	p.unless(l.MaxWait >= 0, "max_wait %v: want at least 0", l.MaxWait)
	l.WarmUp.check(&p, l.Kind)
	return errors.Join(p...)
}

func (w WarmUp) check(p *problems, k Kind) {
	for _, d := range []struct {
		what  string
		value time.Duration
	}{{"grace", w.Grace}, {"ramp", w.Ramp}, {"idle", w.Idle}} {
		p.unless(d.value >= 0 && d.value <= longest/4, "warm_up %s %v: want 0s to %v", d.what, d.value, longest/4)
	}
	p.unless(w.GraceLimit >= 0 && w.GraceLimit <= MaxN, "warm_up grace_limit %d: want 0 to 2^53", w.GraceLimit)
	switch {
	case k == SmoothWarmingUp:
		p.unless(w.Ramp > 0, "warm_up ramp: smooth_warming_up needs one")
		p.unless(w == WarmUp{Ramp: w.Ramp}, "warm_up: smooth_warming_up has a ramp only")
	case k != Rate && k.builtIn():
		p.unless(w == WarmUp{}, "warm_up: only a rate has one")
	default:
		p.unless(w.Grace > 0 || w.GraceLimit == 0, "warm_up grace_limit: it caps a grace, and there is none")
	}
}

// defaultBurst is one second's worth, at least 1. A rate beyond one per
// nanosecond is one per nanosecond.
func defaultBurst(n int64, period time.Duration) int64 {
	hi, lo := bits.Mul64(uint64(n), uint64(time.Second))
	if hi >= uint64(period) {
		return int64(time.Second)
	}
	burst, _ := bits.Div64(hi, lo, uint64(period))
	return int64(max(1, min(burst, uint64(time.Second))))
}

// same tells whether two specs count alike, so that state may be taken over as
// it is: names and what is done with a refusal may differ.
func (s *Spec) same(o *Spec) bool {
	return s.limit.counting() == o.limit.counting() && s.limit.zone() == o.limit.zone()
}

func (l Limit) counting() Limit {
	l.Name, l.MaxWait, l.Shadow, l.Location, l.OnError = "", 0, false, nil, ""
	return l
}

// zone names the location. Two loads of one zone are equal but for the pointer.
func (l Limit) zone() string {
	if l.Location == nil {
		return "UTC"
	}
	return l.Location.String()
}
