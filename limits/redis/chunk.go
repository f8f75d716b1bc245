package redis

import (
	"math"
	"time"

	"github.com/tollgate-dev/tollgate/limits"
)

// How much an instance takes at a time, and how soon it asks again.
const (
	ahead     = 300 * time.Millisecond // a chunk is what is used in so long at least,
	perSecond = 200                    // or in a second up to so many requests,
	ofLarge   = 300                    // or in three up to so many, of a limit that holds 20 times as much
	overdue   = 100 * time.Millisecond // no answer takes longer, but by a fault
	decisions = 400                    // at least so many on one call to Redis, of a key that is in much use
	maxGap    = 400 * time.Millisecond // the longest pause between calls that bring more, and
	inRamp    = 10 * time.Millisecond  // in the ramp of a warm-up, which lets more through than the limit says
	atOnce    = 10 * time.Millisecond  // how soon a request takes what it waited for
)

// chunk is how many l should have in hand, and how many at most, beside the left
// that it has: what it uses in a while, but no more than a part of what the limit
// holds. mu is held.
func (l *limit) chunk(left int64) (chunk, most int64) {
	if l.cluster.o.Mode == Strict || l.spec.Limit().Kind == limits.IdleReset {
		return 0, 0
	}
	if l.window.keeps {
		return l.keep(left)
	}
	part := 1.0 // of a second's use, for slow callers
	if fill := l.fill().Seconds(); fill > 0 {
		part = min(1, fill)
	}
	size := float64(l.spec.Capacity() - l.reserve.Load())
	use := l.meter.use
	full := max(use*ahead.Seconds(), min(use*part, perSecond), min(3*use*part, ofLarge, size/20))
	switch l.spec.Limit().Kind {
	case limits.Window:
		// What lies in hand now is missing a period later too: little, unless there is plenty.
		if few := size < keepN; few && float64(l.rest) <= size/4 {
			full = 0
		} else if few {
			full = min(full, float64(l.rest)/4)
		}
		full = min(full, max(l.meter.rate*max(l.meter.cost, 1)*l.pause().Seconds(), float64(l.rest)/2))
	case limits.FixedWindow, limits.Quota:
		// What lies in hand when the period ends is lost.
		now := l.cluster.now().Add(time.Duration(l.cluster.offset.Load()))
		begins, _ := l.spec.Counts(now)
		full = min(full, use*begins[2].Sub(now).Seconds()/2)
	}
	chunk = int64(min(full, size/4))
	return chunk, 2 * chunk
}

// low is at how many in hand more is asked for: so many that they last until an
// answer is overdue. mu is held.
func (l *limit) low(chunk int64) int64 {
	if l.window.keeps {
		return 0
	}
	return max(chunk/4, min(int64(l.meter.use*min(l.cluster.o.Timeout, overdue).Seconds()), chunk/2))
}

// pause is how long after an exchange the next may be that brings more: so long
// that a call to Redis serves many decisions, but not so long that what comes in
// meanwhile has no room. mu is held.
func (l *limit) pause() time.Duration {
	if l.window.keeps {
		return l.rests()
	}
	fill := l.fill()
	gap, room := maxGap, fill/20
	window, size := l.spec.Limit().Kind == limits.Window, l.spec.Capacity()
	switch {
	case l.spec.Interval() > 0, window && l.rest > size/16:
		room = fill / 3
	case window && size < keepN:
		room = fill / 100
	case window && l.meter.use > 0: // who uses most takes soonest what goes free
		share := l.meter.use * fill.Seconds() / float64(size)
		room = time.Duration(min(float64(fill)/10, float64(fill)/30/math.Sqrt(share)))
	}
	if l.meter.rate > 0 {
		gap = min(gap, time.Duration(decisions/l.meter.rate*1e9))
	}
	if room > 0 {
		gap = min(gap, room)
	}
	return gap
}

// fill is how long it takes until all that the limit holds has come back; 0 for a
// quota. mu is held.
func (l *limit) fill() time.Duration {
	if i := l.spec.Interval(); i > 0 {
		return time.Duration(min(float64(i)*float64(l.spec.Capacity()), 1e18))
	}
	return l.spec.Limit().Period
}

// drought is how long not to ask for what is used up, given how long at least; mu
// is held. A bucket saves up what nobody asks for: those who came in vain, since
// others were faster, may ask less often, as long as it cannot overflow.
func (l *limit) drought(wait time.Duration, more int64) time.Duration {
	if more > 0 || l.trip.needed == 0 {
		l.vain = 0
	}
	if l.spec.Interval() == 0 {
		return wait
	}
	most := l.fill() / 2
	if n := l.cluster.instances(); n > 4 { // of many one asks soon enough
		most = max(most, min(most*time.Duration(n)/4, maxKept))
	}
	return max(wait, min(wait<<min(l.vain, 5), most))
}
