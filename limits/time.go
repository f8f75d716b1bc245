package limits

import (
	"math"
	"sync/atomic"
	"time"
)

// Time is an instant in nanoseconds since the Unix epoch. Decisions take it as
// a parameter; only a [Clock] at the edge reads the machine's.
type Time int64

// At converts t, dropping its location and monotonic reading.
func At(t time.Time) Time {
	return Time(t.UnixNano())
}

// Add returns the instant d later, saturating at the ends of the range.
func (t Time) Add(d time.Duration) Time {
	s := t + Time(d)
	switch {
	case d > 0 && s < t:
		return math.MaxInt64
	case d < 0 && s > t:
		return math.MinInt64
	}
	return s
}

// Sub returns how much later t is than u, saturating.
func (t Time) Sub(u Time) time.Duration {
	d := time.Duration(t - u)
	switch {
	case t > u && d < 0:
		return math.MaxInt64
	case t < u && d > 0:
		return math.MinInt64
	}
	return d
}

// Std returns t as a time.Time in UTC.
func (t Time) Std() time.Time {
	return time.Unix(0, int64(t)).UTC()
}

// Clock tells the time for decisions: the wall clock's value at a moment plus
// what the monotonic clock has counted since. It is about twice as cheap as
// time.Now and does not move when the wall clock is stepped; [Clock.Sync]
// takes such a step over. Make one with [NewClock]; all methods are safe for
// concurrent use.
type Clock struct {
	base   time.Time
	offset atomic.Int64 // Unix nanoseconds at base
}

// NewClock returns a clock that agrees with the machine's wall clock now.
func NewClock() *Clock {
	c := &Clock{base: time.Now()}
	c.offset.Store(c.base.UnixNano())
	return c
}

// Now reads the clock.
func (c *Clock) Now() Time {
	return Time(c.offset.Load() + int64(time.Since(c.base)))
}

// late is how long a decision in memory never takes by itself.
const late = time.Millisecond

// TakeAll is the function of that name, at an instant that was read from c. Who is
// refused, and was stopped since then, by a busy machine for a while or with its
// container for seconds, is decided about once more: to limiters that others have
// asked meanwhile his instant lies in the past, when what has filled again by now was
// not there yet. It returns the instant of the decision, too.
func (c *Clock) TakeAll(now Time, claims []Claim) (refused int, at Time) {
	refused = takeAll(now, claims)
	if refused < 0 {
		return refused, now
	}
	if at = c.Now(); at.Sub(now) > late {
		refused = takeAll(at, claims)
	} else {
		at = now
	}
	if refused >= 0 {
		claims[refused].Limiter.countRefused()
	}
	return refused, at
}

// Sync compares the clock with the wall clock and, where they are more than
// tolerance apart, sets it. It returns the correction. Calendar periods then
// follow the wall clock; the algorithms are built to bear the step.
func (c *Clock) Sync(tolerance time.Duration) time.Duration {
	drift := At(time.Now()).Sub(c.Now())
	if drift.Abs() <= tolerance {
		return 0
	}
	c.offset.Add(int64(drift))
	return drift
}
