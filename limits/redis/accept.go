package redis

import (
	"fmt"
	"time"

	"github.com/redis/rueidis"

	"github.com/tollgate-dev/tollgate/limits"
)

// lent is the answer of the lease script.
type lent struct {
	at      string        // Redis' time
	granted int64         // in this session, by now
	rest    int64         // what the limit has beside what all have in hand; below 0: so many too many are
	wait    time.Duration // until what was asked for can be had; 0: it can, below 0: never
	full    time.Duration // until the limit is as good as new
	free    int64         // of the grace, see [grace.begin]
	note    note
	state   limits.State
	used    int64 // in this session, as far as Redis has heard
}

// readLease makes sense of an answer about a limit of that kind.
func readLease(kind limits.Kind, v []rueidis.RedisMessage) (g lent, err error) {
	if len(v) != 8 {
		return g, fmt.Errorf("%w: %d values", errAnswer, len(v))
	}
	text := ""
	g.at, err = v[0].ToString()
	for i, to := range []*int64{1: &g.granted, 2: &g.rest, 3: (*int64)(&g.wait), 4: (*int64)(&g.full), 5: &g.free, 7: &g.used} {
		if err == nil && to != nil {
			*to, err = v[i].AsInt64()
		}
	}
	if err == nil {
		text, err = v[6].ToString()
	}
	if err != nil {
		return g, fmt.Errorf("%w: %w", errAnswer, err)
	}
	g.note, g.state, err = parseNote(kind, text)
	if err == nil && (g.rest < -limits.MaxN || g.rest > limits.MaxN || g.wait < -1) {
		err = fmt.Errorf("%w: rest %d, wait %d", errAnswer, g.rest, g.wait)
	}
	return g, err
}

// accept takes the answer of the lease script; mu is held.
func (l *limit) accept(now limits.Time, v []rueidis.RedisMessage) error {
	g, err := readLease(l.spec.Limit().Kind, v)
	c, a := l.cluster, &l.account
	switch {
	case err != nil:
		return err
	case g.granted < a.granted || g.granted-a.granted > 2*l.spec.Capacity():
		return fmt.Errorf("%w: granted %d, after %d", errAnswer, g.granted, a.granted)
	}
	a.backAcked = a.backTold
	if a.leaving {
		a.renew(c.session.Add(1), l.local.telling)
		l.forget()
		g.granted, g.used = 0, 0
	}
	c.learnClock(g.at)
	if g.note.reset > l.known.reset && l.window.keeps {
		l.comeBack(now, len(l.window.slices), l.window.noted)
	}
	more := g.granted - a.granted
	excess := max(0, -g.rest) // in hand somewhere, and used without Redis meanwhile
	g.rest = max(0, g.rest)
	if l.settling(now) {
		excess = max(excess, more) // of a call that Redis has made late: others do not know
	}
	l.known, l.rest = g.note, g.rest+l.reserve.Load()
	l.lease.Learn(g.state)
	a.granted, a.acked, a.since, a.good = g.granted, g.used, now, now.Add(leaseLasts)
	a.answers = !a.leaving
	l.local.reported()
	c.stats.granted.Add(more)
	more = l.shed(more, excess)
	l.pace(now, &g, more)
	until := a.good
	if more > 0 && more <= l.trip.needed && !l.window.keeps {
		// Redis counts as used what a request waits for: it must not lie about.
		until = c.now().Add(atOnce)
	}
	l.lease.Grant(l.spec, more, now, until)
	l.glance.left.Store(l.lease.Left())
	l.glance.keeping.Store(0)
	if l.window.keeps {
		l.glance.keeping.Store(int64(l.spec.Limit().Period))
	}
	return nil
}

// shed takes excess away, first from the more that were granted, then from what is in
// hand; mu is held. It returns what is left of more.
func (l *limit) shed(more, excess int64) int64 {
	if excess == 0 {
		return more
	}
	out := min(more, excess)
	l.account.returned += out
	l.cluster.stats.returned.Add(out)
	out += l.giveBack(excess - out)
	l.trip.again = l.trip.again || out > 0
	return more - min(more, excess)
}

// pace decides, by an answer that brought more, when and for what Redis is asked next;
// mu is held.
func (l *limit) pace(now limits.Time, g *lent, more int64) {
	keeps, warmUp := l.window.keeps, l.spec.Limit().WarmUp
	chunk, _ := l.chunk(l.lease.Left())
	if l.vain++; keeps && more > (l.account.spent(0)-l.account.used)/16 {
		l.vain = 0
	}
	gap := l.pause()
	ramps := warmUp != limits.WarmUp{} && g.state.B != unused && g.state.B > 0
	if ramps { // more comes in than the limit says
		gap, l.vain = min(gap, inRamp), 0
	}
	l.gap.Store(int64(gap))
	l.lease.Forecast(g.rest, now.Add(g.full), l.low(chunk))
	l.grace.begin(now, g.free)
	l.dry.clear()
	if g.free == 0 && g.wait > 0 {
		lasts := g.wait // after a change of limit not a moment longer
		switch {
		case keeps:
			lasts = gap
		case !l.untried && !ramps:
			lasts = l.drought(max(lasts, gap), more)
		}
		l.dry.say(l.spec, now, max(1, l.trip.needed), lasts)
	}
	l.untried = l.untried && l.trip.needed == 0
}
