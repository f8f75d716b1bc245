package limits

import "math"

// State is what a limiter must remember over a restart. It is a plain value:
// keep it whole, compare it with ==, and hand it to [Restore]. The numbers are
// the kind's own, with one law: a state with a larger A, B or C, all else being
// equal, admits no more.
type State struct {
	Kind    Kind
	A, B, C int64
}

// A state's numbers by kind:
//
//	rate, pace             A when the bucket was or will be empty
//	                       B when the grace began; 0: it is over, unbegun: it has not begun
//	                       C requests in the grace, or ^requests once the ramp began
//	fixed_window, quota    A the last request counted, B requests in its period
//	window, idle_reset     A the last request counted, B requests that count with it
//	smooth_bursty          A when the next is admitted, B ^bits of the permits stored, C the last request
//	smooth_warming_up      the same, but B the bits: a warm limiter has few permits
//
// A is an instant for every kind, and a limiter of another kind starts as one
// that was used up then.
const unbegun = math.MinInt64

// unused is the instant in a state in which nothing was taken yet.
const unused = math.MinInt64

// merge returns a state of s that admits no more than either a or b would.
// The table keeps it of limiters it had to forget.
func (s *Spec) merge(now Time, a, b State) State {
	a, b = s.cool(now, a), s.cool(now, b)
	return State{s.limit.Kind, max(a.A, b.A), max(a.B, b.B), max(a.C, b.C)}
}

// cool returns st as one that can be merged: of the spec's kind, and past its
// warm-up.
func (s *Spec) cool(now Time, st State) State {
	b := newBucket()
	b.begin(s)
	if st.Kind != s.limit.Kind {
		s.engine.load(b, now, st)
		st = s.engine.state(b)
	}
	if w, ok := s.engine.(*warming); ok {
		return w.cool(st)
	}
	return st
}

// State returns what to keep, for [Restore].
func (l *Limiter) State() State {
	b := l.current()
	return b.spec().engine.state(b)
}

// Restore returns a limiter that goes on where State was taken, under the same
// or another limit. A limiter restored from the zero State is full, and its
// warm-up is over.
func Restore(s *Spec, now Time, st State) *Limiter {
	l := newLimiter()
	l.Restore(s, now, st)
	return l
}

// Restore is [Restore] in place, as [Limiter.Init] is [New].
func (l *Limiter) Restore(s *Spec, now Time, st State) {
	l.clear()
	l.first.begin(s)
	s.engine.load(&l.first, now, st)
}
