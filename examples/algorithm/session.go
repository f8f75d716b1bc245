package main

import (
	"math"

	"github.com/tollgate-dev/tollgate/limits"
)

// session is an algorithm that Tollgate does not have: n requests in a period
// that begins with the first of them, as many public APIs count.
//
// Of a state, A is when the period ends and B how many were taken in it.
type session struct {
	n      int64
	period limits.Time
}

func newSession(l limits.Limit) (limits.Algorithm, error) {
	return session{n: l.N, period: limits.Time(l.Period)}, nil
}

// taken is how many count at now.
func (s session) taken(st limits.State, now limits.Time) int64 {
	if now >= limits.Time(st.A) {
		return 0
	}
	return st.B
}

func (s session) Start(now limits.Time, used float64) limits.State {
	if used <= 0 {
		return limits.State{}
	}
	return limits.State{A: int64(now + s.period), B: int64(math.Ceil(used * float64(s.n)))}
}

func (s session) Peek(st limits.State, now limits.Time, n int64) limits.Decision {
	taken := s.taken(st, now)
	d := limits.Decision{Allowed: taken+n <= s.n, Remaining: max(0, s.n-taken)}
	if taken > 0 {
		d.Reset = limits.Time(st.A).Sub(now)
	}
	switch {
	case n > s.n:
		d.Wait = limits.Never
	case !d.Allowed:
		d.Wait = d.Reset
	}
	return d
}

func (s session) Take(st limits.State, now limits.Time, n int64) limits.State {
	if now >= limits.Time(st.A) {
		return limits.State{A: int64(now + s.period), B: n}
	}
	return limits.State{A: st.A, B: st.B + n}
}

func (s session) Refund(st limits.State, now limits.Time, n int64) limits.State {
	return limits.State{A: st.A, B: max(0, s.taken(st, now)-n)}
}

func (s session) Used(st limits.State, now limits.Time) float64 {
	return float64(s.taken(st, now)) / float64(s.n)
}
