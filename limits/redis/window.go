package redis

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/tollgate-dev/tollgate/limits"
)

// What an instance takes of a window that is in much use, sliding or fixed, it
// keeps: a request that was used comes back to it a period later, or with the next
// period, and nobody is told meanwhile. To Redis all of it is in hand, which it may
// be in any way, since in no period more than that can be used.

// Windows that are kept are no longer than that: one that is long has time for
// asking. They have so many a second at least, or less if half of those who come
// are refused; else the little that each instance has over is too much.
const (
	keepN     = 200
	keepFrom  = 50
	keepFull  = 20
	keepSlack = 16
	keepUsed  = 4
	keepUntil = 16 * time.Second
	sliceFrom = 4
	keptFor   = 300.0 // decisions, until Redis is asked again for more
	maxKept   = 2 * time.Second
	skew      = 5 * time.Millisecond // how exactly Redis' clock is known here
)

// slice is how many requests were used no later than an instant.
type slice struct {
	n  int64
	at limits.Time
}

// maxSlices is how many there are at most.
const maxSlices = 128

// keepable reports whether l should keep its part of a window; mu is held.
func (l *limit) keepable() bool {
	lim := l.spec.Limit()
	if lim.Kind != limits.Window && lim.Kind != limits.FixedWindow || l.cluster.o.Mode == Strict || lim.Period > keepUntil || l.reserve.Load() > 0 {
		return false
	}
	refuses := l.crush > 0.5 || l.keeps && l.crush > 0.3
	if !(lim.N >= keepN && float64(lim.N)/lim.Period.Seconds() >= keepFrom || lim.N >= keepFull && refuses) {
		return false
	}
	used := l.use * min(lim.Period.Seconds(), 1)
	return used >= keepUsed || l.keeps && max(used, float64(l.noted)) >= keepUsed/2
}

// keep is chunk for who keeps a part of a window: what is asked for in a period,
// and somewhat more, less what is in use.
func (l *limit) keep(left int64) (chunk, most int64) {
	size := float64(l.spec.Capacity())
	used := float64(l.granted - l.returned - l.used - left)
	period := l.spec.Limit().Period.Seconds()
	want := min(l.rate*max(l.cost, 1)*period, size)
	if !l.refused { // then no more is wanted than is used
		want = min(want, max(used, float64(l.lately.Load())*max(l.cost, 1)*period))
	}
	over := math.Sqrt(want)
	upTo := want + 1.5*over + 2
	if want += over/2 + 1; float64(l.rest) > size/8 {
		want, upTo = 1.25*want+over, 1.6*want+3*over
	}
	return int64(max(0, want-used)), int64(max(0, upTo-used))
}

// slack reports whether much of what is kept lies in hand and is, as requests come
// of late, not going to be used. Only renew calls it.
func (l *limit) slack(now limits.Time) bool {
	period := time.Duration(l.keeping.Load())
	if period == 0 {
		return false
	}
	if d := now.Sub(l.lookedAt); d >= renewEvery || d < 0 {
		n := decided(l.lease.Limiter())
		l.lately.Store(int64(float64(n-l.lookedOn) / d.Seconds()))
		l.lookedAt, l.lookedOn = now, n
	}
	return l.lease.Left() > keepSlack+2*int64(float64(l.lately.Load())*period.Seconds())
}

// rests is how long it takes until more is asked for: longer while nothing is to be had.
func (l *limit) rests() time.Duration {
	gap := time.Duration(min(keptFor/max(l.rate, 1)*1e9, float64(maxKept)))
	return max(tick, min(gap, l.spec.Limit().Period/20<<min(l.vain, 8)))
}

// cut notes what was used since the last time; mu is held. It returns what is in hand.
func (l *limit) cut() int64 {
	left := l.lease.Left()
	now := l.cluster.now() // all that is counted was used before
	l.cutAt.Store(int64(now))
	n := l.granted - l.returned - l.used - left - l.noted + l.undid
	l.fresh += n
	undid := l.undid
	n += l.takeBack() + l.undid - undid
	// Where too little was struck we do not know what: nothing is noted too early if
	// the first are taken for it.
	for i, back := 0, -n; i < len(l.slices) && back > 0; i++ {
		some := min(back, l.slices[i].n)
		l.slices[i].n -= some
		l.noted -= some
		n, back = n+some, back-some
	}
	if last := len(l.slices) - 1; n > 0 && last == maxSlices-1 {
		l.slices[last] = slice{l.slices[last].n + n, now}
		l.noted += n
	} else if n > 0 {
		l.slices = append(l.slices, slice{n, now})
		l.noted += n
	}
	l.turnsAt.Store(l.turn())
	return left
}

// turn is when the first that was used comes back, 0 if none does; mu is held.
func (l *limit) turn() int64 {
	if !l.keeps || len(l.slices) == 0 {
		return 0
	}
	return int64(l.comesBack(l.slices[0].at))
}

// comesBack is when what was used at an instant comes back; mu is held. Redis'
// clock says when a period of a fixed window ends: it is ahead of what is known of
// it here, so that what was used shortly before then counts in the next one.
func (l *limit) comesBack(used limits.Time) limits.Time {
	lim := l.spec.Limit()
	if lim.Kind == limits.Window {
		return used.Add(lim.Period)
	}
	offset := time.Duration(l.cluster.offset.Load())
	begins, _ := l.spec.Counts(used.Add(offset + skew))
	return begins[2].Add(-offset)
}

// recur puts in hand again what was used a period before now, and reports whether
// anything was; mu is held.
func (l *limit) recur(now limits.Time) bool {
	if !l.keeps || now >= l.good || l.away(now) || l.lease.Limiter().Spec() != l.spec {
		return false
	}
	back, i := int64(0), 0
	for ; i < len(l.slices) && now >= l.comesBack(l.slices[i].at); i++ {
		back += l.slices[i].n
	}
	l.comeBack(now, i, back)
	return back > 0
}

// comeBack puts in hand again the n of the first slices; mu is held.
func (l *limit) comeBack(now limits.Time, first int, n int64) {
	if n > 0 {
		l.slices = slices.Delete(l.slices, 0, first)
		l.noted -= n
		l.lease.Grant(l.spec, n, now, l.good)
	}
	l.turnsAt.Store(l.turn())
}

// forget has nothing used that Redis does not know of; mu is held.
func (l *limit) forget() {
	l.slices, l.noted = l.slices[:0], 0
	l.undone, l.undid = l.undone[:0], 0
	l.toldAt = limits.Time(l.cutAt.Load())
	l.turnsAt.Store(0)
}

// Refill implements [limits.Lender].
func (l *limit) Refill(now limits.Time) bool {
	if at := l.turnsAt.Load(); at == 0 || int64(now) < at || !l.mu.TryLock() {
		return false
	}
	defer l.mu.Unlock()
	return l.recur(l.cluster.now())
}

// slice notes how much of windows in much use was used until now, and what comes back of them.
func (c *Cluster) slice(now limits.Time) {
	c.mu.Lock()
	some := slices.Collect(maps.Keys(c.windows))
	c.mu.Unlock()
	for _, l := range some {
		l.mu.Lock()
		if last := limits.Time(l.cutAt.Load()); now.Sub(last) >= l.spec.Limit().Period/100 || now < last {
			l.cut()
		}
		l.recur(now)
		l.mu.Unlock()
	}
}

// spent says how many were used how long ago of which Redis does not know, the
// last first, which it does now; mu is held.
func (l *limit) spent(now limits.Time, out bool) string {
	age := time.Duration(0)
	if at := l.lease.Emptied(); out && at > l.since && now > at {
		age = now.Sub(at)
	} else if l.good > 0 && now > l.good {
		age = now.Sub(l.good) // later nothing could be
	}
	text := l.undoneText(now)
	for _, s := range slices.Backward(l.slices) {
		text = fmt.Appendf(text, "%d/%d,", s.n, max(age, now.Sub(s.at), 0))
	}
	l.forget()
	return string(text)
}
