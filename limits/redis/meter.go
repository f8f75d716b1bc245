package redis

import (
	"sync/atomic"
	"time"

	"github.com/tollgate-dev/tollgate/limits"
)

// meter is how much a limit is in use on this instance. The limit's mu guards it.
type meter struct {
	counted limits.Usage // all that the limiter had decided at the last report
	fresh   int64        // used since then
	rate    float64      // decisions a second
	use     float64      // requests used a second
	cost    float64      // of a request that is admitted
	crush   float64      // the part of decisions that refuse, over a while
	refused bool         // some were refused between the last two reports
}

// meanOver is the time that rates are means of.
const meanOver = 200 * time.Millisecond

// read takes into account what the limiter has decided by now, d after the last
// exchange, 0 if there was none. fill is how long the limit takes to come back, over
// the time that rates are means of. It returns how many decisions are new.
func (m *meter) read(u limits.Usage, d, fill, over time.Duration) (decisions int64) {
	admitted := u.Admitted - m.counted.Admitted
	n := admitted + u.Refused - m.counted.Refused
	if admitted > 0 {
		m.cost = float64(m.fresh) / float64(admitted)
	}
	if d > 0 {
		weight := min(1, d.Seconds()/over.Seconds())
		if n > 0 {
			m.crush += min(1, d.Seconds()/(2*fill.Seconds())) * (1 - float64(admitted)/float64(n) - m.crush)
		}
		m.refused = n > admitted
		m.rate += weight * (float64(n)/d.Seconds() - m.rate)
		m.use += weight * (float64(max(0, m.fresh))/d.Seconds() - m.use)
	}
	m.counted, m.fresh = u, 0
	return n
}

// measure keeps how busy l is; mu is held. It reports whether it was idle.
func (l *limit) measure(now limits.Time) bool {
	d, over := time.Duration(0), meanOver
	if l.account.since != 0 {
		d = now.Sub(l.account.since)
	}
	if l.window.keeps { // what comes back may all be used at once
		over = max(over, min(l.spec.Limit().Period, time.Second))
	}
	u, none := l.lease.Limiter().Usage(), l.meter.fresh == 0
	n := l.meter.read(u, d, l.fill(), over)
	l.glance.decided.Store(u.Admitted + u.Refused)
	return none && (!l.window.keeps || n == 0)
}

// decided is how many requests a limiter has decided.
func decided(l *limits.Limiter) int64 { return l.Usage().Admitted + l.Usage().Refused }

// glance is what looking after a limit needs to know, without its mu.
type glance struct {
	left    atomic.Int64 // in hand after the last exchange
	decided atomic.Int64 // by the limiter before it
	keeping atomic.Int64 // the period of a window that is kept, 0 of other limits
	lately  atomic.Int64 // decisions a second, of late, of a window that is kept

	at limits.Time // when lately was last reckoned, and at how many decisions; for renew alone
	on int64
}

// idle reports whether nothing happened since the last exchange, with left in hand.
func (g *glance) idle(l *limits.Limiter, left int64) bool {
	return left == g.left.Load() && decided(l) == g.decided.Load()
}

// slack reports whether much of what is kept lies in hand and is, as requests come
// of late, not going to be used. Only renew calls it.
func (g *glance) slack(now limits.Time, l *limits.Limiter, left int64) bool {
	period := time.Duration(g.keeping.Load())
	if period == 0 {
		return false
	}
	if d := now.Sub(g.at); d >= renewEvery || d < 0 {
		n := decided(l)
		g.lately.Store(int64(float64(n-g.on) / d.Seconds()))
		g.at, g.on = now, n
	}
	return left > keepSlack+2*int64(float64(g.lately.Load())*period.Seconds())
}
