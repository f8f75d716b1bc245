package redis

import (
	"sync/atomic"
	"time"

	"github.com/tollgate-dev/tollgate/limits"
)

// dry is what Redis has said is not to be had before some instant, so that nobody
// asks for it sooner. An exchange writes it, decisions read it.
type dry struct {
	from, till atomic.Int64                // when it holds; till is written last
	n          atomic.Int64                // for so many
	spec       atomic.Pointer[limits.Spec] // under which limit
}

// say makes d hold for n and for as long as it lasts.
func (d *dry) say(s *limits.Spec, now limits.Time, n int64, lasts time.Duration) {
	d.spec.Store(s)
	d.from.Store(int64(now))
	d.n.Store(n)
	d.till.Store(int64(now.Add(lasts)))
}

func (d *dry) clear() { d.till.Store(0) }

// holds reports whether Redis has said when n can be had under s, and that is not now.
func (d *dry) holds(now limits.Time, s *limits.Spec, n int64) bool {
	if d.spec.Load() != s || !within(now, d.from.Load(), d.till.Load()) {
		return false
	}
	said := d.n.Load()
	if k := s.Limit().Kind; k == limits.Window || k == limits.IdleReset {
		return n == said // how long more take, Redis alone knows
	}
	return n >= said
}

// wait is how long it takes, where d holds, until n can be had.
func (d *dry) wait(now limits.Time, s *limits.Spec, n int64) time.Duration {
	more := min(float64(s.Interval())*float64(n-d.n.Load()), 1e18) // 0 for a quota: all comes at once
	return time.Duration(d.till.Load()-int64(now)) + time.Duration(more)
}

// graceSteps is how long a grace is believed to go on without asking: it begins
// and ends for all instances together.
const graceSteps = 250 * time.Millisecond

// grace is the piece of a warm-up's grace that Redis has told of, in which nothing
// is limited, or only a number goes free.
type grace struct {
	from, till atomic.Int64 // when it is
	room       atomic.Int64 // above 0: so many, less 1, go free and no more
	passed     atomic.Int64 // let pass and not yet reported
}

// open reports whether now is in the grace.
func (g *grace) open(now limits.Time) bool { return within(now, g.from.Load(), g.till.Load()) }

// begin begins a piece as the lease script describes it: above 0 the grace lasts
// so many nanoseconds, below 0 so many go free, 0 is none.
func (g *grace) begin(now limits.Time, free int64) {
	if free == 0 {
		return
	}
	lasts := graceSteps
	if free > 0 {
		lasts = min(lasts, time.Duration(free))
	}
	g.from.Store(int64(now))
	g.room.Store(max(-free, 0))
	g.till.Store(int64(now.Add(lasts)))
}

// pass decides about n in the grace. The decision is the zero one if they do not
// go free; ends tells that the piece is nearly over.
func (g *grace) pass(now limits.Time, n int64, take bool) (d limits.Decision, ends bool) {
	if room := g.room.Load(); room > 0 {
		if room <= n || take && !g.room.CompareAndSwap(room, room-n) {
			return d, false
		}
		return limits.Decision{Allowed: true, Remaining: room - n}, false
	}
	left := time.Duration(g.till.Load() - int64(now))
	if take {
		g.passed.Add(n)
	}
	return limits.Decision{Allowed: true, Remaining: limits.MaxN, Reset: left}, take && left < freeAhead
}
