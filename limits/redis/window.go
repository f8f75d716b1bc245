package redis

import (
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/tollgate-dev/tollgate/limits"
)

// slice is how many requests were used no later than an instant.
type slice struct {
	n  int64
	at limits.Time
}

// window is what was used when, of which Redis does not know. The limit's mu guards
// it. In every slice is what was used since the one before; of a window in much use
// they are cut each 10 ms.
type window struct {
	keeps  bool // what was used comes back here, see keep.go
	slices []slice
	noted  int64       // all in slices
	undone []slice     // what came back of which Redis knows that it was used, and not yet that it was not
	undid  int64       // all of that
	toldAt limits.Time // until then Redis has been told what was used
}

// turns is what decisions need to know of a window.
type turns struct {
	at    atomic.Int64 // when a part of it comes back next; 0: it does not
	cutAt atomic.Int64 // when the last slice was cut
	back  refunds      // what came back that was taken before that
}

const (
	sliceFrom = 4                    // requests used a second, from which on slices are cut
	maxSlices = 128                  // how many there are at most
	skew      = 5 * time.Millisecond // how exactly Redis' clock is known here
)

// sliced reports whether slices are cut of l: of a window that is in use; mu is held.
func (l *limit) sliced() bool {
	return l.window.keeps || l.spec.Limit().Kind == limits.Window && l.meter.use >= sliceFrom
}

// note adds n that were used until now.
func (w *window) note(n int64, now limits.Time) {
	if last := len(w.slices) - 1; last == maxSlices-1 {
		w.slices[last] = slice{w.slices[last].n + n, now}
	} else {
		w.slices = append(w.slices, slice{n, now})
	}
	w.noted += n
}

// strike takes up to n out of the slice i, and returns how many.
func (w *window) strike(i int, n int64) int64 {
	n = min(n, w.slices[i].n)
	w.slices[i].n -= n
	w.noted -= n
	return n
}

// forget has nothing used that Redis does not know of.
func (w *window) forget(now limits.Time) {
	w.slices, w.noted = w.slices[:0], 0
	w.undone, w.undid = w.undone[:0], 0
	w.toldAt = now
}

// cut notes what was used since the last time; mu is held. It returns what is in hand.
func (l *limit) cut() int64 {
	w, left := &l.window, l.lease.Left()
	now := l.cluster.now() // all that is counted was used before
	l.turns.cutAt.Store(int64(now))
	n := l.account.spent(left) - l.account.used - w.noted + w.undid
	l.meter.fresh += n
	undid := w.undid
	struck := l.takeBack()
	n += struck + w.undid - undid
	// Where too little was struck we do not know what: nothing is noted too early if
	// the first are taken for it.
	for i := 0; i < len(w.slices) && n < 0; i++ {
		n += w.strike(i, -n)
	}
	if n > 0 {
		w.note(n, now)
	}
	l.turns.at.Store(l.turn())
	return left
}

// turn is when the first that was used comes back, 0 if none does; mu is held.
func (l *limit) turn() int64 {
	if w := &l.window; w.keeps && len(w.slices) > 0 {
		return int64(l.comesBack(w.slices[0].at))
	}
	return 0
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
	w := &l.window
	if !w.keeps || now >= l.account.good || l.away(now) || l.lease.Limiter().Spec() != l.spec {
		return false
	}
	back, i := int64(0), 0
	for ; i < len(w.slices) && now >= l.comesBack(w.slices[i].at); i++ {
		back += w.slices[i].n
	}
	l.comeBack(now, i, back)
	return back > 0
}

// comeBack puts in hand again the n of the first slices; mu is held.
func (l *limit) comeBack(now limits.Time, first int, n int64) {
	if n > 0 {
		l.window.slices = slices.Delete(l.window.slices, 0, first)
		l.window.noted -= n
		l.lease.Grant(l.spec, n, now, l.account.good)
	}
	l.turns.at.Store(l.turn())
}

// slice cuts windows in much use, and has come back what does by now.
func (c *Cluster) slice(now limits.Time) {
	c.mu.Lock()
	some := slices.Collect(maps.Keys(c.windows))
	c.mu.Unlock()
	for _, l := range some {
		l.mu.Lock()
		if last := limits.Time(l.turns.cutAt.Load()); now.Sub(last) >= l.spec.Limit().Period/100 || now < last {
			l.cut()
		}
		l.recur(now)
		l.mu.Unlock()
	}
}

// spent says how many were used how long ago of which Redis does not know, the
// last first, which it does now; mu is held.
func (l *limit) spent(now limits.Time, out bool) string {
	w, a := &l.window, &l.account
	age := time.Duration(0)
	if at := l.lease.Emptied(); out && at > a.since && now > at {
		age = now.Sub(at)
	} else if a.good > 0 && now > a.good {
		age = now.Sub(a.good) // later nothing could be
	}
	text := w.undoneText(now)
	for _, s := range slices.Backward(w.slices) {
		text = fmt.Appendf(text, "%d/%d,", s.n, max(age, now.Sub(s.at), 0))
	}
	l.forget()
	return string(text)
}

// forget has nothing used that Redis does not know of; mu is held.
func (l *limit) forget() {
	l.window.forget(limits.Time(l.turns.cutAt.Load()))
	l.turns.at.Store(0)
}
