package redis

import (
	"sync/atomic"
	"time"

	"github.com/tollgate-dev/tollgate/limits"
)

// local decides about a limit while Redis is away and the limit is local: by a
// limiter of this instance's share. What it admits is reported once Redis is back.
type local struct {
	limiter  atomic.Pointer[limits.Limiter] // nil while Redis decides
	portion  atomic.Pointer[portion]        // of the limit
	admitted atomic.Int64                   // by limiters of the share, less what came back to them, since the limit is shared

	// The limit's mu guards what follows.
	telling   int64           // admitted, as the last report has it
	told      int64           // of admitted, what Redis has acknowledged
	reporting *limits.Limiter // limiter, while its use is being reported
}

// portion is the share of a limit, kept because it takes a while to compile.
type portion struct {
	of        *limits.Spec
	instances int
	part      *limits.Spec
}

// of returns the share of s among so many instances.
func (o *local) of(s *limits.Spec, instances int) *limits.Spec {
	p := o.portion.Load()
	if p == nil || p.of != s || p.instances != instances {
		p = &portion{s, instances, shareOf(s, instances)}
		o.portion.Store(p)
	}
	return p.part
}

// report notes what is about to be reported, and that the share has an end then
// unless it is still needed; the limit's mu is held.
func (o *local) report(needed bool) {
	o.telling, o.reporting = o.admitted.Load(), nil
	if !needed {
		o.reporting = o.limiter.Load()
	}
}

// reported notes that Redis has heard of what was reported; the limit's mu is held.
func (o *local) reported() {
	o.told = o.telling
	if o.reporting != nil && o.admitted.Load() == o.told { // else it goes on: what it has admitted since Redis does not know
		o.limiter.CompareAndSwap(o.reporting, nil)
	}
	o.reporting = nil
}

// owes reports whether Redis does not know yet all that was admitted; the limit's
// mu is held.
func (o *local) owes() bool { return o.admitted.Load() != o.told || o.limiter.Load() != nil }

// alone decides without Redis.
func (l *limit) alone(now limits.Time, s *limits.Spec, ahead, n int64, take bool) limits.Decision {
	switch l.onError() {
	case limits.OnErrorAllow:
		return limits.Decision{Allowed: true}
	case limits.OnErrorDeny:
		return limits.Decision{Undecided: true, Wait: time.Second}
	}
	of := l.bucket()
	own := of.own(now, of.lease.Limiter().Spec())
	if reserve := l.reserve.Load(); reserve > 0 {
		among := int64(l.cluster.instances())
		if d := own.Peek(now, n+(reserve+among-1)/among); !d.Allowed || !take {
			return d
		}
	}
	switch {
	case take:
		d := own.Take(now, n)
		if d.Allowed {
			of.local.admitted.Add(n)
			of.cluster.holds(of)
		}
		return d
	case ahead > 0:
		wait := own.WaitFor(now, ahead, n)
		return limits.Decision{Allowed: wait == 0, Wait: wait}
	}
	return own.Peek(now, n)
}

// own returns the limiter of this instance's share, made when it is first needed.
func (l *limit) own(now limits.Time, s *limits.Spec) *limits.Limiter {
	instances := l.cluster.instances()
	part := l.local.of(s, instances)
	own := l.local.limiter.Load()
	for own == nil {
		l.mu.Lock()
		heard, rest := l.known.seq > 0, max(0, l.rest-max(0, l.local.admitted.Load()-l.local.told))
		st := l.lease.Known()
		l.mu.Unlock()
		fresh := newShare(now, s, part, int64(instances), heard, rest, st)
		if l.local.limiter.CompareAndSwap(nil, fresh) {
			return fresh
		}
		own = l.local.limiter.Load()
	}
	if own.Spec().Limit() != part.Limit() {
		own.SetSpec(now, part)
	}
	return own
}

// shareOf returns a limit that many instances may apply each for itself, and
// together stay within s.
func shareOf(s *limits.Spec, instances int) *limits.Spec {
	l := s.Limit()
	if n := int64(instances); n > 1 {
		switch l.Kind {
		case limits.Rate, limits.Pace:
			// An interval that is longer is exact where a smaller number is not.
			l.Period, l.Burst = l.Period*time.Duration(n), max(1, l.Burst/n)
		case limits.Quota:
			l.N /= n
		default:
			if l.N < n {
				l.Period = l.Period * time.Duration((n+l.N-1)/max(l.N, 1))
			}
			l.N = max(l.N/n, min(l.N, 1))
		}
	}
	part, err := limits.Compile(l)
	if err != nil {
		return s // the period would be longer than any may be: the limit is as good as 0 already
	}
	return part
}

// newShare makes the limiter of this instance's share. If Redis was heard
// before, it begins with a share of what was left then; else with what this
// instance remembers.
func newShare(now limits.Time, s, part *limits.Spec, instances int64, heard bool, rest int64, st limits.State) *limits.Limiter {
	if !heard {
		return limits.Restore(part, now, st)
	}
	l := limits.Restore(part, now, limits.State{Kind: s.Limit().Kind, A: unused})
	has := part.Capacity()
	if used := has - min(has, rest/instances); used > 0 {
		l.Take(now, used)
	}
	return limits.Restore(part, now, l.State())
}
