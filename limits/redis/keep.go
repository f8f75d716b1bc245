package redis

import (
	"math"
	"time"

	"github.com/tollgate-dev/tollgate/limits"
)

// What an instance takes of a window that is in much use, sliding or fixed, it
// keeps: a request that was used comes back to it a period later, or with the next
// period, and nobody is told meanwhile. To Redis all of it is in hand, which it may
// be in any way, since in no period more than that can be used.

// Which windows are kept. Of others the little that each instance has over is too
// much.
const (
	keepUntil = 16 * time.Second // that are no longer: else there is time for asking
	keepN     = 200              // that hold so many,
	keepFrom  = 50               // and so many a second,
	keepFull  = 20               // or that hold so many, where much is refused:
	crushFrom = 0.5              // this part of those who come,
	crushTill = 0.3              // and of one that is kept, this part
	keepUsed  = 4                // of which so many are used in a period, or in a second of it; half if it is kept
)

// How a window is kept.
const (
	keptFor   = 300.0           // decisions, until Redis is asked again for more,
	maxKept   = 2 * time.Second // and how long at the most
	keepSlack = 16              // requests beyond two periods' use that may lie in hand
)

// keepable reports whether l should keep its part of a window; mu is held.
func (l *limit) keepable() bool {
	lim := l.spec.Limit()
	if lim.Kind != limits.Window && lim.Kind != limits.FixedWindow || l.cluster.o.Mode == Strict || lim.Period > keepUntil || l.reserve.Load() > 0 {
		return false
	}
	keeps, crush := l.window.keeps, l.meter.crush
	refuses := crush > crushFrom || keeps && crush > crushTill
	if !(lim.N >= keepN && float64(lim.N)/lim.Period.Seconds() >= keepFrom || lim.N >= keepFull && refuses) {
		return false
	}
	used := l.meter.use * min(lim.Period.Seconds(), 1)
	return used >= keepUsed || keeps && max(used, float64(l.window.noted)) >= keepUsed/2
}

// keep is chunk for who keeps a part of a window: what is asked for in a period,
// and somewhat more, less what is in use; mu is held.
func (l *limit) keep(left int64) (chunk, most int64) {
	size := float64(l.spec.Capacity())
	used := float64(l.account.spent(left) - l.account.used)
	period := l.spec.Limit().Period.Seconds()
	cost := max(l.meter.cost, 1)
	want := min(l.meter.rate*cost*period, size)
	if !l.meter.refused { // then no more is wanted than is used
		want = min(want, max(used, float64(l.glance.lately.Load())*cost*period))
	}
	over := math.Sqrt(want) // about as much does it vary
	upTo := want + 1.5*over + 2
	if want += over/2 + 1; float64(l.rest) > size/8 {
		want, upTo = 1.25*want+over, 1.6*want+3*over
	}
	return int64(max(0, want-used)), int64(max(0, upTo-used))
}

// rests is how long it takes until more is asked for: longer while nothing is to be
// had. mu is held.
func (l *limit) rests() time.Duration {
	gap := time.Duration(min(keptFor/max(l.meter.rate, 1)*1e9, float64(maxKept)))
	return max(tick, min(gap, l.spec.Limit().Period/20<<min(l.vain, 8)))
}
