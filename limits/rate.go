package limits

import (
	"fmt"
	"math/bits"
	"sync/atomic"
	"time"
)

// gcra is the token bucket, written as the generic cell rate algorithm: the
// whole state is z, the instant at which the bucket was empty, and at now it
// holds (now - z) / interval requests, at most burst. Taking n moves z by n
// intervals. A bucket in debt would have z in the future; that is a refusal.
//
// A pace is a rate whose burst is 1.
type gcra struct {
	interval int64 // nanoseconds that one request takes to refill
	burst    int64 // requests
	full     int64 // burst * interval
}

// newGCRA rounds the interval up, so that never more than burst + rate * t is
// admitted.
func newGCRA(n int64, period time.Duration, burst int64) (gcra, bool) {
	interval := int64(period) / n
	if interval*n < int64(period) {
		interval++
	}
	hi, full := bits.Mul64(uint64(interval), uint64(burst))
	if hi != 0 || full > uint64(longest) {
		return gcra{}, false
	}
	return gcra{interval, burst, int64(full)}, true
}

func (g *gcra) plant(b *bucket, now Time, s seed) {
	z := int64(neverUsed)
	if used := s.used.of(g.full); used > 0 || s.start != cold {
		z = clamp(now) - g.full + used
	}
	b.word.Store(pack(z))
	b.keep(s.warmth)
}

func (g *gcra) take(b *bucket, now Time, n int64) (Decision, step) {
	return g.takeFrom(b, &b.word, clamp(now), n, neverUsed)
}

// takeFrom takes from a bucket that was empty at the instant floor or later, and
// whose z stands in word.
func (g *gcra) takeFrom(b *bucket, word *atomic.Uint64, now, n, floor int64) (Decision, step) {
	floor = max(floor, now-g.full)
	for {
		w := word.Load()
		if w&sealed != 0 {
			return Decision{}, follow
		}
		z := max(unpack(w), floor)
		if z-now > clockSet {
			if b.wasSet(now) {
				word.CompareAndSwap(w, pack(now))
			} else {
				now = z
			}
			continue
		}
		if n > g.burst {
			return never(g.level(now, z), sub(z+g.full, now)), done
		}
		if spent := z + n*g.interval; spent > now {
			return g.refuse(now, z, spent), done
		} else if word.CompareAndSwap(w, pack(spent)) {
			return g.admit(now, spent), done
		}
	}
}

// level returns how many requests a bucket holds.
func (g *gcra) level(now, z int64) int64 { return max(0, now-z) / g.interval }

func (g *gcra) admit(now, z int64) Decision {
	return Decision{Allowed: true, Remaining: g.level(now, z), Reset: sub(z+g.full, now)}
}

func (g *gcra) refuse(now, z, when int64) Decision {
	return Decision{Remaining: g.level(now, z), Wait: sub(when, now), Reset: sub(z+g.full, now)}
}

func (g *gcra) peek(b *bucket, now Time, ahead, n int64) (Decision, step) {
	return g.peekFrom(b, &b.word, clamp(now), ahead, n, neverUsed)
}

func (g *gcra) peekFrom(b *bucket, word *atomic.Uint64, now, ahead, n, floor int64) (Decision, step) {
	w := word.Load()
	if w&sealed != 0 {
		return Decision{}, follow
	}
	z := max(unpack(w), floor, now-g.full)
	if z-now > clockSet {
		if b.wasSet(now) {
			// The one thing that a look writes: or the wait that it answers
			// would be one from another clock.
			word.CompareAndSwap(w, pack(now))
		} else {
			now = z
		}
		return g.peekFrom(b, word, now, ahead, n, floor)
	}
	cost, ok := g.cost(ahead, n)
	if !ok {
		return never(g.level(now, z), sub(z+g.full, now)), done
	}
	if z+cost > now {
		return g.refuse(now, z, z+cost), done
	}
	return g.admit(now, z), done
}

// cost returns how long it takes to refill n after ahead others, and whether
// that is possible at all.
func (g *gcra) cost(ahead, n int64) (int64, bool) {
	hi, cost := bits.Mul64(uint64(ahead)+uint64(n), uint64(g.interval))
	return int64(cost), n <= g.burst && hi == 0 && cost <= uint64(longest)
}

func (g *gcra) refund(b *bucket, _ Time, n int64) step { return g.refundTo(&b.word, n) }

func (g *gcra) refundTo(word *atomic.Uint64, n int64) step {
	back := min(n, g.burst) * g.interval
	for {
		w := word.Load()
		if w&sealed != 0 {
			return follow
		}
		if word.CompareAndSwap(w, pack(max(unpack(w)-back, neverUsed))) {
			return done
		}
	}
}

func (g *gcra) used(b *bucket, now Time) share {
	return shareOf(unpack(b.word.Load())+g.full-clamp(now), g.full)
}

func (g *gcra) renew(b, old *bucket, _ Time) { b.inherit(old) }

func (g *gcra) state(b *bucket) State { return b.rateState(b.warmth(), unpack(b.word.Load())) }

// rateState is the state of a rate or a pace in the phase w that has z.
func (b *bucket) rateState(w warmth, z int64) State {
	if z == neverUsed {
		z = unused
	}
	start, seen := w.state()
	return State{b.spec().limit.Kind, z, start, seen}
}

func (g *gcra) load(b *bucket, now Time, st State) {
	w, z := loadRate(now, st)
	b.word.Store(pack(z))
	b.keep(w)
}

// loadRate reads the z and the warmth of a rate or a pace.
func loadRate(now Time, st State) (warmth, int64) {
	w, z := warmth{start: warm}, clamp(Time(st.A))
	switch {
	case st.Kind == Rate:
		w = st.warmth()
	case st.Kind != Pace:
		z = min(z, clamp(now))
	}
	if st.A == unused {
		z = neverUsed
	}
	return w, z
}

// rate returns the engine of a rate or a pace, and fills in the burst.
func (l *Limit) rate() (engine, error) {
	switch {
	case l.Kind == Pace:
		l.Burst = 1
	case l.Burst == 0:
		l.Burst = defaultBurst(l.N, l.Period)
	}
	if l.N == 0 {
		return blocked{}, nil
	}
	g, ok := newGCRA(l.N, l.Period, l.Burst)
	if !ok {
		return nil, fmt.Errorf("burst %d: at %s it takes longer than %v to fill", l.Burst, FormatRate(l.N, l.Period), longest)
	}
	if u := l.WarmUp; u.Grace > 0 || u.Ramp > 0 {
		return &warming{g, int64(u.Grace), int64(u.Ramp), int64(u.Idle), u.GraceLimit}, nil
	}
	return &g, nil
}
