package redis

import (
	"time"

	"github.com/tollgate-dev/tollgate/limits"
)

// report is what l tells Redis: all that it has used, and what it wants. mu is held.
func (l *limit) report(now limits.Time, clock string, offset time.Duration) []string {
	a := &l.account
	// What was used under a limit that has been changed is reported under that
	// one first, so that it counts in proportion.
	current := l.lease.Limiter().Spec()
	a.leaving = (a.granted > 0 || l.local.admitted.Load() != l.local.told) && specText(current) != l.specText
	if a.leaving {
		l.trip.again = true
	} else {
		l.follow(current)
	}
	lapsed := a.over(now)
	if lapsed {
		l.giveBack(limits.MaxN)
	}
	l.local.report(l.settling(now))
	a.reports++
	left := l.cut()
	p := l.plan(now, left, l.measure(now), lapsed)
	left -= l.giveBack(p.back)
	a.backTold = a.returned
	spent := "0/0"
	if p.tells {
		spent = l.spent(now, left == 0)
		a.used = a.spent(l.lease.Left())
	}
	l.trip.needed = max(0, p.need-left)
	l.trip.spare = max(p.need, p.chunk-p.wish, 0)
	silent, has := a.silent(now), a.entryAt(now, l.local.told, entryLasts(l.spec.Limit().Kind))
	if l.cluster.o.Mode == Strict {
		silent = 0 // it talks by other calls
	}
	return []string{
		clock, l.specText, boundsText(l.spec, now.Add(offset)), l.known.text, l.holder,
		num(a.session), num(a.reports), num(a.granted), num(a.used), num(a.returned), num(l.local.telling),
		num(a.acked), num(l.local.told), num(int64(silent)), has, num(a.entry.acked), num(a.entry.told),
		num(max(0, max(p.chunk, p.wish)-left)), num(l.trip.needed), spent, num(int64(leaseInRest)), num(l.grace.passed.Swap(0)),
		bit(l.wasReset()), num(l.reserve.Load()), bit(l.touched.Swap(false)), bit(l.learned), bit(l.window.keeps),
	}
}

// boundsAt is where the bounds of periods stand among the arguments.
const boundsAt = 2

// plan is what an exchange is about.
type plan struct {
	chunk int64 // how many should be in hand
	need  int64 // of them for one request
	wish  int64 // and for all that wait
	back  int64 // how many are given back
	tells bool  // what was used is told, and not kept
}

// plan returns what to ask for and what to tell, with left in hand; mu is held.
func (l *limit) plan(now limits.Time, left int64, idle, lapsed bool) plan {
	kept, settling := l.window.keeps, l.settling(now)
	l.window.keeps = l.keepable()
	p := plan{tells: !kept || !l.window.keeps}
	p.need, p.wish = l.demand.take()
	chunk, most := l.chunk(left)
	if p.chunk = chunk; settling {
		p.chunk, p.need, p.wish = 0, 0, 0
	}
	switch {
	case l.account.leaving:
		l.demand.put(p.need, p.wish)
		return plan{back: left, tells: true}
	case l.closing.Load() || l.lease.Closed() || idle && p.need == 0:
		p.back, p.chunk, p.need, p.tells = left, 0, 0, true
	case (l.local.limiter.Load() != nil || lapsed) && !p.tells:
		p.back, p.tells = left, true // what Redis has heard of meanwhile has its place
	case left > most+p.need && !settling:
		p.back = left - p.chunk - p.need
	}
	return p
}

// wasReset reports whether the limiter was reset since Redis was last told.
func (l *limit) wasReset() bool {
	n := l.lease.Resets()
	if n == l.resets.Load() {
		return false
	}
	l.resets.Store(n)
	l.dry.clear()
	return true
}

// follow makes s the limit that l talks about; mu is held.
func (l *limit) follow(s *limits.Spec) {
	if s == l.spec {
		return
	}
	text := specText(s)
	if l.spec != nil && text[0] != l.specText[0] {
		// What is known of another kind means nothing: Redis carries over what it has.
		l.known = forgotten(l.known.reset, s.Limit().Kind)
	}
	l.spec, l.specText, l.vain, l.untried = s, text, 0, true
}
