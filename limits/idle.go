package limits

import (
	"math"
	"time"
)

// idleReset is for an upstream whose counter is cleared by silence alone: n
// requests, then none for a period. Any request that is admitted breaks the
// silence; one that is refused does not, since the upstream never sees it.
//
// A is when the last was admitted, B how many since the last silence. A refund
// gives back the requests but not the silence that they broke.
type idleReset struct {
	n      int64
	period time.Duration
}

func (r idleReset) count(st State, now Time) int64 {
	if now.Sub(Time(st.A)) >= r.period {
		return 0
	}
	return st.B
}

// Start implements [Algorithm].
func (r idleReset) Start(now Time, used float64) State {
	count := int64(math.Ceil(used*float64(r.n) - 1e-6))
	if count <= 0 {
		return State{A: neverUsed}
	}
	return State{A: int64(now), B: min(count, r.n)}
}

// Peek implements [Algorithm].
func (r idleReset) Peek(st State, now Time, n int64) Decision {
	count := r.count(st, now)
	d := Decision{Remaining: r.n - count}
	if count > 0 {
		d.Reset = Time(st.A).Add(r.period).Sub(now)
	}
	switch {
	case n > r.n:
		d.Wait = Never
	case n > d.Remaining:
		d.Wait = d.Reset
	default:
		d.Allowed = true
	}
	return d
}

// Take implements [Algorithm].
func (r idleReset) Take(st State, now Time, n int64) State {
	return State{A: int64(now), B: r.count(st, now) + n}
}

// Refund implements [Algorithm]. What was taken a period before the last
// request may have been taken before a silence, and weighs on nothing then.
func (r idleReset) Refund(st State, now Time, n int64) State {
	if Time(st.A).Sub(now) >= r.period {
		return st
	}
	return State{A: st.A, B: max(0, st.B-n)}
}

// Used implements [Algorithm].
func (r idleReset) Used(st State, now Time) float64 {
	return float64(r.count(st, now)) / float64(r.n)
}
